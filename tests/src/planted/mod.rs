//! Breaches planted into a small, clean history, one at a time: each must be found, and the clean history must not be blamed.

mod invention;
mod loss;
mod removal;

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
    let status = dated.then_some("DEVICE_ASSIGNMENT_UNKNOWN");
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
