//! Breaches planted into a small, clean history, one at a time: each must be found, and the clean history must not be blamed.

use chrono::{DateTime, Duration, Utc};
use serde_json::{Value as Json, json};
use windfall_simulator::journal::{
    Change, ChangeKind, Line, Record, Response, Served, ServedAssignment, ServedLinkage, TrueDevice, TrueServer, Truth,
};

use crate::checker::Breach;
use crate::journal::{headers_whole, log_equals_truth, nothing_lost, servers_equal_truth};
use crate::release::{no_false_release, no_false_removal};
use crate::served::{no_server_invented, nothing_invented};
use crate::topics::Entry;

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_225_600, 0).expect("a time") + Duration::seconds(seconds)
}

fn millis(seconds: i64) -> Json {
    json!(at(seconds).timestamp_millis())
}

/// An answer that came at a time, with that time in its request id.
fn answer(route: &str, target: &str, seconds: i64) -> Response {
    Response {
        at_wall: at(seconds),
        route: route.to_owned(),
        target: target.to_owned(),
        request_id: format!("request {seconds}"),
        status: Some(200),
        readable: true,
        complete: true,
        page: Some(1),
        last: Some(true),
        ..Response::default()
    }
}

fn served(id: &str, attributes: Json) -> Served {
    Served { id: Some(id.to_owned()), attributes: Some(attributes), digest: String::new() }
}

fn servers(seconds: i64, names: &[(&str, &str)]) -> Response {
    let servers = names.iter().map(|(id, name)| served(id, json!({"serverName": name}))).collect();
    Response { servers, ..answer("servers", "/v1/mdmServers", seconds) }
}

fn linkage(seconds: i64, server: &str, devices: &[&str]) -> Response {
    let device_ids = devices.iter().map(ToString::to_string).collect();
    let linkage = Some(ServedLinkage { server_id: server.to_owned(), device_ids });
    Response { linkage, ..answer("linkage", &format!("/v1/mdmServers/{server}/relationships/devices"), seconds) }
}

fn page(seconds: i64, devices: &[(&str, Json)]) -> Response {
    let devices = devices.iter().map(|(id, attributes)| served(id, attributes.clone())).collect();
    Response { devices, ..answer("devices", "/v1/orgDevices", seconds) }
}

fn look_up(seconds: i64, id: &str, attributes: Option<Json>) -> Response {
    let status = Some(if attributes.is_some() { 200 } else { 404 });
    let devices = attributes.map(|attributes| served(id, attributes)).into_iter().collect();
    Response { status, devices, last: None, ..answer("device", &format!("/v1/orgDevices/{id}?fields=x"), seconds) }
}

fn true_device(id: &str, server: Option<&str>, released: Option<i64>, attributes: &Json) -> TrueDevice {
    TrueDevice {
        org: "acme".to_owned(),
        id: id.to_owned(),
        listed: released.is_none(),
        server_id: server.map(str::to_owned),
        server_name: server.map(|_| "Main".to_owned()),
        released_at: released.map(at),
        attributes: serde_json::from_value(attributes.clone()).expect("attributes"),
    }
}

fn change(seconds: i64, kind: ChangeKind, previous: Option<&str>, device: TrueDevice) -> Record {
    Record::Change(Change {
        at: at(seconds),
        org: "acme".to_owned(),
        kind,
        device_id: Some(device.id.clone()),
        server_id: device.server_id.clone(),
        previous_server_id: previous.map(str::to_owned),
        device: Some(device),
        server: None,
    })
}

fn image(id: &str, attributes: Json, server: Option<&str>) -> Json {
    let mut image = json!({
        "org": "acme", "device_id": id, "serial_number": id, "mdm_server_id": server,
        "mdm_server_name": server.map(|_| "Main"), "released_from_org_date_time": null,
    });
    image.as_object_mut().expect("an image").extend(attributes.as_object().expect("attributes").clone());
    image
}

fn event(seconds: i64, request: i64, id: &str, before: Json, after: Json) -> Entry {
    let op = if after.is_null() { "d" } else { "u" };
    let value = json!({
        "op": op, "ts_ms": millis(seconds), "before": before, "after": after, "evidence": [],
        "source": {"request_id": format!("request {request}"), "scan_started_ms": millis(10), "sequence": "[\"1\"]"},
    });
    Entry { offset: seconds, key: json!({"org": "acme", "device_id": id}), value: Some(value), ..Entry::default() }
}

fn header(number: i64, state: &str, from: i64, to: i64, reasons: Json) -> Entry {
    let value = json!({
        "scan_number": number, "state": state, "started_at": millis(from), "finished_at": millis(to),
        "detail": json!({"reasons": reasons}).to_string(),
    });
    Entry { key: json!({"org": "acme", "table": "devices", "part": ""}), value: Some(value), ..Entry::default() }
}

/// A fleet of a device that stays and one that happens to; scan 1 sees both, scan 2 what became of them.
#[derive(Clone)]
struct History {
    journal: Vec<Record>,
    truth: Truth,
    scans: Vec<Entry>,
    changes: Vec<Entry>,
}

impl History {
    fn lines(&self) -> Vec<Line> {
        self.journal.iter().map(|record| Line { seq: 1, record: record.clone() }).collect()
    }

    fn answers(&mut self, answers: impl IntoIterator<Item = Response>) {
        self.journal.extend(answers.into_iter().map(|it| Record::Response(Box::new(it))));
    }

