//! Devices whose records are too large to be written.

use windfall_producer::apple::Item;
use windfall_producer::assignment::Assignments;
use windfall_producer::breaker::Limits;
use windfall_producer::checkpoint::{Header, ScanState};
use windfall_producer::memory::Memory;
use windfall_producer::release::LookUp;
use windfall_producer::source::OnceOutcome;
use windfall_producer::step::{self, Answer, ReadServers, Unwritable};
use windfall_schemas::device::DeviceValue;
use windfall_schemas::server::ServerValue;
use windfall_schemas::wire::WireError;
use windfall_simulator::Command;

use crate::rig::{Rig, still, told};
use crate::scenarios::{BEGIN, answer, known_event, origin, page};

fn device(id: &str) -> DeviceValue {
    DeviceValue { org: "acme".into(), device_id: id.into(), serial_number: id.into(), ..DeviceValue::default() }
}

fn too_large(id: &str) -> Vec<Unwritable> {
    vec![Unwritable { id: id.into(), error: WireError::TooLarge { bytes: 300_000 } }]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_with_an_enormous_attribute_is_rejected_alone_and_was_still_seen() {
    let rig = Rig::new(still(120, 1), 30).await;
    rig.once().await;
    let truth = rig.handle().truth();
    let server = truth.servers[0].id.clone();
    let mut assigned = truth.devices.iter().filter(|device| device.server_id.as_ref() == Some(&server));
    let (large, other) = (assigned.next().unwrap().id.clone(), assigned.next().unwrap().id.clone());
    // Each item may be read, but both images of its event with the name of its server cannot be sent in one record.
    rig.command(Command::RenameServer { server, name: "n".repeat(80_000) });
    let note = |text: &str, device: &String| {
        let value = text.repeat(60_000).into();
        rig.command(Command::Correct { device: device.clone(), attribute: "newInVersion9".into(), value });
    };
    note("x", &large);
    assert_eq!(rig.once().await, OnceOutcome::Complete);
    let before = rig.events().await.len();

    note("y", &large);
    rig.command(Command::Correct { device: other.clone(), attribute: "color".into(), value: "PLAID".into() });
    assert_eq!(rig.once().await, OnceOutcome::Incomplete);
    let rejects = rig.rejects().await;
    assert_eq!(rejects.len(), 1);
    let reject = &rejects[0];
    assert_eq!((reject.stage.as_str(), reject.reason.as_str()), ("encode", "too_large_to_send"));
    assert!(reject.message.contains("262144"), "{}", reject.message);
    assert_eq!(reject.resource_id.as_deref(), Some(large.as_str()));
    assert!(reject.payload.as_ref().is_some_and(|payload| payload.windows(9).any(|part| part == b"yyyyyyyyy")));
    let events = rig.events().await;
    assert_eq!(told(&events[..]).len(), before + 1);
    let corrected = events
        .iter()
        .filter(|event| event.changed.contains(&"color".to_owned()))
        .filter_map(|event| event.after.as_ref());
    assert_eq!(
        corrected.map(|after| after.device_id.as_str()).collect::<Vec<_>>(),
        [other.as_str()],
        "its page stands"
    );
    let header = rig.header().await;
    assert!(!rig.parts().await.keys().any(|part| part.starts_with("suspect:")));
    assert_eq!((header.state.as_deref(), header.devices), (Some("complete"), Some(120)), "it was seen");

    rig.command(Command::Correct { device: large.clone(), attribute: "newInVersion9".into(), value: 7.into() });
    assert_eq!(rig.once().await, OnceOutcome::Complete);
    let events = rig.events().await;
    let last = events.iter().rfind(|event| event.after.as_ref().unwrap().device_id == large).unwrap();
    assert_eq!(last.after.as_ref().unwrap().unmapped.as_deref(), Some(r#"{"newInVersion9":7}"#), "and it heals");
}

#[test]
fn a_page_is_planned_anew_without_a_device_that_cannot_be_written() {
    let mut memory = Memory::default();
    let header = Header::begin("acme", None, "test", BEGIN);
    let mut read = page(1, BEGIN, vec![device("A"), device("B"), device("C")], vec![], true);
    read.items.push(Item { index: 3, value: device("C").into(), unread: Vec::new() });
    assert_eq!(step::reject_of_page(&mut read, &too_large("X")), 0);
    assert_eq!(step::reject_of_page(&mut read, &too_large("C")), 2);
    let (step, header) =
        step::page(&origin(), &Limits::default(), &memory, &header, &Assignments::default(), read, BEGIN);
    assert_eq!(step.devices.iter().map(|event| event.source.snapshot.as_str()).collect::<Vec<_>>(), ["first", "last"]);
    assert_eq!((header.counts["added"], header.rejects, header.devices), (2, 2, 3));
    memory.apply(&step);
    assert!(memory.scans.seen().contains("C"));
}

#[test]
fn a_server_that_cannot_be_written_stays_as_it_is_known() {
    let mut memory = Memory::default();
    let server = |id: &str| ServerValue { org: "acme".into(), server_id: id.into(), ..ServerValue::default() };
    let begin = |memory: &Memory, read: &ReadServers| {
        let header = Header::begin("acme", memory.scans.devices.as_ref(), "test", BEGIN);
        step::begin(&origin(), memory, &header, read, BEGIN)
    };
    let mut read = ReadServers { servers: vec![server("S1"), server("S2")], complete: true, ..ReadServers::default() };
    let (step, _) = begin(&memory, &read);
    memory.apply(&step);
    assert_eq!(step::reject_of_servers(&mut read, &too_large("S2")), 1);
    let (step, header) = begin(&memory, &read);
    assert!(step.servers.is_empty(), "it is listed, and not removed");
    assert!(header.reasons[0].why.contains("server `S2`: its record cannot be written"), "{:?}", header.reasons);
}

/// A fleet of devices of which a scan lacks all but one, and the header of that scan.
fn missing(ids: [&str; 8]) -> (Memory, Header) {
    let mut memory = Memory::default();
    for id in ids.into_iter().chain(["SEEN1", "SEEN2", "SEEN3"]) {
        memory.fleet.apply(id, Some(known_event(device(id), 1, BEGIN - 1_000)));
    }
    let header = Header::begin("acme", None, "test", BEGIN);
    let seen = vec![device("SEEN1"), device("SEEN2"), device("SEEN3")];
    let read = page(1, BEGIN, seen, vec![], true);
    let (step, header) =
        step::page(&origin(), &Limits::default(), &memory, &header, &Assignments::default(), read, BEGIN);
    memory.apply(&step);
    let (step, header) = step::close(&origin(), &Limits::default(), &memory, &header, BEGIN + 1);
    memory.apply(&step);
    (memory, header)
}

#[test]
fn a_plan_is_approved_without_a_device_that_cannot_be_written() {
    let (mut memory, header) = missing(["A", "B", "C", "D", "E", "F", "G", "H"]);
    assert_eq!(header.state, ScanState::Held);
    let plan = windfall_schemas::signal::ApproveScan {
        source: "acme".into(),
        plan: header.scan_id.clone(),
        plan_hash: memory.scans.plans[&header.scan_id].hash(),
    };
    let planned = step::approve(&origin(), &memory, "s1", &plan, (9, 1), BEGIN + 2);
    let (step, answer) = step::approve_others(&origin(), planned, "s1", &plan, &too_large("C"), BEGIN + 2);
    assert_eq!(answer, Some(Answer::Approved { released: 7 }));
    assert_eq!(step.notifications[0].additional_data.as_ref().unwrap()["released"], "7");
    assert_eq!(step.rejects[0].resource_id.as_deref(), Some("C"));
    memory.apply(&step);
    assert!(memory.scans.plans.is_empty());
    assert_eq!(memory.fleet.live(), 4, "it is still there, and the next scan misses it again");
}

#[test]
fn a_look_up_whose_event_cannot_be_written_is_rejected_and_ends_the_suspicion() {
    let (mut memory, _) = missing(["A", "B", "C", "D", "E", "F", "G", "H"]);
    let at = BEGIN + 10;
    memory.scans.apply(&windfall_producer::checkpoint::Suspect::new(1, at).part("acme", "C", "acme-1", at));
    let reading = answer(9, at);
    let mut step = step::settle(&origin(), &memory, "C", LookUp::NotFound { control: true }, &reading, at);
    assert_eq!(step.devices.len(), 1);
    step::reject_of_step(&origin(), &mut step, &too_large("C"), at);
    assert!(step.devices.is_empty() && step.observed.is_empty());
    assert_eq!((step.rejects[0].stage.as_str(), step.rejects[0].scan_id.as_deref()), ("encode", Some("acme-1")));
    memory.apply(&step);
    assert!(memory.scans.suspects.is_empty() && memory.fleet.live() == 11);
}
