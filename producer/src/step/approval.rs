//! A person's approval of a held plan.

use std::sync::Arc;

use serde::Serialize;
use windfall_schemas::envelope::Channel;
use windfall_schemas::scan::ScanPart;
use windfall_schemas::signal::ApproveScan;

use super::{Step, Unwritable, reject_of_step};
use crate::checkpoint::{self, Approving, Plan, ScanRecord, Scans};
use crate::diff::diff;
use crate::event::{self, Origin, ScanPage, Seen, Telling};
use crate::memory::Memory;
use crate::notice;
use crate::observation::{Observation, Reads, RequestNumber};
use crate::release::left;

/// What became of an approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "answer", rename_all = "lowercase")]
pub enum Answer {
    /// The plan was published.
    Approved {
        /// Devices released.
        released: usize,
    },
    /// The plan has changed since the person saw it.
    Stale {
        /// The hash that the plan has now.
        plan_hash: String,
    },
    /// There is no such plan: it has ended, was approved before, or never was.
    Unknown,
}

/// Plans the transaction of an approval: the releases of a piece of the plan and the piece's tombstone, and with the last one
/// the answer and the place in the signals. Without an answer there is more to do: apply the step, and ask again.
///
/// A plan of up to 5,000 devices is published all or nothing. A larger one does not fit what a transaction may take: its
/// first piece asks for the hash of the whole and leaves a record of the approval, by which the others go on, also after a
/// crash, since the signal is read again until its place has moved.
///
/// What the plan holds is what the newest complete scan still misses: a device that is listed again leaves its plan with
/// the page that lists it. `newest` is the newest request of the directory, `next_offset` the place behind the signal.
#[must_use]
pub fn approve(
    origin: &Origin,
    memory: &Memory,
    signal_id: &str,
    approval: &ApproveScan,
    (newest, next_offset): (RequestNumber, i64),
    at: i64,
) -> (Step, Option<Answer>) {
    let mut step = Step::default();
    let begun = memory.scans.approving.as_ref().filter(|it| it.signal == signal_id && it.plan == approval.plan);
    let released = begun.map_or(0, |begun| begun.released);
    let answer = match memory.scans.plans.get(&approval.plan) {
        // What is left of the plan was listed again.
        None if begun.is_some() => Answer::Approved { released },
        None => Answer::Unknown,
        Some(plan) if begun.is_none() && plan.hash() != approval.plan_hash => Answer::Stale { plan_hash: plan.hash() },
        Some(plan) => {
            let (ids, removals, last) = plan.batch(&origin.org, &approval.plan);
            for id in ids {
                release(origin, memory, signal_id, id, plan, newest, at, &mut step);
            }
            step.parts.extend(removals);
            step.observed_at = at;
            step.traceparent = event::traceparent(&plan.scan_id, &format!("approval {signal_id}"));
            let released = released + step.devices.len();
            if !last {
                let (signal, plan) = (signal_id.to_owned(), approval.plan.clone());
                step.parts.push(Approving { signal, plan, released }.part(&origin.org, at));
                return (step, None);
            }
            Answer::Approved { released }
        }
    };
    if memory.scans.approving.is_some() {
        step.parts.push(ScanRecord::remove(&origin.org, &Approving::place()));
    }
    step.notifications.push(notice::answered(origin, signal_id, approval, &answer, at));
    step.parts.push(Scans::signals_part(&origin.org, next_offset, at));
    (step, Some(answer))
}

/// Makes of an approval that cannot be written the same without the devices whose records are the reason.
///
/// They leave the plan with the others, and are suspected again by the next scan that misses them.
#[must_use]
pub fn approve_others(
    origin: &Origin,
    (mut step, answer): (Step, Option<Answer>),
    signal_id: &str,
    approval: &ApproveScan,
    unwritable: &[Unwritable],
    at: i64,
) -> (Step, Option<Answer>) {
    let planned = step.devices.len();
    reject_of_step(origin, &mut step, unwritable, at);
    let rejected = planned - step.devices.len();
    let Some(Answer::Approved { released }) = answer else {
        for part in step.parts.iter_mut().filter(|part| ScanPart::parse(&part.key.part) == Approving::place()) {
            let written = part.value.as_ref().and_then(checkpoint::detail);
            if let Some(Approving { signal, plan, released }) = written {
                *part = Approving { signal, plan, released: released - rejected }.part(&origin.org, at);
            }
        }
        return (step, answer);
    };
    let answer = Answer::Approved { released: released - rejected };
    step.notifications = vec![notice::answered(origin, signal_id, approval, &answer, at)];
    (step, Some(answer))
}

#[allow(clippy::too_many_arguments, reason = "one call site, all of it context")]
fn release(
    origin: &Origin,
    memory: &Memory,
    signal_id: &str,
    device_id: &str,
    plan: &Plan,
    newest: RequestNumber,
    at: i64,
    step: &mut Step,
) {
    let Some(known) = memory.fleet.get(device_id).filter(|known| !known.value.is_released()) else { return };
    let Some(first) = plan.first_missed(device_id) else { return };
    let request = Some(newest);
    let reads = Reads { attributes: request, server: request, release: request };
    let observation = Observation { value: Box::new(left(Arc::unwrap_or_clone(known.value), first.ended_at)), reads };
    let seen = Seen {
        channel: Channel::Operator,
        scan: Some(ScanPage { scan_id: plan.scan_id.clone(), started_at: plan.origin.started_at, page: None }),
        read_at: first.ended_at,
        made_at: at,
        request_id: None,
        url: None,
    };
    // The breaker holds devices that are listed as released too, and the header knows only how many they were.
    let listed = memory.scans.devices.as_ref().is_some_and(|header| header.withheld > 0);
    let missed = if listed { "absent, or listed as released" } else { "absent" };
    let evidence = vec![format!("scan {}: {missed}", first.scan), format!("approved by signal {signal_id}")];
    if let Some(change) = diff(&memory.fleet, observation) {
        step.observed.push((device_id.to_owned(), reads));
        step.devices.push(event::envelope(origin, &seen, change, Telling::inferred(evidence)));
    }
}
