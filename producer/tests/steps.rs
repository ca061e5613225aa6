//! What a scenario file cannot say: several scans, plans, approvals, resumed scans.

use std::collections::BTreeSet;
use std::sync::Arc;

use windfall_producer::apple::{Item, PageOf, Rejected};
use windfall_producer::assignment::Assignments;
use windfall_producer::breaker::{Case, Limits};
use windfall_producer::checkpoint::{First, Header, Plan, PlanOrigin, ScanRecord, ScanState, Scope, Suspect};
use windfall_producer::event;
use windfall_producer::memory::Memory;
use windfall_producer::notice;
use windfall_producer::observation::Observation;
use windfall_producer::release::{Absence, LookUp, Verdict, classify};
use windfall_producer::step::{self, Answer, ReadServers};
use windfall_schemas::device::DeviceValue;
use windfall_schemas::identifiers::DeviceId;
use windfall_schemas::server::ServerValue;
use windfall_schemas::signal::ApproveScan;
use windfall_schemas::wire::Codec;

use crate::scenarios::{BEGIN, answer, known_event, origin, page};

const HOUR: i64 = 3_600_000;

fn device(id: usize) -> DeviceValue {
    let id = format!("D{id:05}");
    DeviceValue { org: "acme".into(), device_id: id.clone(), serial_number: id, ..DeviceValue::default() }
}

fn fleet(count: usize) -> Memory {
    let mut memory = Memory::default();
    for id in 0..count {
        let value = device(id);
        memory.fleet.apply(&value.device_id.clone(), Some(known_event(value, 1, BEGIN - HOUR)));
    }
    memory
}

/// Scans a list of one page, to its end.
fn scan(memory: &mut Memory, at: i64, listed: impl Iterator<Item = usize>) -> Header {
    let header = Header::begin("acme", memory.scans.devices.as_ref(), "test", at);
    let read = page(1, at, listed.map(device).collect(), vec![], true);
    let (step, header) = step::page(&origin(), &Limits::default(), memory, &header, &Assignments::default(), read, at);
    memory.apply(&step);
    let (step, header) = step::close(&origin(), &Limits::default(), memory, &header, at + 1);
    memory.apply(&step);
    header
}

fn approval(memory: &Memory, plan: &str) -> ApproveScan {
    let plan_hash = memory.scans.plans[plan].hash();
    ApproveScan { source: "acme".into(), plan: plan.into(), plan_hash }
}

#[test]
fn the_breaker_counts_the_releases_of_the_last_day_with_the_suspects() {
    let case = Case { released_lately: 8, suspects: 2, held: 0, live: 100, listed: 98 };
    assert_eq!(Limits::default().ask(&case), None);
    assert!(Limits::default().ask(&Case { suspects: 3, ..case }).unwrap().contains("; 10 may leave in a day"));
    let large = Case { released_lately: 0, suspects: 500, held: 0, live: 10_000, listed: 9_500 };
    assert_eq!(Limits::default().ask(&large), None, "5 % may leave");
    assert!(Limits::default().ask(&Case { suspects: 501, ..large }).unwrap().contains("; 500 may leave in a day"));
    let empty = Case { released_lately: 0, suspects: 1, held: 0, live: 1, listed: 0 };
    assert!(Limits::default().ask(&empty).unwrap().contains("the list is empty"));
    assert_eq!(
        Limits::default().ask(&Case { released_lately: 0, suspects: 2, held: 0, live: 3, listed: 1 }),
        None,
        "a fleet of three"
    );
    let halved = Case { released_lately: 0, suspects: 3, held: 0, live: 4, listed: 1 };
    assert!(Limits::default().ask(&halved).unwrap().contains("more than half"));
}

#[test]
fn a_mass_release_is_held_and_published_only_as_it_was_shown() {
    let mut memory = fleet(100);
    let header = scan(&mut memory, BEGIN, 0..60);
    assert_eq!(header.state, ScanState::Held);
    assert!(memory.scans.suspects.is_empty(), "held devices are not looked up");
    let shown = approval(&memory, "acme-1");

    // One of them is listed again: it leaves the plan, and the approval of what was shown is stale.
    let header = scan(&mut memory, BEGIN + HOUR, 0..61);
    assert_eq!(header.state, ScanState::Held, "nothing new is missing, and the plan still waits");
    assert_eq!(memory.scans.plans["acme-1"].len(), 39);
    let (step, answer) = step::approve(&origin(), &memory, "s1", &shown, (9, 1), BEGIN + 2 * HOUR);
    memory.apply(&step);
    assert_eq!(answer, Some(Answer::Stale { plan_hash: memory.scans.plans["acme-1"].hash() }));
    assert!(step.devices.is_empty());

    let fresh = approval(&memory, "acme-1");
    let (step, answer) = step::approve(&origin(), &memory, "s2", &fresh, (9, 2), BEGIN + 2 * HOUR);
    memory.apply(&step);
    assert_eq!(answer, Some(Answer::Approved { released: 39 }));
    assert_eq!(step.devices.len(), 39);
    let event = &step.devices[0];
    assert_eq!(event.kind.as_ref().unwrap().as_str(), "released");
    assert_eq!(event.source.channel.as_ref().unwrap().as_str(), "operator");
    assert_eq!(
        event.after.as_ref().unwrap().released_from_org_date_time,
        Some(BEGIN + 1),
        "end of the scan that missed it"
    );
    assert_eq!(event.evidence, ["scan 1: absent", "approved by signal s2"]);
    assert!(memory.scans.plans.is_empty());
    assert_eq!(memory.scans.signals, Some(2));
    assert_eq!(memory.fleet.live(), 61);

    let (step, answer) = step::approve(&origin(), &memory, "s3", &fresh, (9, 3), BEGIN + 2 * HOUR);
    assert_eq!(answer, Some(Answer::Unknown), "approving twice does nothing");
    assert!(step.devices.is_empty());
    assert_eq!(memory.fleet.releases_since(0), 0, "releases of an operator are not counted by the breaker");
}

