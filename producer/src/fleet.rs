//! The last known records of one organization, folded from our own topics.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use windfall_schemas::device::DeviceValue;
use windfall_schemas::envelope::{Channel, Envelope};
use windfall_schemas::fingerprint::parse_sequence;
use windfall_schemas::server::ServerValue;

use crate::diff::Last;
use crate::fields::{Fields as _, Group};
use crate::observation::{Observation, Reads};
use crate::packed::Comparison;

/// One record as it was last published.
#[derive(Debug, Clone, PartialEq)]
pub struct Known<V> {
    /// The record, which the events that name it share.
    pub value: Arc<V>,
    /// The number of its last event.
    pub number: u64,
    /// When it was last observed, in epoch milliseconds.
    pub observed_at: i64,
    /// The `source.ts_ms` of its last event.
    pub told_at: i64,
    /// The requests that read it; nothing for what was folded.
    pub reads: Reads,
}

impl<V> Known<V> {
    /// Tells when it was last read and last told of.
    pub fn last(&self) -> Last {
        Last { read_at: self.observed_at, told_at: self.told_at }
    }
}

/// What of an event the fold keeps.
#[derive(Debug, Clone, PartialEq)]
pub struct Event<V> {
    /// The record after the event; `None` when it is gone.
    pub after: Option<Arc<V>>,
    /// The number of the event in its record's life.
    pub number: u64,
    /// When we made the event, in epoch milliseconds.
    pub made_at: i64,
    /// Its `source.ts_ms`: when the change happened.
    pub told_at: i64,
    /// Which channel saw it first.
    pub channel: Option<Channel>,
}

impl<V> From<Envelope<Arc<V>>> for Event<V> {
    fn from(envelope: Envelope<Arc<V>>) -> Self {
        Self {
            after: envelope.after,
            number: envelope.source.sequence.as_deref().and_then(parse_sequence).unwrap_or(0),
            made_at: envelope.ts_ms.unwrap_or(envelope.source.ts_ms),
            told_at: envelope.source.ts_ms,
            channel: envelope.source.channel,
        }
    }
}

/// A device as the fleet keeps it: packed section by section, so that an unchanged one is told without unpacking it.
#[derive(Debug, Clone)]
pub struct Device {
    number: u64,
    observed_at: i64,
    told_at: i64,
    reads: [u32; 3],
    released: bool,
    packed: Box<[u8]>,
}

/// What a list shows; packed first.
fn listed(group: Group) -> bool {
    matches!(group, Group::Attributes | Group::Release)
}

/// What the linkage shows; packed second.
fn linked(group: Group) -> bool {
    group == Group::Server
}

/// Everything else; packed last.
fn rest(group: Group) -> bool {
    !listed(group) && !linked(group)
}

/// Room for a packed device.
const USUAL_BYTES: usize = 512;

impl Device {
    /// Returns the record as it was last published.
    pub fn value(&self) -> DeviceValue {
        let (mut value, mut packed) = (DeviceValue::default(), &*self.packed);
        value.unpack(listed, &mut packed);
        value.unpack(linked, &mut packed);
        value.unpack(rest, &mut packed);
        value
    }

    /// Tells whether the device was released.
    pub fn is_released(&self) -> bool {
        self.released
    }

    /// Returns when it was last observed, in epoch milliseconds.
    pub fn observed_at(&self) -> i64 {
        self.observed_at
    }

    fn known(&self) -> Known<DeviceValue> {
        let Self { number, observed_at, told_at, reads, .. } = *self;
        Known { value: Arc::new(self.value()), number, observed_at, told_at, reads: Reads::from_numbers(reads) }
    }
}

/// The last known devices of one organization.
///
/// A released device stays: the asset goes on existing, and it may come back. The number of a device that is gone for
/// good is kept as long as its `d` event is in the topic, so that a return goes on counting.
#[derive(Debug, Clone, Default)]
pub struct Fleet {
    devices: HashMap<Box<str>, Box<Device>>,
    gone: HashMap<String, u64>,
    live: usize,
    releases: Vec<i64>,
}

impl Fleet {
    /// Applies an event that is in the topic; `None` is a tombstone.
    pub fn apply(&mut self, device_id: &str, event: Option<Event<DeviceValue>>) {
        let before = self.devices.get(device_id).map(|known| (known.released, known.number, known.reads));
        let Some(event) = event else {
            self.forget(device_id, before.map(|(_, number, _)| number));
            return;
        };
        let Some(after) = event.after else {
            self.forget(device_id, Some(event.number));
            return;
        };
        let released = after.is_released();
        let was_released = before.map(|(was, ..)| was);
        if released && was_released == Some(false) && event.channel != Some(Channel::Operator) {
            self.releases.push(event.made_at);
        }
        self.live = self.live + usize::from(!released) - usize::from(was_released == Some(false));
        self.gone.remove(device_id);
        let mut packed = Vec::with_capacity(USUAL_BYTES);
        after.pack(listed, &mut packed);
        after.pack(linked, &mut packed);
        after.pack(rest, &mut packed);
        let device = Device {
            number: event.number,
            observed_at: event.made_at,
            told_at: event.told_at,
            reads: before.map(|(_, _, reads)| reads).unwrap_or_default(),
            released,
            // A copy is as large as it must be; a buffer that shrinks keeps its place.
            packed: packed.as_slice().into(),
        };
        self.devices.insert(device_id.into(), Box::new(device));
    }

