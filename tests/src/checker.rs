//! The laws that must hold after any fault, read from the simulator's journal, the topics and the store.
//!
//! No product code takes part: topics come through [`crate::topics`], the journal through the simulator's own types, rows as plain JSON.
//! Each law answers with what breaks it, so that a test shows all of it at once.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde_json::Value as Json;

use crate::topics::Entry;

/// What breaks a law: the law's name and the facts.
pub type Breach = String;

/// The change events of one table, tombstones left out, in the order of partition and offset.
fn events(entries: &[Entry]) -> impl Iterator<Item = (&Entry, &Json)> {
    entries.iter().filter_map(|entry| Some((entry, entry.value.as_ref()?)))
}

fn text<'a>(value: &'a Json, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// L3: no two committed events in a row of one record carry the same content, and no event id comes twice.
#[must_use]
pub fn no_duplicate(changes: &[Entry]) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let mut ids: HashSet<&str> = HashSet::new();
    let mut last: HashMap<String, &Json> = HashMap::new();
    for (entry, event) in events(changes) {
        let place = format!("{} {}@{}", entry.key, entry.partition, entry.offset);
        if !ids.insert(text(event, "event_id")) {
            breaches.push(format!("L3: {place} repeats event id {}", text(event, "event_id")));
        }
        let before = last.insert(entry.key.to_string(), &event["after"]);
        if event["op"] != "r" && before == Some(&event["after"]) {
            breaches.push(format!("L3: {place} repeats its record's last content"));
        }
    }
    breaches
}

/// L4: the number of each record's events is 1, 2, 3 … in the order of offsets, and each before-image is the previous after-image.
#[must_use]
pub fn ordered(changes: &[Entry]) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let mut last: HashMap<String, (u64, Json)> = HashMap::new();
    for (entry, event) in events(changes) {
        let place = format!("{} {}@{}", entry.key, entry.partition, entry.offset);
        let sequence = text(&event["source"], "sequence");
        let number =
            serde_json::from_str::<Vec<String>>(sequence).ok().and_then(|parts| parts.first()?.parse::<u64>().ok());
        let (known, before) = last.remove(&entry.key.to_string()).unwrap_or((0, Json::Null));
        if number != Some(known + 1) || sequence.len() != 24 {
            breaches.push(format!("L4: {place} has the number {sequence} after {known}"));
        }
        let needs_before = matches!(text(event, "op"), "u" | "d");
        if (needs_before || !event["before"].is_null()) && event["before"] != before {
            breaches.push(format!("L4: {place} does not go on from the last after-image"));
        }
        last.insert(entry.key.to_string(), (number.unwrap_or(known + 1), event["after"].clone()));
    }
    breaches
}

/// Folds the flat topic into the rows that a store must hold: the last record of each asset.
#[must_use]
pub fn fold(flat: &[Entry]) -> BTreeMap<String, Json> {
    let mut rows = BTreeMap::new();
    for entry in flat {
        if let Some(value) = &entry.value {
            rows.insert(text(&entry.key, "asset_id").to_owned(), value.clone());
        }
    }
    rows
}

/// L6: the store holds, column by column, what the fold of the flat topic holds; guard columns are the last record's position.
#[must_use]
pub fn store_equals_log(flat: &[Entry], rows: &BTreeMap<String, BTreeMap<String, Json>>) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let expected = fold(flat);
    let positions: HashMap<&str, (i32, i64)> = flat
        .iter()
        .filter(|e| e.value.is_some())
        .map(|e| (text(&e.key, "asset_id"), (e.partition, e.offset)))
        .collect();
    for id in rows.keys().filter(|id| !expected.contains_key(*id)) {
        breaches.push(format!("L6: the store has a row {id} that no record made"));
    }
    for (id, record) in &expected {
        let Some(row) = rows.get(id) else {
            breaches.push(format!("L6: the store lacks {id}"));
            continue;
        };
        for (name, value) in record.as_object().into_iter().flatten().filter(|(name, _)| *name != "collection") {
            if row.get(name) != Some(value) {
                breaches.push(format!("L6: {id}.{name} is {:?} in the store, {value} in the log", row.get(name)));
            }
        }
        let (partition, offset) = positions[id.as_str()];
        if row["__partition"] != partition || row["__offset"] != offset {
            breaches.push(format!(
                "L6: {id} carries the guard {}@{}, its record lies at {partition}@{offset}",
                row["__partition"], row["__offset"]
            ));
        }
    }
    breaches
}

