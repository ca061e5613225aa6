//! The beginning of a scan: the management services, before the first page.

use std::collections::BTreeSet;

use windfall_schemas::envelope::{Channel, Snapshot};
use windfall_schemas::notification::Notification;
use windfall_schemas::server::ServerValue;

use super::Step;
use crate::apple::{Linkage, PageOf, ServerList};
use crate::assignment::Assignments;
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

impl ReadServers {
    /// Takes the pages of the list, and why it ended before its end, if it did; `at` counts where no page was read.
    ///
    /// A list is complete when it was read to its end, every item could be read, and its total, where given, fits. One
    /// that is empty, or lacks more than half of the servers known, is taken for a fault of Apple's: nothing is removed.
    #[must_use]
    pub fn listed(memory: &Memory, pages: Vec<ServerList>, cut: Option<String>, at: i64) -> Self {
        let mut read = Self { read_at: at, url: pages.first().map(|page| page.answer.path.clone()), ..Self::default() };
        read.faults.extend(cut.map(|why| format!("the list of servers was not read: {why}")));
        let rejected: usize = pages.iter().map(|page| page.rejected.len()).sum();
        if rejected > 0 {
            read.faults.push(format!("{rejected} servers could not be read"));
        }
        let ids: BTreeSet<&str> =
            pages.iter().flat_map(|page| &page.items).map(|item| item.value.server_id.as_str()).collect();
        if read.faults.is_empty() {
            let fault = contradiction(&pages, ids.len()).or_else(|| shortened(memory, &ids));
            read.faults.extend(fault.map(|why| format!("the list of servers is not complete: {why}")));
        }
        read.complete = read.faults.is_empty();
        for page in pages {
            read.read_at = page.answer.received_at.timestamp_millis();
            read.servers.extend(page.items.into_iter().map(|item| item.value));
        }
        read
    }
}

/// Adds a server's linkage list to the join; returns what keeps the list from being complete, `cut` among it.
pub fn link(assignments: &mut Assignments, server_id: &str, pages: &[Linkage], cut: Option<String>) -> Option<String> {
    let ids: BTreeSet<&str> = pages.iter().flat_map(|page| &page.items).map(|item| item.value.as_str()).collect();
    for id in &ids {
        assignments.link(id, server_id);
    }
    let rejected: usize = pages.iter().map(|page| page.rejected.len()).sum();
    let unread = (rejected > 0).then(|| format!("{rejected} of its devices could not be read"));
    let why = cut.or(unread).or_else(|| contradiction(pages, ids.len()))?;
    assignments.cut_short();
    Some(format!("the devices of server `{server_id}` were not read to the end: {why}"))
}

/// Tells how a list contradicts the totals that it gave itself; one that moved meanwhile may lie between two of them.
fn contradiction<T>(pages: &[PageOf<T>], distinct: usize) -> Option<String> {
    let totals = || pages.iter().filter_map(|page| page.total);
    let (smallest, largest) = (totals().min()?, totals().max()?);
    let read = distinct as u64;
    (read < smallest || read > largest).then(|| format!("it gave a total of {largest}, and {read} were read"))
}

fn shortened(memory: &Memory, ids: &BTreeSet<&str>) -> Option<String> {
    let known = memory.servers.iter().count();
    let gone = memory.servers.iter().filter(|(id, _)| !ids.contains(id)).count();
    if known > 0 && ids.is_empty() {
        return Some(format!("it is empty, and {known} servers are known"));
    }
    (gone * 2 > known).then(|| format!("{gone} of {known} servers are missing, more than half"))
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
