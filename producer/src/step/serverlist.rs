//! The beginning of a scan: the management services, before the first page.

use std::collections::BTreeSet;

use windfall_schemas::envelope::{Channel, Snapshot};
use windfall_schemas::notification::Notification;
use windfall_schemas::server::ServerValue;

use super::Step;
use crate::checkpoint::{DEVICES, Header, SERVERS, Scope, State};
use crate::diff::{ServerChange, diff_server, removed_server};
use crate::event::{self, Origin, ScanPage, Seen, Telling};
use crate::memory::Memory;
use crate::notice;

/// The management services as one scan read them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReadServers {
    /// The servers, in Apple's order.
    pub servers: Vec<ServerValue>,
    /// Whether the list was read to its end, and every item of it.
    pub complete: bool,
    /// When it was read, in epoch milliseconds.
    pub read_at: i64,
    /// Path of the list.
    pub url: Option<String>,
    /// Why lists are missing or cut short.
    pub faults: Vec<String>,
}

/// Plans the transaction before a page: the changes of the servers, and the header of the scan that begins or goes on.
///
/// A server that a complete list lacks is gone: `d`, then a tombstone. What could not be read is noted in the header.
#[must_use]
pub fn begin(origin: &Origin, memory: &Memory, header: &Header, read: &ReadServers, at: i64) -> (Step, Header) {
    let mut header = header.clone();
    let mut step = Step { traceparent: event::traceparent(&header.scan_id, "servers"), ..Step::default() };
    let mut servers = Header::begin(&origin.org, memory.scans.servers.as_ref(), &header.instance, header.started_at);
    let changes = changes(memory, read);
    let first_scan = !servers.read_to_end;
    let marks = snapshot_marks(memory, &changes, first_scan, read.complete);
    for (change, snapshot) in changes.into_iter().zip(marks) {
        servers.count(change.kind.as_str());
        let telling = match change.after {
            Some(_) => Telling { snapshot, ..Telling::shown() },
            None => Telling::inferred(vec![format!("scan {}: absent", header.number)]),
        };
        step.servers.push(event::envelope(origin, &seen(&header, read, at), change, telling));
    }
    if read.complete && (first_scan || !step.servers.is_empty()) {
        servers.read_to_end = true;
        servers.state = State::Complete;
        servers.scan_id = format!("{}-servers-{}", origin.org, servers.number);
        servers.devices = read.servers.len() as u64;
        servers.finished_at = Some(at);
        step.parts.push(servers.part(&origin.org, SERVERS));
    }
    for fault in &read.faults {
        header.note(Scope::Servers, None, fault.clone());
    }
    if header.page == 0 {
        step.notifications.extend(left_behind(origin, memory, &header, at));
        step.notifications.push(notice::started(origin, &header, at));
        header.updated_at = at;
    }
    step.parts.push(header.part(&origin.org, DEVICES));
    (step, header)
}

/// Tells of a scan that never came to its end and is not resumed either.
fn left_behind(origin: &Origin, memory: &Memory, header: &Header, at: i64) -> Option<Notification> {
    let last = memory.scans.devices.as_ref()?;
    let abandoned = last.state == State::Running && last.scan_id != header.scan_id;
    abandoned.then(|| notice::aborted(origin, last, "the scan was begun anew", at))
}

fn changes(memory: &Memory, read: &ReadServers) -> Vec<ServerChange> {
    let mut met = BTreeSet::new();
    let listed = read.servers.iter().filter(|server| met.insert(server.server_id.clone()));
    let mut changes: Vec<ServerChange> =
        listed.filter_map(|server| diff_server(&memory.servers, server.clone())).collect();
    if read.complete {
        let gone = memory.servers.iter().filter(|(id, _)| !met.contains(*id));
        changes.extend(gone.map(|(_, known)| removed_server(known)));
    }
    changes
}

fn snapshot_marks(memory: &Memory, changes: &[ServerChange], first_scan: bool, complete: bool) -> Vec<Snapshot> {
    let mut marks = vec![Snapshot::False; changes.len()];
    if !first_scan {
        return marks;
    }
    let new: Vec<usize> = (0..changes.len()).filter(|at| changes[*at].before.is_none()).collect();
    for at in &new {
        marks[*at] = Snapshot::True;
    }
    if let Some(first) = new.first().filter(|_| memory.servers.is_empty()) {
        marks[*first] = Snapshot::First;
    }
    if let Some(last) = new.last().filter(|_| complete) {
        marks[*last] = Snapshot::Last;
    }
    marks
}

fn seen(header: &Header, read: &ReadServers, at: i64) -> Seen {
    Seen {
        channel: Channel::Scan,
        scan: Some(ScanPage { scan_id: header.scan_id.clone(), started_at: header.started_at, page: None }),
        read_at: read.read_at,
        made_at: at,
        request_id: None,
        url: read.url.clone(),
    }
}
