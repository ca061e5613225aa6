//! A device management service of the simulated organization.

use serde_json::{Value, json};

use crate::apple_time::{DAY, Millis, written};
use crate::catalogue::SERVERS;
use crate::draw::{Draw, mix};
use crate::portrait::{Attributes, fraction};

/// A device management service.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    pub(crate) created: Millis,
    pub(crate) updated: Millis,
    pub(crate) connected: Option<Millis>,
    /// How many devices are assigned to it.
    pub(crate) devices: u32,
    pub(crate) removed: bool,
}

impl Server {
    /// Makes the server that a seeded fleet has at `place`.
    pub(crate) fn seeded(seed: u64, org: u64, place: u16, origin: Millis) -> Self {
        let mut draw = Draw::keyed(seed, &[org, 0x5E2E2, u64::from(place)]);
        let created = origin - draw.between(400, 1500) * DAY + fraction(&mut draw);
        let (name, kind) = match SERVERS.get(usize::from(place)) {
            Some((name, kind)) => ((*name).to_owned(), *kind),
            None => (format!("Device Management {}", place + 1), "MDM"),
        };
        let connected = (kind == "MDM").then(|| origin - draw.between(1, 3000) * 1000);
        Self {
            id: id(seed, org, place),
            name,
            kind,
            created,
            updated: created + draw.between(1, 300) * DAY,
            connected,
            devices: 0,
            removed: false,
        }
    }

    /// Makes a server as an administrator does.
    pub(crate) fn named(seed: u64, org: u64, place: u16, name: &str, at: Millis) -> Self {
        Self {
            id: id(seed, org, place),
            name: name.to_owned(),
            kind: "MDM",
            created: at,
            updated: at,
            connected: None,
            devices: 0,
            removed: false,
        }
    }

    /// Returns its attributes as a list shows them.
    pub(crate) fn listed(&self) -> Attributes {
        let mut attributes = self.brief();
        // Apple's own service shows the attributes of the first API version only.
        if self.kind != "APPLE_MDM" {
            attributes.push(("status".into(), json!("ACTIVE")));
            attributes.push(("deviceCount".into(), json!(self.devices)));
            attributes.push(("enableMdmDisownFlag".into(), json!(self.kind == "MDM")));
            attributes.push(("lastConnectedDateTime".into(), json!(self.connected.map(written))));
            attributes.push(("lastConnectedIp".into(), json!(self.connected.map(|_| "192.0.2.10"))));
        }
        attributes
    }

    /// Returns its attributes as its own page shows them.
    pub(crate) fn single(&self) -> Attributes {
        let mut attributes = self.listed();
        let families = match self.kind {
            "MDM" => json!(["IPAD", "IPHONE", "MAC"]),
            _ => Value::Array(Vec::new()),
        };
        attributes.push(("defaultProductFamilies".into(), families));
        attributes
    }

    /// Returns its attributes as the page of an assigned device shows them.
    pub(crate) fn brief(&self) -> Attributes {
        vec![
            ("serverName".into(), json!(self.name)),
            ("serverType".into(), json!(self.kind)),
            ("createdDateTime".into(), json!(written(self.created))),
            ("updatedDateTime".into(), json!(written(self.updated))),
        ]
    }
}

fn id(seed: u64, org: u64, place: u16) -> String {
    let part = |half: u64| mix(seed, &[org, 0x1D, u64::from(place), half]);
    format!("{:016X}{:016X}", part(0), part(1))
}
