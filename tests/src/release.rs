//! Law L5: no false removal. A device that the log calls gone was gone, and each thing that the event cites was so.

use std::collections::HashMap;

use chrono::{DateTime, Duration, Utc};
use serde_json::Value as Json;
use windfall_simulator::journal::{Line, Response, Truth};

use crate::checker::{Breach, events, made, place, text, time};
use crate::image;
use crate::journal::{Scan, good, responses, scans_ended};
use crate::topics::Entry;
use crate::truth::{Walk, lives};

/// How far a control read may lie from the 404 that it vouches for.
const SAME_MINUTE: Duration = Duration::seconds(60);

/// L5: whatever makes a device released, by its images and not by its kind, follows a true release; the scans it cites were complete
/// and did not show the device; and a look-up said so: 200 with the date, or 404 with a control read in the same minute.
///
/// `op=d` is a removal too. Being released ends, as well, only when the device truly came back.
#[must_use]
pub fn no_false_release(journal: &[Line], truth: &Truth, scans: &[Entry], changes: &[Entry]) -> Vec<Breach> {
    let lives = lives(journal, truth);
    let scans = scans_ended(scans);
    let by_request = responses(journal).map(|answer| (answer.request_id.as_str(), answer)).collect();
    let proof = Proof { journal, scans: &scans, by_request };
    let mut breaches = Vec::new();
    let mut last: HashMap<&str, (bool, Walk<'_>)> = HashMap::new();
    for (entry, event) in events(changes) {
        let id = text(&entry.key, "device_id");
        let (was, walk) = last.entry(id).or_insert_with(|| (false, Walk::of(&lives, id)));
        let is = event["after"].is_null() || !event["after"]["released_from_org_date_time"].is_null();
        if is != *was && !walk.reach(made(event), |state| state.released == is) {
            let what = if is { "released" } else { "back" };
            breaches.push(format!("L5: {} is called {what}, and was not", place(entry)));
        }
        if is && (!*was || event["op"] == "d") {
            breaches.extend(proof.faults(id, event).into_iter().map(|why| format!("L5: {} {why}", place(entry))));
        }
        *was = is;
    }
    breaches
}

/// L5 for `abm.servers`: one that is called gone was removed before, and stood in no list of the scan that is cited.
#[must_use]
pub fn no_false_removal(journal: &[Line], truth: &Truth, servers: &[Entry]) -> Vec<Breach> {
    use windfall_simulator::journal::{ChangeKind, Record};
    let mut breaches = Vec::new();
    for (entry, event) in events(servers).filter(|(_, event)| event["after"].is_null()) {
        let (id, by) = (text(&entry.key, "server_id"), made(event));
        let removed = journal.iter().any(|line| match &line.record {
            Record::Change(change) => {
                change.kind == ChangeKind::ServerRemoved && change.server_id.as_deref() == Some(id) && change.at <= by
            }
            _ => false,
        });
        let stands = truth.servers.iter().any(|server| server.id == id);
        if !removed || stands {
            breaches.push(format!("L5: {} is called removed, and was not", place(entry)));
        }
        if strings(&event["evidence"]).filter_map(cited_scan).count() == 0 {
            breaches.push(format!("L5: {} cites no scan", place(entry)));
        }
        let from = time(&event["source"], "scan_started_ms");
        let listed = responses(journal).filter(|it| good(it) && it.route == "servers");
        if listed.filter(|it| from <= it.at_wall && it.at_wall <= by).any(|it| shows(&it.servers, id)) {
            // A server that left between two readings of one scan stood in the first.
            let last = responses(journal).filter(|it| good(it) && it.route == "servers" && it.at_wall <= by).last();
            if last.is_some_and(|answer| shows(&answer.servers, id)) {
                breaches.push(format!("L5: {} stands in the list that is cited for its absence", place(entry)));
            }
        }
    }
    breaches
}

fn shows(served: &[windfall_simulator::journal::Served], id: &str) -> bool {
    served.iter().any(|it| it.id.as_deref() == Some(id))
}

fn strings(list: &Json) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Json::as_str)
}

fn cited_scan(evidence: &str) -> Option<i64> {
    evidence.strip_prefix("scan ")?.strip_suffix(": absent")?.parse().ok()
}

/// What evidence is held against.
struct Proof<'a> {
    journal: &'a [Line],
    scans: &'a [Scan],
    by_request: HashMap<&'a str, &'a Response>,
}

