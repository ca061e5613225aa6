//! Law L6: the store is the fold of the log, through every stage.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value as Json;

use crate::checker::{Breach, events, text};
use crate::topics::Entry;

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

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    fn flat(offset: i64, fields: Json) -> Entry {
        let mut value = json!({"asset_id": "S1", "__deleted": "false", "__event_id": "e5"});
        let given = fields.as_object().expect("fields").clone();
        value.as_object_mut().expect("an object").extend(given);
        Entry { offset, key: json!({"asset_id": "S1"}), value: Some(value), ..Entry::default() }
    }

    /// The store of one asset, of that color, at that offset.
    pub(crate) fn rows(color: &str, offset: i64) -> Rows {
        let row = json!({
            "asset_id": "S1", "__deleted": "false", "__event_id": "e5", "color": color,
            "__generation": 1, "__partition": 0, "__offset": offset, "__written_at": offset,
        });
        Rows::from([("S1".to_owned(), serde_json::from_value(row).expect("a row"))])
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
        let event = Some(json!({"event_id": "e5", "after": after}));
        let changes = [Entry { value: event, ..Entry::default() }];
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
}
