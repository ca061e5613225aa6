//! Runs every file of `scenarios/`: what is known, what Apple shows, what must be published.

use std::collections::BTreeMap;

use chrono::DateTime;
use serde::Deserialize;
use serde_json::Value as Json;
use windfall_producer::apple::{Answer, Cursor, Item, Page, Rejected};
use windfall_producer::assignment::Assignments;
use windfall_producer::breaker::Limits;
use windfall_producer::checkpoint::Header;
use windfall_producer::event::Origin;
use windfall_producer::fleet::Event;
use windfall_producer::memory::Memory;
use windfall_producer::release::LookUp;
use windfall_producer::step::{self, ReadServers, Step};
use windfall_schemas::device::DeviceValue;
use windfall_schemas::server::ServerValue;

/// When the scan of a scenario begins; look-ups are made a minute after its end.
pub(crate) const BEGIN: i64 = 1_764_000_000_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    /// The devices as last published.
    #[serde(default)]
    known: Vec<Json>,
    /// The management services: id to name.
    #[serde(default)]
    servers: BTreeMap<String, String>,
    /// The linkage lists: id of the service to ids of devices.
    #[serde(default)]
    linkage: BTreeMap<String, Vec<String>>,
    /// Whether every list of servers and linkage was read to its end.
    #[serde(default = "yes")]
    lists_complete: bool,
    /// The services whose linkage list was not read to its end.
    #[serde(default)]
    unread: Vec<String>,
    /// Whether a scan has read its last page before.
    #[serde(default = "yes")]
    scanned_before: bool,
    /// The pages.
    pages: Vec<Vec<Json>>,
    /// What single reads say: a device, `not_found`, `not_found_without_control`, `forbidden`, `forbidden_without_control`, `failed`.
    #[serde(default)]
    look_ups: BTreeMap<String, Json>,
    /// The events, in their order.
    expect: Vec<Expected>,
    /// Who is suspected in the end.
    #[serde(default)]
    suspects: Vec<String>,
    /// Who is held in the end.
    #[serde(default)]
    held: Vec<String>,
    /// How the scan ends.
    #[serde(default = "complete")]
    state: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    device: String,
    op: String,
    kind: String,
    #[serde(default)]
    changed: Vec<String>,
    #[serde(default)]
    snapshot: Option<String>,
    #[serde(default)]
    channel: Option<String>,
    #[serde(default)]
    after: BTreeMap<String, Json>,
    #[serde(default)]
    evidence: Vec<String>,
}

fn yes() -> bool {
    true
}

fn complete() -> String {
    "complete".to_owned()
}

pub(crate) fn origin() -> Origin {
    Origin { org: "acme".to_owned(), name: "windfall".to_owned(), api: "business".to_owned() }
}

/// Makes a device of a few fields; the serial number is the id where it is left out.
fn device(fields: &Json) -> DeviceValue {
    let mut fields = fields.as_object().expect("a device is a map").clone();
    fields.insert("org".into(), "acme".into());
    fields.remove("unread");
    let id = fields.get("device_id").expect("a device has an id").clone();
    fields.entry("serial_number").or_insert(id);
    serde_json::from_value(Json::Object(fields)).expect("the fields are those of the schema")
}

pub(crate) fn known_event(value: DeviceValue, number: u64, made_at: i64) -> Event<DeviceValue> {
    Event { after: Some(value.into()), number, made_at, told_at: made_at, channel: None }
}

pub(crate) fn answer(number: u64, at: i64) -> Answer {
    let received_at = DateTime::from_timestamp_millis(at).expect("a moment");
    Answer { number, path: "/v1/orgDevices".to_owned(), request_id: None, received_at }
}

pub(crate) fn page(number: u64, at: i64, devices: Vec<DeviceValue>, rejected: Vec<Rejected>, last: bool) -> Page {
    let items = devices
        .into_iter()
        .enumerate()
        .map(|(index, value)| Item { index, value: value.into(), unread: Vec::new() })
        .collect();
    let next = if last { None } else { Cursor::new(format!("page-{number}")) };
    Page { items, rejected, next, total: None, answer: answer(number, at) }
}

fn read(items: &[Json], number: u64, at: i64, last: bool) -> Page {
    let (bad, good): (Vec<&Json>, Vec<&Json>) = items.iter().partition(|item| item.get("rejected").is_some());
    let rejected = bad.into_iter().enumerate().map(|(index, item)| Rejected {
        index,
        id: item["rejected"].as_str().map(str::to_owned),
        reason: "bad_field",
        message: "a field has another type".to_owned(),
        raw: b"{}".to_vec(),
    });
    let unread = |item: &Json| serde_json::from_value(item["unread"].clone()).unwrap_or_default();
    let unread: Vec<Vec<String>> = good.iter().map(|item| unread(item)).collect();
    let mut page = page(number, at, good.into_iter().map(device).collect(), rejected.collect(), last);
    for (item, fields) in page.items.iter_mut().zip(unread) {
        item.unread = fields.into_iter().map(|field| &*field.leak()).collect();
    }
    page
}

