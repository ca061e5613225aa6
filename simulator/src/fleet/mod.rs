//! One organization's devices and servers, and what can happen to them.
//!
//! A device needs about sixty bytes: only its state and corrections are kept, all else is computed from the seed.

mod change;

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use crate::apple_time::{Millis, moment, written};
use crate::config::{DEFAULT_SEED, Simulator};
use crate::draw::{Draw, mix};
use crate::journal::{TrueDevice, TrueServer};
use crate::portrait::{self, Attributes, NAMES, Sitter, portrait};
use crate::server::Server;

/// What a single read of a released device answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseAnswer {
    /// 200 with the release date and the status `DEVICE_ASSIGNMENT_UNKNOWN`.
    Dated,
    /// 404.
    Gone,
}

/// Why a change could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FleetError {
    /// No organization with this alias is served.
    #[error("there is no organization `{0}`")]
    UnknownOrg(String),
    /// No device with this serial number was ever in the fleet.
    #[error("there is no device `{0}`")]
    UnknownDevice(String),
    /// A device with this serial number is or was there.
    #[error("there is a device `{0}` already")]
    DeviceExists(String),
    /// The fleet will give this serial number to a device of its own.
    #[error("`{0}` is a serial number that the fleet gives by itself; take one of another form")]
    Reserved(String),
    /// No server with this id or name exists.
    #[error("there is no server `{0}`")]
    UnknownServer(String),
    /// A server of this name exists.
    #[error("there is a server `{0}` already")]
    ServerExists(String),
    /// The device with this serial number has left the organization.
    #[error("the device `{0}` was released")]
    Released(String),
    /// The device with this serial number never left the organization.
    #[error("the device `{0}` was not released")]
    NotReleased(String),
}

/// The state of one device.
#[derive(Clone, Debug)]
pub(crate) struct Unit {
    first_added: Millis,
    added: Millis,
    /// What Apple tells as `updatedDateTime`.
    updated: Millis,
    /// When it last changed.
    changed: Millis,
    pub(crate) released: Option<Millis>,
    pub(crate) server: Option<u16>,
    previous_server: Option<u16>,
    /// Left out of the listing, although it belongs to the organization.
    unlisted: bool,
    /// A released device that single reads answer with 404.
    pub(crate) gone: bool,
}

impl Unit {
    fn new(added: Millis, updated: Millis, server: Option<u16>) -> Self {
        Self {
            first_added: added,
            added,
            updated,
            changed: updated,
            released: None,
            server,
            previous_server: server,
            unlisted: false,
            gone: false,
        }
    }

    /// Tells whether a complete listing shows the device.
    pub(crate) fn listed(&self) -> bool {
        self.released.is_none() && !self.unlisted
    }

    fn status(&self) -> &'static str {
        match (self.released, self.server) {
            (Some(_), _) => "DEVICE_ASSIGNMENT_UNKNOWN",
            (None, None) => "UNASSIGNED",
            (None, Some(_)) => "ASSIGNED",
        }
    }
}