/// L6, the transformer's part: each asset's record says what the last event of its device says, field by field of the same name.
///
/// For one organization and the shipped mapping; lists stand as their first element.
#[must_use]
pub fn assets_equal_changes(changes: &[Entry], flat: &[Entry]) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let mut last: BTreeMap<&str, &Json> = BTreeMap::new();
    for (_, event) in events(changes) {
        last.insert(text(&event["after"], "serial_number"), event);
    }
    let assets = fold(flat);
    for (serial, event) in &last {
        let Some(asset) = assets.get(*serial) else {
            breaches.push(format!("L6: {serial} has events and no asset"));
            continue;
        };
        for (name, value) in event["after"].as_object().into_iter().flatten() {
            let value = value.as_array().map_or(value, |items| items.first().unwrap_or(&Json::Null));
            if asset.get(name).is_some_and(|shown| shown != value) {
                breaches.push(format!("L6: {serial}.{name} is {value} in the change, {} in the asset", asset[name]));
            }
        }
        if asset["__event_id"] != event["event_id"] || asset["__deleted"] != "false" {
            breaches.push(format!("L6: the asset {serial} does not come from its device's last event"));
        }
    }
    breaches.extend(
        assets
            .keys()
            .filter(|id| !last.contains_key(id.as_str()))
            .map(|id| format!("L6: the asset {id} comes from no device")),
    );
    breaches
}

/// One look at a store in the middle of a run: the highest row offset and the next offset of each partition.
#[derive(Debug, Clone, Default)]
pub struct StoreSnapshot {
    /// Partition to (highest `__offset` of its rows, `next_offset` of its position row).
    pub partitions: BTreeMap<i32, (i64, i64)>,
}

/// L7: in every snapshot each row's position is below the stored next offset.
#[must_use]
pub fn offsets_move_with_rows(snapshots: &[StoreSnapshot]) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (at, snapshot) in snapshots.iter().enumerate() {
        for (partition, (row, next)) in &snapshot.partitions {
            if row >= next {
                breaches
                    .push(format!("L7: snapshot {at}: partition {partition} has a row at {row} and goes on at {next}"));
            }
        }
    }
    breaches
}

/// L8: no version of a row, in the order the audit trigger saw them, has a lower position than the one before.
#[must_use]
pub fn rows_only_go_forward(audit: &[(String, i64, i32, i64)]) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let mut last: HashMap<&str, (i64, i32, i64)> = HashMap::new();
    for (id, generation, partition, offset) in audit {
        let now = (*generation, *partition, *offset);
        if let Some(before) = last.insert(id, now)
            && before >= now
        {
            breaches.push(format!("L8: {id} went from {before:?} to {now:?}"));
        }
    }
    breaches
}

/// What a journal says: see the functions below for the laws that need it.
#[derive(Debug, Clone, Default)]
pub struct Served {
    /// Device to every distinct set of attributes that an answer showed, as normalised fields.
    pub devices: HashMap<String, BTreeSet<String>>,
}

