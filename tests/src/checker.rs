//! The laws that must hold after any fault, read from the simulator's journal, the topics and the store.
//!
//! No product code takes part but the hash of an image: topics come through [`crate::topics`], the journal through the simulator's own
//! types, rows as plain JSON. Each law answers with what breaks it, so that a test shows all of it at once.
//!
//! | law | where |
//! | --- | --- |
//! | L1 no invention | [`crate::served`] |
//! | L2 no loss | [`crate::journal`] |
//! | L3 no duplicate, L4 order, L7 atomic offset, L8 monotone rows | here |
//! | L5 no false removal | [`crate::release`] |
//! | L6 store = fold(log) | [`crate::fold`] |
//! | L9 accounting | [`crate::accounting`] |
//! | L10 limits | [`crate::limits`] |
//! | L12 secrets, in logs and topics | [`crate::secrets`] |
//! | names, hashes and partitions of events | [`crate::identity`] |
//! | nothing holds for want of anything to judge | [`crate::vacuity`] |

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Duration, Utc};
use serde_json::Value as Json;

use crate::fold::Rows;
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

/// Returns the last moment of the millisecond in which an event was made: what led to it lies before.
#[must_use]
pub fn made(event: &Json) -> DateTime<Utc> {
    time(event, "ts_ms") + (Duration::milliseconds(1) - Duration::nanoseconds(1))
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
    use crate::fold::tests::rows;

    fn change(offset: i64, number: u64, before: Json, after: Json) -> Entry {
        let event = json!({
            "op": if before.is_null() { "c" } else { "u" }, "kind": "updated", "event_id": format!("e{offset}"),
            "before": before, "after": after, "source": {"sequence": format!("[\"{number:020}\"]")},
        });
        let key = json!({"org": "acme", "device_id": "D1"});
        Entry { topic: "abm.devices".into(), offset, key, value: Some(event), ..Entry::default() }
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
    fn an_audit_that_missed_a_row_or_its_last_version_is_found() {
        let seen = |offset| vec![("S1".to_owned(), 1, 0, offset)];
        assert!(audit_ends_at_rows(&seen(4), &rows("BLUE", 4)).is_empty());
        assert_eq!(audit_ends_at_rows(&seen(3), &rows("BLUE", 4)).len(), 1);
        assert_eq!(audit_ends_at_rows(&[], &rows("BLUE", 4)).len(), 1);
    }
}
