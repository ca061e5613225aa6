//! The simulator's journal as the checker needs it, and the laws that compare it with the topics.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Duration, Utc};
use serde_json::{Value as Json, json};
use windfall_simulator::journal::{ChangeKind, Line, Record, Response, Truth};

use crate::checker::{Breach, attributes};
use crate::topics::Entry;

/// Fields of a device's image that hold lists, and under which names Apple's attributes reach them.
const LISTS: [&str; 5] = ["imei", "meid", "wifi_mac_address", "bluetooth_mac_address", "ethernet_mac_address"];
/// Fields of a device's image that hold one value.
const SCALARS: [&str; 19] = [
    "serial_number",
    "status",
    "product_family",
    "product_type",
    "device_model",
    "device_capacity",
    "color",
    "part_number",
    "order_number",
    "order_date_time",
    "purchase_source_type",
    "purchase_source_id",
    "added_to_org_date_time",
    "released_from_org_date_time",
    "updated_date_time",
    "eid",
    "is_mdm_migration_capable",
    "mdm_migration_status",
    "mdm_migration_deadline_date_time",
];

/// The responses of a journal, in the order in which they were written.
pub fn responses(journal: &[Line]) -> impl Iterator<Item = &Response> {
    journal.iter().filter_map(|line| match &line.record {
        Record::Response(response) => Some(response.as_ref()),
        _ => None,
    })
}

/// Every device's images that any readable answer showed: what an event may say.
#[must_use]
pub fn served(journal: &[Line]) -> HashMap<String, BTreeSet<String>> {
    let mut images: HashMap<String, BTreeSet<String>> = HashMap::new();
    for response in responses(journal).filter(|it| it.readable) {
        for device in &response.devices {
            if let (Some(id), Some(attributes)) = (&device.id, &device.attributes) {
                images.entry(id.clone()).or_default().insert(image(id, attributes));
            }
        }
    }
    images
}

/// L2, first half: each state served in a scan marked complete has its event.
///
/// `scans` are the records of `abm.scans`; the last serving of a device inside a complete scan counts, since a page that was read
/// again after a crash shows what is newer.
#[must_use]
pub fn nothing_lost(journal: &[Line], scans: &[Entry], changes: &[Entry]) -> Vec<Breach> {
    let mut published: HashMap<&str, BTreeSet<String>> = HashMap::new();
    for (entry, event) in changes.iter().filter_map(|entry| Some((entry, entry.value.as_ref()?))) {
        let id = entry.key["device_id"].as_str().unwrap_or_default();
        published.entry(id).or_default().insert(attributes(&event["after"]));
    }
    let mut breaches = Vec::new();
    for (scan, from, to) in complete_scans(scans) {
        let mut last: BTreeMap<&str, String> = BTreeMap::new();
        let inside = |it: &&Response| it.route == "devices" && it.readable && it.at_wall >= from && it.at_wall <= to;
        for response in responses(journal).filter(inside) {
            for device in &response.devices {
                if let (Some(id), Some(attributes)) = (&device.id, &device.attributes) {
                    last.insert(id, image(id, attributes));
                }
            }
        }
        for (id, image) in last {
            if !published.get(id).is_some_and(|images| images.contains(&image)) {
                breaches.push(format!("L2: scan {scan} saw {id} as {image}, no event says so"));
            }
        }
    }
    breaches
}

/// Number, start and end of each scan that its header calls complete.
#[must_use]
pub fn complete_scans(scans: &[Entry]) -> Vec<(i64, DateTime<Utc>, DateTime<Utc>)> {
    let time = |value: &Json| DateTime::from_timestamp_millis(value.as_i64()?);
    scans
        .iter()
        .filter(|entry| entry.key["part"] == "")
        .filter_map(|entry| entry.value.as_ref())
        .filter(|header| header["state"] == "complete")
        .filter_map(|header| {
            Some((header["scan_number"].as_i64()?, time(&header["started_at"])?, time(&header["finished_at"])?))
        })
        .collect()
}

/// L2, second half: after the last, healed scan the last event of every device says what is true, server and release included.
#[must_use]
pub fn log_equals_truth(truth: &Truth, changes: &[Entry]) -> Vec<Breach> {
    let mut last: HashMap<&str, &Json> = HashMap::new();
    for entry in changes {
        if let Some(event) = &entry.value {
            last.insert(entry.key["device_id"].as_str().unwrap_or_default(), &event["after"]);
        }
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
            breaches.push(format!(
                "L2: {} released: {} in truth, {released} in the log",
                device.id,
                device.released_at.is_some()
            ));
        }
        if released {
            continue;
        }
        if after["mdm_server_id"] != json!(device.server_id) || after["mdm_server_name"] != json!(device.server_name) {
            breaches.push(format!(
                "L2: {} is on {:?} in truth, {} in the log",
                device.id, device.server_name, after["mdm_server_name"]
            ));
        }
        let (logged, image) = (attributes(after), image(&device.id, &json!(device.attributes)));
        if logged != image {
            breaches.push(format!("L2: {} is {image} in truth, {logged} in the log", device.id));
        }
    }
    breaches.extend(last.keys().map(|id| format!("L1: {id} has events and never existed")));
    breaches
}

