//! One organization's devices and servers, and what can happen to them.
//!
//! A device costs some forty bytes: its looks are painted from the seed, only its state and corrections are kept.

mod change;
mod error;

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use crate::apple_time::{Millis, moment, written};
use crate::draw::{Draw, mix};
use crate::journal::{TrueDevice, TrueServer};
use crate::portrait::{self, Attributes, NAMES, Sitter, portrait};
use crate::server::{NO_SERVER, Server};

pub use error::FleetError;

/// What a single read of a released device answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseAnswer {
    /// 200 with the release date and the status `DEVICE_ASSIGNMENT_UNKNOWN`.
    Dated,
    /// 404.
    Gone,
}

/// The state of one device.
#[derive(Clone, Debug)]
struct Unit {
    first_added: Millis,
    added: Millis,
    /// What Apple tells as `updatedDateTime`.
    updated: Millis,
    /// When it last changed.
    changed: Millis,
    released: Option<Millis>,
    server: u16,
    previous_server: u16,
    hidden: bool,
    gone: bool,
}

/// What a caller may know of a device's state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct State {
    pub(crate) listed: bool,
    pub(crate) released: bool,
    /// A released device that single reads answer with 404.
    pub(crate) gone: bool,
    pub(crate) server: Option<u16>,
}

/// One organization's devices and servers.
#[derive(Debug)]
pub(crate) struct Fleet {
    org: String,
    number: u64,
    seed: u64,
    gone_share: f64,
    units: Vec<Unit>,
    servers: Vec<Server>,
    /// Devices whose serial number does not follow from their index.
    names: HashMap<u32, String>,
    named: HashMap<String, u32>,
    corrections: HashMap<u32, BTreeMap<String, Value>>,
    live: u32,
    unassigned: u32,
}

/// How a fleet begins.
#[derive(Clone, Debug)]
pub(crate) struct Beginning {
    pub(crate) org: String,
    /// Number of the organization among those served.
    pub(crate) number: u64,
    pub(crate) seed: u64,
    pub(crate) devices: u32,
    pub(crate) servers: u16,
    pub(crate) unassigned_share: f64,
    pub(crate) gone_share: f64,
    pub(crate) origin: Millis,
}

impl Fleet {
    /// Makes the fleet that belongs to a seed.
    pub(crate) fn new(beginning: &Beginning) -> Self {
        let Beginning { org, number, seed, devices, servers, unassigned_share, gone_share, origin } = beginning;
        let mut fleet = Self {
            org: org.clone(),
            number: *number,
            seed: *seed,
            gone_share: *gone_share,
            units: Vec::with_capacity(*devices as usize),
            servers: (0..*servers).map(|place| Server::seeded(*seed, *number, place, *origin)).collect(),
            names: HashMap::new(),
            named: HashMap::new(),
            corrections: HashMap::new(),
            live: 0,
            unassigned: 0,
        };
        for index in 0..*devices {
            let added = portrait::past_addition(*seed, *number, index, *origin);
            let mut draw = Draw::keyed(*seed, &[*number, 0x57A7E, u64::from(index)]);
            let server = if draw.chance(*unassigned_share) { NO_SERVER } else { fleet.usual_server(index) };
            let assigned = added + draw.between(60_000, 8 * 86_400_000);
            let updated = if server == NO_SERVER { added } else { assigned - assigned % 1000 };
            fleet.push(Unit::new(added, updated, server));
        }
        fleet
    }

    /// Returns the alias of the organization.
    pub(crate) fn org(&self) -> &str {
        &self.org
    }

    /// Returns how many devices belong to the organization.
    pub(crate) fn live(&self) -> u32 {
        self.live
    }

    /// Returns how many of them have no server.
    pub(crate) fn unassigned(&self) -> u32 {
        self.unassigned
    }

    /// Returns how many devices were ever there: indexes are below it.
    pub(crate) fn ever(&self) -> u32 {
        self.units.len() as u32
    }

    /// Returns the servers; removed ones keep their place.
    pub(crate) fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// Returns a server that stands, by its id.
    pub(crate) fn server_by_id(&self, id: &str) -> Option<u16> {
        self.servers.iter().position(|server| !server.removed && server.id == id).map(|place| place as u16)
    }

    /// Returns a server that stands, by its id or its name.
    pub(crate) fn find_server(&self, id_or_name: &str) -> Option<u16> {
        self.servers
            .iter()
            .position(|server| !server.removed && (server.id == id_or_name || server.name == id_or_name))
            .map(|place| place as u16)
    }

    /// Returns the places of the servers that stand.
    pub(crate) fn standing(&self) -> Vec<u16> {
        (0..self.servers.len() as u16).filter(|place| !self.servers[usize::from(*place)].removed).collect()
    }

    /// Returns the serial number, which is Apple's id, of a device.
    pub(crate) fn serial(&self, index: u32) -> String {
        self.names.get(&index).cloned().unwrap_or_else(|| self.natural_serial(index))
    }