/// One organization's devices and servers.
#[derive(Debug)]
pub(crate) struct Fleet {
    org: String,
    /// Number of the organization among those served.
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

impl Fleet {
    /// Makes the fleet of the organization `number`, as it is at `origin`.
    pub(crate) fn new(config: &Simulator, number: u64, origin: Millis) -> Self {
        let Simulator { seed, devices, servers, unassigned_share, gone_share, .. } = *config;
        let mut fleet = Self {
            org: config.orgs[number as usize].clone(),
            number,
            seed,
            gone_share,
            units: Vec::with_capacity(devices as usize),
            servers: (0..servers).map(|place| Server::seeded(seed, number, place, origin)).collect(),
            names: HashMap::new(),
            named: HashMap::new(),
            corrections: HashMap::new(),
            live: 0,
            unassigned: 0,
        };
        for index in 0..devices {
            let added = portrait::past_addition(seed, number, index, origin);
            let mut draw = Draw::keyed(seed, &[number, 0x57A7E, u64::from(index)]);
            let server = if draw.chance(unassigned_share) { None } else { fleet.usual_server(index) };
            let assigned = added + draw.between(60_000, 8 * 86_400_000);
            let updated = if server.is_none() { added } else { assigned - assigned % 1000 };
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
    pub(crate) fn unit(&self, index: u32) -> &Unit {
        &self.units[index as usize]
    }

    /// Returns the server that linkage lists show for a device when they lag by `lag`.
    pub(crate) fn linked(&self, index: u32, now: Millis, lag: Millis) -> Option<u16> {
        let unit = self.unit(index);
        if lag > 0 && unit.changed > now - lag { unit.previous_server } else { unit.server }
    }

    /// Returns the attributes of a device in Apple's order, null where it has none.
    pub(crate) fn attributes(&self, index: u32) -> Attributes {
        let unit = self.unit(index);
        let sitter = Sitter { seed: self.seed, org: self.number, index, first_added: unit.first_added };
        let mut attributes = portrait(sitter);
        attributes.push(("serialNumber".into(), json!(self.serial(index))));
        attributes.push(("addedToOrgDateTime".into(), json!(written(unit.added))));
        attributes.push(("releasedFromOrgDateTime".into(), json!(unit.released.map(written))));
        attributes.push(("updatedDateTime".into(), json!(written(unit.updated))));
        attributes.push(("status".into(), json!(unit.status())));
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
    pub(crate) fn usual_server(&self, index: u32) -> Option<u16> {
        let standing = self.standing();
        // Two draws and the lower place: the first servers are the large ones.
        let draw = mix(self.seed, &[self.number, 0x5E4, u64::from(index)]);
        let first = draw.checked_rem(standing.len() as u64)?;
        let second = (draw >> 32) % standing.len() as u64;
        Some(standing[first.min(second) as usize])
    }

    /// Returns a device as it truly is.
    pub(crate) fn truth(&self, index: u32) -> TrueDevice {
        let unit = self.unit(index);
        let server = unit.server.map(|place| &self.servers[usize::from(place)]);
        let attributes = self.attributes(index).into_iter().filter(|(_, value)| !value.is_null());
        TrueDevice {
            org: self.org.clone(),
            id: self.serial(index),
            listed: unit.listed(),
            server_id: server.map(|server| server.id.clone()),
            server_name: server.map(|server| server.name.clone()),
            released_at: unit.released.map(moment),
            attributes: attributes.map(|(name, value)| (name.into_owned(), value)).collect(),
        }
    }

    /// Returns a server as it truly is.
    pub(crate) fn true_server(&self, place: u16) -> TrueServer {
        let Server { id, name, devices, .. } = &self.servers[usize::from(place)];
        TrueServer { org: self.org.clone(), id: id.clone(), name: name.clone(), devices: *devices }
    }

    /// What the serial numbers begin with: a letter for the organization, then the seed in letters, so that no two
    /// organizations of one simulator and no two simulators of different seeds own the same serial number.
    fn prefix(&self) -> String {
        let mut letters = String::new();
        let mut left = (self.seed != DEFAULT_SEED).then_some(self.seed);
        while let Some(seed) = left {
            letters.insert(0, char::from(b'A' + (seed % 26) as u8));
            left = (seed >= 26).then_some(seed / 26);
        }
        format!("SI{}{letters}", char::from(b'M' + (self.number % 14) as u8))
    }

    fn push(&mut self, unit: Unit) {
        self.live += 1;
        *self.count_of(unit.server) += 1;
        self.units.push(unit);
    }

    /// Returns how many devices a server has, or how many have none.
    fn count_of(&mut self, server: Option<u16>) -> &mut u32 {
        match server {
            None => &mut self.unassigned,
            Some(place) => &mut self.servers[usize::from(place)].devices,
        }
    }
}
