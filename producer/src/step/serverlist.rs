//! The beginning of a scan: the management services, before the first page.

use std::collections::{BTreeMap, BTreeSet};

use windfall_schemas::envelope::Channel;
use windfall_schemas::notification::Notification;
use windfall_schemas::server::ServerValue;

use super::Step;
use super::page::snapshot_marks;
use crate::apple::{Linkage, PageOf, ServerList};
use crate::assignment::Assignments;
use crate::breaker::plan_hash;
use crate::checkpoint::{DEVICES, Header, Missing, SERVERS, ScanState, Scope};
use crate::diff::{ServerChange, diff_server, removed_server};
use crate::event::{self, Origin, Seen, Telling};
use crate::fields::Fields as _;
use crate::memory::Memory;
use crate::notice;

/// A list that lacks most of the servers is believed when it has lacked them for this long, in milliseconds: longer than an
/// incident lasts, and what is believed wrongly is undone by the next list that holds them.
const BELIEVED_AFTER: i64 = 24 * 60 * 60 * 1000;

/// Apple's word for a server that is listed although it was deleted.
const DELETED: &str = "DELETED";

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
    /// How often each field was not read, since its attribute had a value that could not be understood.
    pub unread: BTreeMap<String, u64>,
    /// More of the known servers than are believed to be gone at once; believed, and so removed, in a complete list.
    pub missing: Option<Missing>,
}

impl ReadServers {
    /// Takes the pages of the list, and why it ended before its end, if it did; `at` counts where no page was read.
    ///
    /// A list is complete when it was read to its end, every item could be read, and its total, where given, fits. One
    /// that is empty, or lacks more than half of the servers known, is taken for a fault of Apple's, and nothing is removed:
    ///
    /// | it lacks | since | the list is |
    /// | --- | --- | --- |
    /// | half of the known servers, or fewer | | complete |
    /// | more | a list of this scan, or of one less than a day ago | not complete |
    /// | more, and exactly what every readable list since lacked | a day or longer | complete |
    pub fn listed(memory: &Memory, pages: Vec<ServerList>, cut: Option<String>, at: i64) -> Self {
        let mut read = Self { read_at: at, url: pages.first().map(|page| page.answer.path.clone()), ..Self::default() };
        read.faults.extend(cut.map(|why| format!("the list of servers was not read: {why}")));
        let rejected: usize = pages.iter().map(|page| page.rejected.len()).sum();
        if rejected > 0 {
            read.faults.push(format!("{rejected} servers could not be read"));
        }
        let ids: BTreeSet<&str> =
            pages.iter().flat_map(|page| &page.items).map(|item| item.value.server_id.as_str()).collect();
        // A list that was not read says nothing of what others lacked.
        read.missing = memory.scans.servers.as_ref().and_then(|last| last.missing.clone());
        if read.faults.is_empty() {
            let fault = contradiction(&pages, ids.len()).or_else(|| {
                let read_at = pages.last().map_or(at, |page| page.answer.received_at.timestamp_millis());
                read.shortened(memory, &ids, read_at)
            });
            read.faults.extend(fault.map(|why| format!("the list of servers is not complete: {why}")));
        }
        read.complete = read.faults.is_empty();
        for page in pages {
            read.read_at = page.answer.received_at.timestamp_millis();
            for mut item in page.items {
                if let Some(known) = memory.servers.get(&item.value.server_id) {
                    item.value.keep(&known.value, |field, _| item.unread.contains(&field));
                }
                for field in item.unread {
                    *read.unread.entry(format!("servers.{field}")).or_default() += 1;
                }
                read.servers.push(item.value);
            }
        }
        read
    }

    /// Notes what a list lacks that was read to its end, and says why it is not believed.
    fn shortened(&mut self, memory: &Memory, ids: &BTreeSet<&str>, read_at: i64) -> Option<String> {
        let known = memory.servers.iter().count();
        let gone = memory.servers.iter().map(|(id, _)| id).filter(|id| !ids.contains(id));
        let gone: BTreeSet<String> = gone.map(str::to_owned).collect();
        if gone.len() * 2 <= known {
            self.missing = None;
            return None;
        }
        let hash = plan_hash(&gone);
        let earlier = self.missing.take().filter(|earlier| earlier.hash == hash);
        let since = earlier.map_or(read_at, |earlier| earlier.since);
        self.missing = Some(Missing { hash, since });
        let believed_at = since + BELIEVED_AFTER;
        (read_at < believed_at).then(|| {
            let what = if ids.is_empty() {
                format!("it is empty, and {known} servers are known")
            } else {
                format!("{} of {known} servers are missing, more than half", gone.len())
            };
            format!("{what}; believed if every list says so until {}", event::rfc3339(believed_at))
        })
    }

