//! What an event says of itself: its id, its number, its hash, what changed, its headers, and the partition it lies in.

use std::collections::HashMap;

use chrono::{DateTime, SecondsFormat};
use serde_json::Value as Json;
use windfall_schemas::device::DeviceValue;
use windfall_schemas::server::ServerValue;
use xxhash_rust::xxh3::xxh3_128;

use crate::checker::{Breach, events, place, text};
use crate::topics::Entry;

/// A table of change events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// `abm.devices`.
    Devices,
    /// `abm.servers`.
    Servers,
}

impl Table {
    fn name(self) -> &'static str {
        match self {
            Self::Devices => "devices",
            Self::Servers => "servers",
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Self::Devices => "device",
            Self::Servers => "server",
        }
    }

    fn id(self) -> &'static str {
        match self {
            Self::Devices => "device_id",
            Self::Servers => "server_id",
        }
    }

    /// Fields that move without being a change.
    fn volatile(self, field: &str) -> bool {
        let moves_by_itself =
            matches!(field, "device_count" | "updated_date_time") || field.starts_with("last_connected_");
        self == Self::Servers && moves_by_itself
    }

    fn fingerprint(self, image: &Json) -> Option<String> {
        match self {
            Self::Devices => serde_json::from_value::<DeviceValue>(image.clone()).ok().map(|value| value.fingerprint()),
            Self::Servers => serde_json::from_value::<ServerValue>(image.clone()).ok().map(|value| value.fingerprint()),
        }
    }
}

/// Each event's id, fingerprint, kind, list of changed fields and headers follow from its key, its number and its images.
#[must_use]
pub fn events_name_themselves(table: Table, changes: &[Entry]) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (entry, event) in events(changes) {
        for (what, written, due) in facts(table, entry, event) {
            if written != due {
                breaches.push(format!("identity: {} has the {what} `{written}`, `{due}` is due", place(entry)));
            }
        }
    }
    breaches
}

/// What stands in an event, and what is due there.
fn facts(table: Table, entry: &Entry, event: &Json) -> Vec<(&'static str, String, String)> {
    let (before, after, source) = (&event["before"], &event["after"], &event["source"]);
    let (org, id) = (text(&entry.key, "org"), text(&entry.key, table.id()));
    let image = if after.is_null() { before } else { after };
    let fingerprint = table.fingerprint(image).unwrap_or_default();
    let kind = kind(table, before, after);
    let op = match (before.is_null(), after.is_null()) {
        (_, true) => "d",
        (true, false) if source["snapshot"] == "false" => "c",
        (true, false) => "r",
        (false, false) => "u",
    };
    let changed = if op == "u" { changed(table, before, after) } else { Vec::new() };
    let event_id = event_id(org, table.name(), id, number(event), &fingerprint);
    let header = |name: &str| entry.headers.get(name).cloned().unwrap_or_default();
    vec![
        ("fingerprint", text(event, "fingerprint").to_owned(), fingerprint),
        ("event id", text(event, "event_id").to_owned(), event_id.clone()),
        ("op", text(event, "op").to_owned(), op.to_owned()),
        ("kind", text(event, "kind").to_owned(), kind.to_owned()),
        ("list of changed fields", event["changed"].to_string(), serde_json::json!(changed).to_string()),
        ("organization", text(source, "db").to_owned(), org.to_owned()),
        ("table", text(source, "table").to_owned(), table.name().to_owned()),
        ("header ce_id", header("ce_id"), event_id),
        ("header ce_type", header("ce_type"), format!("abm.{}.{kind}", table.noun())),
        ("header ce_source", header("ce_source"), format!("/abm/{org}/{}", table.name())),
        ("header ce_subject", header("ce_subject"), id.to_owned()),
        ("header ce_time", header("ce_time"), rfc3339(&source["ts_ms"])),
        ("header ce_specversion", header("ce_specversion"), "1.0".to_owned()),
        ("header content-type", header("content-type"), "application/avro".to_owned()),
    ]
}

