//! What can happen to a fleet: each change moves the state and tells what it made.

use serde_json::{Value, json};

use super::{Fleet, FleetError, ReleaseAnswer, Unit};
use crate::apple_time::{Millis, moment};
use crate::draw::Draw;
use crate::journal::{Change, ChangeKind};
use crate::server::{NO_SERVER, Server};

/// Share of the changes of a device that move its `updatedDateTime`.
const STAMPED: f64 = 0.5;

impl Fleet {
    /// Adds `at` a device that was never there; with a serial number of its own when `serial` is given.
    pub(crate) fn add(&mut self, at: Millis, serial: Option<&str>) -> Result<Change, FleetError> {
        let index = self.ever();
        if let Some(serial) = serial {
            if self.find(serial).is_some() {
                return Err(FleetError::DeviceExists { device: serial.to_owned() });
            }
            if self.natural_index(serial).is_some() {
                return Err(FleetError::Reserved { device: serial.to_owned() });
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

    /// Moves `updatedDateTime`, or leaves it: which changes move it is not documented, and whoever lives by it is to be found out.
    fn touch(&mut self, index: u32, at: Millis) {
        let moves = Draw::keyed(self.seed, &[self.number, 0x57A, u64::from(index), at as u64]).chance(STAMPED);
        let unit = &mut self.units[index as usize];
        unit.changed = at;
        if moves {
            unit.updated = at;
        }
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
