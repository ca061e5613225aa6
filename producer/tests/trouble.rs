//! Trouble that lasts: what `status` shows of it, how a single run ends, and what a wrong clock leaves behind.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use windfall_producer::config::{RateLimitConfig, SourceConfig};
use windfall_producer::error::ProducerError;
use windfall_producer::run;
use windfall_producer::source::OnceOutcome;
use windfall_runtime::clock::SharedClock;
use windfall_runtime::config::Period;
use windfall_runtime::diagnose::Diagnose as _;
use windfall_runtime::health::{PartState, PartStatus};
use windfall_simulator::journal::Record;
use windfall_simulator::{Command, ReleaseAnswer};

use crate::rig::{Rig, Wrong, still, told, until};

fn shown(rig: &Rig) -> Option<PartStatus> {
    rig.setup.status.snapshot().parts.remove("producer acme")
}

async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(90), work).await.unwrap_or_else(|_| panic!("{what} does not end"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_run_of_several_sources_reads_those_that_can_be_read() {
    let rig = Rig::new(still(25, 1).orgs(["acme", "globex"].map(str::to_owned).to_vec()), 10).await;
    let stranger = SourceConfig { client_id: "BUSINESSAPI.nobody".into(), name: "globex".into(), ..rig.source.clone() };
    // It is in the middle of its scan when the other one has failed.
    rig.faults("devices page=2 delay ms=3000 x1");
    let sources = [stranger, rig.source.clone()];
    let error = run::run_once(&rig.setup, &sources, CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.kind(), windfall_runtime::diagnose::Kind::Authentication, "the worst code wins: {error}");
    let header = rig.header().await;
    assert_eq!((header.state.as_deref(), header.devices), (Some("complete"), Some(25)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_run_that_is_refused_for_one_source_reads_the_others() {
    let mut rig = Rig::new(still(25, 1).orgs(["acme", "globex"].map(str::to_owned).to_vec()), 10).await;
    let other = rig.account("globex");
    rig.faults("servers hang x1");
    let stop = CancellationToken::new();
    let serving = tokio::spawn({
        let (setup, other, stop) = (rig.peer(windfall_services::kafka(), "b"), other.clone(), stop.clone());
        async move { run::run(&setup, &[other], stop).await }
    });
    let handle = rig.handle();
    until("another instance reads globex", async || handle.faults_played().iter().any(|(_, times)| *times > 0)).await;
    rig.source.scan.interval = Period::from_secs(3_600);
    let sources = [other, rig.source.clone()];
    let error = run::run_once(&rig.setup, &sources, CancellationToken::new()).await.unwrap_err();
    assert!(matches!(&error, ProducerError::AtWork { source_name, .. } if source_name == "globex"), "{error:?}");
    assert_eq!(rig.header().await.state.as_deref(), Some("complete"));
    stop.cancel();
    serving.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_one_source_ends_neither_the_others_nor_the_process() {
    let rig = Rig::new(still(25, 1).orgs(["acme", "globex"].map(str::to_owned).to_vec()), 10).await;
    let broken = SourceConfig { token_url: "no url".into(), ..rig.account("globex") };
    let stop = CancellationToken::new();
    let serving = tokio::spawn({
        let (setup, sources, stop) = (rig.setup.clone(), [broken, rig.source.clone()], stop.clone());
        async move { run::run(&setup, &sources, stop).await }
    });
    let part = |name: &str| rig.setup.status.snapshot().parts.remove(name);
    let failed = async || part("producer globex").is_some_and(|part| part.state == PartState::Failed);
    until("the broken one has ended", failed).await;
    let scanned = async || rig.parts().await.get("").is_some_and(|it| it.state.as_deref() == Some("complete"));
    until("the other one is scanned", scanned).await;
    assert!(!serving.is_finished() && part("producer acme").is_some_and(|part| part.ready));
    stop.cancel();
    let error = serving.await.unwrap().unwrap_err();
    assert!(matches!(&error, ProducerError::Connect { source_name, .. } if source_name == "globex"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_run_that_apple_never_lets_through_ends_incomplete() {
    let rig = Rig::scaled(still(25, 1), 10, 100.0).await;
    rig.faults("devices page=2 429 retry-after=5");
    let outcome = in_time("the run", rig.once()).await;
    assert_eq!(outcome, OnceOutcome::Incomplete);
    let header = rig.header().await;
    assert_eq!((header.state.as_deref(), header.page), (Some("running"), Some(1)), "the next run goes on");
    let reason = shown(&rig).unwrap().details["error"].to_string();
    assert!(reason.contains("limit"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_apple_does_not_answer_is_not_ready_until_it_does() {
    let rig = Rig::scaled(still(25, 1), 10, 50.0).await;
    rig.faults("devices 503");
    let stop = CancellationToken::new();
    let serving = rig.serve(&stop);
    let interrupted = || shown(&rig).is_some_and(|part| part.details.contains_key("reason"));
    until("the scan is interrupted", async || interrupted()).await;
    let asked = |route: &str| rig.requests().iter().filter(|request| request.route == route).count();
    let tried = asked("servers");
    let mut lies = 0;
    until("it has tried twice more, and rested between", async || {
        lies += usize::from(!interrupted() || shown(&rig).unwrap().ready);
        asked("servers") >= tried + 3
    })
    .await;
    assert_eq!(lies, 0, "it was ready, or the reason was gone, while no scan came on");
    rig.handle().clear_faults();
    until("it scans again", async || shown(&rig).is_some_and(|part| part.ready)).await;
    assert!(!interrupted());
    stop.cancel();
    serving.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_between_two_scans_is_ready_and_says_when_it_last_did_something() {
    let mut rig = Rig::scaled(still(25, 1), 10, 200.0).await;
    rig.source.scan.interval = Period::from_secs(3_600);
    let stop = CancellationToken::new();
    let serving = rig.serve(&stop);
    until("it has scanned and waits", async || {
        shown(&rig).is_some_and(|part| part.details.contains_key("next_scan_at"))
    })
    .await;
    let rests = shown(&rig).unwrap();
    let began = rig.setup.clock.elapsed();
    let mut unready = 0;
    until("ten minutes have gone by", async || {
        unready += usize::from(!shown(&rig).unwrap().ready);
        rig.setup.clock.elapsed() > began + Duration::from_secs(600)
    })
    .await;
    let later = shown(&rig).unwrap();
    assert_eq!((unready, later.progress_at), (0, rests.progress_at), "it was ready, and asked nobody anything");
    stop.cancel();
    serving.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn linkage_lists_are_progress() {
    let mut rig = Rig::scaled(still(60, 150), 10, 100.0).await;
    rig.source.rate_limit = RateLimitConfig { requests: 20, per: Period::from_secs(60), share: 1.0 };
    let stop = CancellationToken::new();
    let serving = rig.serve(&stop);
    until("it has taken over", async || shown(&rig).is_some_and(|part| part.progress_at.is_some())).await;
    let began = shown(&rig).unwrap().progress_at.unwrap();
    until("it comes on for longer than it may be silent", async || {
        shown(&rig).unwrap().progress_at.unwrap() > began + chrono::Duration::seconds(310)
    })
    .await;
    assert!(rig.requests().len() < 145, "it is still in the middle of its lists: {}", rig.requests().len());
    assert!(shown(&rig).unwrap().ready);
    stop.cancel();
    serving.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_was_ahead_keeps_no_scan_back() {
    const DAY: i64 = 24 * 3_600_000;
    let clock = Wrong::by(DAY);
    let shared: SharedClock = clock.clone();
    let mut rig = Rig::on_clock(still(25, 1), 10, shared).await;
    assert_eq!(rig.once().await, OnceOutcome::Complete);
    clock.by.store(0, Ordering::Relaxed);
    rig.source.scan.interval = Period::from_secs(3_600);
    let stop = CancellationToken::new();
    let serving = rig.serve(&stop);
    let second = async || rig.header().await.scan_number == Some(2);
    until("the next scan is made", second).await;
    stop.cancel();
    serving.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_by_a_day_does_not_make_a_day_of_absence() {
    let clock = Wrong::by(0);
    let shared: SharedClock = clock.clone();
    let rig = Rig::on_clock(still(25, 1), 10, shared).await;
    assert_eq!(rig.once().await, OnceOutcome::Complete);
    let gone = rig.devices()[7].clone();
    rig.command(Command::Release { device: gone.clone(), answer: Some(ReleaseAnswer::Gone) });
    rig.faults(&format!("/v1/orgDevices/{gone} 403"));
    assert_eq!(rig.once().await, OnceOutcome::Incomplete);
    clock.by.store(25 * 3_600_000, Ordering::Relaxed);
    assert_eq!(rig.once().await, OnceOutcome::Incomplete);
    assert!(rig.requests().iter().filter(|asked| asked.status == Some(403)).count() >= 2, "it was looked up again");
    assert!(told(&rig.events().await).iter().all(|told| told.starts_with("added")), "two scans within a minute");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_accepts_no_token_pauses_the_scan_with_the_reason_and_costs_two_tokens() {
    let rig = Rig::new(still(25, 1), 10).await;
    rig.faults("devices 401");
    let stop = CancellationToken::new();
    let serving = rig.serve(&stop);
    let paused = async || {
        let reason = shown(&rig).and_then(|part| part.details.get("reason").map(ToString::to_string));
        reason.is_some_and(|reason| reason.contains("no token is asked for during another"))
    };
    until("the scan is paused", paused).await;
    stop.cancel();
    serving.await.unwrap().unwrap();
    let journal = rig.handle().journal().into_iter();
    let tokens = journal.filter(|line| matches!(&line.record, Record::Response(it) if it.route == "token")).count();
    assert_eq!(tokens, 2, "one, and another one in its place");
}
