//! The laws that must hold after any fault, read from the simulator's journal, the topics and the store.
//!
//! No product code takes part but the hash of an image: topics come through [`crate::topics`], the journal through the simulator's own
//! types, rows as plain JSON. Each law answers with what breaks it, so that a test shows all of it at once.
//!
//! | law | where |
//! | --- | --- |
//! | L1 no invention | [`crate::served`] |
//! | L2 no loss | [`crate::journal`] |
//! | L3 no duplicate, L4 order, L6 store = fold(log), L7 atomic offset, L8 monotone rows | here |
//! | L5 no false removal | [`crate::release`] |
//! | L10 limits | [`crate::limits`] |
//! | L12 secrets, in logs and topics | [`crate::secrets`] |
//! | names, hashes and partitions of events | [`crate::identity`] |
//! | nothing holds for want of anything to judge | [`crate::vacuity`] |

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};
use serde_json::Value as Json;

use crate::topics::Entry;

/// What breaks a law: the law's name and the facts.
pub type Breach = String;

/// Returns the events of one table, tombstones left out, in the order of partition and offset.
pub fn events(entries: &[Entry]) -> impl Iterator<Item = (&Entry, &Json)> {
    entries.iter().filter_map(|entry| Some((entry, entry.value.as_ref()?)))
}

/// Returns a text member, empty when it is none.
#[must_use]
pub fn text<'a>(value: &'a Json, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// Returns a member in epoch milliseconds as a time; the earliest there is when it is none, so that nothing lies before it.
#[must_use]
pub fn time(value: &Json, name: &str) -> DateTime<Utc> {
    value[name].as_i64().and_then(DateTime::from_timestamp_millis).unwrap_or(DateTime::<Utc>::MIN_UTC)
}

/// Says where a record lies, for messages.
#[must_use]
pub fn place(entry: &Entry) -> String {
    format!("{} {}@{}", entry.key, entry.partition, entry.offset)
}

/// L3: no two committed events in a row of one record carry the same content, and no event id comes twice.
#[must_use]
pub fn no_duplicate(changes: &[Entry]) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let mut ids: HashSet<&str> = HashSet::new();
    let mut last: HashMap<String, &Json> = HashMap::new();
    for (entry, event) in events(changes) {
        let place = place(entry);
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
        let place = place(entry);
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

/// L4, the end of a record: `d` is followed by a tombstone, and a tombstone by nothing but `d` is led.
#[must_use]
pub fn tombstones_follow(changes: &[Entry]) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let mut gone: HashMap<String, &Entry> = HashMap::new();
    for entry in changes {
        let deleted = gone.remove(&entry.key.to_string());
        match (&entry.value, deleted) {
            (None, None) => breaches.push(format!("L4: {} is a tombstone and follows no `d`", place(entry))),
            (Some(_), Some(deleted)) => breaches.push(format!("L4: {} has no tombstone behind it", place(deleted))),
            (Some(event), None) if event["op"] == "d" => drop(gone.insert(entry.key.to_string(), entry)),
            _ => {}
        }
    }
    breaches.extend(gone.values().map(|entry| format!("L4: {} has no tombstone behind it", place(entry))));
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

/// Columns that the sink adds to a record.
const OF_THE_STORE: [&str; 4] = ["__generation", "__partition", "__offset", "__written_at"];

/// The rows of a table by their asset's id, each column by its name, times in epoch milliseconds.
pub type Rows = BTreeMap<String, BTreeMap<String, Json>>;

/// L6: the store holds, column by column, what the fold of the flat topic holds; guard columns are the last record's position.
#[must_use]
pub fn store_equals_log(flat: &[Entry], rows: &Rows) -> Vec<Breach> {
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
        for name in row.keys().filter(|name| record.get(*name).is_none() && !OF_THE_STORE.contains(&name.as_str())) {
            breaches.push(format!("L6: {id}.{name} stands in the store and in no record"));
        }
        let (partition, offset) = positions[id.as_str()];
        if row["__generation"] != 1 || row["__partition"] != partition || row["__offset"] != offset {
            breaches.push(format!(
                "L6: {id} carries the guard {}, {}@{}, its record lies at {partition}@{offset}",
                row["__generation"], row["__partition"], row["__offset"]
            ));
        }
    }
    breaches
}

