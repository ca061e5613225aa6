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