    fn forget(&mut self, device_id: &str, number: Option<u64>) {
        if let Some(known) = self.devices.remove(device_id)
            && !known.released
        {
            self.live -= 1;
        }
        if let Some(number) = number {
            self.gone.insert(device_id.to_owned(), number);
        }
    }

    /// Notes that a device was observed, changed or not.
    pub fn observed(&mut self, device_id: &str, reads: &Reads, at: i64) {
        if let Some(known) = self.devices.get_mut(device_id) {
            for (known, read) in known.reads.iter_mut().zip(reads.numbers()) {
                *known = read.max(*known);
            }
            known.observed_at = known.observed_at.max(at);
        }
    }

    /// Tells whether an observation shows a device exactly as it is known, byte for byte.
    ///
    /// `false` is no verdict: two spellings of one value differ in their bytes, and `differing` decides.
    pub fn shows_nothing_new(&self, observation: &Observation) -> bool {
        let Observation { value, reads } = observation;
        let Some(device) = self.devices.get(&*value.device_id) else { return false };
        let known = Reads::from_numbers(device.reads);
        let newer = |group| reads.supersedes(&known, group);
        if !newer(Group::Attributes) || !newer(Group::Release) {
            return false;
        }
        let mut comparison = Comparison(Some(&device.packed));
        value.pack(listed, &mut comparison);
        if newer(Group::Server) {
            value.pack(linked, &mut comparison);
        }
        comparison.0.is_some()
    }

    /// Returns a device, unpacked.
    pub fn get(&self, device_id: &str) -> Option<Known<DeviceValue>> {
        self.devices.get(device_id).map(|device| device.known())
    }

    /// Tells whether a device is known and not released.
    pub fn is_live(&self, device_id: &str) -> bool {
        self.devices.get(device_id).is_some_and(|device| !device.released)
    }

    /// Returns the number of the last event of a device, also of one that is gone.
    pub fn last_number(&self, device_id: &str) -> u64 {
        self.devices.get(device_id).map(|known| known.number).or_else(|| self.gone.get(device_id).copied()).unwrap_or(0)
    }

    /// Returns the number of devices that are not released.
    pub fn live(&self) -> usize {
        self.live
    }

    /// Returns the number of devices, released ones included.
    pub fn len(&self) -> usize {
        self.devices.len()
    }

    /// Tells whether no device was ever published.
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty() && self.gone.is_empty()
    }

    /// Lists the devices that are not released, in no order.
    pub fn live_devices(&self) -> impl Iterator<Item = (&str, &Device)> {
        self.devices().filter(|(_, device)| !device.released)
    }

    /// Lists all devices, in no order.
    pub fn devices(&self) -> impl Iterator<Item = (&str, &Device)> {
        self.devices.iter().map(|(id, device)| (&**id, &**device))
    }

    /// Counts the releases after `since`, those that an operator approved left out.
    pub fn releases_since(&self, since: i64) -> usize {
        self.releases.iter().filter(|made_at| **made_at > since).count()
    }
}

/// The last known management services of one organization.
#[derive(Debug, Clone, Default)]
pub struct Servers {
    servers: BTreeMap<String, Known<ServerValue>>,
    gone: BTreeMap<String, u64>,
}

impl Servers {
    /// Applies an event that is in the topic; `None` is a tombstone.
    pub fn apply(&mut self, server_id: &str, event: Option<Event<ServerValue>>) {
        let last = self.servers.remove(server_id).map(|known| known.number);
        match event {
            Some(Event { after: Some(value), number, made_at, told_at, channel: _ }) => {
                self.gone.remove(server_id);
                let known = Known { value, number, observed_at: made_at, told_at, reads: Reads::default() };
                self.servers.insert(server_id.to_owned(), known);
            }
            Some(Event { after: None, number, .. }) => {
                self.gone.insert(server_id.to_owned(), number);
            }
            None => {
                if let Some(number) = last {
                    self.gone.insert(server_id.to_owned(), number);
                }
            }
        }
    }

    /// Returns a server.
    pub fn get(&self, server_id: &str) -> Option<&Known<ServerValue>> {
        self.servers.get(server_id)
    }

    /// Returns the number of the last event of a server, also of one that is gone.
    pub fn last_number(&self, server_id: &str) -> u64 {
        self.servers.get(server_id).map(|known| known.number).or_else(|| self.gone.get(server_id).copied()).unwrap_or(0)
    }

    /// Tells whether no server was ever published.
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty() && self.gone.is_empty()
    }

    /// Lists the servers in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Known<ServerValue>)> {
        self.servers.iter().map(|(id, known)| (id.as_str(), known))
    }
}
