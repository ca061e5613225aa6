//! The join of devices with their management services, by the linkage lists read before the device pages.

use std::collections::{BTreeMap, HashMap};

use windfall_schemas::device::DeviceValue;

use crate::observation::{Observation, RequestNumber};

/// Apple's word for a device that a management service has.
const ASSIGNED: &str = "ASSIGNED";
/// Apple's word for a device that none has.
const UNASSIGNED: &str = "UNASSIGNED";

/// What the linkage lists of one scan said.
#[derive(Debug, Clone, Default)]
pub struct Assignments {
    by_device: HashMap<String, Place>,
    names: BTreeMap<String, String>,
    /// Whether the list of servers and every linkage list were read to their end.
    complete: bool,
    request: RequestNumber,
    settled: HashMap<String, (Option<String>, RequestNumber)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    In(String),
    /// In the lists of several services.
    Torn,
}

impl Assignments {
    /// Begins a join; `names` are the servers of the list, `request` the last request that read of them.
    #[must_use]
    pub fn new(names: BTreeMap<String, String>, complete: bool, request: RequestNumber) -> Self {
        Self { by_device: HashMap::new(), names, complete, request, settled: HashMap::new() }
    }

    /// Adds a device of the linkage list of `server_id`.
    pub fn link(&mut self, device_id: &str, server_id: &str) {
        self.by_device
            .entry(device_id.to_owned())
            .and_modify(|place| {
                if *place != Place::In(server_id.to_owned()) {
                    *place = Place::Torn;
                }
            })
            .or_insert_with(|| Place::In(server_id.to_owned()));
    }

    /// Notes that a list could not be read to its end: nothing is unassigned by this join.
    pub fn cut_short(&mut self) {
        self.complete = false;
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
    #[must_use]
    pub fn complete(&self) -> bool {
        self.complete
    }

    /// Adds the management service to a listed device, where the lists and the status allow it.
    ///
    /// | in the lists of | status | lists | service | status |
    /// | --- | --- | --- | --- | --- |
    /// | one | not UNASSIGNED | any | that one | as listed |
    /// | none or one | UNASSIGNED | all read | none: the page is read after the lists | as listed |
    /// | none or one | UNASSIGNED | cut short | as last known | as last known: half a list never unassigns |
    /// | none | another | any | as last known | as listed |
    /// | several | any | any | as last known, read singly | as listed, or as last known where it says UNASSIGNED |
    ///
    /// What a single read has settled stands over the lists. What stays as last known takes the newest name of its server.
    #[must_use]
    pub fn join(&self, known: Option<&DeviceValue>, mut listed: Observation) -> Joined {
        if let Some((server, request)) = self.settled.get(&listed.value.device_id) {
            let server = server.as_deref().map(|id| (id, self.name(id)));
            return Joined { observation: listed.with_server(server, *request), contradiction: None };
        }
        let place = self.by_device.get(&listed.value.device_id);
        let unassigned = listed.value.status.as_deref() == Some(UNASSIGNED);
        let contradiction = self.contradiction(&listed.value.device_id, listed.value.status.as_deref());
        let torn = contradiction == Some(Contradiction::SeveralServers);
        let observation = match place {
            Some(Place::In(server)) if !unassigned => {
                listed.with_server(Some((server, self.name(server))), self.request)
            }
            _ if unassigned && self.complete && !torn => listed.with_server(None, self.request),
            _ => {
                if unassigned && let Some(known) = known {
                    listed.value.status.clone_from(&known.status);
                }
                self.keep_known(known, listed)
            }
        };
        Joined { observation, contradiction }
    }

    /// Tells how the lists contradict each other, or the status, on a listed device that no single read has settled.
    #[must_use]
    pub fn contradiction(&self, device_id: &str, status: Option<&str>) -> Option<Contradiction> {
        if self.settled.contains_key(device_id) {
            return None;
        }
        match self.by_device.get(device_id) {
            Some(Place::Torn) => Some(Contradiction::SeveralServers),
            Some(Place::In(_)) if status == Some(UNASSIGNED) => Some(Contradiction::StatusAgainstLists),
            None if self.complete && status == Some(ASSIGNED) => Some(Contradiction::StatusAgainstLists),
            _ => None,
        }
    }

    fn keep_known(&self, known: Option<&DeviceValue>, listed: Observation) -> Observation {
        let Some(server) = known.and_then(|known| known.mdm_server_id.as_deref()) else { return listed };
        match self.name(server) {
            Some(name) => listed.with_server(Some((server, Some(name))), self.request),
            None => listed,
        }
    }

    /// Returns the name of a server that the list of this scan holds.
    #[must_use]
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