#[test]
fn a_held_incident_goes_on_devices_that_follow_are_held_as_well() {
    let mut memory = fleet(100);
    scan(&mut memory, BEGIN, 0..80);
    let header = scan(&mut memory, BEGIN + HOUR, 0..76);
    assert_eq!(header.state, ScanState::Held);
    assert!(memory.scans.suspects.is_empty(), "four more of a running incident are no new one");
    assert_eq!((memory.scans.plans["acme-1"].len(), memory.scans.plans["acme-2"].len()), (20, 4));
    let header = scan(&mut memory, BEGIN + 2 * HOUR, 0..100);
    assert_eq!((header.state, memory.scans.plans.len()), (ScanState::Complete, 0));
}

#[test]
fn a_suspect_or_held_device_that_is_rejected_under_its_serial_number_is_cleared() {
    let mut memory = fleet(200);
    let mut odd = device(300);
    odd.serial_number = "SERIAL300".into();
    memory.fleet.apply("D00300", Some(known_event(odd, 1, BEGIN - HOUR)));
    scan(&mut memory, BEGIN, 0..200);
    assert!(memory.scans.suspects.contains_key("D00300"));
    let at = BEGIN + HOUR;
    let header = Header::begin("acme", memory.scans.devices.as_ref(), "test", at);
    let rejected = Rejected {
        index: 200,
        id: Some("SERIAL300".into()),
        reason: "no_id",
        message: "it has no id".into(),
        raw: b"{}".to_vec(),
    };
    let read = page(1, at, (0..200).map(device).collect(), vec![rejected], true);
    let (step, header) = step::page(&origin(), &Limits::default(), &memory, &header, &Assignments::default(), read, at);
    memory.apply(&step);
    assert!(memory.scans.suspects.is_empty());
    let (step, header) = step::close(&origin(), &Limits::default(), &memory, &header, at);
    memory.apply(&step);
    assert!(header.absence_counts() && memory.scans.suspects.is_empty(), "it was seen, and is not missing");
}

#[test]
fn each_device_of_a_plan_is_released_at_the_end_of_the_scan_that_first_missed_it() {
    let mut memory = fleet(100);
    scan(&mut memory, BEGIN, 0..94);
    scan(&mut memory, BEGIN + HOUR, 0..88);
    let (step, _) = step::approve(&origin(), &memory, "s1", &approval(&memory, "acme-2"), (9, 1), BEGIN + 2 * HOUR);
    let told: BTreeSet<_> = step
        .devices
        .iter()
        .map(|event| {
            (event.after.as_ref().unwrap().released_from_org_date_time, event.evidence[0].as_str(), event.source.ts_ms)
        })
        .collect();
    let (first, second) = (BEGIN + 1, BEGIN + HOUR + 1);
    assert_eq!(
        told,
        BTreeSet::from([(Some(first), "scan 1: absent", first), (Some(second), "scan 2: absent", second)])
    );
    assert!(step.devices.iter().all(|event| {
        let after = event.after.as_ref().unwrap();
        (after.released_from_org_date_time == Some(first)) == (after.device_id.as_str() >= "D00094")
    }));
}

#[test]
fn a_plan_whose_devices_are_all_listed_again_ends_by_itself() {
    let mut memory = fleet(100);
    scan(&mut memory, BEGIN, 0..60);
    assert_eq!(memory.scans.plans.len(), 1);
    scan(&mut memory, BEGIN + HOUR, 0..100);
    assert!(memory.scans.plans.is_empty());
    assert_eq!(memory.fleet.live(), 100);
}