/// xxh3-128 over organization, table and id, the event's number and its fingerprint; every text with its length in front.
fn event_id(org: &str, table: &str, id: &str, number: u64, fingerprint: &str) -> String {
    let mut bytes = Vec::new();
    let text = |bytes: &mut Vec<u8>, text: &str| {
        bytes.extend((text.len() as u64).to_be_bytes());
        bytes.extend(text.bytes());
    };
    for part in [org, table, id] {
        text(&mut bytes, part);
    }
    bytes.extend(number.to_be_bytes());
    text(&mut bytes, fingerprint);
    format!("{:032x}", xxh3_128(&bytes))
}

fn number(event: &Json) -> u64 {
    let parts: Vec<String> = serde_json::from_str(text(&event["source"], "sequence")).unwrap_or_default();
    parts.first().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

fn rfc3339(millis: &Json) -> String {
    let at = millis.as_i64().and_then(DateTime::from_timestamp_millis);
    at.map(|at| at.to_rfc3339_opts(SecondsFormat::Millis, true)).unwrap_or_default()
}

fn changed(table: Table, before: &Json, after: &Json) -> Vec<String> {
    let differs = |name: &&String| match name.as_str() {
        "unmapped" => parsed(&before["unmapped"]) != parsed(&after["unmapped"]),
        name => !table.volatile(name) && before[name] != after[name],
    };
    let mut names: Vec<String> =
        after.as_object().into_iter().flatten().map(|(name, _)| name).filter(differs).cloned().collect();
    names.sort();
    names
}

fn parsed(text: &Json) -> Json {
    text.as_str().and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Json::Null)
}

/// The first that applies: released, readded, reassigned, assigned, unassigned, status-changed, coverage-changed, updated.
fn kind(table: Table, before: &Json, after: &Json) -> &'static str {
    if after.is_null() {
        return "removed";
    }
    if before.is_null() {
        return "added";
    }
    if table == Table::Servers {
        return "updated";
    }
    let release = |image: &Json| !image["released_from_org_date_time"].is_null();
    match (release(before), release(after)) {
        (false, true) => return "released",
        (true, false) => return "readded",
        _ => {}
    }
    let server = (before["mdm_server_id"].as_str(), after["mdm_server_id"].as_str());
    let status = (before["status"].as_str(), after["status"].as_str());
    match (server, status) {
        ((Some(old), Some(new)), _) if old != new => "reassigned",
        ((None, Some(_)), _) => "assigned",
        ((Some(_), None), _) => "unassigned",
        (_, (old, new)) if old != new => "status-changed",
        _ if changed(table, before, after).iter().all(|name| name.starts_with("coverage_")) => "coverage-changed",
        _ => "updated",
    }
}

