//! A look-up's answer about a missing device.

use std::collections::BTreeSet;

use windfall_schemas::envelope::Channel;

use super::Step;
use crate::apple::Answer;
use crate::assignment::UNASSIGNED;
use crate::diff::diff;
use crate::event::{self, Origin, Seen, Telling};
use crate::memory::Memory;
use crate::observation::{Observation, Reads};
use crate::release::{LookUp, Verdict, classify};

/// Plans the transaction of a look-up: the release or the correction with the end of the suspicion, or its next try.
#[must_use]
pub fn settle(origin: &Origin, memory: &Memory, device_id: &str, said: LookUp, answer: &Answer, at: i64) -> Step {
    let read_at = answer.received_at.timestamp_millis();
    let (Some(suspect), Some(known)) = (memory.scans.suspects.get(device_id), memory.fleet.get(device_id)) else {
        return cleared(origin, memory, device_id, at);
    };
    let scan = memory.scans.devices.as_ref();
    let scan_id = scan.map_or("", |scan| scan.scan_id.as_str());
    let shown = matches!(said, LookUp::Found(_));
    let (observation, telling) = match classify(&known.value, &suspect.absence, said, read_at) {
        Verdict::Open { why } => {
            let part = suspect.tried(why, at).part(&origin.org, device_id, scan_id, at);
            return Step { parts: vec![part], ..Step::default() };
        }
        Verdict::Released { after, evidence } => {
            let request = Some(answer.number);
            let reads = Reads { attributes: request, server: request, release: request };
            let telling = if shown { Telling { evidence, ..Telling::shown() } } else { Telling::inferred(evidence) };
            (Observation { value: after, reads }, telling)
        }
        Verdict::Present { found } => {
            // A single read does not name the service, but its status says whether there is one.
            let unassigned = found.status.as_deref() == Some(UNASSIGNED);
            let shown = Observation::shown(found, answer.number);
            let observation = if unassigned { shown.with_server(None, answer.number) } else { shown };
            (observation, Telling::shown())
        }
    };
    let mut step = cleared(origin, memory, device_id, at);
    step.observed = vec![(device_id.to_owned(), observation.reads)];
    step.observed_at = read_at;
    let seen = Seen {
        channel: Channel::Lookup,
        scan: scan.map(|scan| scan.at(None)),
        read_at,
        made_at: at,
        request_id: answer.request_id.clone(),
        url: Some(answer.path.clone()),
    };
    step.traceparent = event::traceparent(scan_id, &format!("look-up {device_id}"));
    match diff(&memory.fleet, observation) {
        Some(change) => step.devices.push(event::envelope(origin, &seen, change, telling)),
        None => step.unchanged = 1,
    }
    step
}

fn cleared(origin: &Origin, memory: &Memory, device_id: &str, at: i64) -> Step {
    let parts = memory.scans.clear(&origin.org, &BTreeSet::from([device_id]), at);
    Step { parts, ..Step::default() }
}
