//! Law L5: what was not released, and what does not prove it.

use super::*;

#[test]
fn a_release_that_never_happened_is_found_whatever_its_kind_says() {
    for dated in [true, false] {
        let mut history = released(dated);
        history.journal.retain(|record| !matches!(record, Record::Change(_)));
        history.truth.devices[1] = true_device("B", Some("X"), None, &json!({"status": "ASSIGNED"}));
        assert_eq!(history.false_releases().len(), 1);
        let mut history = released(dated);
        history.event(2)["kind"] = json!("updated");
        history.event(2)["evidence"] = json!([]);
        assert_eq!(history.false_releases().len(), 1);
    }
    let mut history = released(true);
    let end = image("B", json!({"status": "ASSIGNED"}), Some("X"));
    history.changes[2] = event(43, 41, "A", end, Json::Null);
    assert_eq!(history.false_releases().len(), 2, "an end: not true, and without evidence");
}

#[test]
fn a_release_before_its_time_or_told_twice_is_found() {
    let mut history = released(false);
    history.journal.retain(|record| !matches!(record, Record::Change(_)));
    let gone = true_device("B", None, Some(50), &json!({}));
    history.journal.push(change(50, ChangeKind::Released, Some("X"), gone));
    assert_eq!(history.false_releases().len(), 1, "before it happened");
    let mut history = released(false);
    let (left, back) = (history.event(2)["after"].clone(), image("B", json!({"status": "ASSIGNED"}), None));
    history.changes.push(event(44, 34, "B", left.clone(), back.clone()));
    let mut again = history.changes[2].clone();
    again.value.as_mut().expect("an event")["before"] = back;
    history.changes.push(again);
    assert_eq!(history.false_releases().len(), 1, "it never came back");
}

#[test]
fn a_scan_that_does_not_prove_an_absence_is_found() {
    let blamed = |history: &History, what: &str| assert_eq!(history.false_releases().len(), 1, "{what}");
    for dated in [true, false] {
        let whole = || released(dated);
        let mut history = whole();
        history.answer_at(34).devices.push(served("B", json!({})));
        blamed(&history, "the scan showed it");
        let mut history = whole();
        history.answer_at(34).last = Some(false);
        blamed(&history, "the list was not read to its end");
        let mut history = whole();
        history.scans[1] = header(2, "incomplete", 30, 40, json!([{"scope": "devices", "why": "a total"}]));
        blamed(&history, "the scan was not complete");
        history.scans[1] = header(2, "incomplete", 30, 40, json!([{"scope": "servers", "why": "a linkage list"}]));
        assert_eq!(history.false_releases(), Vec::<Breach>::new(), "its pages were");
        let mut history = whole();
        history.scans.pop();
        blamed(&history, "there was no such scan");
        let mut history = whole();
        history.scans[1] = header(2, "complete", 30, 44, json!([]));
        blamed(&history, "the scan ended after the event");
        let mut history = whole();
        history.scans[1] = header(2, "complete", 30, 42, json!([]));
        history.event(2)["ts_ms"] = millis(43);
        blamed(&history, "it was looked up before the scan had ended");
        let mut history = whole();
        history.event(2)["evidence"].as_array_mut().expect("evidence").remove(0);
        blamed(&history, "no scan is cited");
    }
}

#[test]
fn a_look_up_that_proves_nothing_is_found() {
    let blamed = |history: &History, what: &str| assert_eq!(history.false_releases().len(), 1, "{what}");
    let mut history = released(true);
    history.answer_at(41).status = Some(503);
    blamed(&history, "it failed");
    let mut history = released(true);
    history.answer_at(41).status = Some(403);
    blamed(&history, "it was forbidden");
    let mut history = released(true);
    history.answer_at(41).devices[0].attributes = Some(json!({"status": "ASSIGNED"}));
    blamed(&history, "it showed no date");
    let mut history = released(true);
    history.event(2)["after"]["released_from_org_date_time"] = millis(26);
    blamed(&history, "it showed another date");
    let mut history = released(true);
    history.event(2)["source"]["request_id"] = json!("request 42");
    blamed(&history, "it was about another device");
    let mut history = released(true);
    history.event(2)["evidence"] = json!(["scan 2: absent"]);
    blamed(&history, "it is not cited");
    history.event(2)["evidence"] = json!(["scan 2: absent", "a hunch"]);
    assert_eq!(history.false_releases().len(), 2, "what is cited proves nothing");
    let mut history = released(false);
    history.answer_at(42).status = Some(404);
    blamed(&history, "the control read failed too");
    let mut history = released(false);
    history.answer_at(42).at_wall = at(102);
    history.event(2)["ts_ms"] = millis(103);
    blamed(&history, "the control read came a minute later");
}