/// L1: each after-image that shows attributes was served by the simulator in just this form.
///
/// A release that a 404 proved shows the last image again, without its server: there the image before is compared.
#[must_use]
pub fn nothing_invented(changes: &[Entry], served: &Served) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let mut last: HashMap<String, String> = HashMap::new();
    for (entry, event) in events(changes) {
        let id = text(&entry.key, "device_id").to_owned();
        let image = attributes(&event["after"]);
        let known = served.devices.get(&id).is_some_and(|images| images.contains(&image));
        let repeated = event["kind"] == "released"
            && last.get(&id).is_some_and(|before| without_release(before) == without_release(&image));
        if !event["after"].is_null() && !known && !repeated {
            breaches
                .push(format!("L1: {id} {}@{} shows what was never served: {image}", entry.partition, entry.offset));
        }
        last.insert(id, image);
    }
    breaches
}

/// The fields of a device's image that an answer of the API shows by itself, as comparable text.
#[must_use]
pub fn attributes(image: &Json) -> String {
    let mut kept: BTreeMap<String, Json> = BTreeMap::new();
    for (name, value) in image.as_object().into_iter().flatten() {
        let ours = matches!(name.as_str(), "org" | "device_id" | "mdm_server_id" | "mdm_server_name")
            || name.starts_with("coverage_")
            || name.starts_with("releaser_");
        if name == "unmapped" {
            let members: BTreeMap<String, Json> =
                serde_json::from_str(value.as_str().unwrap_or("{}")).unwrap_or_default();
            kept.extend(members.into_iter().map(|(member, value)| (format!("unmapped.{member}"), value)));
        } else if !ours && !value.is_null() {
            kept.insert(name.clone(), value.clone());
        }
    }
    serde_json::to_string(&kept).unwrap_or_default()
}

fn without_release(image: &str) -> Option<Json> {
    let mut image: Json = serde_json::from_str(image).ok()?;
    image.as_object_mut()?.remove("released_from_org_date_time");
    Some(image)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn change(offset: i64, number: u64, before: Json, after: Json) -> Entry {
        let event = json!({
            "op": if before.is_null() { "c" } else { "u" }, "kind": "updated", "event_id": format!("e{offset}"),
            "before": before, "after": after, "source": {"sequence": format!("[\"{number:020}\"]")},
        });
        Entry {
            topic: "abm.devices".into(),
            partition: 0,
            offset,
            timestamp: 0,
            key: json!({"org": "acme", "device_id": "D1"}),
            value: Some(event),
            headers: BTreeMap::new(),
        }
    }

    #[test]
    fn a_clean_history_breaks_no_law() {
        let history = [change(0, 1, Json::Null, json!({"a": 1})), change(5, 2, json!({"a": 1}), json!({"a": 2}))];
        assert!(no_duplicate(&history).is_empty() && ordered(&history).is_empty());
    }

    #[test]
    fn a_repeated_event_is_found() {
        let history = [change(0, 1, Json::Null, json!({"a": 1})), change(5, 2, json!({"a": 1}), json!({"a": 1}))];
        assert_eq!(no_duplicate(&history).len(), 1);
    }

    #[test]
    fn a_gap_in_the_numbers_and_a_wrong_before_image_are_found() {
        let history = [change(0, 1, Json::Null, json!({"a": 1})), change(5, 3, json!({"a": 0}), json!({"a": 2}))];
        assert_eq!(ordered(&history).len(), 2);
    }

    #[test]
    fn a_row_that_goes_back_is_found() {
        let audit = [("A".to_owned(), 1, 0, 5), ("A".to_owned(), 1, 0, 4)];
        assert_eq!(rows_only_go_forward(&audit).len(), 1);
    }

    #[test]
    fn a_row_beyond_the_stored_position_is_found() {
        let torn = StoreSnapshot { partitions: BTreeMap::from([(0, (7, 7))]) };
        assert_eq!(offsets_move_with_rows(&[torn]).len(), 1);
    }

    #[test]
    fn an_image_that_was_never_served_is_found() {
        let history = [change(0, 1, Json::Null, json!({"color": "SILVER"}))];
        assert_eq!(nothing_invented(&history, &Served::default()).len(), 1);
    }
}
