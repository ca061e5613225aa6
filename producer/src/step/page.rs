//! One page of the listing.

use std::collections::BTreeSet;

use windfall_schemas::device::DeviceValue;
use windfall_schemas::envelope::{Channel, Kind, Snapshot};
use windfall_schemas::reject::RejectValue;

use super::Step;
use super::unwritable::reject_of;
use crate::apple::{Item, Page, Rejected};
use crate::assignment::{Assignments, Contradiction};
use crate::breaker::{self, Case, Limits};
use crate::checkpoint::{DEVICES, Header, Plan, Scans, Scope};
use crate::diff::{DeviceChange, diff};
use crate::event::{self, Origin, Seen, Telling};
use crate::fields::Fields as _;
use crate::memory::Memory;
use crate::notice;
use crate::observation::{Observation, RequestNumber};
use crate::release;

/// Lists the devices of a page whose management service only a single read can tell.
pub fn in_doubt(header: &Header, assignments: &Assignments, page: &Page) -> Vec<String> {
    let doubtful = page.items.iter().map(|item| &item.value).filter(|device| {
        match assignments.contradiction(&device.device_id, device.status.as_deref()) {
            None => false,
            Some(Contradiction::SeveralServers) => true,
            Some(Contradiction::StatusAgainstLists) => header.disagreed_before.contains(&device.device_id),
        }
    });
    doubtful.map(|device| device.device_id.clone()).collect()
}

/// Plans the transaction of a page: its changes, its rejects, the ids seen, and last the header, moved on.
///
/// A device that stands on the page twice counts once, as it came first. Unknown devices are `r` until a scan of the
/// table has read its last page, `c` afterwards. A device that is listed as released is released by that, unless more are than
/// the breaker lets through: these count as not seen, so that the end of the scan holds them.
#[must_use]
pub fn page(
    origin: &Origin,
    limits: &Limits,
    memory: &Memory,
    header: &Header,
    assignments: &Assignments,
    page: Page,
    at: i64,
) -> (Step, Header) {
    let mut header = header.clone();
    header.page += 1;
    header.known = memory.fleet.len() as u64;
    let number = header.page;
    let Page { items, rejected, next, total, answer } = page;
    let read_at = answer.received_at.timestamp_millis();
    let mut step = Step { observed_at: read_at, ..Step::default() };
    let leaving = leaving(memory, &items);
    let case = Case {
        released_lately: memory.fleet.releases_since(at - breaker::WINDOW),
        held: memory.scans.plans.values().map(Plan::len).sum(),
        suspects: leaving.len(),
        live: memory.fleet.live(),
        listed: items.len(),
    };
    let held = if limits.ask(&case).is_some() { leaving } else { BTreeSet::new() };
    header.withheld += held.len() as u64;
    let items = items.into_iter().filter(|item| !held.contains(&item.value.device_id));
    let Compared { mut met, changes } = compare(memory, assignments, items, answer.number, &mut header, &mut step);

    let last_page = next.is_none();
    let seen = Seen {
        channel: Channel::Scan,
        scan: Some(header.at(Some(number))),
        read_at,
        made_at: at,
        request_id: answer.request_id.clone(),
        url: Some(answer.path.clone()),
    };
    let first_seen = changes.iter().map(|(change, _)| change.before.is_none());
    let marks = snapshot_marks(first_seen, memory.fleet.is_empty(), !header.read_to_end, last_page);
    step.devices.reserve_exact(changes.len());
    for ((change, index), snapshot) in changes.into_iter().zip(marks) {
        header.count(change.kind.as_str());
        let released = change.kind == Kind::Released;
        let evidence = released.then(|| format!("scan {}: listed as released", header.number)).into_iter().collect();
        let telling = Telling { snapshot, page_index: Some(index), evidence, shown: true };
        step.devices.push(event::envelope(origin, &seen, change, telling));
    }
    step.rejects = reject(origin, &mut header, &seen, rejected, &mut met);
    step.traceparent = event::traceparent(&header.scan_id, &format!("page {number}"));

    header.devices += met.len() as u64;
    if let Some(total) = total {
        header.note_total(total);
    }
    header.cursor = next.map(|next| next.as_str().to_owned());
    header.read_to_end |= last_page;
    header.updated_at = at;
    finish_parts(origin, memory, &header, met, &mut step, at);
    (step, header)
}

/// Lists the devices of a page that are known as present and listed as released.
fn leaving(memory: &Memory, items: &[Item<Box<DeviceValue>>]) -> BTreeSet<String> {
    let released = items.iter().map(|item| &item.value).filter(|device| {
        release::counts(device.released_from_org_date_time, device.added_to_org_date_time)
            && memory.fleet.is_live(&device.device_id)
    });
    released.map(|device| device.device_id.clone()).collect()
}