    fn answer_at(&mut self, seconds: i64) -> &mut Response {
        let answers = self.journal.iter_mut().filter_map(|record| match record {
            Record::Response(answer) => Some(answer.as_mut()),
            _ => None,
        });
        answers.into_iter().find(|it| it.at_wall == at(seconds)).expect("an answer")
    }

    fn event(&mut self, place: usize) -> &mut Json {
        self.changes[place].value.as_mut().expect("an event")
    }

    fn invented(&self) -> Vec<Breach> {
        nothing_invented(&self.lines(), &self.truth, &self.changes)
    }

    fn lost(&self) -> Vec<Breach> {
        let mut breaches = nothing_lost(&self.lines(), &self.scans, &self.changes);
        breaches.extend(log_equals_truth(&self.truth, &self.changes));
        breaches
    }

    fn false_releases(&self) -> Vec<Breach> {
        no_false_release(&self.lines(), &self.truth, &self.scans, &self.changes)
    }

    fn all(&self) -> Vec<Breach> {
        [self.invented(), self.lost(), self.false_releases()].concat()
    }
}

/// The two devices on the server X, seen by scan 1, which ran from second 10 to 20.
fn seen_once() -> History {
    let assigned = || json!({"status": "ASSIGNED"});
    let mut history = History {
        journal: Vec::new(),
        truth: Truth {
            at: at(0),
            devices: ["A", "B"].map(|id| true_device(id, Some("X"), None, &assigned())).into(),
            servers: vec![TrueServer {
                org: "acme".to_owned(),
                id: "X".to_owned(),
                name: "Main".to_owned(),
                devices: 2,
            }],
        },
        scans: vec![header(1, "complete", 10, 20, json!([]))],
        changes: ["A", "B"].map(|id| event(15, 14, id, Json::Null, image(id, assigned(), Some("X")))).into(),
    };
    history.answers([
        servers(11, &[("X", "Main")]),
        linkage(12, "X", &["A", "B"]),
        page(14, &[("A", assigned()), ("B", assigned())]),
    ]);
    history
}

/// B is taken from its server at second 25, which scan 2 sees.
fn unassigned() -> History {
    let mut history = seen_once();
    let (assigned, free) = (json!({"status": "ASSIGNED"}), json!({"status": "UNASSIGNED"}));
    history.journal.push(change(25, ChangeKind::Unassigned, Some("X"), true_device("B", None, None, &free)));
    history.answers([
        servers(31, &[("X", "Main")]),
        linkage(32, "X", &["A"]),
        page(34, &[("A", assigned.clone()), ("B", free.clone())]),
    ]);
    history.truth.devices[1] = true_device("B", None, None, &free);
    history.scans.push(header(2, "complete", 30, 40, json!([])));
    let (before, after) = (image("B", assigned, Some("X")), image("B", free, None));
    history.changes.push(event(35, 34, "B", before, after));
    history.event(2)["source"]["scan_started_ms"] = millis(30);
    history
}

/// B is released at second 25; scan 2 lacks it, and a look-up at second 41 says so: with the date, or with 404.
fn released(dated: bool) -> History {
    let mut history = seen_once();
    let assigned = json!({"status": "ASSIGNED"});
    let gone = json!({"status": "DEVICE_ASSIGNMENT_UNKNOWN", "releasedFromOrgDateTime": at(25).to_rfc3339()});
    history.journal.push(change(25, ChangeKind::Released, Some("X"), true_device("B", None, Some(25), &gone)));
    history.answers([
        servers(31, &[("X", "Main")]),
        linkage(32, "X", &["A"]),
        page(34, &[("A", assigned.clone())]),
        look_up(41, "B", dated.then(|| gone.clone())),
        look_up(42, "A", Some(assigned.clone())),
    ]);
    history.truth.devices[1] = true_device("B", None, Some(25), &gone);
    history.scans.push(header(2, "complete", 30, 40, json!([])));
    let date = millis(if dated { 25 } else { 41 });
    let status = if dated { "DEVICE_ASSIGNMENT_UNKNOWN" } else { "ASSIGNED" };
    let after = image("B", json!({"status": status, "released_from_org_date_time": date}), None);
    history.changes.push(event(43, 41, "B", image("B", assigned, Some("X")), after));
    let said = if dated { "200, released 2026-01-01T00:00:25Z" } else { "404, control read 200" };
    history.event(2)["evidence"] = json!(["scan 2: absent", format!("lookup 2026-01-01T00:00:41Z: {said}")]);
    history
}

#[test]
fn clean_histories_are_not_blamed() {
    for history in [seen_once(), unassigned(), released(true), released(false)] {
        assert_eq!(history.all(), Vec::<Breach>::new());
        assert!(headers_whole(&history.scans).is_empty());
    }
}

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
}

#[test]
fn a_status_is_kept_only_while_lists_are_missing() {
    let mut history = unassigned();
    history.event(2)["after"] = image("B", json!({"status": "ASSIGNED", "color": "BLUE"}), Some("X"));
    history.answer_at(34).devices[1].attributes = Some(json!({"status": "UNASSIGNED", "color": "BLUE"}));
    assert_eq!(history.invented().len(), 1);
    history.answer_at(32).status = Some(403);
    assert_eq!(history.invented(), Vec::<Breach>::new());
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