#[test]
fn an_older_request_never_stands_over_a_newer_one_whatever_order_they_are_settled_in() {
    let mut memory = fleet(20);
    scan(&mut memory, BEGIN, 0..19);
    let coloured = |color: &str| DeviceValue { color: Some(color.into()), ..device(19) };
    let reading = answer(9, BEGIN + 2);
    let found = LookUp::Found(Box::new(coloured("GREEN")));
    let step = step::settle(&origin(), &memory, "D00019", found, &reading, BEGIN + 3);
    assert_eq!(step.devices.len(), 1);
    memory.apply(&step);

    let listed = |memory: &mut Memory, request: u64, color: &str| {
        let at = BEGIN + HOUR;
        let header = Header::begin("acme", memory.scans.devices.as_ref(), "test", at);
        let mut assignments = Assignments::new([("S1".into(), "Jamf".into())].into(), true, request);
        assignments.link("D00019", "S1");
        let read = page(request, at, vec![coloured(color)], vec![], true);
        let (step, _) = step::page(&origin(), &Limits::default(), memory, &header, &assignments, read, at);
        memory.apply(&step);
        let after = memory.fleet.get("D00019").unwrap().value.clone();
        (after.color.clone().unwrap(), after.mdm_server_id.clone())
    };
    assert_eq!(
        listed(&mut memory, 8, "RED"),
        ("GREEN".into(), Some("S1".into())),
        "only the server was not read before"
    );
    assert_eq!(listed(&mut memory, 10, "BLUE").0, "BLUE");
    // Whoever takes over folds the topic, and what it asks comes after all that stands there.
    let mut folded = Memory::default();
    let known = memory.fleet.get("D00019").unwrap().value.clone();
    folded.fleet.apply("D00019", Some(known_event(DeviceValue::clone(&known), 3, BEGIN)));
    assert_eq!(listed(&mut folded, 1, "RED").0, "RED");
}

#[test]
fn a_large_plan_is_cut_into_pieces_and_shrinks_by_the_piece_it_touches() {
    let mut memory = fleet(12_000);
    scan(&mut memory, BEGIN, 0..100);
    let plan = &memory.scans.plans["acme-1"];
    assert_eq!(plan.len(), 11_900);
    let parts = plan.parts("acme", "acme-1", BEGIN);
    assert_eq!(parts.len(), 3);
    let gone = plan.without("acme", "acme-1", &BTreeSet::from(["D00100"]), BEGIN);
    let keys: Vec<&str> = gone.iter().map(|part: &ScanRecord| part.key.part.as_str()).collect();
    assert_eq!(keys, ["held:acme-1:0"]);
}

#[test]
fn records_of_the_scan_state_keep_below_what_a_record_may_hold() {
    let codec = Codec::new(1, windfall_schemas::scan::VALUE_SCHEMA).unwrap();
    let largest = |parts: &[ScanRecord]| {
        parts
            .iter()
            .map(|part| codec.encode(part.value.as_ref().unwrap()).expect("it can be encoded").len())
            .max()
            .unwrap()
    };
    for digits in [1, 12, 40, 128] {
        let ids: BTreeSet<String> = (0..20_000).map(|id| format!("{id:0digits$}")).collect();
        let first = |at| First { scan: u64::MAX - at, ended_at: i64::MAX };
        let earlier = ids.iter().zip(0u64..).map(|(id, at)| (id.clone(), first(at % 3))).collect();
        let plan = Plan::new("acme-1", PlanOrigin::default(), &ids, &earlier);
        let parts = plan.parts("acme", "acme-1", BEGIN);
        assert!(plan.ids() == ids && largest(&parts) < 72 * 1024, "{} bytes", largest(&parts));
        let mut folded = Memory::default();
        parts.iter().for_each(|part| folded.scans.apply(part));
        let folded = &folded.scans.plans["acme-1"];
        assert!(folded.hash() == plan.hash() && ids.iter().all(|id| folded.first_missed(id) == Some(earlier[id])));
    }

    let mut header = Header::begin("acme", None, "test", BEGIN);
    for page in 0..5_000 {
        header.note(Scope::Servers, Some(page), "\u{1f4f1}".repeat(10_000));
        header.disagree(&format!("{page:0128}"));
    }
    assert_eq!((header.reasons.len(), header.more_reasons), (100, 4_900));
    assert!(header.absence_counts());
    header.note(Scope::Devices, Some(1), "the first of its scope");
    assert!(!header.absence_counts(), "reasons of one scope do not crowd out the other's");
    (0..100).for_each(|page| header.note(Scope::Devices, Some(page), "\"".repeat(10_000)));
    header.disagreed_before.clone_from(&header.disagreeing);
    assert!(header.disagreeing.len() > 100);
    assert!(largest(&[header.part("acme", "devices")]) < 200 * 1024);
    let mut memory = Memory::default();
    memory.scans.apply(&header.part("acme", "devices"));
    assert_eq!(memory.scans.devices, Some(header));
}