    /// Tells whether the servers that the list lacks are gone: where they are most of all, only if nothing else was unread.
    fn removes(&self) -> bool {
        self.complete && (self.missing.is_none() || self.faults.is_empty())
    }
}

/// Tells whether a server is listed in a way that lets its linkage list be missing: a 404 then means that it has nobody.
pub fn has_nobody(server: &ServerValue) -> bool {
    server.status.as_deref() == Some(DELETED) || server.device_count == Some(0)
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
    assignments.cut_short(server_id);
    Some(format!("the devices of server `{server_id}` were not read to the end: {why}"))
}

/// Tells how a list contradicts the totals that it gave itself; one that moved meanwhile may lie between two of them.
fn contradiction<T>(pages: &[PageOf<T>], distinct: usize) -> Option<String> {
    let totals = || pages.iter().filter_map(|page| page.total);
    let (smallest, largest) = (totals().min()?, totals().max()?);
    let read = distinct as u64;
    (read < smallest || read > largest).then(|| format!("it gave a total of {largest}, and {read} were read"))
}

/// Plans the transaction before a page: the changes of the servers, and the header of the scan that begins or goes on.
///
/// A server that a complete list lacks is gone: `d`, then a tombstone. What could not be read is noted in the header, and
/// what is not believed in that of the servers.
#[must_use]
pub fn begin(origin: &Origin, memory: &Memory, header: &Header, read: &ReadServers, at: i64) -> (Step, Header) {
    let mut header = header.clone();
    let mut step = Step { traceparent: event::traceparent(&header.scan_id, "servers"), ..Step::default() };
    let mut servers = Header::begin(&origin.org, memory.scans.servers.as_ref(), &header.instance, header.started_at);
    let changes = changes(memory, read);
    let first_scan = !servers.read_to_end;
    let first_seen = changes.iter().map(|change| change.before.is_none());
    let marks = snapshot_marks(first_seen, memory.servers.is_empty(), first_scan, read.complete);
    let seen = Seen {
        channel: Channel::Scan,
        scan: Some(header.at(None)),
        read_at: read.read_at,
        made_at: at,
        request_id: None,
        url: read.url.clone(),
    };
    for (change, snapshot) in changes.into_iter().zip(marks) {
        servers.count(change.kind.as_str());
        let telling = match change.after {
            Some(_) => Telling { snapshot, ..Telling::shown() },
            None => Telling::inferred(absent(&header, read)),
        };
        step.servers.push(event::envelope(origin, &seen, change, telling));
    }
    let missed_before = servers.missing.take();
    servers.missing = read.missing.clone().filter(|_| !read.removes());
    let news = read.complete && (first_scan || !step.servers.is_empty());
    if news || servers.missing != missed_before {
        servers.read_to_end |= read.complete;
        servers.state = if read.complete { ScanState::Complete } else { ScanState::Incomplete };
        servers.scan_id = format!("{}-servers-{}", origin.org, servers.number);
        servers.devices = read.servers.len() as u64;
        servers.finished_at = Some(at);
        step.parts.push(servers.part(&origin.org, SERVERS));
    }
    header.unread.extend(read.unread.clone());
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

/// What the removal of a server rests on.
fn absent(header: &Header, read: &ReadServers) -> Vec<String> {
    let since = read.missing.as_ref().map(|missing| format!("missing since {}", event::rfc3339(missing.since)));
    [format!("scan {}: absent", header.number)].into_iter().chain(since).collect()
}

/// Tells of a scan that never came to its end and is not resumed either.
fn left_behind(origin: &Origin, memory: &Memory, header: &Header, at: i64) -> Option<Notification> {
    let last = memory.scans.devices.as_ref()?;
    let abandoned = last.state == ScanState::Running && last.scan_id != header.scan_id;
    abandoned.then(|| notice::aborted(origin, last, "the scan was begun anew", at))
}

fn changes(memory: &Memory, read: &ReadServers) -> Vec<ServerChange> {
    let mut met = BTreeSet::new();
    let listed = read.servers.iter().filter(|server| met.insert(server.server_id.clone()));
    let mut changes: Vec<ServerChange> =
        listed.filter_map(|server| diff_server(&memory.servers, server.clone())).collect();
    if read.removes() {
        let gone = memory.servers.iter().filter(|(id, _)| !met.contains(*id));
        changes.extend(gone.map(|(_, known)| removed_server(known)));
    }
    changes
}