fn read_servers(scenario: &Scenario) -> (ReadServers, Assignments) {
    let mut assignments = Assignments::new(scenario.servers.clone(), scenario.lists_complete, 1);
    let unread = |id: &&String| !scenario.lists_complete || scenario.unread.contains(id);
    let unread: Vec<&String> = scenario.servers.keys().filter(unread).collect();
    unread.iter().for_each(|id| assignments.cut_short(id));
    for (server, devices) in &scenario.linkage {
        for device in devices {
            assignments.link(device, server);
        }
    }
    let server = |(id, name): (&String, &String)| ServerValue {
        org: "acme".into(),
        server_id: id.clone(),
        server_name: Some(name.clone()),
        ..ServerValue::default()
    };
    let read = ReadServers {
        servers: scenario.servers.iter().map(server).collect(),
        complete: scenario.lists_complete,
        read_at: BEGIN,
        faults: unread.iter().map(|id| format!("the list of `{id}` was cut")).collect(),
        ..ReadServers::default()
    };
    (read, assignments)
}

fn look_up(said: &Json) -> LookUp {
    match said.as_str() {
        None => LookUp::Found(Box::new(device(said))),
        Some("not_found") => LookUp::NotFound { control: true },
        Some("not_found_without_control") => LookUp::NotFound { control: false },
        Some("forbidden") => LookUp::Forbidden { control: true },
        Some("forbidden_without_control") => LookUp::Forbidden { control: false },
        Some(_) => LookUp::Failed { why: "status 503".to_owned() },
    }
}

/// Plays a scenario as the run loop would, and returns the steps that were committed.
fn play(scenario: &Scenario) -> (Memory, Vec<Step>, Header) {
    let origin = origin();
    let mut memory = Memory::default();
    for known in &scenario.known {
        let value = device(known);
        memory.fleet.apply(&value.device_id.clone(), Some(known_event(value, 1, BEGIN - 3_600_000)));
    }
    let mut header = Header::begin("acme", None, "test", BEGIN);
    header.read_to_end = scenario.scanned_before;
    let mut steps = Vec::new();
    let (read_servers, assignments) = read_servers(scenario);
    let (begin, mut header) = step::begin(&origin, &memory, &header, &read_servers, BEGIN);
    let mut take = |memory: &mut Memory, step: Step| {
        memory.apply(&step);
        steps.push(step);
    };
    take(&mut memory, begin);
    for (items, number) in scenario.pages.iter().zip(2u64..) {
        let at = BEGIN + 3_000 * i64::try_from(number).unwrap();
        let page = read(items, number, at, header.page as usize + 1 == scenario.pages.len());
        let (step, moved) = step::page(&origin, &Limits::default(), &memory, &header, &assignments, page, at);
        take(&mut memory, step);
        header = moved;
    }
    let end = BEGIN + 60_000;
    let (closed, header) = step::close(&origin, &Limits::default(), &memory, &header, end);
    take(&mut memory, closed);
    for (device_id, said) in &scenario.look_ups {
        assert!(memory.scans.suspects.contains_key(device_id), "`{device_id}` is looked up and no suspect");
        let at = end + 60_000;
        let reading = answer(1_000, at);
        let step = step::settle(&origin, &memory, device_id, look_up(said), &reading, at);
        take(&mut memory, step);
    }
    (memory, steps, header)
}

fn check(name: &str, scenario: &Scenario) {
    let (memory, steps, header) = play(scenario);
    let events: Vec<_> = steps.iter().flat_map(|step| &step.devices).collect();
    let shown: Vec<String> = events
        .iter()
        .map(|event| {
            let id = event.after.as_ref().map_or("-", |after| after.device_id.as_str());
            format!("{id} {} {:?} {:?}", event.op, event.kind, event.changed)
        })
        .collect();
    assert_eq!(events.len(), scenario.expect.len(), "{name}: events are {shown:#?}");
    for (event, expected) in events.iter().zip(&scenario.expect) {
        let at = format!("{name}: device `{}`", expected.device);
        let after = event.after.as_ref().expect("devices are never removed here");
        assert_eq!(after.device_id, expected.device, "{at}: {shown:#?}");
        assert_eq!(event.op.as_str(), expected.op, "{at}: op");
        assert_eq!(event.kind.as_ref().unwrap().as_str(), expected.kind, "{at}: kind, changed {:?}", event.changed);
        assert_eq!(event.changed, expected.changed, "{at}: changed");
        assert_eq!(event.before.is_some(), expected.op == "u", "{at}: before is filled for u alone");
        if let Some(snapshot) = &expected.snapshot {
            assert_eq!(event.source.snapshot.as_str(), snapshot, "{at}: snapshot");
        }
        let channel = expected.channel.as_deref().unwrap_or("scan");
        assert_eq!(event.source.channel.as_ref().unwrap().as_str(), channel, "{at}: channel");
        assert_eq!(event.evidence, expected.evidence, "{at}: evidence");
        let fields = serde_json::to_value(after).unwrap();
        for (field, value) in &expected.after {
            assert_eq!(&fields[field], value, "{at}: {field} afterwards");
        }
    }
    let suspects: Vec<&String> = memory.scans.suspects.keys().collect();
    assert_eq!(suspects, scenario.suspects.iter().collect::<Vec<_>>(), "{name}: suspects");
    let held: Vec<String> = memory.scans.plans.values().flat_map(|plan| plan.ids()).collect();
    assert_eq!(held, scenario.held, "{name}: held");
    assert_eq!(header.state.as_str(), scenario.state, "{name}: state, for {:?}", header.reasons);
}

#[test]
fn every_scenario_publishes_what_it_expects() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 25, "only {} scenarios were found in {folder}", files.len());
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let scenario: Scenario = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        check(&name, &scenario);
    }
}