#[test]
fn a_first_scan_is_told_as_one_from_its_beginning_to_its_end() {
    let mut memory = Memory::default();
    let told = |memory: &mut Memory, at| {
        let header = Header::begin("acme", memory.scans.devices.as_ref(), "test", at);
        let (begun, header) = step::begin(&origin(), memory, &header, &ReadServers::default(), at);
        memory.apply(&begun);
        let read = page(1, at, vec![device(1)], vec![], true);
        let (step, _) = step::page(&origin(), &Limits::default(), memory, &header, &Assignments::default(), read, at);
        memory.apply(&step);
        // What ends it is read from the fold, as after a crash.
        let (closed, header) =
            step::close(&origin(), &Limits::default(), memory, &memory.scans.devices.clone().unwrap(), at);
        memory.apply(&closed);
        let ended = notice::completed(&origin(), &header, &[(0, 1)].into(), at);
        let all = begun.notifications.into_iter().chain(step.notifications).chain([ended]);
        all.map(|told| format!("{} {}", told.aggregate_type, told.kind)).collect::<Vec<_>>()
    };
    let words = |name: &str| ["STARTED", "IN_PROGRESS", "COMPLETED"].map(|kind| format!("{name} {kind}"));
    assert_eq!(told(&mut memory, BEGIN), words("Initial Snapshot"));
    assert_eq!(told(&mut memory, BEGIN + HOUR), words("Incremental Snapshot"));
}

#[test]
fn suspicions_of_earlier_scans_count_towards_the_breaker() {
    let mut memory = fleet(100);
    scan(&mut memory, BEGIN, 0..94);
    assert_eq!(memory.scans.suspects.len(), 6);
    let header = scan(&mut memory, BEGIN + HOUR, 0..88);
    assert_eq!(header.state, ScanState::Held);
    assert!(memory.scans.suspects.is_empty(), "the suspects become one plan");
    assert_eq!(memory.scans.plans["acme-2"].len(), 12);
}

#[test]
fn a_suspect_that_is_listed_again_is_cleared_and_nothing_published() {
    let mut memory = fleet(20);
    scan(&mut memory, BEGIN, 0..19);
    assert_eq!(memory.scans.suspects.keys().collect::<Vec<_>>(), ["D00019"]);
    let header = scan(&mut memory, BEGIN + HOUR, 0..20);
    assert!(memory.scans.suspects.is_empty());
    assert!(header.counts.is_empty());
}

#[test]
fn an_incomplete_scan_leaves_suspicions_as_they_are() {
    let mut memory = fleet(20);
    scan(&mut memory, BEGIN, 0..19);
    let before = memory.scans.suspects.clone();
    let at = BEGIN + HOUR;
    let header = Header::begin("acme", memory.scans.devices.as_ref(), "test", at);
    let mut read = page(1, at, (0..10).map(device).collect(), vec![], true);
    read.total = Some(20);
    let (step, header) = step::page(&origin(), &Limits::default(), &memory, &header, &Assignments::default(), read, at);
    memory.apply(&step);
    let (step, header) = step::close(&origin(), &Limits::default(), &memory, &header, at);
    memory.apply(&step);
    assert_eq!(header.state, ScanState::Incomplete, "the total contradicts what was read");
    assert!(header.reasons[0].why.contains("total of 20"), "{:?}", header.reasons);
    assert_eq!(memory.scans.suspects, before);
}

#[test]
fn a_resumed_scan_knows_the_ids_and_the_faults_of_its_earlier_pages() {
    let mut memory = fleet(3);
    let header = Header::begin("acme", None, "test", BEGIN);
    let (step, moved) = step::page(
        &origin(),
        &Limits::default(),
        &memory,
        &header,
        &Assignments::default(),
        page(1, BEGIN, vec![device(0), device(1)], vec![], false),
        BEGIN,
    );
    memory.apply(&step);
    // The process dies here; what follows rests on the fold alone.
    let folded = memory.scans.devices.clone().unwrap();
    assert_eq!(folded, moved);
    assert!(folded.resumable(BEGIN + HOUR, 2 * HOUR));
    assert!(!folded.resumable(BEGIN + 3 * HOUR, 2 * HOUR), "too long ago: begun anew");
    assert_eq!(Header::begin("acme", Some(&folded), "test", BEGIN).number, 2, "a scan begun anew takes a new number");
    let last = page(2, BEGIN + HOUR, vec![device(2)], vec![], true);
    let (step, header) =
        step::page(&origin(), &Limits::default(), &memory, &folded, &Assignments::default(), last, BEGIN + HOUR);
    memory.apply(&step);
    assert!(header.pages_done());
    let (step, header) = step::close(&origin(), &Limits::default(), &memory, &header, BEGIN + HOUR);
    memory.apply(&step);
    assert_eq!((header.number, header.state, header.devices), (1, ScanState::Complete, 3));
    assert!(memory.scans.suspects.is_empty());
    memory.apply(&step::forget_seen(&origin(), &memory));
    assert!(memory.scans.seen_pages().is_empty());
}

