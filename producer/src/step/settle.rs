//! A look-up's answer about a missing device.

use std::collections::BTreeSet;

use windfall_schemas::envelope::Channel;

use super::Step;
use crate::assignment::UNASSIGNED;
use crate::diff::diff;
use crate::event::{self, Origin, ScanPage, Seen, Telling};
use crate::memory::Memory;
use crate::observation::{Observation, Reads, RequestNumber};
use crate::release::{LookUp, Verdict, classify};

/// Where and when a look-up was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The request, in the order of the directory.
    pub request: RequestNumber,
    /// When its answer was read, in epoch milliseconds.
    pub read_at: i64,
    /// Apple's id of it.
    pub request_id: Option<String>,
    /// Its path.
    pub url: Option<String>,
}

/// Plans the transaction of a look-up: the release or the correction with the end of the suspicion, or its next try.
#[must_use]
pub fn settle(origin: &Origin, memory: &Memory, device_id: &str, answer: LookUp, reading: &Reading, at: i64) -> Step {
    let (Some(suspect), Some(known)) = (memory.scans.suspects.get(device_id), memory.fleet.get(device_id)) else {
        return cleared(origin, memory, device_id, at);
    };
    let scan = memory.scans.devices.as_ref();
    let shown = matches!(answer, LookUp::Found(_));
    let (observation, telling) = match classify(&known.value, &suspect.absence, answer, reading.read_at) {
        Verdict::Open { why } => {
            let scan_id = scan.map_or("", |scan| scan.scan_id.as_str());
            let part = suspect.tried(why, at).part(&origin.org, device_id, scan_id, at);
            return Step { parts: vec![part], ..Step::default() };
        }
        Verdict::Released { after, evidence } => {
            let request = Some(reading.request);
            let reads = Reads { attributes: request, server: request, release: request };
            let telling = if shown { Telling { evidence, ..Telling::shown() } } else { Telling::inferred(evidence) };
            (Observation { value: *after, reads }, telling)
        }
        Verdict::Present { found } => {
            // A single read does not name the service, but its status says whether there is one.
            let unassigned = found.status.as_deref() == Some(UNASSIGNED);
            let shown = Observation::shown(*found, reading.request);
            let observation = if unassigned { shown.with_server(None, reading.request) } else { shown };
            (observation, Telling::shown())
        }
    };
    let mut step = cleared(origin, memory, device_id, at);
    step.observed = vec![(device_id.to_owned(), observation.reads)];
    step.observed_at = reading.read_at;
    let seen = Seen {
        channel: Channel::Lookup,
        scan: scan.map(|scan| ScanPage { scan_id: scan.scan_id.clone(), started_at: scan.started_at, page: None }),
        read_at: reading.read_at,
        made_at: at,
        request_id: reading.request_id.clone(),
        url: reading.url.clone(),
    };
    let scan_id = scan.map_or("", |scan| scan.scan_id.as_str());
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
