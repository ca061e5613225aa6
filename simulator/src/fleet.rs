//! One organization's devices and servers, and what can happen to them.
//!
//! A device costs some forty bytes: its looks are painted from the seed, only its state and corrections are kept.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use crate::apple_time::{Millis, moment, written};
use crate::draw::{Draw, mix};
use crate::journal::{Change, ChangeKind, TrueDevice, TrueServer};
use crate::portrait::{self, Attributes, NAMES, Sitter, portrait};
use crate::server::{NO_SERVER, Server};

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
    updated: Millis,
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
        self.names.get(&index).cloned().unwrap_or_else(|| format!("{}{:07}", self.prefix(), index + 1))
    }

    /// Returns the index of the device with this serial number, released ones too.
    pub(crate) fn find(&self, serial: &str) -> Option<u32> {
        if let Some(index) = self.named.get(serial) {
            return Some(*index);
        }
        let digits = serial.strip_prefix(&self.prefix())?;
        let index = digits.parse::<u32>().ok()?.checked_sub(1)?;
        (index < self.ever() && !self.names.contains_key(&index) && self.serial(index) == serial).then_some(index)
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
        if lag > 0 && unit.updated > now - lag { unit.previous_server } else { unit.server }
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

    /// Adds `at` a device that was never there; with a serial number of its own when `serial` is given.
    pub(crate) fn add(&mut self, at: Millis, serial: Option<&str>) -> Result<Change, FleetError> {
        let index = self.ever();
        if let Some(serial) = serial {
            if self.find(serial).is_some() {
                return Err(FleetError::DeviceExists { device: serial.to_owned() });
            }
            self.names.insert(index, serial.to_owned());
            self.named.insert(serial.to_owned(), index);
        }
        self.push(Unit::new(at, at, NO_SERVER));
        Ok(self.change(index, ChangeKind::Added, at, NO_SERVER))
    }

    /// Gives a device a server, or takes it away; nothing when it has that server already.
    pub(crate) fn assign(&mut self, index: u32, server: Option<u16>, at: Millis) -> Result<Option<Change>, FleetError> {
        let server = server.unwrap_or(NO_SERVER);
        let before = self.units[index as usize].server;
        if self.units[index as usize].released.is_some() {
            return Err(FleetError::Released { device: self.serial(index) });
        }
        if before == server {
            return Ok(None);
        }
        self.move_to(index, server, at);
        let kind = match (before, server) {
            (NO_SERVER, _) => ChangeKind::Assigned,
            (_, NO_SERVER) => ChangeKind::Unassigned,
            _ => ChangeKind::Reassigned,
        };
        Ok(Some(self.change(index, kind, at, before)))
    }

    /// Releases a device; `answer` settles what single reads say, the seed does otherwise.
    pub(crate) fn release(
        &mut self,
        index: u32,
        answer: Option<ReleaseAnswer>,
        at: Millis,
    ) -> Result<Change, FleetError> {
        if self.units[index as usize].released.is_some() {
            return Err(FleetError::Released { device: self.serial(index) });
        }
        let before = self.units[index as usize].server;
        self.move_to(index, NO_SERVER, at);
        let seeded = Draw::keyed(self.seed, &[self.number, 0x4E1, u64::from(index), at as u64]).chance(self.gone_share);
        let unit = &mut self.units[index as usize];
        unit.released = Some(at);
        unit.gone = answer.map_or(seeded, |answer| answer == ReleaseAnswer::Gone);
        self.live -= 1;
        self.unassigned -= 1;
        Ok(self.change(index, ChangeKind::Released, at, before))
    }

    /// Brings a released device back, as a reseller or Apple Configurator does.
    pub(crate) fn readd(&mut self, index: u32, at: Millis) -> Result<Change, FleetError> {
        let unit = &mut self.units[index as usize];
        if unit.released.is_none() {
            return Err(FleetError::NotReleased { device: self.serial(index) });
        }
        *unit = Unit { first_added: unit.first_added, ..Unit::new(at, at, NO_SERVER) };
        self.live += 1;
        self.unassigned += 1;
        let bought = self.corrections.entry(index).or_default();
        for name in ["orderNumber", "orderDateTime", "purchaseSourceId"] {
            bought.insert(name.to_owned(), Value::Null);
        }
        bought.insert("purchaseSourceType".to_owned(), json!("MANUALLY_ADDED"));
        Ok(self.change(index, ChangeKind::Readded, at, NO_SERVER))
    }

    /// Gives an attribute another value; null takes it away.
    pub(crate) fn correct(&mut self, index: u32, attribute: &str, value: Value, at: Millis) -> Change {
        self.corrections.entry(index).or_default().insert(attribute.to_owned(), value);
        self.touch(index, at);
        let server = self.units[index as usize].server;
        self.change(index, ChangeKind::Corrected, at, server)
    }

    /// Hides a device from the listing, or shows it again; single reads and linkages go on showing it.
    pub(crate) fn hide(&mut self, index: u32, hidden: bool, at: Millis) -> Option<Change> {
        let unit = &mut self.units[index as usize];
        if unit.hidden == hidden {
            return None;
        }
        unit.hidden = hidden;
        let server = unit.server;
        let kind = if hidden { ChangeKind::Hidden } else { ChangeKind::Shown };
        Some(self.change(index, kind, at, server))
    }

    /// Makes a server.
    pub(crate) fn add_server(&mut self, name: &str, at: Millis) -> Result<Change, FleetError> {
        if self.find_server(name).is_some() {
            return Err(FleetError::ServerExists { server: name.to_owned() });
        }
        let place = self.servers.len() as u16;
        self.servers.push(Server::named(self.seed, self.number, place, name, at));
        Ok(self.server_change(place, ChangeKind::ServerAdded, at))
    }

    /// Renames a server.
    pub(crate) fn rename_server(&mut self, place: u16, name: &str, at: Millis) -> Change {
        let server = &mut self.servers[usize::from(place)];
        server.name = name.to_owned();
        server.updated = at;
        self.server_change(place, ChangeKind::ServerUpdated, at)
    }

    /// Lets a server connect to Apple, which moves its `lastConnectedDateTime`.
    pub(crate) fn connect_server(&mut self, place: u16, at: Millis) -> Change {
        self.servers[usize::from(place)].connected = Some(at);
        self.server_change(place, ChangeKind::ServerUpdated, at)
    }

    /// Removes a server after taking it from its devices.
    pub(crate) fn remove_server(&mut self, place: u16, at: Millis) -> Vec<Change> {
        let assigned = (0..self.ever()).filter(|index| self.units[*index as usize].server == place);
        let mut changes = Vec::new();
        for index in assigned.collect::<Vec<_>>() {
            self.move_to(index, NO_SERVER, at);
            changes.push(self.change(index, ChangeKind::Unassigned, at, place));
        }
        self.servers[usize::from(place)].removed = true;
        changes.push(self.server_change(place, ChangeKind::ServerRemoved, at));
        changes
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

    fn move_to(&mut self, index: u32, server: u16, at: Millis) {
        self.touch(index, at);
        let unit = &mut self.units[index as usize];
        unit.previous_server = std::mem::replace(&mut unit.server, server);
        match unit.previous_server {
            NO_SERVER => self.unassigned -= 1,
            place => self.servers[usize::from(place)].devices -= 1,
        }
        match server {
            NO_SERVER => self.unassigned += 1,
            place => self.servers[usize::from(place)].devices += 1,
        }
    }

    fn touch(&mut self, index: u32, at: Millis) {
        let unit = &mut self.units[index as usize];
        unit.updated = at;
        unit.previous_server = unit.server;
    }

    fn change(&self, index: u32, kind: ChangeKind, at: Millis, before: u16) -> Change {
        let device = self.truth(index);
        Change {
            at: moment(at),
            org: self.org.clone(),
            kind,
            device_id: Some(device.id.clone()),
            server_id: device.server_id.clone(),
            previous_server_id: (before != NO_SERVER).then(|| self.servers[usize::from(before)].id.clone()),
            device: Some(device),
            server: None,
        }
    }

    fn server_change(&self, place: u16, kind: ChangeKind, at: Millis) -> Change {
        let server = self.true_server(place);
        Change {
            at: moment(at),
            org: self.org.clone(),
            kind,
            device_id: None,
            server_id: Some(server.id.clone()),
            previous_server_id: None,
            device: None,
            server: (kind != ChangeKind::ServerRemoved).then_some(server),
        }
    }
}

impl Unit {
    fn new(added: Millis, updated: Millis, server: u16) -> Self {
        Self {
            first_added: added,
            added,
            updated,
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

/// Why a change could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FleetError {
    /// No such organization is served.
    #[error("there is no organization `{org}`")]
    UnknownOrg {
        /// The alias asked for.
        org: String,
    },
    /// No such device was ever in the fleet.
    #[error("there is no device `{device}`")]
    UnknownDevice {
        /// The serial number asked for.
        device: String,
    },
    /// A device with this serial number is or was there.
    #[error("there is a device `{device}` already")]
    DeviceExists {
        /// The serial number.
        device: String,
    },
    /// No server with this id or name stands.
    #[error("there is no server `{server}`")]
    UnknownServer {
        /// The id or name asked for.
        server: String,
    },
    /// A server of this name stands.
    #[error("there is a server `{server}` already")]
    ServerExists {
        /// Its name.
        server: String,
    },
    /// The device has left the organization.
    #[error("the device `{device}` was released")]
    Released {
        /// The serial number.
        device: String,
    },
    /// The device never left the organization.
    #[error("the device `{device}` was not released")]
    NotReleased {
        /// The serial number.
        device: String,
    },
}
