//! A person's approval of a held plan.

use windfall_schemas::envelope::Channel;
use windfall_schemas::signal::ApproveScan;

use super::{Step, Unwritable, reject_of_step};
use crate::checkpoint::Scans;
use crate::diff::diff;
use crate::event::{self, Origin, ScanPage, Seen, Telling};
use crate::memory::Memory;
use crate::notice;
use crate::observation::{Observation, Reads, RequestNumber};
use crate::release::left;

/// What became of an approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The plan was published: so many devices.
    Approved {
        /// Devices released.
        released: usize,
    },
    /// The plan has changed since the person saw it.
    Stale {
        /// The hash that the plan has now.
        hash: String,
    },
    /// There is no such plan: it has ended, was approved before, or never was.
    Unknown,
}

/// Plans the transaction of an approval: the releases, the tombstones of the plan, the answer, and the place in the
/// signals, all or nothing.
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
) -> (Step, Answer) {
    let mut step = Step::default();
    let answer = match memory.scans.plans.get(&approval.plan) {
        None => Answer::Unknown,
        Some(plan) if plan.hash() != approval.plan_hash => Answer::Stale { hash: plan.hash() },
        Some(plan) => {
            for id in plan.ids() {
                release(origin, memory, signal_id, &id, plan, newest, at, &mut step);
            }
            step.parts.extend(plan.removal(&origin.org, &approval.plan));
            step.observed_at = at;
            step.traceparent = event::traceparent(&plan.scan_id, &format!("approval {signal_id}"));
            Answer::Approved { released: step.devices.len() }
        }
    };
    step.notifications.push(notice::answered(origin, signal_id, approval, &answer, at));
    step.parts.push(Scans::signals_part(&origin.org, next_offset, at));
    (step, answer)
}

/// Makes of an approval that cannot be written the same without the devices whose records are the reason.
///
/// They leave the plan with the others, and are suspected again by the next scan that misses them.
#[must_use]
pub fn approve_others(
    origin: &Origin,
    mut step: Step,
    signal_id: &str,
    approval: &ApproveScan,
    unwritable: &[Unwritable],
    at: i64,
) -> (Step, Answer) {
    reject_of_step(origin, &mut step, unwritable, at);
    let answer = Answer::Approved { released: step.devices.len() };
    step.notifications = vec![notice::answered(origin, signal_id, approval, &answer, at)];
    (step, answer)
}

#[allow(clippy::too_many_arguments, reason = "one call site, all of it context")]
fn release(
    origin: &Origin,
    memory: &Memory,
    signal_id: &str,
    device_id: &str,
    plan: &crate::checkpoint::Plan,
    newest: RequestNumber,
    at: i64,
    step: &mut Step,
) {
    let Some(known) = memory.fleet.get(device_id).filter(|known| !known.value.is_released()) else { return };
    let first = plan.first_missed(device_id);
    let request = Some(newest);
    let reads = Reads { attributes: request, server: request, release: request, coverage: None };
    let observation = Observation { value: left(&known.value, first.ended_at), reads };
    let seen = Seen {
        channel: Channel::Operator,
        scan: Some(ScanPage { scan_id: plan.scan_id.clone(), started_at: plan.origin.started_at, page: None }),
        read_at: first.ended_at,
        made_at: at,
        request_id: None,
        url: None,
    };
    let evidence = vec![format!("scan {}: absent", first.scan), format!("approved by signal {signal_id}")];
    if let Some(change) = diff(&memory.fleet, observation) {
        step.observed.push((device_id.to_owned(), reads));
        step.devices.push(event::envelope(origin, &seen, change, Telling::inferred(evidence)));
    }
}