    /// Returns the index of the device with this serial number, released ones too.
    pub(crate) fn find(&self, serial: &str) -> Option<u32> {
        if let Some(index) = self.named.get(serial) {
            return Some(*index);
        }
        self.natural_index(serial).filter(|index| *index < self.ever() && !self.names.contains_key(index))
    }

    /// Returns the index whose device has this serial number unless it was given another one.
    pub(crate) fn natural_index(&self, serial: &str) -> Option<u32> {
        let digits = serial.strip_prefix(&self.prefix())?;
        let index = digits.parse::<u32>().ok()?.checked_sub(1)?;
        (self.natural_serial(index) == serial).then_some(index)
    }

    fn natural_serial(&self, index: u32) -> String {
        format!("{}{:07}", self.prefix(), index + 1)
    }

    /// Returns the state of a device.
    pub(crate) fn state(&self, index: u32) -> State {
        let unit = &self.units[index as usize];
        State {
            listed: unit.released.is_none() && !unit.hidden,
            released: unit.released.is_some(),
            gone: unit.gone,
            server: (unit.server != NO_SERVER).then_some(unit.server),
        }
    }

    /// Returns the server that linkage lists show for a device when they lag by `lag`.
    pub(crate) fn linked(&self, index: u32, now: Millis, lag: Millis) -> u16 {
        let unit = &self.units[index as usize];
        if lag > 0 && unit.changed > now - lag { unit.previous_server } else { unit.server }
    }

    /// Returns the attributes of a device in Apple's order, null where it has none.
    pub(crate) fn attributes(&self, index: u32) -> Attributes {
        let unit = &self.units[index as usize];
        let sitter = Sitter { seed: self.seed, org: self.number, index, first_added: unit.first_added };
        let mut attributes = portrait(sitter);
        attributes.push(("serialNumber".into(), json!(self.serial(index))));
        attributes.push(("addedToOrgDateTime".into(), json!(written(unit.added))));
        attributes.push(("releasedFromOrgDateTime".into(), json!(unit.released.map(written))));
        attributes.push(("updatedDateTime".into(), json!(written(unit.updated))));
        attributes.push(("status".into(), json!(status(unit))));
        for (name, value) in self.corrections.get(&index).into_iter().flatten() {
            match attributes.iter_mut().find(|(known, _)| known == name) {
                Some((_, present)) => *present = value.clone(),
                None => attributes.push((name.clone().into(), value.clone())),
            }
        }
        attributes.sort_by_key(|(name, _)| NAMES.iter().position(|known| known == name).unwrap_or(NAMES.len()));
        attributes
    }

    /// Returns the server that devices like this one usually get.
    pub(crate) fn usual_server(&self, index: u32) -> u16 {
        let standing = self.standing();
        if standing.is_empty() {
            return NO_SERVER;
        }
        // Two draws and the lower place: the first servers are the large ones.
        let draw = mix(self.seed, &[self.number, 0x5E4, u64::from(index)]);
        let first = draw % standing.len() as u64;
        let second = (draw >> 32) % standing.len() as u64;
        standing[first.min(second) as usize]
    }

    /// Returns a device as it truly is.
    pub(crate) fn truth(&self, index: u32) -> TrueDevice {
        let unit = &self.units[index as usize];
        let server = (unit.server != NO_SERVER).then(|| &self.servers[usize::from(unit.server)]);
        TrueDevice {
            org: self.org.clone(),
            id: self.serial(index),
            listed: unit.released.is_none() && !unit.hidden,
            server_id: server.map(|server| server.id.clone()),
            server_name: server.map(|server| server.name.clone()),
            released_at: unit.released.map(moment),
            attributes: self
                .attributes(index)
                .into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(name, value)| (name.into_owned(), value))
                .collect(),
        }
    }

    /// Returns a server as it truly is.
    pub(crate) fn true_server(&self, place: u16) -> TrueServer {
        let Server { id, name, devices, .. } = &self.servers[usize::from(place)];
        TrueServer { org: self.org.clone(), id: id.clone(), name: name.clone(), devices: *devices }
    }

    fn prefix(&self) -> String {
        // SIM, SIN, SIO …: no two organizations of one simulator own the same serial number.
        format!("SI{}", char::from(b'M' + (self.number % 14) as u8))
    }

    fn push(&mut self, unit: Unit) {
        self.live += 1;
        match unit.server {
            NO_SERVER => self.unassigned += 1,
            place => self.servers[usize::from(place)].devices += 1,
        }
        self.units.push(unit);
    }
}

impl Unit {
    fn new(added: Millis, updated: Millis, server: u16) -> Self {
        Self {
            first_added: added,
            added,
            updated,
            changed: updated,
            released: None,
            server,
            previous_server: server,
            hidden: false,
            gone: false,
        }
    }
}

fn status(unit: &Unit) -> &'static str {
    match (unit.released, unit.server) {
        (Some(_), _) => "DEVICE_ASSIGNMENT_UNKNOWN",
        (None, NO_SERVER) => "UNASSIGNED",
        (None, _) => "ASSIGNED",
    }
}
