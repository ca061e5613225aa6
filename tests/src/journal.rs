//! The simulator's journal as the checker needs it, and law L2: nothing is lost.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use serde_json::{Value as Json, json};
use windfall_simulator::journal::{Line, Record, Response, Truth};

use crate::checker::{Breach, events, place, text};
use crate::image::{Image, line, served, shown};
use crate::topics::Entry;

/// The responses of a journal, in the order in which they were written.
pub fn responses(journal: &[Line]) -> impl Iterator<Item = &Response> + Clone {
    journal.iter().filter_map(|line| match &line.record {
        Record::Response(response) => Some(response.as_ref()),
        _ => None,
    })
}

/// Tells whether an answer is what was asked for, and whole.
#[must_use]
pub fn good(answer: &Response) -> bool {
    answer.status == Some(200) && answer.readable
}

/// A scan of the devices that has ended, as its header in `abm.scans` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// Its number.
    pub number: i64,
    /// `complete`, `incomplete` or `held`.
    pub state: String,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: DateTime<Utc>,
    /// Whether nothing it notes keeps its device pages from being complete: then a device that it lacks was absent.
    pub absence_counts: bool,
}

/// Reads the headers of the devices' scans that have ended.
#[must_use]
pub fn scans_ended(scans: &[Entry]) -> Vec<Scan> {
    headers(scans).filter(|(_, header)| header["state"] != "running").filter_map(|(_, header)| scan(header)).collect()
}

fn headers(scans: &[Entry]) -> impl Iterator<Item = (&Entry, &Json)> {
    events(scans).filter(|(entry, _)| entry.key["part"] == "" && entry.key["table"] == "devices")
}

fn scan(header: &Json) -> Option<Scan> {
    let time = |value: &Json| DateTime::from_timestamp_millis(value.as_i64()?);
    let detail: Json = serde_json::from_str(text(header, "detail")).ok()?;
    let about_devices = detail["reasons"].as_array()?.iter().any(|reason| reason["scope"] != "servers");
    Some(Scan {
        number: header["scan_number"].as_i64()?,
        state: header["state"].as_str()?.to_owned(),
        started_at: time(&header["started_at"])?,
        finished_at: time(&header["finished_at"])?,
        absence_counts: !about_devices,
    })
}

/// Every header of a scan that has ended says its number, its times and its reasons: a scan that cannot be read would be judged by no law.
#[must_use]
pub fn headers_whole(scans: &[Entry]) -> Vec<Breach> {
    let ended = headers(scans).filter(|(_, header)| header["state"] != "running");
    ended
        .filter(|(_, header)| scan(header).is_none())
        .map(|(entry, header)| format!("L2: {} has ended and lacks number, times or reasons: {header}", place(entry)))
        .collect()
}

/// Number, start and end of each scan that its header calls complete.
#[must_use]
pub fn complete_scans(scans: &[Entry]) -> Vec<(i64, DateTime<Utc>, DateTime<Utc>)> {
    let ended = scans_ended(scans).into_iter().filter(|scan| scan.state == "complete");
    ended.map(|scan| (scan.number, scan.started_at, scan.finished_at)).collect()
}

/// L2, first half: each state served in a scan marked complete has its event.
///
/// The last serving of a device inside a complete scan counts, since a page that was read again after a crash shows what is newer. Its
/// server counts where the lists were read once, before the pages; one of several that claim a device is settled by a single read.
/// A device that the pages show as unassigned while a list shows it is told by a later scan.
#[must_use]
pub fn nothing_lost(journal: &[Line], scans: &[Entry], changes: &[Entry]) -> Vec<Breach> {
    let mut published: HashMap<&str, Published> = HashMap::new();
    for (entry, event) in events(changes) {
        let known = published.entry(text(&entry.key, "device_id")).or_default();
        known.images.insert(line(&shown(&event["after"])));
        known.servers.extend(event["after"]["mdm_server_id"].as_str());
    }
    let mut breaches = Vec::new();
    for (scan, from, to) in complete_scans(scans) {
        let inside: Vec<&Response> =
            responses(journal).filter(|it| good(it) && it.at_wall >= from && it.at_wall <= to).collect();
        let servers = linked(&inside);
        let lists = inside.iter().filter_map(|it| it.linkage.as_ref());
        let listed: BTreeSet<&str> = lists.flat_map(|list| list.device_ids.iter().map(String::as_str)).collect();
        for (id, image) in pages(&inside) {
            if listed.contains(id) && image.get("status") == Some(&json!("UNASSIGNED")) {
                continue;
            }
            let known = published.get(id);
            if !known.is_some_and(|known| known.images.contains(&line(&image))) {
                breaches.push(format!("L2: scan {scan} saw {id} as {}, no event says so", line(&image)));
            }
            let server = servers.get(id).filter(|_| image.get("status") == Some(&json!("ASSIGNED")));
            if let Some(Some(server)) = server
                && !known.is_some_and(|known| known.servers.contains(server))
            {
                breaches.push(format!("L2: scan {scan} saw {id} on {server}, no event says so"));
            }
        }
    }
    breaches
}

