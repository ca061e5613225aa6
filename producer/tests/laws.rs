//! Laws that hold for any fleet and any listing.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use windfall_producer::assignment::Assignments;
use windfall_producer::breaker::{Case, Limits};
use windfall_producer::checkpoint::{Header, ScanState};
use windfall_producer::fleet::{Event, Fleet};
use windfall_producer::memory::Memory;
use windfall_producer::step::{self, Step};
use windfall_schemas::device::DeviceValue;

use crate::scenarios::{BEGIN, origin, page};

/// A device as a listing shows it, of few ids and few values, so that histories meet.
fn device() -> impl Strategy<Value = DeviceValue> {
    let status = prop_oneof![Just("ASSIGNED"), Just("UNASSIGNED"), Just("DEVICE_ASSIGNMENT_UNKNOWN")];
    let color = prop_oneof![Just(None), Just(Some("")), Just(Some("RED")), Just(Some("BLUE"))];
    let imei = prop::option::of(prop::collection::vec("[1-3]", 0..3));
    (0..30u32, status, color, imei, prop::option::of(0..3i64)).prop_map(|(id, status, color, imei, updated)| {
        DeviceValue {
            org: "acme".into(),
            device_id: format!("D{id:02}"),
            serial_number: format!("D{id:02}"),
            status: Some(status.into()),
            color: color.map(str::to_owned),
            imei,
            updated_date_time: updated,
            ..DeviceValue::default()
        }
    })
}

fn listing() -> impl Strategy<Value = Vec<DeviceValue>> {
    prop::collection::vec(device(), 0..40)
}

/// Who is assigned to which of three servers, and whether all lists were read.
fn linkage() -> impl Strategy<Value = (BTreeMap<u32, u32>, bool)> {
    (prop::collection::btree_map(0..30u32, 0..3u32, 0..30), prop::bool::weighted(0.8))
}

fn assignments((links, complete): &(BTreeMap<u32, u32>, bool), request: u64) -> Assignments {
    let names = (0..3).map(|server| (format!("S{server}"), format!("Server {server}"))).collect();
    let mut assignments = Assignments::new(names, true, request);
    (0..3).filter(|_| !complete).for_each(|server| assignments.cut_short(&format!("S{server}")));
    for (device, server) in links {
        assignments.link(&format!("D{device:02}"), &format!("S{server}"));
    }
    assignments
}

/// Plays one scan of pages of seven devices; returns its steps.
fn scan(
    memory: &mut Memory,
    number: u64,
    listing: &[DeviceValue],
    linkage: &(BTreeMap<u32, u32>, bool),
) -> (Vec<Step>, Header) {
    let at = BEGIN + i64::try_from(number).unwrap() * 3_600_000;
    let assignments = assignments(linkage, number * 100);
    let mut header = Header::begin("acme", memory.scans.devices.as_ref(), "test", at);
    let mut steps = Vec::new();
    let pages: Vec<&[DeviceValue]> = if listing.is_empty() { vec![&[]] } else { listing.chunks(7).collect() };
    for (index, devices) in pages.iter().enumerate() {
        let read = page(number * 100 + index as u64 + 1, at, devices.to_vec(), vec![], index + 1 == pages.len());
        let (step, moved) = step::page(&origin(), &Limits::default(), memory, &header, &assignments, read, at);
        memory.apply(&step);
        steps.push(step);
        header = moved;
    }
    let (step, header) = step::close(&origin(), &Limits::default(), memory, &header, at + 60_000);
    memory.apply(&step);
    steps.push(step);
    (steps, header)
}

fn events(steps: &[Step]) -> usize {
    steps.iter().map(|step| step.devices.len()).sum()
}

/// The last of each id on a list, which is what a walk over its pages has seen last.
fn truth(listing: &[DeviceValue]) -> BTreeMap<&str, &DeviceValue> {
    // Within a page the first one counts, so lists that repeat an id within a page are made distinct by page.
    let mut truth = BTreeMap::new();
    for devices in listing.chunks(7) {
        let mut met = BTreeSet::new();
        for device in devices {
            if met.insert(device.device_id.as_str()) {
                truth.insert(device.device_id.as_str(), device);
            }
        }
    }
    truth
}

