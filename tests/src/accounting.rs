//! Law L9: whatever was read became something. What the API broke is a reject, what the store was given is a row, and nothing sound is a dead letter.

use std::collections::{HashMap, HashSet};

use windfall_simulator::journal::{Line, Response, Served};

use crate::checker::{Breach, StoreSnapshot, events, place, text};
use crate::journal::{good, responses, scans_ended};
use crate::topics::Entry;

/// L9, the producer: each item that a page of an ended scan held broken is one reject, and nothing else is.
///
/// The last serving of a page within a scan counts: one that was read again after a crash stands for both.
#[must_use]
pub fn rejects_accounted(journal: &[Line], scans: &[Entry], rejects: &[Entry]) -> Vec<Breach> {
    let by_request: HashMap<&str, &Response> = responses(journal).map(|it| (it.request_id.as_str(), it)).collect();
    let mut breaches = Vec::new();
    let mut told: HashSet<(&str, usize)> = HashSet::new();
    let mut ids: HashSet<&str> = HashSet::new();
    for (entry, reject) in events(rejects) {
        let (request, index) = (text(reject, "request_id"), reject["page_index"].as_u64().unwrap_or(u64::MAX) as usize);
        let item = by_request.get(request).filter(|it| good(it)).and_then(|it| it.devices.get(index));
        if !item.is_some_and(broken) {
            breaches.push(format!("L9: {} rejects item {index} of `{request}`, which was whole", place(entry)));
        }
        if !told.insert((request, index)) || !ids.insert(text(reject, "reject_id")) {
            breaches.push(format!("L9: {} repeats a reject", place(entry)));
        }
    }
    for scan in scans_ended(scans) {
        let inside = |it: &&Response| scan.started_at <= it.at_wall && it.at_wall <= scan.finished_at;
        let pages = responses(journal).filter(inside).filter(|it| it.route == "devices" && good(it));
        let last: HashMap<&str, &Response> = pages.map(|it| (it.target.as_str(), it)).collect();
        for answer in last.values() {
            let broken = answer.devices.iter().enumerate().filter(|(_, item)| broken(item));
            for (index, _) in broken.filter(|(index, _)| !told.contains(&(answer.request_id.as_str(), *index))) {
                breaches.push(format!(
                    "L9: scan {} met a broken item {index} on {} and rejected none",
                    scan.number, answer.target
                ));
            }
        }
    }
    breaches
}

fn broken(item: &Served) -> bool {
    item.id.is_none() || item.attributes.is_none()
}

/// L9, the transformer and the sink: nothing that they were given was bad, so nothing is a dead letter.
#[must_use]
pub fn no_dead_letters(dead: &[Entry]) -> Vec<Breach> {
    let why = |entry: &Entry| entry.headers.get("__connect.errors.exception.message").cloned().unwrap_or_default();
    dead.iter()
        .map(|entry| format!("L9: {} of {} is a dead letter: {}", place(entry), entry.topic, why(entry)))
        .collect()
}

/// L9, the store: each version of a row is a record of its asset, and the positions lie behind the last record of each partition.
#[must_use]
pub fn rows_accounted(flat: &[Entry], audit: &[(String, i64, i32, i64)], last: Option<&StoreSnapshot>) -> Vec<Breach> {
    let mut records: HashSet<(&str, i32, i64)> = HashSet::new();
    let mut ends: HashMap<i32, i64> = HashMap::new();
    for entry in flat {
        records.insert((text(&entry.key, "asset_id"), entry.partition, entry.offset));
        ends.insert(entry.partition, entry.offset);
    }
    let strays =
        audit.iter().filter(|(id, _, partition, offset)| !records.contains(&(id.as_str(), *partition, *offset)));
    let mut breaches: Vec<Breach> = strays
        .map(|(id, _, partition, offset)| {
            format!("L9: {id} had a version of {partition}@{offset}, which is no record of it")
        })
        .collect();
    for (partition, end) in ends {
        let next = last.and_then(|snapshot| snapshot.partitions.get(&partition)).map(|(_, next)| *next);
        if next.is_none_or(|next| next <= end) {
            breaches.push(format!("L9: partition {partition} ends at {end}, the store goes on at {next:?}"));
        }
    }
    breaches
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use chrono::DateTime;
    use serde_json::json;
    use windfall_simulator::journal::Record;

    use super::*;

    fn record(asset: &str, offset: i64) -> Entry {
        Entry { offset, key: json!({"asset_id": asset}), value: Some(json!({})), ..Entry::default() }
    }

    #[test]
    fn a_version_that_is_no_record_and_a_record_that_was_not_reached_are_found() {
        let at = |next| StoreSnapshot { partitions: BTreeMap::from([(0, (0, next))]) };
        let flat = [record("A", 3), record("B", 4)];
        let version = |asset: &str, offset| vec![(asset.to_owned(), 1, 0, offset)];
        assert!(rows_accounted(&flat, &version("A", 3), Some(&at(5))).is_empty());
        assert_eq!(rows_accounted(&flat, &version("A", 4), Some(&at(5))).len(), 1, "another asset's record");
        assert_eq!(rows_accounted(&flat, &version("A", 3), Some(&at(4))).len(), 1, "the last record was not read");
        assert_eq!(rows_accounted(&flat, &version("A", 3), None).len(), 1, "no position at all");
    }

    #[test]
    fn a_dead_letter_is_found() {
        assert!(no_dead_letters(&[]).is_empty());
        assert_eq!(no_dead_letters(&[record("A", 0)]).len(), 1);
    }

    #[test]
    fn a_broken_item_without_its_reject_and_a_reject_without_its_item_are_found() {
        let at = DateTime::from_timestamp_millis(1_000).expect("a time");
        let item = |id: Option<&str>| Served {
            id: id.map(str::to_owned),
            attributes: id.map(|_| json!({})),
            digest: String::new(),
        };
        let page = |request: &str, target: &str, devices| Response {
            at_wall: at,
            route: "devices".to_owned(),
            request_id: request.to_owned(),
            target: target.to_owned(),
            status: Some(200),
            readable: true,
            devices,
            ..Response::default()
        };
        let mixed = || vec![item(Some("A")), item(None)];
        let journal: Vec<Line> =
            [page("r1", "p1", mixed()), page("r2", "p1", mixed()), page("r3", "p2", vec![item(Some("B"))])]
                .into_iter()
                .map(|answer| Line { seq: 1, record: Record::Response(Box::new(answer)) })
                .collect();
        let header = json!({
            "scan_number": 1, "state": "incomplete", "started_at": 0, "finished_at": 2_000, "detail": "{\"reasons\": []}",
        });
        let key = json!({"table": "devices", "part": ""});
        let scans = [Entry { key, value: Some(header), ..Entry::default() }];
        let reject = |request: &str, index: i64| Entry {
            value: Some(json!({"reject_id": format!("{request}/{index}"), "request_id": request, "page_index": index})),
            ..Entry::default()
        };
        let judged = |rejects: &[Entry]| rejects_accounted(&journal, &scans, rejects).len();
        assert_eq!(judged(&[reject("r2", 1)]), 0, "the page was read twice, and the last reading counts");
        assert_eq!(judged(&[reject("r1", 1), reject("r2", 1)]), 0, "both may have been committed");
        assert_eq!(judged(&[]), 1);
        assert_eq!(judged(&[reject("r2", 1), reject("r2", 1)]), 1, "told twice");
        assert_eq!(judged(&[reject("r2", 1), reject("r3", 0)]), 1, "it was whole");
    }
}
