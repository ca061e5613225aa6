//! The join of devices with their management services, by the linkage lists read before the device pages.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use windfall_schemas::device::DeviceValue;

use crate::observation::{Observation, RequestNumber};

/// Apple's word for a device that a management service has.
const ASSIGNED: &str = "ASSIGNED";
/// Apple's word for a device that none has.
pub(crate) const UNASSIGNED: &str = "UNASSIGNED";

/// What the linkage lists of one scan said.
#[derive(Debug, Clone, Default)]
pub struct Assignments {
    by_device: HashMap<String, Place>,
    names: BTreeMap<String, String>,
    /// Whether the list of servers was read to its end.
    servers_complete: bool,
    /// The servers whose linkage list was not read to its end.
    unread: BTreeSet<String>,
    request: RequestNumber,
    settled: HashMap<String, (Option<String>, RequestNumber)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    In(String),
    /// In the lists of several services.
    Several,
}

impl Assignments {
    /// Begins a join: `names` are the servers of the list, `request` is the last request that read of them, and
    /// `servers_complete` says whether the list of servers was read to its end.
    pub fn new(names: BTreeMap<String, String>, servers_complete: bool, request: RequestNumber) -> Self {
        Self { names, servers_complete, request, ..Self::default() }
    }

    /// Adds a device of the linkage list of `server_id`.
    pub fn link(&mut self, device_id: &str, server_id: &str) {
        self.by_device
            .entry(device_id.to_owned())
            .and_modify(|place| {
                if *place != Place::In(server_id.to_owned()) {
                    *place = Place::Several;
                }
            })
            .or_insert_with(|| Place::In(server_id.to_owned()));
    }

    /// Notes that the linkage list of a server was not read to its end: this join takes no device from that server.
    pub fn cut_short(&mut self, server_id: &str) {
        self.unread.insert(server_id.to_owned());
    }

    /// Notes what a single read said of a device whose lists or status contradict each other.
    pub fn settle(&mut self, device_id: &str, server_id: Option<String>, request: RequestNumber) {
        self.settled.insert(device_id.to_owned(), (server_id, request));
    }

    /// Notes the request that read the newest part of the lists.
    pub fn read_by(&mut self, request: RequestNumber) {
        self.request = self.request.max(request);
    }

    /// Tells whether every list was read to its end.
    pub fn complete(&self) -> bool {
        self.servers_complete && self.unread.is_empty()
    }

    /// Adds the management service to a listed device, where the lists and the status allow it.
    ///
    /// | status | in the lists of | list of the last known service | service | status, `updated_date_time` |
    /// | --- | --- | --- | --- | --- |
    /// | not UNASSIGNED | one | any | that one | as listed |
    /// | not UNASSIGNED | none | any | as last known | as listed |
    /// | not UNASSIGNED | several | any | as last known, read singly | as listed |
    /// | UNASSIGNED | none or another one | read to its end, or no service was known | none | as listed |
    /// | UNASSIGNED | the last known one, or several | any | as last known | as last known |
    /// | UNASSIGNED | none or another one | not read | as last known | as last known |
    ///
    /// A device that is listed as released has no service, and what a single read has settled stands over the lists. A
    /// single read that found no service is believed where the status says UNASSIGNED too: an incident can answer every single read
    /// with 404. What stays as last known takes the newest name of its server. `known` is asked for only where it matters.
    #[must_use]
    pub fn join(&self, known: impl FnOnce() -> Option<Arc<DeviceValue>>, mut listed: Observation) -> Joined {
        if listed.value.is_released() {
            return Joined { observation: listed.with_server(None, self.request), contradiction: None };
        }
        let assigned = listed.value.status.as_deref() != Some(UNASSIGNED);
        if let Some((server, request)) = self.settled.get(&listed.value.device_id)
            && (server.is_some() || !assigned)
        {
            let server = server.as_deref().map(|id| (id, self.name(id)));
            return Joined { observation: listed.with_server(server, *request), contradiction: None };
        }
        let place = self.by_device.get(&listed.value.device_id);
        let contradiction = self.contradiction(&listed.value.device_id, listed.value.status.as_deref());
        if assigned && let Some(Place::In(server)) = place {
            let observation = listed.with_server(Some((server, self.name(server))), self.request);
            return Joined { observation, contradiction };
        }
        let known = known();
        let last_known = known.as_ref().and_then(|known| known.mdm_server_id.as_deref());
        let observation = if assigned {
            self.keep_known(last_known, listed)
        } else if last_known.is_none_or(|server| self.has_left(server, place)) {
            listed.with_server(None, self.request)
        } else {
            // The page and the lists were read at different times: an image of both was never true.
            if let Some(known) = &known {
                listed.value.status.clone_from(&known.status);
                listed.value.updated_date_time = known.updated_date_time;
            }
            self.keep_known(last_known, listed)
        };
        Joined { observation, contradiction }
    }

    /// Tells whether the lists show that a device is no longer with its last known service.
    fn has_left(&self, server: &str, place: Option<&Place>) -> bool {
        let read = if self.names.contains_key(server) { !self.unread.contains(server) } else { self.servers_complete };
        let elsewhere = match place {
            None => true,
            Some(Place::In(other)) => other != server,
            Some(Place::Several) => false,
        };
        read && elsewhere
    }

    /// Tells how the lists contradict each other, or the status, on a listed device that no single read has settled.
    #[must_use]
    pub fn contradiction(&self, device_id: &str, status: Option<&str>) -> Option<Contradiction> {
        if self.settled.contains_key(device_id) {
            return None;
        }
        match self.by_device.get(device_id) {
            Some(Place::Several) => Some(Contradiction::SeveralServers),
            Some(Place::In(_)) if status == Some(UNASSIGNED) => Some(Contradiction::StatusAgainstLists),
            None if self.complete() && status == Some(ASSIGNED) => Some(Contradiction::StatusAgainstLists),
            _ => None,
        }
    }

    fn keep_known(&self, last_known: Option<&str>, listed: Observation) -> Observation {
        match last_known.and_then(|server| Some((server, self.name(server)?))) {
            Some((server, name)) => listed.with_server(Some((server, Some(name))), self.request),
            None => listed,
        }
    }

    /// Returns the name of a server that the list of this scan holds.
    pub fn name(&self, server_id: &str) -> Option<&str> {
        self.names.get(server_id).map(String::as_str)
    }
}

/// A listed device with its management service.
#[derive(Debug, Clone, PartialEq)]
pub struct Joined {
    /// What was observed.
    pub observation: Observation,
    /// What did not fit together.
    pub contradiction: Option<Contradiction>,
}

/// How a device's management service is in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contradiction {
    /// Several services claim the device: it is read singly at once.
    SeveralServers,
    /// The status says one thing and the lists another: read singly when it happens in two scans in a row.
    StatusAgainstLists,
}