/// What became of the items of a page.
struct Compared {
    /// The ids that were met.
    met: BTreeSet<String>,
    /// What differs, with its place on the page.
    changes: Vec<(DeviceChange, u32)>,
}

fn compare(
    memory: &Memory,
    assignments: &Assignments,
    items: impl Iterator<Item = Item<Box<DeviceValue>>>,
    request: RequestNumber,
    header: &mut Header,
    step: &mut Step,
) -> Compared {
    let mut met: BTreeSet<String> = BTreeSet::new();
    let mut changes = Vec::new();
    step.observed.reserve(items.size_hint().1.unwrap_or(0));
    for mut item in items {
        let device_id = item.value.device_id.clone();
        if !met.insert(device_id.clone()) {
            continue;
        }
        let known = || memory.fleet.get(&device_id).map(|known| known.value);
        if !item.unread.is_empty()
            && let Some(known) = known()
        {
            item.value.keep(&known, |field, _| item.unread.contains(&field));
        }
        for field in item.unread {
            *header.unread.entry(field.to_owned()).or_default() += 1;
        }
        let joined = assignments.join(known, Observation::shown(item.value, request));
        if joined.contradiction.is_some() {
            header.disagree(&device_id);
        }
        step.observed.push((device_id, joined.observation.reads));
        match diff(&memory.fleet, joined.observation) {
            Some(change) => changes.push((change, u32::try_from(item.index).unwrap_or(u32::MAX))),
            None => step.unchanged += 1,
        }
    }
    Compared { met, changes }
}

/// The parts of a page: suspicions and plans that its devices leave, the ids seen, and last the header.
fn finish_parts(origin: &Origin, memory: &Memory, header: &Header, met: BTreeSet<String>, step: &mut Step, at: i64) {
    let mut back: BTreeSet<&str> = met.iter().map(String::as_str).collect();
    if !step.rejects.is_empty() {
        // A rejected item without a usable id was met by its serial number.
        let by_serial = memory.fleet.live_devices().filter(|(_, known)| met.contains(&known.value().serial_number));
        back.extend(by_serial.map(|(id, _)| id));
    }
    step.parts = memory.scans.clear(&origin.org, &back, at);
    let ids = met.into_iter().collect();
    step.parts.push(Scans::seen_part(&origin.org, &header.scan_id, header.page, ids, at));
    step.parts.push(header.part(&origin.org, DEVICES));
    step.notifications.push(notice::in_progress(origin, header, at));
}

/// Marks the records of a list, given which of them are first seen and whether the table is `empty`.
///
/// | record | mark |
/// | --- | --- |
/// | changed, or first seen after a scan has read its last page (no `first_scan`) | `false` |
/// | the last one first seen on the last page | `last` |
/// | the first one of an empty table | `first` |
/// | any other one first seen | `true` |
pub(super) fn snapshot_marks(
    first_seen: impl Iterator<Item = bool>,
    empty: bool,
    first_scan: bool,
    last_page: bool,
) -> Vec<Snapshot> {
    let mark = |new| if first_scan && new { Snapshot::True } else { Snapshot::False };
    let mut marks: Vec<Snapshot> = first_seen.map(mark).collect();
    if let Some(first) = marks.iter_mut().find(|mark| empty && **mark == Snapshot::True) {
        *first = Snapshot::First;
    }
    if let Some(last) = marks.iter_mut().rfind(|mark| last_page && **mark != Snapshot::False) {
        *last = Snapshot::Last;
    }
    marks
}

fn reject(
    origin: &Origin,
    header: &mut Header,
    seen: &Seen,
    rejected: Vec<Rejected>,
    met: &mut BTreeSet<String>,
) -> Vec<RejectValue> {
    let mut records = Vec::with_capacity(rejected.len());
    for item in rejected {
        header.rejects += 1;
        match &item.id {
            Some(id) => {
                met.insert(id.clone());
            }
            None => {
                let why = "an item was rejected that nobody can name";
                header.note(Scope::Devices, Some(header.page), why);
            }
        }
        let place = format!("{}/{}/{}", header.scan_id, header.page, item.index);
        records.push(
            RejectValue {
                resource_id: item.id,
                scan_id: Some(header.scan_id.clone()),
                page: i32::try_from(header.page).ok(),
                page_index: i32::try_from(item.index).ok(),
                url: seen.url.clone(),
                request_id: seen.request_id.clone(),
                http_status: Some(200),
                payload: Some(item.raw),
                ..reject_of(origin, &place, item.reason, item.message, seen.made_at)
            }
            .cut(),
        );
    }
    records
}
