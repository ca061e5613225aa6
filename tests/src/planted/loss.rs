//! Law L2, and all laws of `abm.servers`.

use super::*;

#[test]
fn a_state_that_a_complete_scan_saw_and_no_event_tells_is_found() {
    let mut history = unassigned();
    history.changes.pop();
    let lost = history.lost();
    assert_eq!(lost.len(), 3, "the state, and at the end server and attributes: {lost:?}");
    let mut history = seen_once();
    history.event(0)["after"]["mdm_server_id"] = json!("Y");
    assert_eq!(history.lost().len(), 2, "the server that the lists showed, then and at the end");
    let mut history = seen_once();
    history.changes.pop();
    assert_eq!(history.lost().len(), 3, "a device without any event: its state, its server, and at the end");
    let mut history = released(true);
    history.changes.pop();
    assert!(!history.lost().is_empty(), "a release");
    let mut history = released(true);
    history.event(2)["after"]["mdm_server_name"] = json!("Main");
    assert_eq!(history.lost().len(), 1, "a released device that keeps its server");
}

#[test]
fn a_scan_whose_header_lacks_its_times_is_found() {
    for name in ["started_at", "finished_at", "scan_number", "detail"] {
        let mut history = seen_once();
        history.scans[0].value.as_mut().expect("a header")[name] = Json::Null;
        assert_eq!(headers_whole(&history.scans).len(), 1, "{name}");
    }
}

#[test]
fn a_server_that_is_wrong_in_its_own_topic_is_found() {
    let entry = |seconds: i64, after: Json| {
        let evidence = if after.is_null() { json!(["scan 2: absent"]) } else { json!([]) };
        let value = json!({
            "ts_ms": millis(seconds), "after": after, "evidence": evidence, "source": {"scan_started_ms": millis(30)},
        });
        Entry { key: json!({"org": "acme", "server_id": "X"}), value: Some(value), ..Entry::default() }
    };
    let named = |name: &str| entry(13, json!({"server_id": "X", "server_name": name}));
    let history = seen_once();
    let lines = history.lines();
    assert!(no_server_invented(&lines, &[named("Main")]).is_empty());
    assert_eq!(no_server_invented(&lines, &[named("Other")]).len(), 1);
    assert!(servers_equal_truth(&history.truth, &[named("Main")]).is_empty());
    assert_eq!(servers_equal_truth(&history.truth, &[named("Other")]).len(), 1);
    assert_eq!(servers_equal_truth(&history.truth, &[]).len(), 1);
    let none = Truth { servers: Vec::new(), ..history.truth.clone() };
    assert_eq!(servers_equal_truth(&none, &[named("Main")]).len(), 1);

    let removed = |seconds| Change {
        at: at(seconds),
        org: "acme".to_owned(),
        kind: ChangeKind::ServerRemoved,
        device_id: None,
        server_id: Some("X".to_owned()),
        previous_server_id: None,
        device: None,
        server: None,
    };
    let mut gone = history.clone();
    gone.journal.push(Record::Change(removed(25)));
    gone.answers([servers(31, &[])]);
    let end = || [entry(35, Json::Null)];
    assert!(no_false_removal(&gone.lines(), &none, &end()).is_empty());
    assert_eq!(no_false_removal(&gone.lines(), &gone.truth, &end()).len(), 1, "it stands");
    let mut uncited = end();
    uncited[0].value.as_mut().expect("an event")["evidence"] = json!([]);
    assert_eq!(no_false_removal(&gone.lines(), &none, &uncited).len(), 1);
    gone.answer_at(31).servers = vec![served("X", json!({"serverName": "Main"}))];
    assert_eq!(no_false_removal(&gone.lines(), &none, &end()).len(), 1, "the list shows it");
    gone.answer_at(31).servers = Vec::new();
    gone.journal.retain(|record| !matches!(record, Record::Change(_)));
    gone.journal.push(Record::Change(removed(36)));
    assert_eq!(no_false_removal(&gone.lines(), &none, &end()).len(), 1, "before it was removed");
}