impl Proof<'_> {
    /// Returns what is wrong with the evidence of a removal.
    fn faults(&self, id: &str, event: &Json) -> Vec<String> {
        let mut faults = Vec::new();
        let (mut cites, mut looked_up, mut ended) = (false, false, None);
        for evidence in strings(&event["evidence"]) {
            if let Some(number) = cited_scan(evidence) {
                cites = true;
                match self.absent(id, number, made(event)) {
                    Ok(at) => ended = ended.max(Some(at)),
                    Err(why) => faults.push(why),
                }
            } else if evidence.starts_with("lookup ") {
                looked_up = true;
            } else if evidence.ends_with(": listed as released") {
                return self.listed_as_released(id, event).into_iter().collect();
            } else {
                faults.push(format!("rests on `{evidence}`, which proves nothing here"));
            }
        }
        match ended {
            _ if !cites => faults.push("cites no scan that missed it".to_owned()),
            _ if !looked_up => faults.push("cites no look-up".to_owned()),
            None => {}
            Some(ended) => faults.extend(self.looked_up(id, event, ended)),
        }
        faults
    }

    /// Returns what is wrong with a release by the listing: the page that it names must show the date.
    fn listed_as_released(&self, id: &str, event: &Json) -> Option<String> {
        let page = self.by_request.get(text(&event["source"], "request_id"));
        let shown = page.into_iter().filter(|it| it.route == "devices").flat_map(|it| &it.devices);
        let shown = shown.filter(|it| it.id.as_deref() == Some(id)).filter_map(|it| it.attributes.as_ref());
        let dates = shown.filter_map(|shown| image::served(id, shown).remove("released_from_org_date_time"));
        let told = dates.into_iter().any(|date| event["after"]["released_from_org_date_time"] == date);
        (!told).then(|| "was not listed with this release date".to_owned())
    }

    /// Returns when a cited scan ended, or why it proves nothing.
    fn absent(&self, id: &str, number: i64, by: DateTime<Utc>) -> Result<DateTime<Utc>, String> {
        let scan = self.scans.iter().find(|scan| scan.number == number);
        let scan = scan.ok_or_else(|| format!("cites scan {number}, which never ended"))?;
        if !scan.absence_counts {
            return Err(format!("cites scan {number}, which was not complete"));
        }
        if scan.finished_at > by {
            return Err(format!("cites scan {number}, which ended after the event"));
        }
        let inside = |it: &&Response| scan.started_at <= it.at_wall && it.at_wall <= scan.finished_at;
        let mut pages = responses(self.journal).filter(inside).filter(|it| it.route == "devices" && good(it));
        if pages.clone().any(|it| shows(&it.devices, id)) {
            return Err(format!("cites scan {number}, which showed it"));
        }
        if !pages.any(|it| it.last == Some(true)) {
            return Err(format!("cites scan {number}, whose list was not read to its end"));
        }
        Ok(scan.finished_at)
    }

    /// Returns what is wrong with the look-up that an event names.
    fn looked_up(&self, id: &str, event: &Json, ended: DateTime<Utc>) -> Option<String> {
        let request = text(&event["source"], "request_id");
        let Some(answer) = self.by_request.get(request).filter(|it| it.route == "device" && names(it, id)) else {
            return Some(format!("names no look-up of it: `{request}`"));
        };
        let by = made(event);
        // The scan's end is written in whole milliseconds.
        if answer.at_wall < ended || answer.at_wall > by {
            return Some("was not looked up between the scan and the event".to_owned());
        }
        match answer.status {
            Some(200) if answer.readable => {
                let shown = answer.devices.first().and_then(|device| device.attributes.as_ref());
                let date = shown.and_then(|shown| image::served(id, shown).remove("released_from_org_date_time"));
                let same = date.is_some_and(|date| event["after"]["released_from_org_date_time"] == date);
                (!same).then(|| "carries another date than its look-up".to_owned())
            }
            Some(404) => {
                let near = |it: &&Response| (it.at_wall - answer.at_wall).abs() <= SAME_MINUTE && it.at_wall <= by;
                let others = responses(self.journal).filter(|it| it.route == "device" && good(it) && !names(it, id));
                (!others.filter(near).any(|_| true)).then(|| "rests on a 404 without a control read".to_owned())
            }
            other => Some(format!("rests on a look-up that was answered with {other:?}")),
        }
    }
}

/// Whether a single read was about a device.
fn names(answer: &Response, id: &str) -> bool {
    let path = answer.target.split('?').next().unwrap_or_default();
    path.rsplit('/').next() == Some(id)
}