#[derive(Default)]
struct Published<'a> {
    images: BTreeSet<String>,
    servers: BTreeSet<&'a str>,
}

fn pages<'a>(inside: &[&'a Response]) -> BTreeMap<&'a str, Image> {
    let mut last = BTreeMap::new();
    for device in inside.iter().filter(|it| it.route == "devices").flat_map(|it| &it.devices) {
        if let (Some(id), Some(attributes)) = (&device.id, &device.attributes) {
            last.insert(id.as_str(), served(id, attributes));
        }
    }
    last
}

/// The server of each device by the lists of a scan that read them once; none for a device that several claim.
fn linked<'a>(inside: &[&'a Response]) -> HashMap<&'a str, Option<&'a str>> {
    let mut servers: HashMap<&str, Option<&str>> = HashMap::new();
    if inside.iter().filter(|it| it.route == "servers" && it.page == Some(1)).count() != 1 {
        return servers;
    }
    for linkage in inside.iter().filter_map(|it| it.linkage.as_ref()) {
        for id in &linkage.device_ids {
            let claim = Some(linkage.server_id.as_str());
            servers.entry(id).and_modify(|known| *known = known.filter(|_| *known == claim)).or_insert(claim);
        }
    }
    servers
}

/// L2, second half: after the last, healed scan the last event of every device says what is true, server and release included.
#[must_use]
pub fn log_equals_truth(truth: &Truth, changes: &[Entry]) -> Vec<Breach> {
    let mut last: HashMap<&str, &Json> = HashMap::new();
    for (entry, event) in events(changes) {
        last.insert(text(&entry.key, "device_id"), &event["after"]);
    }
    let mut breaches = Vec::new();
    for device in &truth.devices {
        let Some(after) = last.remove(device.id.as_str()) else {
            // A device that came and went between two scans was never seen.
            if device.released_at.is_none() {
                breaches.push(format!("L2: {} is true and has no event", device.id));
            }
            continue;
        };
        let released = !after["released_from_org_date_time"].is_null();
        if released != device.released_at.is_some() {
            breaches.push(format!("L2: {} released: {} in truth, {released} in the log", device.id, !released));
        }
        let server = (json!(device.server_id), json!(device.server_name));
        if (&after["mdm_server_id"], &after["mdm_server_name"]) != (&server.0, &server.1) {
            breaches.push(format!(
                "L2: {} is on {} in truth, {} in the log",
                device.id, server.1, after["mdm_server_name"]
            ));
        }
        // What a released device last was is not read again.
        let (logged, image) = (shown(after), served(&device.id, &json!(device.attributes)));
        if !released && logged != image {
            breaches.push(format!("L2: {} is {} in truth, {} in the log", device.id, line(&image), line(&logged)));
        }
    }
    breaches.extend(last.keys().map(|id| format!("L1: {id} has events and never existed")));
    breaches
}

/// L2 for `abm.servers`: the last event of every server says what is true, and one that is gone has ended.
#[must_use]
pub fn servers_equal_truth(truth: &Truth, servers: &[Entry]) -> Vec<Breach> {
    let mut last: BTreeMap<&str, &Json> = BTreeMap::new();
    for (entry, event) in events(servers) {
        last.insert(text(&entry.key, "server_id"), &event["after"]);
    }
    let mut breaches = Vec::new();
    for server in &truth.servers {
        let name = last.remove(server.id.as_str()).map(|after| text(after, "server_name"));
        if name != Some(&server.name) {
            breaches.push(format!(
                "L2: the server {} is called `{}` in truth, {name:?} in the log",
                server.id, server.name
            ));
        }
    }
    let standing = last.iter().filter(|(_, after)| !after.is_null());
    breaches.extend(standing.map(|(id, _)| format!("L2: the server {id} is gone in truth and stands in the log")));
    breaches
}