/// L6, third clause: a store that was filled from offset 0 holds the same rows, but for when they were written.
#[must_use]
pub fn rebuilt_equals(rows: &Rows, rebuilt: &Rows) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for id in rows.keys().chain(rebuilt.keys().filter(|id| !rows.contains_key(*id))) {
        let (Some(row), Some(again)) = (rows.get(id), rebuilt.get(id)) else {
            let side = if rows.contains_key(id) { "live" } else { "rebuilt" };
            breaches.push(format!("L6: {id} stands in the {side} store alone"));
            continue;
        };
        let names = row.keys().chain(again.keys().filter(|name| !row.contains_key(*name)));
        for name in names.filter(|name| *name != "__written_at") {
            if row.get(name) != again.get(name) {
                let (live, again) = (row.get(name), again.get(name));
                breaches.push(format!("L6: {id}.{name} is {live:?} in the live store, {again:?} in the rebuilt one"));
            }
        }
    }
    breaches
}

/// Fields of a device that its asset does not hold: the id, which stands there as `__device_id`, and what has no field of its own.
const NOT_IN_ASSETS: [&str; 2] = ["device_id", "unmapped"];
/// Lists of a device whose second element its asset holds.
const PAIRS: [&str; 2] = ["imei", "meid"];

/// L6, the transformer's part: each asset's record says what the last event of its device says, field by field of the same name.
///
/// For one organization and the shipped mapping; lists stand as their first element, and their second where there is a field for it.
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
        for (name, value) in expected_in_asset(&event["after"]) {
            if asset.get(&name) != Some(&value) {
                breaches
                    .push(format!("L6: {serial}.{name} is {value} in the change, {:?} in the asset", asset.get(&name)));
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

fn expected_in_asset(after: &Json) -> Vec<(String, Json)> {
    let mut expected = Vec::new();
    for (name, value) in after.as_object().into_iter().flatten() {
        let element = |at: usize| value.get(at).cloned().unwrap_or(Json::Null);
        if PAIRS.contains(&name.as_str()) {
            expected.push((format!("{name}_2"), element(1)));
        }
        match value {
            _ if NOT_IN_ASSETS.contains(&name.as_str()) => {}
            Json::Array(_) => expected.push((name.clone(), element(0))),
            value => expected.push((name.clone(), value.clone())),
        }
    }
    expected
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

/// L8, the audit itself: it saw each row, and its last version of a row is the one that stands there.
#[must_use]
pub fn audit_ends_at_rows(audit: &[(String, i64, i32, i64)], rows: &Rows) -> Vec<Breach> {
    let mut last: HashMap<&str, (i64, i32, i64)> = HashMap::new();
    for (id, generation, partition, offset) in audit {
        last.insert(id, (*generation, *partition, *offset));
    }
    let guard = |row: &BTreeMap<String, Json>| {
        let number = |name: &str| row.get(name).and_then(Json::as_i64);
        Some((number("__generation")?, i32::try_from(number("__partition")?).ok()?, number("__offset")?))
    };
    let wrong = rows.iter().filter(|(id, row)| last.get(id.as_str()).copied() != guard(row));
    wrong
        .map(|(id, row)| {
            format!("L8: the audit ends at {:?} for {id}, the row is at {:?}", last.get(id.as_str()), guard(row))
        })
        .collect()
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
        let key = json!({"org": "acme", "device_id": "D1"});
        Entry { topic: "abm.devices".into(), offset, key, value: Some(event), ..Entry::default() }
    }

    fn flat(offset: i64, fields: Json) -> Entry {
        let mut value = json!({"asset_id": "S1", "__deleted": "false", "__event_id": "e5"});
        let given = fields.as_object().expect("fields").clone();
        value.as_object_mut().expect("an object").extend(given);
        Entry { offset, key: json!({"asset_id": "S1"}), value: Some(value), ..Entry::default() }
    }

    fn rows(color: &str, offset: i64) -> Rows {
        let row = json!({
            "asset_id": "S1", "__deleted": "false", "__event_id": "e5", "color": color,
            "__generation": 1, "__partition": 0, "__offset": offset, "__written_at": offset,
        });
        Rows::from([("S1".to_owned(), serde_json::from_value(row).expect("a row"))])
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
    fn an_event_id_that_comes_twice_is_found() {
        let mut history = [change(0, 1, Json::Null, json!({"a": 1})), change(5, 2, json!({"a": 1}), json!({"a": 2}))];
        history[1].value.as_mut().expect("an event")["event_id"] = json!("e0");
        assert_eq!(no_duplicate(&history).len(), 1);
    }

    #[test]
    fn an_end_without_a_tombstone_and_a_tombstone_without_an_end_are_found() {
        let mut end = change(5, 2, json!({"a": 1}), Json::Null);
        end.value.as_mut().expect("an event")["op"] = json!("d");
        let tombstone = |offset| Entry { value: None, offset, ..change(offset, 0, Json::Null, Json::Null) };
        let first = change(0, 1, Json::Null, json!({"a": 1}));
        assert!(tombstones_follow(&[first.clone(), end.clone(), tombstone(6)]).is_empty());
        assert_eq!(tombstones_follow(&[first.clone(), end.clone()]).len(), 1);
        assert_eq!(tombstones_follow(&[first.clone(), end, change(7, 3, Json::Null, json!({"a": 1}))]).len(), 1);
        assert_eq!(tombstones_follow(&[first, tombstone(1)]).len(), 1);
    }

    #[test]
    fn a_row_that_is_not_its_last_record_is_found() {
        let log = [flat(3, json!({"color": "RED"})), flat(4, json!({"color": "BLUE"}))];
        assert!(store_equals_log(&log, &rows("BLUE", 4)).is_empty());
        assert_eq!(store_equals_log(&log, &rows("RED", 4)).len(), 1, "an old field");
        assert_eq!(store_equals_log(&log, &rows("BLUE", 3)).len(), 1, "an old guard");
        assert_eq!(store_equals_log(&log, &Rows::new()).len(), 1, "a row that is missing");
        assert_eq!(store_equals_log(&[], &rows("BLUE", 4)).len(), 1, "a row that no record made");
        let mut more = rows("BLUE", 4);
        more.get_mut("S1").expect("the row").insert("made_up".to_owned(), json!(1));
        assert_eq!(store_equals_log(&log, &more).len(), 1, "a column that no record has");
    }

    #[test]
    fn a_rebuilt_store_that_differs_is_found() {
        let mut later = rows("BLUE", 4);
        later.get_mut("S1").expect("the row").insert("__written_at".to_owned(), json!(99));
        assert!(rebuilt_equals(&rows("BLUE", 4), &later).is_empty());
        assert_eq!(rebuilt_equals(&rows("BLUE", 4), &rows("RED", 4)).len(), 1);
        assert_eq!(rebuilt_equals(&rows("BLUE", 4), &rows("BLUE", 3)).len(), 1);
        assert_eq!(rebuilt_equals(&rows("BLUE", 4), &Rows::new()).len(), 1);
        assert_eq!(rebuilt_equals(&Rows::new(), &rows("BLUE", 4)).len(), 1);
    }

    #[test]
    fn an_asset_that_lacks_a_field_or_a_second_element_is_found() {
        let after =
            json!({"device_id": "D1", "serial_number": "S1", "color": "RED", "imei": ["1", "2"], "unmapped": "{}"});
        let changes = [change(5, 1, Json::Null, after)];
        let whole = json!({"serial_number": "S1", "color": "RED", "imei": "1", "imei_2": "2"});
        assert_eq!(assets_equal_changes(&changes, &[flat(0, whole.clone())]), Vec::<Breach>::new());
        for (name, wrong) in [("color", json!("BLUE")), ("imei_2", Json::Null), ("imei", json!("2"))] {
            let mut asset = whole.clone();
            asset[name] = wrong;
            assert_eq!(assets_equal_changes(&changes, &[flat(0, asset)]).len(), 1, "{name}");
        }
        let mut lacking = whole;
        lacking.as_object_mut().expect("fields").remove("color");
        assert_eq!(assets_equal_changes(&changes, &[flat(0, lacking)]).len(), 1);
        assert_eq!(assets_equal_changes(&changes, &[]).len(), 1);
    }

    #[test]
    fn an_audit_that_missed_a_row_or_its_last_version_is_found() {
        let seen = |offset| vec![("S1".to_owned(), 1, 0, offset)];
        assert!(audit_ends_at_rows(&seen(4), &rows("BLUE", 4)).is_empty());
        assert_eq!(audit_ends_at_rows(&seen(3), &rows("BLUE", 4)).len(), 1);
        assert_eq!(audit_ends_at_rows(&[], &rows("BLUE", 4)).len(), 1);
    }
}
