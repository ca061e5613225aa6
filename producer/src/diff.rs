//! The comparison in which every channel ends: what is known against what one answer shows.

use std::sync::Arc;

use windfall_schemas::device::DeviceValue;
use windfall_schemas::envelope::Kind;
use windfall_schemas::server::ServerValue;

use crate::fields::{Fields as _, Group};
use crate::fleet::{Fleet, Known, Servers};
use crate::observation::Observation;

/// What became of a record: the images on both sides, and which fields differ.
///
/// | before | after | what it is |
/// | --- | --- | --- |
/// | none | some | first seen |
/// | some | some | changed; `changed` names at least one field |
/// | some | none | gone for good |
#[derive(Debug, Clone, PartialEq)]
pub struct Change<V> {
    /// What happened, the first that applies in the order of [`Kind`].
    pub kind: Kind,
    /// Every field that differs, in name order; empty when one side is missing.
    pub changed: Vec<&'static str>,
    /// The record as it was last published.
    pub before: Option<Arc<V>>,
    /// The record as it is now.
    pub after: Option<Arc<V>>,
    /// The number of the event in its record's life.
    pub number: u64,
    /// The hash of the present fields of `after`, of `before` where there is no after.
    pub fingerprint: String,
    /// What came before; nothing for a record that was not known.
    pub last: Option<Last>,
}

/// When a record was last read and last told of, in epoch milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Last {
    /// When an answer last showed it.
    pub read_at: i64,
    /// The `source.ts_ms` of its last event.
    pub told_at: i64,
}

/// A change of a device.
pub type DeviceChange = Change<DeviceValue>;
/// A change of a management service.
pub type ServerChange = Change<ServerValue>;

/// Compares a device with the last known one, group by group; equal after normalising is no change.
///
/// Groups that the observation did not read, or that a later request has read, stay as known. Empties are one thing,
/// MAC addresses are compared by their digits and lists in their order; the texts published are Apple's.
#[must_use]
pub fn diff(fleet: &Fleet, observation: Observation) -> Option<DeviceChange> {
    if fleet.shows_nothing_new(&observation) {
        return None;
    }
    let Observation { value: mut after, reads } = observation;
    let Some(known) = fleet.get(&after.device_id) else {
        let fingerprint = after.fingerprint();
        return Some(first_seen(fleet.last_number(&after.device_id), *after, fingerprint));
    };
    let changed = known.value.differing(&after, |group| reads.supersedes(&known.reads, group));
    if changed.is_empty() {
        return None;
    }
    after.keep(&known.value, |_, group| !reads.supersedes(&known.reads, group));
    Some(Change {
        kind: kind_of(&known.value, &after),
        changed,
        number: known.number + 1,
        fingerprint: after.fingerprint(),
        last: Some(known.last()),
        before: Some(known.value),
        after: Some(after.into()),
    })
}

/// Compares a management service with the last known one; its device count, last connection and time of update alone are no change.
#[must_use]
pub fn diff_server(servers: &Servers, seen: ServerValue) -> Option<ServerChange> {
    let Some(known) = servers.get(&seen.server_id) else {
        let fingerprint = seen.fingerprint();
        return Some(first_seen(servers.last_number(&seen.server_id), seen, fingerprint));
    };
    let changed = known.value.differing(&seen, |group| group == Group::Attributes);
    if changed.is_empty() {
        return None;
    }
    Some(Change {
        kind: Kind::Updated,
        changed,
        number: known.number + 1,
        fingerprint: seen.fingerprint(),
        before: Some(Arc::clone(&known.value)),
        after: Some(Arc::new(seen)),
        last: Some(known.last()),
    })
}

/// Makes the change of a management service that a complete list no longer holds.
#[must_use]
pub fn removed_server(known: &Known<ServerValue>) -> ServerChange {
    Change {
        kind: Kind::Removed,
        changed: Vec::new(),
        number: known.number + 1,
        fingerprint: known.value.fingerprint(),
        before: Some(Arc::clone(&known.value)),
        after: None,
        last: Some(known.last()),
    }
}

fn first_seen<V>(last_number: u64, after: V, fingerprint: String) -> Change<V> {
    Change {
        kind: Kind::Added,
        changed: Vec::new(),
        before: None,
        after: Some(Arc::new(after)),
        number: last_number + 1,
        fingerprint,
        last: None,
    }
}

/// The first that applies: released, readded, reassigned, assigned, unassigned, status-changed, updated.
///
/// `reassigned`, `assigned` and `unassigned` speak of the management service alone. A list and the linkage can show one
/// assignment in two scans: the status that moves first is `status-changed`, and the service makes the one `assigned`.
fn kind_of(before: &DeviceValue, after: &DeviceValue) -> Kind {
    match (before.released_from_org_date_time, after.released_from_org_date_time) {
        (None, Some(_)) => return Kind::Released,
        (Some(_), None) => return Kind::Readded,
        _ => {}
    }
    match (present(&before.mdm_server_id), present(&after.mdm_server_id)) {
        (Some(old), Some(new)) if old != new => return Kind::Reassigned,
        (None, Some(_)) => return Kind::Assigned,
        (Some(_), None) => return Kind::Unassigned,
        _ => {}
    }
    if present(&before.status) != present(&after.status) {
        return Kind::StatusChanged;
    }
    Kind::Updated
}

fn present(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}
