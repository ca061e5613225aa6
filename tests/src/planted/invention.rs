//! Law L1: what was never served, and what was never true.

use super::*;

#[test]
fn an_attribute_that_its_answer_did_not_show_is_found() {
    let mut history = seen_once();
    history.event(0)["after"]["color"] = json!("BLUE");
    assert_eq!(history.invented().len(), 1);
    let mut history = seen_once();
    history.event(0)["source"]["request_id"] = json!("request 99");
    assert_eq!(history.invented().len(), 1, "no such answer");
    let mut history = seen_once();
    history.answer_at(14).readable = false;
    assert_eq!(history.invented().len(), 2, "an answer that nobody could read");
    let mut history = seen_once();
    history.event(0)["ts_ms"] = millis(13);
    assert_eq!(history.invented().len(), 1, "an event before its answer");
    let mut history = seen_once();
    history.event(0)["after"]["device_id"] = json!("B");
    assert_eq!(history.invented().len(), 1, "another device than the key's");
    let mut history = seen_once();
    history.changes[0].key["device_id"] = json!("Z");
    assert_eq!(history.invented().len(), 1, "a device that never existed");
    let mut history = seen_once();
    history.event(0)["after"]["coverage_status"] = json!("ACTIVE");
    assert_eq!(history.invented().len(), 1, "a cover that nothing showed");
}

#[test]
fn an_unassignment_that_never_happened_is_found_even_when_it_is_taken_back() {
    let mut history = seen_once();
    let on = |server| image("A", json!({"status": "ASSIGNED"}), server);
    history.changes.push(event(16, 14, "A", on(Some("X")), on(None)));
    history.changes.push(event(17, 14, "A", on(None), on(Some("X"))));
    assert_eq!(history.lost(), Vec::<Breach>::new(), "at the end all is well");
    assert_eq!(history.invented().len(), 1);
}

#[test]
fn a_server_that_is_wrong_too_early_or_twice_is_found() {
    let mut history = unassigned();
    history.event(2)["ts_ms"] = millis(24);
    history.answer_at(34).at_wall = at(24);
    assert_eq!(history.invented().len(), 1, "before it happened");

    let mut history = unassigned();
    let free = image("B", json!({"status": "UNASSIGNED"}), None);
    let back = image("B", json!({"status": "UNASSIGNED"}), Some("X"));
    history.changes.push(event(36, 34, "B", free.clone(), back.clone()));
    history.changes.push(event(37, 34, "B", back, free));
    assert_eq!(history.invented().len(), 1, "assigned again, which was long ago");

    let mut history = seen_once();
    history.event(0)["after"]["mdm_server_id"] = json!("Y");
    history.answers([servers(13, &[("Y", "Main")])]);
    assert_eq!(history.invented().len(), 1, "a server whose list never showed the device");
    history.answers([linkage(16, "Y", &["A"])]);
    assert_eq!(history.invented().len(), 1, "shown only after the event");
    history.answers([linkage(13, "Y", &["A"])]);
    assert_eq!(history.invented().len(), 1, "shown, and never true");

    let mut history = seen_once();
    history.event(0)["after"]["mdm_server_name"] = json!("Other");
    assert_eq!(history.invented().len(), 1, "a name that nobody gave");
}

#[test]
fn a_device_without_a_server_may_be_unknown_only_while_lists_are_missing() {
    let mut history = seen_once();
    history.event(0)["after"]["mdm_server_id"] = Json::Null;
    history.event(0)["after"]["mdm_server_name"] = Json::Null;
    assert_eq!(history.invented().len(), 1);
    history.answer_at(12).status = Some(403);
    history.answers([linkage(60, "X", &["B"])]);
    history.event(1)["ts_ms"] = millis(61);
    assert_eq!(history.invented(), Vec::<Breach>::new());
    history.answers([linkage(13, "X", &["B"])]);
    assert_eq!(history.invented().len(), 1, "refused first, and then served without it");
}

#[test]
fn a_status_is_kept_only_while_lists_are_missing() {
    let mut history = unassigned();
    history.event(2)["after"] = image("B", json!({"status": "ASSIGNED", "color": "BLUE"}), Some("X"));
    history.answer_at(34).devices[1].attributes = Some(json!({"status": "UNASSIGNED", "color": "BLUE"}));
    assert_eq!(history.invented().len(), 1);
    history.answer_at(32).status = Some(403);
    assert_eq!(history.invented(), Vec::<Breach>::new());
    let later = json!({"status": "UNASSIGNED", "color": "BLUE", "updatedDateTime": at(33).to_rfc3339()});
    history.answer_at(34).devices[1].attributes = Some(later);
    assert_eq!(history.invented(), Vec::<Breach>::new(), "its time of update is that of the status");
}

#[test]
fn a_single_read_shows_a_server_too() {
    let mut history = seen_once();
    history.answer_at(12).linkage = None;
    assert_eq!(history.invented().len(), 2);
    for id in ["A", "B"] {
        let assigned = Some(ServedAssignment { device_id: id.to_owned(), server_id: Some("X".to_owned()) });
        history.answers([Response { assigned, ..answer("assigned-server-id", id, 13) }]);
    }
    assert_eq!(history.invented(), Vec::<Breach>::new());
}

#[test]
fn an_event_that_goes_back_to_an_older_answer_is_found() {
    let mut history = unassigned();
    history.changes.swap(1, 2);
    assert_eq!(history.invented().len(), 2, "the older answer, and the server that it brings back");
}

#[test]
fn what_happens_within_a_millisecond_is_in_time() {
    let mut history = seen_once();
    history.answer_at(14).at_wall = at(15) + Duration::microseconds(900);
    assert_eq!(history.invented(), Vec::<Breach>::new());
    history.event(0)["ts_ms"] = millis(14);
    history.event(1)["ts_ms"] = millis(14);
    assert_eq!(history.invented().len(), 2);
}