/// L5: a device has at most as many released events as it was really released, each after that.
#[must_use]
pub fn no_false_release(journal: &[Line], changes: &[Entry]) -> Vec<Breach> {
    let mut released: HashMap<&str, usize> = HashMap::new();
    for line in journal {
        if let Record::Change(change) = &line.record
            && change.kind == ChangeKind::Released
        {
            *released.entry(change.device_id.as_deref().unwrap_or_default()).or_default() += 1;
        }
    }
    let mut breaches = Vec::new();
    for (entry, event) in changes.iter().filter_map(|entry| Some((entry, entry.value.as_ref()?))) {
        if event["kind"] != "released" {
            continue;
        }
        let id = entry.key["device_id"].as_str().unwrap_or_default();
        match released.get_mut(id) {
            Some(left @ 1..) => *left -= 1,
            _ => breaches.push(format!("L5: {id} is called released more often than it was")),
        }
        if event["evidence"].as_array().is_none_or(Vec::is_empty) {
            breaches.push(format!("L5: the release of {id} names no evidence"));
        }
    }
    breaches
}

/// L10: at most `limit` reads in every sliding minute, none before a `Retry-After` is over, few token requests.
#[must_use]
pub fn limits_kept(journal: &[Line], limit: usize) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let reads: Vec<&Response> = responses(journal).filter(|it| it.route != "token").collect();
    let times: Vec<DateTime<Utc>> = reads.iter().map(|it| it.at_wall).collect();
    for (at, time) in times.iter().enumerate() {
        let inside = times[at..].iter().take_while(|later| **later - *time < Duration::seconds(60)).count();
        if inside > limit {
            breaches.push(format!("L10: {inside} reads in the minute from {time}, {limit} are allowed"));
        }
    }
    for pair in reads.windows(2) {
        if pair[0].retry_until.is_some_and(|until| pair[1].at_wall < until) {
            breaches.push(format!("L10: a read at {} before {:?}", pair[1].at_wall, pair[0].retry_until));
        }
    }
    let tokens: Vec<DateTime<Utc>> = responses(journal).filter(|it| it.route == "token").map(|it| it.at_wall).collect();
    for (at, time) in tokens.iter().enumerate() {
        let inside = tokens[at..].iter().take_while(|later| **later - *time < Duration::minutes(5)).count();
        if inside > 10 {
            breaches.push(format!("L10: {inside} token requests in the five minutes from {time}"));
        }
    }
    breaches
}

/// Brings attributes as Apple writes them into the form of [`attributes`].
fn image(id: &str, served: &Json) -> String {
    let mut fields = serde_json::Map::new();
    let mut unmapped = BTreeMap::new();
    for (name, value) in served.as_object().into_iter().flatten().filter(|(_, value)| !empty(value)) {
        let field = match name.as_str() {
            "purchaseSourceUid" => "purchase_source_id".to_owned(),
            "builtInEthernetMacAddress" => "ethernet_mac_address".to_owned(),
            name => snake(name),
        };
        if LISTS.contains(&field.as_str()) {
            fields.insert(field.clone(), list(&field, value));
        } else if SCALARS.contains(&field.as_str()) {
            fields.insert(field.clone(), scalar(&field, value));
        } else {
            unmapped.insert(name.clone(), value.clone());
        }
    }
    fields.entry("serial_number").or_insert_with(|| json!(id));
    if !unmapped.is_empty() {
        fields.insert("unmapped".to_owned(), Json::String(json!(unmapped).to_string()));
    }
    attributes(&Json::Object(fields))
}

fn empty(value: &Json) -> bool {
    value.is_null() || value == "" || value.as_array().is_some_and(|items| items.iter().all(empty))
}

fn list(field: &str, value: &Json) -> Json {
    let items: Vec<Json> = match value {
        Json::Array(items) => items.clone(),
        one => vec![one.clone()],
    };
    let normal = |item: &Json| match item.as_str() {
        Some(text) if field.ends_with("mac_address") => {
            json!(text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_uppercase())
        }
        _ => item.clone(),
    };
    Json::Array(items.iter().filter(|item| !empty(item)).map(normal).collect())
}

fn scalar(field: &str, value: &Json) -> Json {
    let value = match value {
        Json::Array(items) => items.first().unwrap_or(value),
        one => one,
    };
    match value.as_str().filter(|_| field.ends_with("_date_time")).map(DateTime::parse_from_rfc3339) {
        Some(Ok(time)) => json!(time.timestamp_millis()),
        _ => value.clone(),
    }
}

/// `addedToOrgDateTime` becomes `added_to_org_date_time`.
fn snake(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apples_spellings_become_one_form() {
        let one = image(
            "S1",
            &json!({"eid": "", "wifiMacAddress": "aa:bb:cc:00:11:22", "addedToOrgDateTime": "2026-01-01T00:00:00.5Z"}),
        );
        let other = image(
            "S1",
            &json!({"serialNumber": "S1", "wifiMacAddress": ["AABBCC001122"], "imei": [], "addedToOrgDateTime": "2026-01-01T00:00:00.50Z"}),
        );
        assert_eq!(one, other);
    }

    #[test]
    fn a_read_too_many_in_a_minute_is_found() {
        let start = DateTime::from_timestamp_millis(1_767_225_600_000).expect("a time");
        let read = |seconds| Line {
            seq: 1,
            record: Record::Response(Box::new(Response {
                at_wall: start + Duration::seconds(seconds),
                route: "devices".into(),
                ..Response::default()
            })),
        };
        let journal = [read(0), read(30), read(59)];
        assert!(limits_kept(&journal, 3).is_empty());
        assert_eq!(limits_kept(&journal, 2).len(), 1);
        assert!(limits_kept(&[read(0), read(30), read(60)], 2).is_empty());
    }
}