proptest! {
    #[test]
    fn a_second_look_at_the_same_scan_finds_nothing(
        histories in prop::collection::vec((listing(), linkage()), 1..4),
    ) {
        let mut memory = Memory::default();
        for ((listing, linkage), number) in histories.iter().zip(1u64..) {
            scan(&mut memory, number, listing, linkage);
        }
        let (listing, linkage) = histories.last().unwrap();
        // A listing that shows a device twice with different content tells a change, and tells it again.
        let distinct: Vec<DeviceValue> = truth(listing).into_values().cloned().collect();
        scan(&mut memory, 10, &distinct, linkage);
        let (steps, _) = scan(&mut memory, 11, &distinct, linkage);
        prop_assert_eq!(events(&steps), 0);
    }

    #[test]
    fn a_fleet_with_its_diff_applied_agrees_with_the_scan_on_every_device_listed(
        histories in prop::collection::vec((listing(), linkage()), 1..4),
    ) {
        let mut memory = Memory::default();
        for ((listing, linkage), number) in histories.iter().zip(1u64..) {
            scan(&mut memory, number, listing, linkage);
            for (id, listed) in truth(listing) {
                let known = &memory.fleet.get(id).expect("what was listed is known").value;
                prop_assert_eq!(known.color.as_deref().unwrap_or(""), listed.color.as_deref().unwrap_or(""));
                prop_assert_eq!(known.imei.as_deref().unwrap_or(&[]), listed.imei.as_deref().unwrap_or(&[]));
                prop_assert!(!known.is_released(), "being listed means not being released");
                let number: u32 = id[1..].parse().unwrap();
                let told = linkage.1 && !linkage.0.contains_key(&number);
                if told || listed.status.as_deref() != Some("UNASSIGNED") {
                    prop_assert_eq!(&known.status, &listed.status);
                    prop_assert_eq!(known.updated_date_time, listed.updated_date_time);
                }
            }
        }
    }

    #[test]
    fn the_fold_of_the_topic_is_the_memory(histories in prop::collection::vec((listing(), linkage()), 1..5)) {
        let mut memory = Memory::default();
        let mut topic = Vec::new();
        let mut parts = Vec::new();
        for ((listing, linkage), number) in histories.iter().zip(1u64..) {
            for step in scan(&mut memory, number, listing, linkage).0 {
                topic.extend(step.devices);
                parts.extend(step.parts);
            }
        }
        let mut folded = Fleet::default();
        for event in topic {
            let id = event.after.as_ref().unwrap().device_id.clone();
            folded.apply(&id, Some(Event::from(event)));
        }
        prop_assert_eq!(folded.live(), memory.fleet.live());
        prop_assert_eq!(folded.len(), memory.fleet.len());
        for (id, known) in memory.fleet.devices() {
            let again = folded.get(id).unwrap();
            let known = (known.value(), memory.fleet.last_number(id));
            prop_assert_eq!((DeviceValue::clone(&again.value), again.number), known);
        }
        let mut scans = windfall_producer::checkpoint::Scans::default();
        parts.iter().for_each(|part| scans.apply(part));
        prop_assert_eq!(scans, memory.scans);
    }

    #[test]
    fn numbers_rise_by_one_and_each_before_is_the_last_after(
        histories in prop::collection::vec((listing(), linkage()), 1..5),
    ) {
        let mut memory = Memory::default();
        let mut last: BTreeMap<String, (u64, DeviceValue)> = BTreeMap::new();
        let mut ids = BTreeSet::new();
        for ((listing, linkage), number) in histories.iter().zip(1u64..) {
            for step in scan(&mut memory, number, listing, linkage).0 {
                for event in step.devices {
                    let after = event.after.unwrap();
                    let sequence = event.source.sequence.unwrap();
                    let number = windfall_schemas::fingerprint::parse_sequence(&sequence).unwrap();
                    match last.get(&after.device_id) {
                        None => {
                            prop_assert_eq!(number, 1);
                            prop_assert!(event.before.is_none());
                        }
                        Some((before_number, before)) => {
                            prop_assert_eq!(number, before_number + 1);
                            prop_assert_eq!(event.before.as_deref(), Some(before));
                        }
                    }
                    prop_assert!(ids.insert(event.event_id.unwrap()), "event ids are unique");
                    last.insert(after.device_id.clone(), (number, DeviceValue::clone(&after)));
                }
            }
        }
    }

    #[test]
    fn half_read_lists_never_take_a_server_away(
        before in (listing(), linkage()),
        after in (listing(), linkage()),
    ) {
        let mut memory = Memory::default();
        scan(&mut memory, 1, &before.0, &before.1);
        let links = after.1.0;
        let (steps, _) = scan(&mut memory, 2, &after.0, &(links, false));
        for event in steps.iter().flat_map(|step| &step.devices) {
            let Some(before) = &event.before else { continue };
            let now = event.after.as_ref().unwrap();
            prop_assert!(before.mdm_server_id.is_none() || now.mdm_server_id.is_some());
            prop_assert_ne!(event.kind.as_ref().unwrap().as_str(), "unassigned");
        }
    }

    #[test]
    fn no_scan_releases_and_a_scan_that_lost_a_page_suspects_nobody(
        before in (listing(), linkage()),
        after in listing(),
    ) {
        let mut memory = Memory::default();
        scan(&mut memory, 1, &before.0, &before.1);
        let at = BEGIN + 7_200_000;
        let header = Header::begin("acme", memory.scans.devices.as_ref(), "test", at);
        let read = page(500, at, after.clone(), vec![], false);
        let (step, header) = step::page(&origin(), &Limits::default(), &memory, &header, &assignments(&before.1, 499), read, at);
        let released = step.devices.iter().any(|event| event.after.as_ref().unwrap().is_released());
        prop_assert!(!released);
        memory.apply(&step);
        let suspects = memory.scans.suspects.clone();
        let (step, header) = step::give_up(&origin(), &header, "the cursor expired", at);
        memory.apply(&step);
        prop_assert_eq!(header.state, ScanState::Incomplete);
        prop_assert_eq!(&memory.scans.suspects, &suspects);
    }

    #[test]
    fn more_suspects_never_make_the_breaker_milder(live in 1usize..2_000, suspects in 1usize..2_000, lately in 0usize..50) {
        let suspects = suspects.min(live);
        let case = |suspects| Case { released_lately: lately, suspects, held: 0, live, listed: live - suspects };
        if Limits::default().ask(&case(suspects)).is_some() && suspects < live {
            prop_assert!(Limits::default().ask(&case(suspects + 1)).is_some());
        }
    }
}