/// Each key lies, in one spelling and for ever, in the partition that Java's partitioner gives it.
#[must_use]
pub fn partitions_kept(entries: &[Entry]) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let mut homes: HashMap<(&str, String), &Entry> = HashMap::new();
    for entry in entries {
        if entry.partition != entry.home {
            breaches.push(format!("partition: {} of {} belongs into {}", place(entry), entry.topic, entry.home));
        }
        let first = homes.entry((entry.topic.as_str(), entry.key.to_string())).or_insert(entry);
        if first.partition != entry.partition || first.key_bytes != entry.key_bytes {
            breaches.push(format!("partition: {} of {} lay at {} before", place(entry), entry.topic, place(first)));
        }
    }
    breaches
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event() -> Entry {
        let image = |color: &str| {
            let value = DeviceValue {
                org: "acme".to_owned(),
                device_id: "S1".to_owned(),
                serial_number: "S1".to_owned(),
                color: Some(color.to_owned()),
                ..DeviceValue::default()
            };
            serde_json::to_value(value).expect("an image")
        };
        let fingerprint = Table::Devices.fingerprint(&image("BLUE")).expect("a device");
        let id = windfall_schemas::fingerprint::event_id("acme", "devices", "S1", 2, &fingerprint);
        let value = json!({
            "op": "u", "kind": "updated", "changed": ["color"], "event_id": id, "fingerprint": fingerprint,
            "before": image("RED"), "after": image("BLUE"),
            "source": {"db": "acme", "table": "devices", "snapshot": "false", "ts_ms": 0, "sequence": format!("[\"{:020}\"]", 2)},
        });
        let headers = [
            ("ce_id", id.as_str()),
            ("ce_type", "abm.device.updated"),
            ("ce_source", "/abm/acme/devices"),
            ("ce_subject", "S1"),
            ("ce_time", "1970-01-01T00:00:00.000Z"),
            ("ce_specversion", "1.0"),
            ("content-type", "application/avro"),
        ];
        Entry {
            key: json!({"org": "acme", "device_id": "S1"}),
            key_bytes: vec![1],
            value: Some(value),
            headers: headers.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            ..Entry::default()
        }
    }

    fn faults(entry: Entry) -> usize {
        events_name_themselves(Table::Devices, &[entry]).len()
    }

    #[test]
    fn an_event_that_names_itself_wrongly_is_found() {
        assert_eq!(events_name_themselves(Table::Devices, &[event()]), Vec::<Breach>::new());
        for (name, wrong) in [
            ("event_id", json!("5f0c")),
            ("fingerprint", json!("0")),
            ("kind", json!("assigned")),
            ("op", json!("c")),
            ("changed", json!(["color", "status"])),
            ("changed", json!([])),
        ] {
            let mut entry = event();
            entry.value.as_mut().expect("an event")[name] = wrong;
            assert_eq!(faults(entry), 1, "{name}");
        }
        let mut renumbered = event();
        renumbered.value.as_mut().expect("an event")["source"]["sequence"] = json!(format!("[\"{:020}\"]", 3));
        assert_eq!(faults(renumbered), 2, "the id, and the header that repeats it");
        for name in event().headers.keys() {
            let mut entry = event();
            entry.headers.insert(name.clone(), "?".to_owned());
            assert_eq!(faults(entry), 1, "{name}");
        }
    }

    #[test]
    fn each_kind_follows_from_the_images() {
        let device = |status: &str, server: Json, released: Json| json!({"status": status, "mdm_server_id": server, "released_from_org_date_time": released, "coverage_status": null});
        let plain = device("ASSIGNED", json!("X"), Json::Null);
        let free = device("UNASSIGNED", Json::Null, Json::Null);
        let gone = device("ASSIGNED", Json::Null, json!(1));
        let of = |before: &Json, after: &Json| kind(Table::Devices, before, after);
        assert_eq!((of(&plain, &gone), of(&gone, &free)), ("released", "readded"));
        assert_eq!((of(&free, &plain), of(&plain, &free)), ("assigned", "unassigned"));
        assert_eq!(of(&free, &device("ASSIGNED", Json::Null, Json::Null)), "status-changed", "no service yet");
        assert_eq!(of(&plain, &device("ASSIGNED", json!("Y"), Json::Null)), "reassigned");
        assert_eq!(of(&plain, &device("LOST", json!("X"), Json::Null)), "status-changed");
        let mut covered = plain.clone();
        covered["coverage_status"] = json!("ACTIVE");
        assert_eq!(of(&plain, &covered), "coverage-changed");
        covered["color"] = json!("BLUE");
        assert_eq!(of(&plain, &covered), "updated");
    }

    #[test]
    fn a_key_that_strays_is_found() {
        assert!(partitions_kept(&[event(), event()]).is_empty());
        assert_eq!(partitions_kept(&[Entry { partition: 1, ..event() }]).len(), 1, "not where Java puts it");
        assert_eq!(partitions_kept(&[event(), Entry { partition: 1, home: 1, ..event() }]).len(), 1, "two partitions");
        assert_eq!(partitions_kept(&[event(), Entry { key_bytes: vec![2], ..event() }]).len(), 1, "two spellings");
    }
}
