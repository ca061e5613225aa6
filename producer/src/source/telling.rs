//! What a source reports about itself: metrics, its status, log messages.

use std::time::Duration;

use metrics::{counter, gauge, histogram};
use tracing::{debug, info, warn};
use windfall_runtime::health::{Progress, StatusPart};
use windfall_runtime::metrics as names;
use windfall_runtime::metrics::label;
use windfall_schemas::envelope::Op;

use super::Source;
use crate::budget::Pace;
use crate::checkpoint::{Header, ScanState};
use crate::ledger::UnreadableRecords;
use crate::memory::Memory;
use crate::step::Step;

/// Counts what a commit has made durable.
pub(super) fn committed(org: &str, step: &Step, memory: &Memory) {
    let source = || org.to_owned();
    for event in &step.devices {
        // A first reading tells nothing of how long a change took to be seen.
        if let Some(made_at) = event.ts_ms.filter(|_| event.op == Op::Update) {
            let lag = Duration::from_millis(u64::try_from(made_at - event.source.ts_ms).unwrap_or(0));
            histogram!(names::SOURCE_LAG_SECONDS, label::SOURCE => source()).record(lag.as_secs_f64());
        }
    }
    let kinds = step.devices.iter().map(|event| &event.kind).chain(step.servers.iter().map(|event| &event.kind));
    for kind in kinds {
        let kind = kind.as_ref().map_or("", |kind| kind.as_str()).to_owned();
        counter!(names::CHANGES, label::SOURCE => source(), label::KIND => kind).increment(1);
    }
    counter!(names::UNCHANGED, label::SOURCE => source()).increment(step.unchanged);
    counter!(names::REJECTS, label::SOURCE => source()).increment(step.rejects.len() as u64);
    let held: usize = memory.scans.plans.values().map(crate::checkpoint::Plan::len).sum();
    gauge!(names::SCAN_HELD, label::SOURCE => source()).set(held as f64);
}

/// Tells that a page is done: how far the scan is and how long it will take.
pub(super) fn page(source: &Source, header: &Header, step: &Step, memory: &Memory, pace: &Pace, began: i64) {
    let org = source.org().to_owned();
    counter!(names::SCAN_PAGES, label::SOURCE => org.clone()).increment(1);
    gauge!(names::SCAN_DEVICES, label::SOURCE => org).set(header.devices as f64);
    let total = header.totals.last().copied().unwrap_or(0).max(memory.fleet.live() as u64).max(header.devices);
    let elapsed = source.clock.now().timestamp_millis() - began;
    source.part.at(Some(Progress {
        job: "scan".to_owned(),
        done: header.devices,
        total: Some(total),
        elapsed_s: u64::try_from(elapsed / 1000).unwrap_or(0),
    }));
    source.part.detail("requests_this_period", format!("{} of {}", pace.used, pace.limit));
    debug!(page = header.page, changes = step.devices.len(), unchanged = step.unchanged, "page committed");
}

/// Shows which of our own records cannot be read, and how many records of other writers were passed over.
pub(super) fn unreadable(part: &StatusPart, unreadable: &UnreadableRecords) {
    match unreadable.is_empty() {
        true => part.clear("unreadable"),
        false => part.detail("unreadable", unreadable.places()),
    }
    match unreadable.passed_over {
        0 => part.clear("passed_over"),
        count => part.detail("passed_over", count),
    }
}

/// Tells that a request waits.
pub(super) fn waiting(part: &StatusPart, pace: &Pace) {
    if pace.throttled {
        part.paused(format!("Apple limits requests for another {} s", pace.wait.as_secs()));
    }
}

/// Tells how a scan has ended.
pub(super) fn ended(source: &Source, header: &Header, memory: &Memory, elapsed: Duration) {
    let org = source.org().to_owned();
    let complete = matches!(header.state, ScanState::Complete | ScanState::Held);
    gauge!(names::SCAN_COMPLETE, label::SOURCE => org.clone()).set(if complete { 1.0 } else { 0.0 });
    if complete {
        let at = header.finished_at.unwrap_or(header.updated_at) as f64 / 1000.0;
        gauge!(names::SOURCE_LAST_SUCCESS, label::SOURCE => org.clone(), label::JOB => "scan").set(at);
    }
    source.part.at(None);
    source.part.detail("last_scan", header.scan_id.clone());
    source.part.detail("last_scan_state", header.state.as_str());
    source.part.detail("suspects", memory.scans.suspects.len() as u64);
    source.part.detail("held_plans", memory.scans.plans.len() as u64);
    source.part.detail("devices", memory.fleet.live() as u64);
    let changes: u64 = header.counts.values().sum();
    info!(
        source = org,
        scan_id = header.scan_id,
        state = header.state.as_str(),
        devices = header.devices,
        changes,
        missing = memory.scans.suspects.len(),
        requests = header.requests,
        elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        "scan finished"
    );
    for reason in &header.reasons {
        warn!(source = org, scan_id = header.scan_id, page = reason.page, why = reason.why, "scan is incomplete");
    }
    if header.more_reasons > 0 {
        warn!(source = org, scan_id = header.scan_id, more = header.more_reasons, "more reasons than are kept");
    }
    for (field, count) in &header.unread {
        counter!(names::ATTRIBUTES_UNREAD, label::SOURCE => source.org().to_owned(), label::FIELD => field.clone())
            .increment(*count);
        warn!(
            source = org,
            scan_id = header.scan_id,
            field,
            count,
            help = "see the values as Apple sent them in `unmapped`, and report them: this version does not know their form",
            "attribute not understood, its field stays as last known"
        );
    }
    for (plan, held) in &memory.scans.plans {
        let allowed = source.breaker.allowed(memory.fleet.live());
        warn!(
            source = org,
            plan,
            held = held.len(),
            allowed,
            reason = held.origin.reason,
            help =
                "see `windfall scans show`, then `windfall scans approve` or wait until the devices are listed again",
            "releases are held"
        );
    }
}
