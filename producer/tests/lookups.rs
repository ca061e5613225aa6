//! Look-ups of many missing devices beside the scans.

use std::collections::BTreeSet;

use tokio_util::sync::CancellationToken;
use windfall_producer::source::OnceOutcome;
use windfall_runtime::config::Period;
use windfall_simulator::{Command, ReleaseAnswer};

use crate::rig::{Rig, still, told, until};

/// Look-ups that a scan which is due waits for, and no more.
const FEWEST: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn look_ups_and_scans_that_are_always_due_take_turns_and_nothing_is_lost() {
    let mut rig = Rig::new(still(1_200, 1), 1_000).await;
    assert_eq!(rig.once().await, OnceOutcome::Complete);
    let gone: Vec<String> = rig.devices().into_iter().step_by(24).collect();
    assert_eq!(gone.len(), 50, "as many as the breaker lets through");
    for device in &gone {
        rig.command(Command::Release { device: device.clone(), answer: Some(ReleaseAnswer::Dated) });
    }
    let asked = rig.requests().len();
    // The next scan is due before the last one has ended.
    rig.source.scan.interval = Period::from_millis(1);
    let stop = CancellationToken::new();
    let serving = rig.serve(&stop);
    let settled = async || rig.parts().await.get("").is_some_and(|header| header.scan_number >= Some(5));
    until("the scans have gone round", settled).await;
    stop.cancel();
    serving.await.unwrap().unwrap();

    let mut rounds: Vec<Vec<String>> = Vec::new();
    for request in &rig.requests()[asked..] {
        match (request.route.as_str(), request.page) {
            ("devices", Some(1)) => rounds.push(Vec::new()),
            ("device", _) => rounds.last_mut().expect("a scan comes first").push(request.target.clone()),
            _ => {}
        }
    }
    let counts: Vec<usize> = rounds.iter().map(Vec::len).filter(|looked_up| *looked_up > 0).collect();
    assert_eq!(counts, [FEWEST, FEWEST, 10], "a scan between any two rounds, and neither starves the other");
    let targets: BTreeSet<&String> = rounds.iter().flatten().collect();
    assert_eq!(targets.len(), 50, "each is looked up, and once");
    let released: Vec<String> = gone.iter().map(|device| format!("released {device}")).collect();
    let all = told(&rig.events().await);
    assert_eq!(all.into_iter().filter(|told| told.starts_with("released")).collect::<Vec<_>>(), released);
    assert!(!rig.parts().await.keys().any(|part| part.starts_with("suspect:")));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_odd_device_keeps_no_release_back() {
    let rig = Rig::new(still(25, 1), 10).await;
    rig.once().await;
    let devices = rig.devices();
    rig.faults(&format!("/v1/orgDevices/{} 404", devices[0]));
    rig.command(Command::Release { device: devices[9].clone(), answer: Some(ReleaseAnswer::Gone) });
    assert_eq!(rig.once().await, OnceOutcome::Complete);
    assert!(told(&rig.events().await).contains(&format!("released {}", devices[9])));
}

#[tokio::test(flavor = "multi_thread")]
async fn single_reads_that_are_all_forbidden_release_nobody_and_are_told_with_the_permission() {
    let rig = Rig::new(still(25, 1), 10).await;
    rig.once().await;
    rig.command(Command::Release { device: rig.devices()[7].clone(), answer: Some(ReleaseAnswer::Gone) });
    rig.faults("device 403");
    assert_eq!(rig.once().await, OnceOutcome::Incomplete);
    let targets: BTreeSet<String> =
        rig.requests().into_iter().filter(|asked| asked.route == "device").map(|asked| asked.target).collect();
    assert_eq!(targets.len(), 4, "the missing device, and three that are listed");
    let shown = rig.setup.status.snapshot().parts["producer acme"].details["single_reads"].to_string();
    assert!(shown.contains("FORBIDDEN_ERROR") && shown.contains("role"), "{shown}");
    let suspect = rig.parts().await.into_iter().find(|(part, _)| part.starts_with("suspect:")).unwrap().1;
    assert!(suspect.detail.unwrap().contains("no control read answered 200"), "a failed read is no evidence");
}

#[tokio::test(flavor = "multi_thread")]
async fn look_ups_have_their_share_between_the_pages_of_a_long_scan() {
    let mut rig = Rig::new(still(1_200, 1), 25).await;
    assert_eq!(rig.once().await, OnceOutcome::Complete);
    for device in rig.devices().into_iter().step_by(24) {
        rig.command(Command::Release { device, answer: Some(ReleaseAnswer::Dated) });
    }
    let asked = rig.requests().len();
    rig.source.scan.interval = Period::from_millis(1);
    let stop = CancellationToken::new();
    let serving = rig.serve(&stop);
    until("two scans have ended", async || rig.header().await.scan_number >= Some(4)).await;
    stop.cancel();
    serving.await.unwrap().unwrap();
    // Scans since, the page last read, and look-ups behind which the same scan has read more pages.
    let (mut scans, mut waiting, mut between) = (0, 0, 0);
    for request in &rig.requests()[asked..] {
        match (request.route.as_str(), request.page) {
            ("devices", Some(1)) => (scans, waiting) = (scans + 1, 0),
            ("devices", _) => between += std::mem::take(&mut waiting),
            ("device", _) if scans == 2 => waiting += 1,
            _ => {}
        }
    }
    assert_eq!(between, 30, "what the first scan has left is looked up while the second one goes on");
}