#[test]
fn the_ids_that_another_scan_left_behind_are_ignored() {
    let mut memory = fleet(12);
    let header = Header::begin("acme", None, "test", BEGIN);
    let all = page(1, BEGIN, (0..12).map(device).collect(), vec![], false);
    let (step, header) =
        step::page(&origin(), &Limits::default(), &memory, &header, &Assignments::default(), all, BEGIN);
    memory.apply(&step);
    let mut anew = Header::begin("acme", Some(&header), "test", BEGIN + HOUR);
    anew.page = 1; // its own second page: the first one's ids of the old scan still lie in the topic
    let rest = page(2, BEGIN + HOUR, (0..11).map(device).collect(), vec![], true);
    let (step, anew) =
        step::page(&origin(), &Limits::default(), &memory, &anew, &Assignments::default(), rest, BEGIN + HOUR);
    memory.apply(&step);
    let (step, _) = step::close(&origin(), &Limits::default(), &memory, &anew, BEGIN + HOUR);
    memory.apply(&step);
    assert_eq!(memory.scans.suspects.keys().collect::<Vec<_>>(), ["D00011"]);
}

#[test]
fn look_ups_that_settle_nothing_wait_longer_each_time() {
    let mut suspect = Suspect::new(1, 0);
    let mut waits = Vec::new();
    for _ in 0..9 {
        suspect = suspect.tried("status 503".into(), 0);
        waits.push(suspect.next_try_at / 60_000);
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
}

#[test]
fn a_forbidden_look_up_counts_after_two_complete_scans_a_day_apart_while_another_device_may_be_read() {
    let day = 24 * HOUR;
    let absence = |last| Absence { first_scan: 1, first_ended_at: 0, last_scan: 2, last_ended_at: last };
    let judge = |last, control| classify(&device(1), &absence(last), LookUp::Forbidden { control }, day + 5);
    assert!(matches!(judge(day - 1, true), Verdict::Open { .. }));
    assert!(matches!(judge(day, false), Verdict::Open { .. }), "this account may read no device singly");
    let Verdict::Released { after, evidence } = judge(day, true) else { panic!("a day is enough") };
    assert_eq!(after.released_from_org_date_time, Some(day), "the end of the second scan");
    assert_eq!(evidence[..2], ["scan 1: absent", "scan 2: absent"]);
    assert!(evidence[2].ends_with(": 403, control read 200"), "{evidence:?}");
}

#[test]
fn more_devices_listed_as_released_than_may_leave_are_held_as_one_plan() {
    let scan = |memory: &mut Memory, at: i64, released: std::ops::Range<usize>| {
        let listed = (0..100).map(|id| {
            let released_from_org_date_time = released.contains(&id).then_some(BEGIN);
            DeviceValue { released_from_org_date_time, ..device(id) }
        });
        let header = Header::begin("acme", memory.scans.devices.as_ref(), "test", at);
        let mut read = page(1, at, listed.collect(), vec![], true);
        read.total = Some(100);
        let (step, header) =
            step::page(&origin(), &Limits::default(), memory, &header, &Assignments::default(), read, at);
        let told = step.devices.len();
        memory.apply(&step);
        let (step, header) = step::close(&origin(), &Limits::default(), memory, &header, at + 1);
        memory.apply(&step);
        (told, header.state, memory.scans.plans.values().map(Plan::len).sum::<usize>())
    };
    let mut memory = fleet(100);
    assert_eq!(scan(&mut memory, BEGIN, 0..11), (0, ScanState::Held, 11));
    assert_eq!(
        scan(&mut memory, BEGIN + HOUR, 0..11),
        (0, ScanState::Held, 11),
        "being listed so keeps them in the plan"
    );
    assert_eq!(
        scan(&mut memory, BEGIN + 2 * HOUR, 0..0),
        (0, ScanState::Complete, 0),
        "they are listed as present again"
    );
    let mut memory = fleet(100);
    assert_eq!(scan(&mut memory, BEGIN, 0..10), (10, ScanState::Complete, 0));
    assert_eq!(memory.fleet.releases_since(BEGIN - 1), 10);
    assert_eq!(scan(&mut memory, BEGIN + HOUR, 0..11), (0, ScanState::Held, 1), "ten have left within the day");
}

#[test]
fn the_numbers_of_the_breaker_are_settings() {
    let case = Case { released_lately: 0, suspects: 3, held: 0, live: 100, listed: 97 };
    assert!(Limits { devices: 2, percent: 1.0 }.ask(&case).unwrap().contains("; 2 may leave in a day"));
    assert!(Limits { devices: 0, percent: 2.5 }.ask(&case).unwrap().contains("; 2 may leave in a day"));
    assert_eq!(Limits { devices: 0, percent: 3.0 }.ask(&case), None);
}

#[test]
fn a_change_has_apples_time_only_where_that_tells_of_it() {
    let mut memory = fleet(1);
    let mut tell = |at: i64, color: &str, updated: i64| {
        let header = Header::begin("acme", memory.scans.devices.as_ref(), "test", at);
        let shown = DeviceValue { color: Some(color.into()), updated_date_time: Some(updated), ..device(0) };
        let read = page(1, at, vec![shown], vec![], true);
        let (step, _) = step::page(&origin(), &Limits::default(), &memory, &header, &Assignments::default(), read, at);
        memory.apply(&step);
        step.devices.first().map(|event| event.source.ts_ms - BEGIN)
    };
    assert_eq!(tell(BEGIN, "RED", BEGIN - HOUR / 2), Some(-HOUR / 2), "after the last reading");
    assert_eq!(tell(BEGIN + HOUR, "RED", BEGIN - HOUR / 2), None);
    assert_eq!(tell(BEGIN + 2 * HOUR, "BLUE", BEGIN + HOUR / 2), Some(2 * HOUR), "it was read since, and was red");
    assert_eq!(tell(BEGIN + 3 * HOUR, "RED", BEGIN + 9 * HOUR), Some(3 * HOUR), "not after it was read");
    assert_eq!(tell(BEGIN + HOUR, "BLUE", BEGIN + HOUR), Some(3 * HOUR), "not before the last event");
}

#[test]
fn a_deleted_server_or_one_without_devices_may_lack_its_list() {
    let server = |status: &str, device_count| ServerValue {
        status: Some(status.into()),
        device_count,
        ..ServerValue::default()
    };
    assert!(step::has_nobody(&server("DELETED", None)) && step::has_nobody(&server("ACTIVE", Some(0))));
    assert!(!step::has_nobody(&server("ACTIVE", None)) && !step::has_nobody(&server("ACTIVE", Some(1))));
}

#[test]
fn a_server_that_a_complete_list_lacks_is_removed_and_one_of_a_cut_list_is_not() {
    let server = |id: &str| ServerValue { org: "acme".into(), server_id: id.into(), ..ServerValue::default() };
    let read = |ids: &[&str], complete| ReadServers {
        servers: ids.iter().map(|id| server(id)).collect(),
        complete,
        read_at: BEGIN,
        ..ReadServers::default()
    };
    let mut memory = Memory::default();
    let mut begin = |ids: &[&str], complete| {
        let header = Header::begin("acme", memory.scans.devices.as_ref(), "test", BEGIN);
        let (step, _) = step::begin(&origin(), &memory, &header, &read(ids, complete), BEGIN);
        memory.apply(&step);
        let told = |event: &windfall_schemas::envelope::Envelope<Arc<ServerValue>>| {
            format!("{} {} {}", event.op, event.kind.as_ref().unwrap(), event.source.snapshot)
        };
        step.servers.iter().map(told).collect::<Vec<_>>()
    };
    assert_eq!(begin(&["S1", "S2"], true), ["r added first", "r added last"]);
    assert_eq!(begin(&["S1", "S2"], true), Vec::<String>::new());
    assert_eq!(begin(&["S1"], false), Vec::<String>::new());
    assert_eq!(begin(&["S1"], true), ["d removed false"]);
    assert_eq!(begin(&["S1", "S2"], true), ["c added false"], "its numbers go on, see below");
    assert_eq!(memory.servers.get("S2").unwrap().number, 3);
}

/// One page of a list: ids of servers, or of devices.
fn listing<T>(items: Vec<T>, total: Option<u64>) -> PageOf<T> {
    let items = items.into_iter().enumerate().map(|(index, value)| Item { index, value, unread: Vec::new() }).collect();
    PageOf { items, rejected: vec![], next: None, total, answer: answer(1, BEGIN) }
}

#[test]
fn a_list_of_servers_that_is_empty_shortened_cut_or_contradicts_its_total_removes_nobody() {
    let server = |id: usize| ServerValue { org: "acme".into(), server_id: format!("S{id}"), ..ServerValue::default() };
    let list = |ids: std::ops::Range<usize>, total| vec![listing(ids.map(server).collect(), total)];
    let mut memory = Memory::default();
    let first = ReadServers::listed(&memory, list(0..5, Some(5)), None, BEGIN);
    assert!(first.complete && first.faults.is_empty(), "{:?}", first.faults);
    assert!(ReadServers::listed(&memory, list(0..0, Some(0)), None, BEGIN).complete, "a fleet without servers");
    memory.apply(&step::begin(&origin(), &memory, &Header::begin("acme", None, "test", BEGIN), &first, BEGIN).0);

    let doubtful = [
        (list(0..0, None), None, "it is empty, and 5 servers are known"),
        (list(0..0, Some(0)), None, "it is empty, and 5 servers are known"),
        (list(0..2, Some(2)), None, "3 of 5 servers are missing, more than half"),
        (list(0..4, Some(5)), None, "it gave a total of 5, and 4 were read"),
        (list(0..4, None), Some("it leads back".to_owned()), "was not read: it leads back"),
    ];
    for (pages, cut, why) in doubtful {
        let read = ReadServers::listed(&memory, pages, cut, BEGIN);
        assert!(!read.complete && read.faults[0].contains(why), "{:?}, not {why}", read.faults);
        let header = Header::begin("acme", memory.scans.devices.as_ref(), "test", BEGIN);
        let (step, header) = step::begin(&origin(), &memory, &header, &read, BEGIN);
        assert!(step.servers.is_empty(), "{why}: {:?}", step.servers);
        assert!(!header.reasons.is_empty() && header.absence_counts(), "absence rests on the device pages");
    }
    let fewer = ReadServers::listed(&memory, list(0..3, Some(3)), None, BEGIN);
    assert!(fewer.complete, "some may go: {:?}", fewer.faults);
}

#[test]
fn most_servers_are_gone_when_every_list_of_a_day_says_so_and_nothing_else_was_unread() {
    let server = |id: usize| ServerValue { org: "acme".into(), server_id: format!("S{id}"), ..ServerValue::default() };
    let mut memory = Memory::default();
    // What a scan makes of a list of these servers that was read at this hour, and why it is not complete.
    let scan = |memory: &mut Memory, hour: i64, ids: &[usize], cut: Option<&str>, linkage: Option<&str>| {
        let at = BEGIN + hour * HOUR;
        let mut list = listing(ids.iter().map(|id| server(*id)).collect(), None);
        list.answer = answer(1, at);
        let mut read = ReadServers::listed(memory, vec![list], cut.map(str::to_owned), at);
        read.faults.extend(linkage.map(str::to_owned));
        let header = Header::begin("acme", memory.scans.devices.as_ref(), "test", at);
        let (step, header) = step::begin(&origin(), memory, &header, &read, at);
        memory.apply(&step);
        let told =
            step.servers.into_iter().map(|event| (event.before.unwrap_or_default().server_id.clone(), event.evidence));
        (told.collect::<Vec<_>>(), header.reasons.into_iter().map(|reason| reason.why).collect::<Vec<_>>())
    };
    scan(&mut memory, 0, &[0, 1, 2, 3, 4], None, None);
    let (told, reasons) = scan(&mut memory, 1, &[0, 1], None, None);
    assert!(told.is_empty());
    assert!(reasons[0].contains("until 2025-11-25T17:00:00.000Z"), "{reasons:?}");
    // All of them back, or another set missing: the day begins anew.
    scan(&mut memory, 2, &[0, 1, 2, 3, 4], None, None);
    scan(&mut memory, 3, &[0, 1], None, None);
    assert!(scan(&mut memory, 26, &[0, 1], None, None).0.is_empty(), "23 hours since they were back");
    scan(&mut memory, 27, &[0, 2], None, None);
    scan(&mut memory, 28, &[0, 1], None, None);
    let mut restarted = Memory { servers: memory.servers.clone(), ..Memory::default() };
    restarted.scans.apply(&memory.scans.servers.as_ref().unwrap().part("acme", "servers"));
    let mut memory = restarted;
    // A list that was not read says neither.
    scan(&mut memory, 40, &[], Some("status 503"), None);
    assert!(scan(&mut memory, 51, &[0, 1], None, None).0.is_empty(), "23 hours since another set was missing");
    let (told, reasons) = scan(&mut memory, 52, &[0, 1], None, Some("the devices of server `S1` were not read"));
    assert!(told.is_empty(), "what is unread may be the reason: {reasons:?}");
    let (told, reasons) = scan(&mut memory, 53, &[0, 1], None, None);
    assert!(reasons.is_empty(), "{reasons:?}");
    assert_eq!(told.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["S2", "S3", "S4"]);
    assert_eq!(told[0].1[1], "missing since 2025-11-25T20:00:00.000Z");
    let (told, reasons) = scan(&mut memory, 54, &[0, 1], None, None);
    assert!(told.is_empty() && reasons.is_empty() && memory.scans.servers.unwrap().missing.is_none());
}

#[test]
fn a_linkage_list_that_is_cut_or_contradicts_its_total_unassigns_nobody() {
    let ids = |count: usize| (0..count).map(|id| DeviceId::parse(&device(id).device_id).unwrap()).collect::<Vec<_>>();
    let link = |pages: &[PageOf<DeviceId>], cut: Option<&str>| {
        let mut assignments = Assignments::new([("S1".into(), "Jamf".into())].into(), true, 1);
        let fault = step::link(&mut assignments, "S1", pages, cut.map(str::to_owned));
        assert_eq!(assignments.complete(), fault.is_none());
        fault
    };
    assert_eq!(link(&[listing(ids(3), Some(3))], None), None);
    assert_eq!(link(&[listing(ids(3), None)], None), None);
    assert!(link(&[listing(ids(2), Some(3))], None).unwrap().contains("a total of 3, and 2 were read"));
    let twice = [listing(ids(2), Some(4)), listing(ids(2), Some(4))];
    assert!(link(&twice, None).unwrap().contains("2 were read"), "the same page twice is not two pages");
    assert!(link(&[listing(ids(3), Some(3))], Some("it leads back")).unwrap().contains("it leads back"));
}

#[test]
fn counts_last_connections_and_times_of_update_of_a_server_make_no_event() {
    let mut memory = Memory::default();
    for (count, events) in [(1, 1), (2, 0), (3, 0)] {
        let server = ServerValue {
            org: "acme".into(),
            server_id: "S1".into(),
            device_count: Some(count),
            last_connected_ip: Some(format!("192.0.2.{count}")),
            updated_date_time: Some(count),
            ..ServerValue::default()
        };
        let read = ReadServers { servers: vec![server], complete: true, ..ReadServers::default() };
        let header = Header::begin("acme", memory.scans.devices.as_ref(), "test", BEGIN);
        let (step, _) = step::begin(&origin(), &memory, &header, &read, BEGIN);
        assert_eq!(step.servers.len(), events);
        memory.apply(&step);
    }
}

#[test]
fn an_event_names_its_scan_its_page_and_its_span() {
    let memory = Memory::default();
    let header = Header::begin("acme", None, "test", BEGIN);
    let mut shown = device(7);
    shown.updated_date_time = Some(1_000);
    let (step, _) = step::page(
        &origin(),
        &Limits::default(),
        &memory,
        &header,
        &Assignments::default(),
        page(5, BEGIN + 500, vec![device(6), shown], vec![], true),
        BEGIN + 900,
    );
    let [first, second] = &step.devices[..] else { panic!("two events") };
    assert_eq!(first.source.ts_ms, BEGIN + 500, "without updatedDateTime it is the time of the reading");
    assert_eq!(second.source.ts_ms, 1_000);
    assert_eq!(second.ts_ms, Some(BEGIN + 900));
    assert_eq!((second.source.page, second.source.page_index), (Some(1), Some(1)));
    assert_eq!(second.source.scan_id.as_deref(), Some("acme-1"));
    let headers = event::headers(second, &step.traceparent, false);
    let header = |name: &str| headers.text(name);
    assert_eq!(header("ce_type"), Some("abm.device.added"));
    assert_eq!(header("ce_source"), Some("/abm/acme/devices"));
    assert_eq!(header("ce_subject"), Some("D00007"));
    assert_eq!(header("ce_time"), Some("1970-01-01T00:00:01.000Z"));
    assert_eq!(header("ce_id"), second.event_id.as_deref());
    let span = header("traceparent").unwrap();
    assert_eq!((span.len(), &span[..3], &span[52..]), (55, "00-", "-01"));
}

#[test]
fn a_plan_of_many_pieces_is_approved_piece_by_piece_and_goes_on_after_a_crash() {
    let mut memory = fleet(11_000);
    let header = scan(&mut memory, BEGIN, 0..10);
    assert_eq!(header.state, ScanState::Held);
    let shown = approval(&memory, "acme-1");
    let mut released = BTreeSet::new();
    let mut pieces = Vec::new();
    loop {
        let (step, answer) = step::approve(&origin(), &memory, "s1", &shown, (9, 7), BEGIN + 2 * HOUR);
        memory.apply(&step);
        released.extend(step.devices.iter().map(|event| event.after.as_ref().unwrap().device_id.clone()));
        pieces.push((step.devices.len(), step.notifications.len(), memory.scans.signals));
        if pieces.len() == 1 {
            let (_, other) = step::approve(&origin(), &memory, "s0", &shown, (9, 6), BEGIN + 2 * HOUR);
            assert!(matches!(other, Some(Answer::Stale { .. })), "another approval shows what is left: {other:?}");
            // One of the others is listed again, while the process that went on was away.
            let back = memory.scans.plans["acme-1"].ids().pop_last().unwrap();
            let parts = memory.scans.clear("acme", &[back.as_str()].into(), BEGIN + 2 * HOUR);
            memory.apply(&step::Step { parts, ..step::Step::default() });
        }
        if let Some(answer) = answer {
            assert_eq!(answer, Answer::Approved { released: 10_989 });
            break;
        }
    }
    assert_eq!(pieces, [(5_000, 0, None), (5_000, 0, None), (989, 1, Some(7))]);
    assert_eq!((released.len(), memory.fleet.live()), (10_989, 11));
    assert!(memory.scans.plans.is_empty() && memory.scans.approving.is_none());
    let (_, again) = step::approve(&origin(), &memory, "s1", &shown, (9, 7), BEGIN + 2 * HOUR);
    assert_eq!(again, Some(Answer::Unknown));
}

#[test]
fn a_single_read_without_a_service_unassigns_only_where_the_status_agrees() {
    let known = DeviceValue { status: Some("ASSIGNED".into()), mdm_server_id: Some("S1".into()), ..device(1) };
    for (status, service) in [("ASSIGNED", Some("S1")), ("UNASSIGNED", None)] {
        let mut assignments = Assignments::new([("S1".to_owned(), "Jamf Cloud".to_owned())].into(), true, 1);
        assignments.settle(&known.device_id, None, 2);
        let listed = Observation::shown(DeviceValue { status: Some(status.into()), ..device(1) }.into(), 3);
        let joined = assignments.join(|| Some(Arc::new(known.clone())), listed);
        assert_eq!(joined.observation.value.mdm_server_id.as_deref(), service, "{status}");
    }
}
