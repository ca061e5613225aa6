//! The end of a scan: who is missing, and whether so many may be.

use std::collections::BTreeSet;

use windfall_schemas::scan::ScanPart;

use super::Step;
use crate::breaker::{self, Case, Limits};
use crate::checkpoint::{DEVICES, Header, Plan, PlanOrigin, ScanRecord, ScanState, Scope, Suspect};
use crate::event::Origin;
use crate::memory::Memory;
use crate::notice;

/// When something was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// By our own wall clock, which may be set, in epoch milliseconds.
    pub wall: i64,
    /// By what proves how far two moments lie apart, also over restarts: the brokers' clock at the take-over, and from there
    /// on our clock that never goes back; in epoch milliseconds.
    pub steady: i64,
}

impl From<i64> for Moment {
    /// Takes a wall clock for one that nobody sets.
    fn from(at: i64) -> Self {
        Self { wall: at, steady: at }
    }
}

/// Plans the transaction that ends a scan whose last page is read: suspects or a held plan, then the header.
///
/// Suspects are the live devices last observed before the scan began and not seen in it. The breaker counts them before
/// any look-up is made. When a suspect was missed is kept by the steady clock: a wall clock that jumps ages no absence. Where absence proves nothing, suspicions and plans stay as they are.
#[must_use]
pub fn close(
    origin: &Origin,
    limits: &Limits,
    memory: &Memory,
    header: &Header,
    at: impl Into<Moment>,
) -> (Step, Header) {
    let moment = at.into();
    let at = moment.wall;
    let mut header = header.clone();
    let seen = memory.scans.seen();
    header.judge(seen.len() as u64 + header.withheld);
    header.known = memory.fleet.len() as u64;
    header.finished_at = Some(at);
    header.updated_at = at;
    let mut step = Step::default();
    header.state = ScanState::Complete;
    if header.absence_counts() {
        let (held, missing) = missing(memory, &header, &seen, at);
        let case = Case {
            released_lately: memory.fleet.releases_since(at - breaker::WINDOW),
            suspects: missing.len(),
            held,
            live: memory.fleet.live(),
            listed: seen.len(),
        };
        match limits.ask(&case) {
            Some(reason) => {
                hold(origin, memory, &header, &missing, reason, at, &mut step);
                header.state = ScanState::Held;
            }
            None => suspect(origin, memory, &header, &missing, moment, &mut step),
        }
        if held > 0 {
            header.state = ScanState::Held;
        }
    }
    if header.state == ScanState::Complete && !header.reasons.is_empty() {
        header.state = ScanState::Incomplete;
    }
    step.parts.push(header.part(&origin.org, DEVICES));
    (step, header)
}

/// Plans the transaction that ends a scan which cannot go on.
#[must_use]
pub fn give_up(origin: &Origin, header: &Header, why: &str, at: i64) -> (Step, Header) {
    let mut header = header.clone();
    header.note(Scope::Devices, Some(header.page + 1), why);
    header.state = ScanState::Incomplete;
    header.finished_at = Some(at);
    header.updated_at = at;
    let mut step = Step::default();
    step.parts.push(header.part(&origin.org, DEVICES));
    step.notifications.push(notice::aborted(origin, &header, why, at));
    (step, header)
}

/// Plans the transaction that forgets the ids seen, once the scan has ended.
#[must_use]
pub fn forget_seen(origin: &Origin, memory: &Memory) -> Step {
    let pages = memory.scans.seen_pages();
    let parts = pages.into_iter().map(|page| ScanRecord::remove(&origin.org, &ScanPart::Seen(page))).collect();
    Step { parts, ..Step::default() }
}

/// Lists the live devices that the scan missed: how many plans hold already, and the others.
///
/// A rejected item without a usable id was seen by its serial number.
fn missing(memory: &Memory, header: &Header, seen: &BTreeSet<&str>, at: i64) -> (usize, BTreeSet<String>) {
    let unseen = memory.fleet.live_devices().filter(|(id, known)| {
        // What was observed in the future was observed by a clock that was ahead.
        (known.observed_at() < header.started_at || known.observed_at() > at)
            && !seen.contains(id)
            && !seen.contains(known.value().serial_number.as_str())
    });
    let (held, missing): (Vec<_>, Vec<_>) = unseen.map(|(id, _)| id).partition(|id| memory.scans.held(id));
    (held.len(), missing.into_iter().map(str::to_owned).collect())
}

fn hold(
    origin: &Origin,
    memory: &Memory,
    header: &Header,
    missing: &BTreeSet<String>,
    reason: String,
    at: i64,
    step: &mut Step,
) {
    for id in memory.scans.suspects.keys().filter(|id| missing.contains(*id)) {
        step.parts.push(ScanRecord::remove(&origin.org, &ScanPart::Suspect(id.clone())));
    }
    let facts = PlanOrigin {
        reason: reason.clone(),
        scan: header.number,
        started_at: header.started_at,
        ended_at: at,
        count: missing.len(),
    };
    let earlier = memory.scans.suspects.iter().filter(|(id, _)| missing.contains(*id));
    let earlier = earlier.map(|(id, suspect)| (id.clone(), suspect.absence.into())).collect();
    let plan = Plan::new(&header.scan_id, facts, missing, &earlier);
    step.notifications.push(notice::held(origin, header, &plan, &reason, at));
    step.parts.extend(plan.parts(&origin.org, &header.scan_id, at));
}

fn suspect(origin: &Origin, memory: &Memory, header: &Header, missing: &BTreeSet<String>, at: Moment, step: &mut Step) {
    for id in missing {
        let suspect = match memory.scans.suspects.get(id) {
            Some(known) => known.missed_again(header.number, at.steady),
            None => Suspect { next_try_at: at.wall, ..Suspect::new(header.number, at.steady) },
        };
        step.parts.push(suspect.part(&origin.org, id, &header.scan_id, at.wall));
    }
}
