//! What can happen to a fleet: each change moves the state and tells what it made.

use serde_json::{Value, json};

use super::{Fleet, FleetError, ReleaseAnswer, Unit};
use crate::apple_time::{Millis, moment};
use crate::draw::Draw;
use crate::journal::{Change, ChangeKind};
use crate::server::Server;

/// Share of the changes of a device that move its `updatedDateTime`.
const STAMPED: f64 = 0.5;

impl Fleet {
    /// Adds `at` a device that was never there; with a serial number of its own when `serial` is given.
    pub(crate) fn add(&mut self, at: Millis, serial: Option<&str>) -> Result<Change, FleetError> {
        let index = self.ever();
        if let Some(serial) = serial {
            if self.find(serial).is_some() {
                return Err(FleetError::DeviceExists(serial.to_owned()));
            }
            if self.natural_index(serial).is_some() {
                return Err(FleetError::Reserved(serial.to_owned()));
            }
            self.names.insert(index, serial.to_owned());
            self.named.insert(serial.to_owned(), index);
        }
        self.push(Unit::new(at, at, None));
        Ok(self.change(index, ChangeKind::Added, at, None))
    }

    /// Gives a device a server, or takes it away; nothing when it has that server already.
    pub(crate) fn assign(&mut self, index: u32, server: Option<u16>, at: Millis) -> Result<Option<Change>, FleetError> {
        let Unit { server: before, released, .. } = *self.unit(index);
        if released.is_some() {
            return Err(FleetError::Released(self.serial(index)));
        }
        if before == server {
            return Ok(None);
        }
        self.move_to(index, server, at);
        let kind = match (before, server) {
            (None, _) => ChangeKind::Assigned,
            (_, None) => ChangeKind::Unassigned,
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
        let Unit { server: before, released, .. } = *self.unit(index);
        if released.is_some() {
            return Err(FleetError::Released(self.serial(index)));
        }
        self.move_to(index, None, at);
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
            return Err(FleetError::NotReleased(self.serial(index)));
        }
        *unit = Unit { first_added: unit.first_added, ..Unit::new(at, at, None) };
        self.live += 1;
        self.unassigned += 1;
        let bought = self.corrections.entry(index).or_default();
        for name in ["orderNumber", "orderDateTime", "purchaseSourceId"] {
            bought.insert(name.to_owned(), Value::Null);
        }
        bought.insert("purchaseSourceType".to_owned(), json!("MANUALLY_ADDED"));
        Ok(self.change(index, ChangeKind::Readded, at, None))
    }

    /// Gives an attribute another value; null takes it away.
    pub(crate) fn correct(&mut self, index: u32, attribute: &str, value: Value, at: Millis) -> Change {
        self.corrections.entry(index).or_default().insert(attribute.to_owned(), value);
        self.touch(index, at);
        self.change(index, ChangeKind::Corrected, at, self.unit(index).server)
    }

    /// Hides a device from the listing, or shows it again; single reads and linkages go on showing it.
    pub(crate) fn hide(&mut self, index: u32, hidden: bool, at: Millis) -> Option<Change> {
        if std::mem::replace(&mut self.units[index as usize].unlisted, hidden) == hidden {
            return None;
        }
        let kind = if hidden { ChangeKind::Hidden } else { ChangeKind::Shown };
        Some(self.change(index, kind, at, self.unit(index).server))
    }

    /// Makes a server.
    pub(crate) fn add_server(&mut self, name: &str, at: Millis) -> Result<Change, FleetError> {
        if self.find_server(name).is_some() {
            return Err(FleetError::ServerExists(name.to_owned()));
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
        let assigned = (0..self.ever()).filter(|index| self.unit(*index).server == Some(place));
        let mut changes = Vec::new();
        for index in assigned.collect::<Vec<_>>() {
            self.move_to(index, None, at);
            changes.push(self.change(index, ChangeKind::Unassigned, at, Some(place)));
        }
        self.servers[usize::from(place)].removed = true;
        changes.push(self.server_change(place, ChangeKind::ServerRemoved, at));
        changes
    }

    fn move_to(&mut self, index: u32, server: Option<u16>, at: Millis) {
        self.touch(index, at);
        let before = std::mem::replace(&mut self.units[index as usize].server, server);
        *self.count_of(before) -= 1;
        *self.count_of(server) += 1;
    }

    /// Moves `updatedDateTime`, or leaves it: Apple does not document which changes move it, and a reader that relies on
    /// it is to be found out.
    fn touch(&mut self, index: u32, at: Millis) {
        let moves = Draw::keyed(self.seed, &[self.number, 0x57A, u64::from(index), at as u64]).chance(STAMPED);
        let unit = &mut self.units[index as usize];
        unit.changed = at;
        if moves {
            unit.updated = at;
        }
        unit.previous_server = unit.server;
    }

    fn change(&self, index: u32, kind: ChangeKind, at: Millis, before: Option<u16>) -> Change {
        let device = self.truth(index);
        Change {
            at: moment(at),
            org: self.org.clone(),
            kind,
            device_id: Some(device.id.clone()),
            server_id: device.server_id.clone(),
            previous_server_id: before.map(|place| self.servers[usize::from(place)].id.clone()),
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
