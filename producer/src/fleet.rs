//! The last known records of one organization, folded from our own topics.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use windfall_schemas::device::DeviceValue;
use windfall_schemas::envelope::{Channel, Envelope};
use windfall_schemas::fingerprint::parse_sequence;
use windfall_schemas::server::ServerValue;

use crate::diff::Last;
use crate::observation::Reads;

/// One record as it was last published.
#[derive(Debug, Clone, PartialEq)]
pub struct Known<V> {
    /// The record, which the events that name it share.
    pub value: Arc<V>,
    /// The number of its last event.
    pub number: u64,
    /// The fingerprint that its last event carried.
    pub fingerprint: String,
    /// When it was last observed, in epoch milliseconds.
    pub observed_at: i64,
    /// The `source.ts_ms` of its last event.
    pub told_at: i64,
    /// The requests that read it; nothing for what was folded.
    pub reads: Reads,
}

impl<V> Known<V> {
    /// Tells when it was last read and last told of.
    #[must_use]
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
    /// The fingerprint of the event.
    pub fingerprint: String,
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
            fingerprint: envelope.fingerprint.unwrap_or_default(),
            made_at: envelope.ts_ms.unwrap_or(envelope.source.ts_ms),
            told_at: envelope.source.ts_ms,
            channel: envelope.source.channel,
        }
    }
}

/// The last known devices of one organization.
///
/// A released device stays: the asset goes on existing, and it may come back. The number of a device that is gone for
/// good is kept as long as its `d` event is in the topic, so that a return goes on counting.
#[derive(Debug, Clone, Default)]
pub struct Fleet {
    devices: HashMap<String, Known<DeviceValue>>,
    gone: HashMap<String, u64>,
    live: usize,
    releases: Vec<i64>,
}

impl Fleet {
    /// Applies an event that is in the topic; `None` is a tombstone.
    pub fn apply(&mut self, device_id: &str, event: Option<Event<DeviceValue>>) {
        let before = self.devices.get(device_id).map(|known| (known.value.is_released(), known.number, known.reads));
        let Some(event) = event else {
            self.forget(device_id, before.map(|(_, number, _)| number));
            return;
        };
        let Some(after) = event.after else {
            self.forget(device_id, Some(event.number));
            return;
        };
        let now_released = after.is_released();
        let was_released = before.map(|(was, ..)| was);
        if now_released && was_released == Some(false) && event.channel != Some(Channel::Operator) {
            self.releases.push(event.made_at);
        }
        self.live = self.live + usize::from(!now_released) - usize::from(was_released == Some(false));
        self.gone.remove(device_id);
        self.devices.insert(
            device_id.to_owned(),
            Known {
                value: after,
                number: event.number,
                fingerprint: event.fingerprint,
                observed_at: event.made_at,
                told_at: event.told_at,
                reads: before.map(|(_, _, reads)| reads).unwrap_or_default(),
            },
        );
    }

    fn forget(&mut self, device_id: &str, number: Option<u64>) {
        if let Some(known) = self.devices.remove(device_id)
            && !known.value.is_released()
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
            known.reads.merge(reads);
            known.observed_at = known.observed_at.max(at);
        }
    }

    /// Returns a device.
    #[must_use]
    pub fn get(&self, device_id: &str) -> Option<&Known<DeviceValue>> {
        self.devices.get(device_id)
    }

    /// Returns the number of the last event of a device, also of one that is gone.
    #[must_use]
    pub fn last_number(&self, device_id: &str) -> u64 {
        self.devices.get(device_id).map(|known| known.number).or_else(|| self.gone.get(device_id).copied()).unwrap_or(0)
    }

    /// Returns the number of devices that are not released.
    #[must_use]
    pub fn live(&self) -> usize {
        self.live
    }

    /// Returns the number of devices, released ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.devices.len()
    }

    /// Tells whether no device was ever published.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty() && self.gone.is_empty()
    }

    /// Lists the devices that are not released, in no order.
    pub fn live_devices(&self) -> impl Iterator<Item = (&str, &Known<DeviceValue>)> {
        self.devices.iter().filter(|(_, known)| !known.value.is_released()).map(|(id, known)| (id.as_str(), known))
    }

    /// Lists all devices, in no order.
    pub fn devices(&self) -> impl Iterator<Item = (&str, &Known<DeviceValue>)> {
        self.devices.iter().map(|(id, known)| (id.as_str(), known))
    }

    /// Counts the releases after `since`, those that an operator approved left out.
    #[must_use]
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
            Some(Event { after: Some(value), number, fingerprint, made_at, told_at, channel: _ }) => {
                self.gone.remove(server_id);
                let known =
                    Known { value, number, fingerprint, observed_at: made_at, told_at, reads: Reads::default() };
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
    #[must_use]
    pub fn get(&self, server_id: &str) -> Option<&Known<ServerValue>> {
        self.servers.get(server_id)
    }

    /// Returns the number of the last event of a server, also of one that is gone.
    #[must_use]
    pub fn last_number(&self, server_id: &str) -> u64 {
        self.servers.get(server_id).map(|known| known.number).or_else(|| self.gone.get(server_id).copied()).unwrap_or(0)
    }

    /// Tells whether no server was ever published.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty() && self.gone.is_empty()
    }

    /// Lists the servers in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Known<ServerValue>)> {
        self.servers.iter().map(|(id, known)| (id.as_str(), known))
    }
}
