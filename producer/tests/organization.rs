//! One organization from the simulator to a real Kafka.

use std::collections::{BTreeMap, BTreeSet};

use tokio_util::sync::CancellationToken;
use windfall_producer::scans::{self};
use windfall_producer::source::OnceOutcome;
use windfall_producer::step::Answer;
use windfall_runtime::diagnose::Diagnose as _;
use windfall_runtime::kafka::sender::Sender;
use windfall_runtime::kafka::{Outgoing, table};
use windfall_schemas::fingerprint::parse_sequence;
use windfall_schemas::partition;
use windfall_schemas::signal::{ApproveScan, Signal};
use windfall_services::{Direction, Kafka, KafkaOptions, Proxy};
use windfall_simulator::{Command, RateLimit, ReleaseAnswer};

use crate::rig::{Rig, still, told, until};

async fn held(cluster: &windfall_producer::ledger::Cluster, name: &str) -> Option<scans::PlanView> {
    scans::held(cluster).await.unwrap().into_iter().find(|held| held.plan == name)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_scan_publishes_every_device_once_as_r_with_its_server() {
    let rig = Rig::new(still(45, 3), 10).await;
    assert_eq!(rig.once().await, OnceOutcome::Complete);

    let log = rig.device_log().await;
    let truth = rig.handle().truth();
    assert_eq!(log.len(), 45);
    let codec_key = rig.cluster().await.codecs.device_key.clone();
    let mut marks = BTreeMap::new();
    for read in &log {
        let event = read.value.as_ref().unwrap();
        let after = event.after.as_ref().unwrap();
        let true_device = truth.devices.iter().find(|device| device.id == after.device_id).unwrap();
        assert_eq!(after.mdm_server_id, true_device.server_id);
        assert_eq!(after.mdm_server_name, true_device.server_name);
        assert_eq!(event.op.as_str(), "r");
        assert_eq!(parse_sequence(event.source.sequence.as_ref().unwrap()), Some(1));
        assert_eq!(read.headers.text("ce_type"), Some("abm.device.added"));
        assert_eq!(read.headers.text("ce_id"), event.event_id.as_deref());
        let key = codec_key.encode(read.key.as_ref().unwrap()).unwrap();
        assert_eq!(read.partition, partition::for_key(&key, 12), "the partition is murmur2 of the framed key");
        *marks.entry(event.source.snapshot.to_string()).or_insert(0) += 1;
    }
    assert_eq!(marks, BTreeMap::from([("first".into(), 1), ("true".into(), 43), ("last".into(), 1)]));

    let servers = rig.server_log().await;
    assert_eq!(servers.len(), 3);
    let header = rig.header().await;
    assert_eq!((header.state.as_deref(), header.page, header.devices), (Some("complete"), Some(5), Some(45)));
    assert_eq!(header.requests, Some(5 + 1 + linkage_requests(&rig)));
    let parts = rig.parts().await;
    assert!(!parts.keys().any(|part| part.starts_with("seen:")), "the ids seen are forgotten: {:?}", parts.keys());

    let notifications = rig.notifications().await;
    let kinds: Vec<&str> = notifications.iter().map(|told| told.kind.as_str()).collect();
    assert_eq!(
        kinds,
        ["STARTED", "IN_PROGRESS", "IN_PROGRESS", "IN_PROGRESS", "IN_PROGRESS", "IN_PROGRESS", "COMPLETED"]
    );
    let facts = notifications.last().unwrap().additional_data.as_ref().unwrap();
    assert_eq!(facts["count.added"], "45");
    let ends = table::ends(&rig.setup.connection, &rig.names.devices(), 0..12).await.unwrap();
    for (partition, extent) in ends {
        let told: i64 = facts[&format!("end_offset.{partition}")].parse().unwrap();
        assert!(told <= extent.end && extent.end - told <= 5 + 1, "only markers may follow: {told} of {}", extent.end);
    }
}

fn linkage_requests(rig: &Rig) -> i64 {
    i64::try_from(rig.requests().iter().filter(|request| request.route == "linkage").count()).unwrap()
}

async fn log_ends(rig: &Rig) -> Vec<i64> {
    let mut ends = Vec::new();
    for (topic, partitions) in [(rig.names.devices(), 12), (rig.names.servers(), 1)] {
        let extents = table::ends(&rig.setup.connection, &topic, 0..partitions).await.unwrap();
        ends.extend(extents.values().map(|extent| extent.end));
    }
    ends
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_scan_without_changes_writes_nothing_to_the_change_topics() {
    let rig = Rig::new(still(30, 2), 10).await;
    rig.once().await;
    let before = log_ends(&rig).await;
    assert_eq!(rig.once().await, OnceOutcome::Complete);
    assert_eq!(log_ends(&rig).await, before, "not even a marker");
    assert_eq!(rig.header().await.scan_number, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_arrive_as_what_they_are() {
    let rig = Rig::new(still(20, 2), 10).await;
    rig.once().await;
    let truth = rig.handle().truth();
    let servers: Vec<String> = truth.servers.iter().map(|server| server.id.clone()).collect();
    let assigned = truth.devices.iter().filter(|device| device.server_id.as_ref() == Some(&servers[0]));
    let assigned: Vec<String> = assigned.map(|device| device.id.clone()).collect();
    let free = truth.devices.iter().find(|device| device.server_id.is_none()).unwrap().id.clone();
    let [moved, taken, corrected, ..] = &assigned[..] else { panic!("the seed assigns three") };
    rig.command(Command::Assign { device: moved.clone(), server: servers[1].clone() });
    rig.command(Command::Unassign { device: taken.clone() });
    rig.command(Command::Assign { device: free.clone(), server: servers[0].clone() });
    rig.command(Command::Correct { device: corrected.clone(), attribute: "color".into(), value: "PLAID".into() });
    rig.command(Command::Correct { device: corrected.clone(), attribute: "newInVersion9".into(), value: 7.into() });
    rig.command(Command::Add { device: Some("NEWDEVICE001".into()), server: None });
    assert_eq!(rig.once().await, OnceOutcome::Complete);
    let events = rig.events().await;
    let news: Vec<_> = events.into_iter().filter(|event| event.op.as_str() != "r").collect();
    let mut expected = vec![
        format!("reassigned {moved}"),
        format!("unassigned {taken}"),
        format!("assigned {free}"),
        format!("updated {corrected}"),
        "added NEWDEVICE001".to_owned(),
    ];
    expected.sort();
    assert_eq!(told(&news), expected);
    let corrected = news.iter().find(|event| event.kind.as_ref().unwrap().as_str() == "updated").unwrap();
    assert!(corrected.changed.contains(&"color".to_owned()) && corrected.changed.contains(&"unmapped".to_owned()));
    assert_eq!(corrected.after.as_ref().unwrap().unmapped.as_deref(), Some(r#"{"newInVersion9":7}"#));
    assert!(corrected.before.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_is_published_with_its_evidence() {
    let rig = Rig::new(still(30, 2), 10).await;
    rig.once().await;
    let devices = rig.devices();
    let (dated, gone, hidden) = (&devices[3], &devices[11], &devices[20]);
    rig.command(Command::Release { device: dated.clone(), answer: Some(ReleaseAnswer::Dated) });
    rig.command(Command::Release { device: gone.clone(), answer: Some(ReleaseAnswer::Gone) });
    rig.command(Command::Hide { device: hidden.clone() });
    assert_eq!(rig.once().await, OnceOutcome::Complete);
    let reads: Vec<_> = rig.requests().into_iter().filter(|request| request.route == "device").collect();
    let statuses: Vec<_> = reads.iter().map(|read| read.status.unwrap()).collect();
    assert_eq!((reads.len(), statuses.iter().filter(|status| **status == 404).count()), (4, 1), "{statuses:?}");
    assert_eq!(statuses.last(), Some(&200), "the control read comes after the 404s");
    let events = rig.events().await;
    let released: Vec<_> = events.iter().filter(|event| event.op.as_str() == "u").collect();
    assert_eq!(released.len(), 2, "the listing missed the third, and nothing of it has changed");
    for event in released {
        let after = event.after.as_ref().unwrap();
        assert_eq!(event.kind.as_ref().unwrap().as_str(), "released");
        assert_eq!(event.source.channel.as_ref().unwrap().as_str(), "lookup");
        assert_eq!(event.evidence[0], "scan 2: absent");
        assert!(after.released_from_org_date_time.is_some());
        assert!(after.mdm_server_id.is_none() && after.mdm_server_name.is_none());
        let answered = if after.device_id == *dated { ": 200, released" } else { ": 404, control read 200" };
        assert!(event.evidence[1].contains(answered), "{:?}", event.evidence);
    }
    // The next scan misses all three again: the released ones are settled, the hidden one is looked up once more.
    let before = log_ends(&rig).await;
    assert_eq!(rig.once().await, OnceOutcome::Complete);
    assert_eq!(log_ends(&rig).await, before);

    rig.command(Command::Readd { device: gone.clone() });
    rig.once().await;
    let events = rig.events().await;
    let back = events.iter().find(|event| event.kind.as_ref().unwrap().as_str() == "readded").unwrap();
    assert_eq!(back.after.as_ref().unwrap().released_from_org_date_time, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_look_up_leaves_a_suspect_and_an_incomplete_run() {
    let rig = Rig::new(still(20, 1), 10).await;
    rig.once().await;
    rig.command(Command::Release { device: rig.devices()[4].clone(), answer: Some(ReleaseAnswer::Gone) });
    rig.faults("device 503");
    assert_eq!(rig.once().await, OnceOutcome::Incomplete);
    assert!(rig.events().await.iter().all(|event| event.op.as_str() == "r"), "a failed read is no answer");
    let suspects = rig.parts().await.into_keys().filter(|part| part.starts_with("suspect:")).count();
    assert_eq!(suspects, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mass_release_is_held_until_a_person_approves_what_was_shown() {
    let rig = Rig::new(still(60, 2), 20).await;
    rig.once().await;
    rig.command(Command::ReleaseShare { percent: 40.0 });
    rig.command(Command::Add { device: Some("NEWDEVICE001".into()), server: None });
    assert_eq!(rig.once().await, OnceOutcome::Held);
    assert!(!rig.requests().iter().any(|request| request.route == "device"), "no look-ups for held devices");
    assert!(told(&rig.events().await).contains(&"added NEWDEVICE001".to_owned()), "everything else flows");

    let cluster = rig.cluster().await;
    let lines = scans::list(&cluster).await.unwrap();
    assert_eq!((lines.len(), lines[0].state.as_str(), lines[0].held.len()), (1, "held", 1));
    let plan = held(&cluster, &lines[0].held[0]).await.expect("the plan is there");
    assert_eq!(plan.devices.len(), 24);
    assert!(held(&cluster, "acme-999").await.is_none());

    let shutdown = CancellationToken::new();
    let serving = rig.serve(&shutdown);
    let mut stale = plan.clone();
    stale.plan_hash = "0".repeat(32);
    let answer = scans::approve(&cluster, &stale, "signal-1").await.unwrap();
    assert_eq!(answer, Some(Answer::Stale { plan_hash: plan.plan_hash.clone() }));
    let answer = scans::approve(&cluster, &plan, "signal-2").await.unwrap();
    assert_eq!(answer, Some(Answer::Approved { released: 24 }));
    let again = scans::approve(&cluster, &plan, "signal-3").await.unwrap();
    assert_eq!(again, Some(Answer::Unknown), "approving twice does nothing");
    shutdown.cancel();
    serving.await.unwrap().unwrap();

    let events = rig.events().await;
    let released: Vec<_> = events.iter().filter(|event| event.kind.as_ref().unwrap().as_str() == "released").collect();
    let ids: BTreeSet<String> = released.iter().map(|event| event.after.as_ref().unwrap().device_id.clone()).collect();
    assert_eq!(ids.into_iter().collect::<Vec<_>>(), plan.devices);
    assert!(released.iter().all(|event| event.source.channel.as_ref().unwrap().as_str() == "operator"));
    assert!(!rig.parts().await.keys().any(|part| part.starts_with("held:")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_that_nobody_was_there_to_obey_is_obeyed_by_the_next_run() {
    let rig = Rig::new(still(20, 1), 10).await;
    rig.once().await;
    rig.command(Command::ReleaseShare { percent: 60.0 });
    assert_eq!(rig.once().await, OnceOutcome::Held);
    let cluster = rig.cluster().await;
    let plan = held(&cluster, "acme-2").await.expect("the plan is there");
    let data = ApproveScan { source: plan.source.clone(), plan: plan.plan, plan_hash: plan.plan_hash };
    let signal = Signal::approve_scan("signal-1", &data).to_json();
    let record = Outgoing::new(rig.names.signals(), "windfall", signal);
    Sender::new(&rig.setup.connection).unwrap().send(&[record]).await.unwrap();
    assert_eq!(rig.once().await, OnceOutcome::Complete);
    let released = told(&rig.events().await).into_iter().filter(|told| told.starts_with("released")).count();
    assert_eq!(released, 12);
    assert_eq!(rig.once().await, OnceOutcome::Complete, "and only once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_is_too_large_for_one_transaction_is_approved_whole_and_answered_once() {
    let rig = Rig::new(still(5_300, 1), 1_000).await;
    rig.once().await;
    rig.command(Command::ReleaseShare { percent: 99.0 });
    assert_eq!(rig.once().await, OnceOutcome::Held);
    let cluster = rig.cluster().await;
    let plan = held(&cluster, "acme-2").await.expect("the plan is there");
    assert!(plan.devices.len() > 5_000, "{}", plan.devices.len());
    let shutdown = CancellationToken::new();
    let serving = rig.serve(&shutdown);
    let answer = scans::approve(&cluster, &plan, "signal-1").await.unwrap();
    assert_eq!(answer, Some(Answer::Approved { released: plan.devices.len() }));
    shutdown.cancel();
    serving.await.unwrap().unwrap();

    let released =
        told(&rig.events().await).into_iter().filter_map(|told| told.strip_prefix("released ").map(str::to_owned));
    assert_eq!(released.collect::<Vec<_>>(), plan.devices, "each, and once");
    let answers = rig.notifications().await.into_iter().filter(|told| told.id == "signal-1").count();
    let parts = rig.parts().await;
    let left = parts.keys().any(|part| part.starts_with("held:") || part == "approval");
    assert_eq!((answers, left), (1, false), "{:?}", parts.keys());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_list_is_held_and_the_plan_ends_when_the_devices_are_back() {
    let rig = Rig::new(still(12, 1), 10).await;
    rig.once().await;
    rig.faults("devices empty x1");
    assert_eq!(rig.once().await, OnceOutcome::Held);
    assert_eq!(rig.once().await, OnceOutcome::Complete);
    assert!(rig.events().await.iter().all(|event| event.op.as_str() == "r"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_that_is_killed_goes_on_where_it_stopped_and_is_complete() {
    let rig = Rig::new(still(50, 2), 10).await;
    rig.faults("devices page=4 hang x1");
    let handle = rig.handle();
    tokio::select! {
        ended = rig.try_once() => panic!("the fourth page hangs, and yet it ended: {ended:?}"),
        () = until("the fourth page is asked for", async || handle.faults_played().iter().any(|(_, times)| *times > 0)) => {}
    }
    let header = rig.header().await;
    assert_eq!((header.state.as_deref(), header.page), (Some("running"), Some(3)));
    let asked = rig.requests().len();
    rig.nobody_at_work().await;

    assert_eq!(rig.once().await, OnceOutcome::Complete);
    let header = rig.header().await;
    assert_eq!((header.scan_number, header.page, header.devices), (Some(1), Some(5), Some(50)));
    let pages: Vec<Option<u32>> = rig.requests()[asked..]
        .iter()
        .filter(|request| request.route == "devices")
        .map(|request| request.page)
        .collect();
    assert_eq!(pages, [Some(4), Some(5)], "no page is read twice");
    let events = rig.events().await;
    assert_eq!(events.len(), 50);
    let ids: BTreeSet<_> = events.iter().map(|event| event.event_id.clone().unwrap()).collect();
    assert_eq!(ids.len(), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_cursor_begins_the_scan_anew_and_a_cursor_that_never_works_ends_it() {
    let rig = Rig::new(still(30, 1), 10).await;
    rig.faults("devices page=2 bad-cursor x1");
    assert_eq!(rig.once().await, OnceOutcome::Complete);
    assert_eq!(rig.header().await.scan_number, Some(2), "a restart takes a new number");
    assert_eq!(rig.events().await.len(), 30);
    let aborted = rig.notifications().await.into_iter().find(|told| told.kind == "ABORTED").unwrap();
    assert_eq!(aborted.id, "acme-1-aborted", "whoever followed the first scan learns that it has no end");

    rig.faults("devices page=2 bad-cursor");
    rig.command(Command::Release { device: rig.devices()[29].clone(), answer: Some(ReleaseAnswer::Gone) });
    assert_eq!(rig.once().await, OnceOutcome::Incomplete);
    let header = rig.header().await;
    assert_eq!((header.state.as_deref(), header.scan_number), (Some("incomplete"), Some(6)), "after three more tries");
    assert!(header.detail.unwrap().contains("the cursor expired in 4 scans in a row"));
    assert!(!rig.parts().await.keys().any(|part| part.starts_with("suspect:")), "absence proves nothing");
    assert!(rig.notifications().await.iter().any(|told| told.id == "acme-6-aborted"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_that_is_resumed_with_an_expired_cursor_begins_anew_and_is_complete() {
    let rig = Rig::new(still(40, 1), 10).await;
    rig.faults("devices page=3 hang x1");
    let handle = rig.handle();
    let hangs = async || handle.faults_played().iter().any(|(_, times)| *times > 0);
    tokio::select! {
        ended = rig.try_once() => panic!("the third page hangs, and yet it ended: {ended:?}"),
        () = until("the third page is asked for", hangs) => {}
    }
    rig.command(Command::ExpireCursors);
    rig.nobody_at_work().await;
    assert_eq!(rig.once().await, OnceOutcome::Complete);
    let header = rig.header().await;
    assert_eq!((header.scan_number, header.page, header.devices), (Some(2), Some(4), Some(40)));
    let events = rig.events().await;
    assert_eq!(events.len(), 40);
    let count = |mark: &str| events.iter().filter(|event| event.source.snapshot.as_str() == mark).count();
    assert_eq!((count("first"), count("last")), (1, 1), "the table has one first reading, whatever scans it took");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_shift_release_nobody() {
    let rig = Rig::new(still(40, 2), 10).await;
    rig.once().await;
    let before = log_ends(&rig).await;
    rig.faults("devices page=1 skip n=2 x1\ndevices page=3 repeat n=3 x1");
    assert_eq!(rig.once().await, OnceOutcome::Complete);
    let looked_up = rig.requests().into_iter().filter(|request| request.route == "device").count();
    assert_eq!(looked_up, 2, "the devices that fell between two pages are asked for");
    assert_eq!(log_ends(&rig).await, before, "they are there, and nothing of them has changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_without_items_that_goes_on_is_an_expired_cursor() {
    let rig = Rig::new(still(30, 1), 10).await;
    rig.faults("devices page=2 empty-page x1");
    assert_eq!(rig.once().await, OnceOutcome::Complete);
    assert_eq!((rig.header().await.scan_number, rig.events().await.len()), (Some(2), 30));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_cut_is_held_and_one_whose_total_is_wrong_proves_nothing() {
    let rig = Rig::new(still(40, 1), 10).await;
    rig.once().await;
    rig.command(Command::Release { device: rig.devices()[7].clone(), answer: Some(ReleaseAnswer::Gone) });
    rig.faults("devices total by=5");
    assert_eq!(rig.once().await, OnceOutcome::Incomplete);
    let detail = rig.header().await.detail.unwrap();
    assert!(detail.contains("the list gave a total of"), "{detail}");
    rig.handle().clear_faults();
    rig.faults("devices page=1 cut-list keep=40% x1");
    assert_eq!(rig.once().await, OnceOutcome::Held);
    assert!(rig.events().await.iter().all(|event| event.op.as_str() == "r"), "nobody is released by either");
}

#[tokio::test(flavor = "multi_thread")]
async fn linkage_that_cannot_be_read_unassigns_nobody() {
    let rig = Rig::new(still(30, 3), 10).await;
    rig.once().await;
    rig.command(Command::Unassign {
        device: rig.handle().truth().devices.iter().find(|device| device.server_id.is_some()).unwrap().id.clone(),
    });
    rig.faults("/v1/mdmServers/*/relationships/devices @2.. 403");
    assert_eq!(rig.once().await, OnceOutcome::Incomplete);
    let unassigned = |events: &[_]| told(events).into_iter().filter(|told| told.starts_with("unassigned")).count();
    assert_eq!(unassigned(&rig.events().await), 0);
    rig.handle().clear_faults();
    assert_eq!(rig.once().await, OnceOutcome::Complete);
    assert_eq!(unassigned(&rig.events().await), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_that_lead_back_remove_no_server_and_unassign_nobody() {
    let rig = Rig::new(still(30, 3), 10).await;
    rig.once().await;
    rig.command(Command::Unassign {
        device: rig.handle().truth().devices.iter().find(|device| device.server_id.is_some()).unwrap().id.clone(),
    });
    rig.faults("linkage next-loop");
    assert_eq!(rig.once().await, OnceOutcome::Incomplete);
    let detail = rig.header().await.detail.unwrap();
    assert!(detail.contains("leads back"), "{detail}");
    assert!(!told(&rig.events().await).iter().any(|told| told.starts_with("unassigned")));
    assert_eq!(rig.server_log().await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_in_two_lists_is_read_singly_and_stays_where_it_is() {
    let rig = Rig::new(still(20, 2), 10).await;
    rig.once().await;
    let before = log_ends(&rig).await;
    rig.faults("linkage double-link n=1 x1");
    assert_eq!(rig.once().await, OnceOutcome::Complete);
    let single = rig.requests().into_iter().filter(|request| request.route == "assigned-server-id").count();
    assert_eq!(single, 1);
    assert_eq!(log_ends(&rig).await, before, "nothing has changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_linkage_list_that_lags_behind_is_settled_by_single_reads() {
    let rig = Rig::new(still(20, 2), 10).await;
    rig.once().await;
    let truth = rig.handle().truth();
    let free = truth.devices.iter().find(|device| device.server_id.is_none()).unwrap().id.clone();
    let server = truth.servers[0].id.clone();
    rig.command(Command::Assign { device: free.clone(), server: server.clone() });
    rig.faults("linkage lag seconds=3600");
    let after = async || {
        let mut events = rig.events().await.into_iter().filter_map(|event| event.after);
        events.rfind(|after| after.device_id == free).unwrap()
    };
    rig.once().await;
    let first = after().await;
    assert_eq!((first.status.as_deref(), first.mdm_server_id), (Some("ASSIGNED"), None), "the lists lag behind");
    rig.once().await;
    assert_eq!(after().await.mdm_server_id, Some(server), "the second contradiction in a row is read singly");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_cannot_be_read_is_rejected_alone_and_was_still_seen() {
    let rig = Rig::new(still(20, 1), 10).await;
    rig.once().await;
    let device = rig.devices()[5].clone();
    rig.faults(&format!("devices no-attributes device={device} x1"));
    assert_eq!(rig.once().await, OnceOutcome::Incomplete);
    let rejects = rig.rejects().await;
    assert_eq!(rejects.len(), 1);
    assert_eq!(
        (rejects[0].resource_id.as_deref(), rejects[0].resource.as_deref()),
        (Some(device.as_str()), Some("devices"))
    );
    assert!(rejects[0].payload.as_ref().is_some_and(|payload| !payload.is_empty()));
    assert!(!rig.parts().await.keys().any(|part| part.starts_with("suspect:")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attribute_whose_type_changed_for_the_whole_fleet_costs_no_device_and_no_scan() {
    let rig = Rig::new(still(20, 1), 10).await;
    rig.once().await;
    rig.faults("devices wrong-type n=10");
    rig.command(Command::Release { device: rig.devices()[7].clone(), answer: Some(ReleaseAnswer::Gone) });
    assert_eq!(rig.once().await, OnceOutcome::Complete);
    assert!(rig.rejects().await.is_empty());
    let detail = rig.header().await.detail.unwrap();
    assert!(detail.contains(r#""unread":{"product_family":"#), "{detail}");
    let events = rig.events().await;
    let odd: Vec<_> = events.iter().filter(|event| event.changed == ["unmapped"]).collect();
    assert!(!odd.is_empty() && odd.len() + 21 == events.len(), "{:?}", told(&events));
    for event in odd {
        let (before, after) = (event.before.as_ref().unwrap(), event.after.as_ref().unwrap());
        assert_eq!(after.product_family, before.product_family);
        assert_eq!(after.unmapped.as_deref(), Some(r#"{"productFamily":42}"#));
    }
    rig.once().await;
    assert_eq!(rig.events().await.len(), events.len(), "a second look at the same format finds nothing new");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_whose_commit_is_in_doubt_is_thrown_away_and_the_scan_goes_on() {
    let kafka = Kafka::start(&KafkaOptions { proxied: true, ..KafkaOptions::default() }).unwrap();
    let proxy = Proxy::start(kafka.proxy_port(), kafka.proxied_port()).unwrap();
    let bootstrap = format!("127.0.0.1:{}", kafka.proxy_port());
    let rig = Rig::on(&bootstrap, still(200, 2), 10).await;
    let running = rig.try_once();
    let meddling = async {
        let fifth = async || rig.requests().iter().any(|asked| asked.route == "devices" && asked.page == Some(5));
        until("the fifth page is asked for", fifth).await;
        proxy.deaf(Some(Direction::Up));
        let thrown_away = async || rig.setup.status.snapshot().parts["producer acme"].details.contains_key("reason");
        until("the writer is thrown away", thrown_away).await;
        proxy.deaf(None);
        proxy.cut();
    };
    let (outcome, ()) = tokio::join!(running, meddling);
    assert_eq!(outcome.unwrap(), OnceOutcome::Complete);
    let events = rig.events().await;
    let devices: BTreeSet<_> = events.iter().map(|event| event.after.as_ref().unwrap().device_id.clone()).collect();
    assert_eq!((events.len(), devices.len()), (200, 200), "nothing is lost and nothing comes twice");
    let header = rig.header().await;
    assert_eq!((header.scan_number, header.page), (Some(1), Some(20)), "the same scan went on");
    let asked = i64::try_from(rig.requests().len()).unwrap();
    assert!(header.requests.unwrap() <= asked, "{:?} counted and {asked} made", header.requests);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_hangs_does_not_keep_a_process_from_its_end() {
    let kafka = Kafka::start(&KafkaOptions { proxied: true, ..KafkaOptions::default() }).unwrap();
    let proxy = Proxy::start(kafka.proxy_port(), kafka.proxied_port()).unwrap();
    let rig = Rig::on(&format!("127.0.0.1:{}", kafka.proxy_port()), still(200, 1), 10).await;
    let shutdown = CancellationToken::new();
    let serving = rig.serve(&shutdown);
    until("it scans", async || rig.requests().iter().any(|request| request.page == Some(3))).await;
    proxy.stall_ends("windfall-producer-acme");
    assert!(proxy.wait_stalled(std::time::Duration::from_secs(60)), "a commit hangs");
    shutdown.cancel();
    let ended = tokio::time::timeout(std::time::Duration::from_secs(8), serving).await;
    ended.expect("it ends although the commit does not").unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_that_may_pass_leaves_a_scan_to_be_resumed() {
    let rig = Rig::scaled(still(30, 1), 10, 50.0).await;
    rig.faults("devices page=2 503 x6");
    assert_eq!(rig.once().await, OnceOutcome::Incomplete);
    assert_eq!(rig.header().await.state.as_deref(), Some("running"));
    assert_eq!(rig.once().await, OnceOutcome::Complete);
    let header = rig.header().await;
    assert_eq!((header.scan_number, header.devices), (Some(1), Some(30)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_is_an_error_of_authentication() {
    let rig = Rig::new(still(5, 1), 10).await;
    rig.command(Command::RevokeKey);
    let error = rig.try_once().await.unwrap_err();
    assert_eq!(error.kind(), windfall_runtime::diagnose::Kind::Authentication, "{error:?}");
    assert!(error.help().unwrap().contains("client_id"), "{:?}", error.help());
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_devices_and_five_servers_take_26_requests_inside_the_limit() {
    let mut rig =
        Rig::scaled(still(10_000, 5).rate_limit(Some(RateLimit::OBSERVED)).digests_only(true), 1_000, 20.0).await;
    rig.source.rate_limit.requests = 20;
    assert_eq!(rig.once().await, OnceOutcome::Complete);
    let requests = rig.requests();
    assert!(requests.len() <= 26, "{} requests", requests.len());
    assert!(requests.iter().all(|request| request.status == Some(200)), "not one was refused");
    let times: Vec<_> = requests.iter().map(|request| request.at_wall).collect();
    for window in times.windows(21) {
        let minute = window[20] - window[0];
        assert!(minute > chrono::Duration::seconds(60), "21 requests within {minute}");
    }
    assert_eq!(rig.header().await.requests, i64::try_from(requests.len()).ok());
    assert_eq!(rig.events().await.len(), 10_000);
}
