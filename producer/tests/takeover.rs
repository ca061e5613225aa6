//! Several processes and one organization: who writes, and who ends.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use windfall_producer::config::RateLimitConfig;
use windfall_producer::error::ProducerError;
use windfall_producer::run::{self, Setup};
use windfall_producer::source::OnceOutcome;
use windfall_runtime::config::Period;
use windfall_runtime::diagnose::Diagnose as _;
use windfall_services::{Direction, Kafka, KafkaOptions, Proxy};
use windfall_simulator::Command;

use crate::rig::{Rig, still, until};

/// A broker that one process reaches through a proxy, and every other one directly.
struct Cut {
    kafka: Kafka,
    proxy: Proxy,
}

impl Cut {
    fn start() -> Self {
        let kafka = Kafka::start(&KafkaOptions { proxied: true, ..KafkaOptions::default() }).unwrap();
        let proxy = Proxy::start(kafka.proxy_port(), kafka.proxied_port()).unwrap();
        Self { kafka, proxy }
    }

    /// An organization that is scanned every second, and whose own process `a` goes through the proxy.
    async fn rig(&self) -> Rig {
        let mut rig = Rig::on(&format!("127.0.0.1:{}", self.proxy.port()), still(60, 2), 10).await;
        rig.source.scan.interval = Period::from_secs(1);
        rig
    }

    /// Swallows what the process sends, until it has thrown its writer away.
    async fn off(&self, setup: &Setup) {
        self.proxy.deaf(Some(Direction::Up));
        let thrown_away = async || reason(setup).is_some_and(|reason| reason.contains("taking over again"));
        until("the writer is thrown away", thrown_away).await;
    }

    fn mend(&self) {
        self.proxy.deaf(None);
        self.proxy.cut();
    }
}

fn reason(setup: &Setup) -> Option<String> {
    setup.status.snapshot().parts.get("producer acme")?.details.get("reason").map(ToString::to_string)
}

/// Waits for scans to begin and end after this moment, read in the way of `setup`.
async fn scans_on(rig: &mut Rig, setup: &Setup) {
    let reader = std::mem::replace(&mut rig.setup, setup.clone());
    let number = async || rig.parts().await.get("").map_or(0, |header| header.scan_number.unwrap());
    let from = number().await;
    until("two more scans end", async || number().await >= from + 3).await;
    rig.setup = reader;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_cut_off_ends_when_another_has_taken_over_and_never_fences_it() {
    let cut = Cut::start();
    for (instance, named) in [("b", "of `instance` `b`"), ("a", "the same `instance` (`a`)")] {
        let mut rig = cut.rig().await;
        let stop = CancellationToken::new();
        let first = rig.serve(&stop);
        until("it scans", async || rig.requests().len() > 10).await;
        cut.off(&rig.setup).await;

        let other = rig.peer(cut.kafka.bootstrap(), instance);
        let second = rig.serve_as(other.clone(), &stop);
        scans_on(&mut rig, &other).await;
        rig.command(Command::Add { device: Some("NEWDEVICE001".into()), server: None });
        cut.mend();

        let ended = tokio::time::timeout(Duration::from_secs(60), first).await;
        let error = ended.expect("it ends instead of fencing").unwrap().unwrap_err();
        assert!(matches!(&error, ProducerError::Fenced { .. }), "{error:?}");
        assert!(error.to_string().contains(named), "{error}");
        assert!(error.help().unwrap().contains("--instance"), "{:?}", error.help());
        scans_on(&mut rig, &other).await;
        assert!(!second.is_finished(), "the one that took over was never fenced");
        assert_eq!(reason(&other), None, "nor did it ever lose its writer");
        stop.cancel();
        second.await.unwrap().unwrap();
        rig.setup = other;
        let events = rig.events().await;
        let devices: BTreeSet<_> = events.iter().map(|event| event.after.as_ref().unwrap().device_id.clone()).collect();
        assert_eq!((events.len(), devices.len()), (61, 61), "nothing is lost and nothing comes twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_cut_off_alone_goes_on_whoever_served_before_it() {
    let cut = Cut::start();
    let mut rig = cut.rig().await;
    let predecessor = rig.peer(cut.kafka.bootstrap(), "p");
    let stop = CancellationToken::new();
    let served = rig.serve_as(predecessor.clone(), &stop);
    until("it scans", async || rig.requests().len() > 10).await;
    scans_on(&mut rig, &predecessor).await;
    stop.cancel();
    served.await.unwrap().unwrap();

    let stop = CancellationToken::new();
    let serving = rig.serve(&stop);
    let ours = rig.setup.clone();
    scans_on(&mut rig, &ours).await;
    cut.off(&rig.setup).await;
    rig.command(Command::Add { device: Some("NEWDEVICE001".into()), server: None });
    cut.mend();
    scans_on(&mut rig, &predecessor).await;
    assert!(!serving.is_finished());
    stop.cancel();
    serving.await.unwrap().unwrap();
    assert_eq!(rig.events().await.len(), 61);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_go_on_counting_over_a_take_over() {
    let cut = Cut::start();
    let rig = cut.rig().await;
    let third = async || rig.requests().iter().any(|asked| asked.route == "devices" && asked.page == Some(3));
    let meddling = async {
        until("the third page is asked for", third).await;
        cut.off(&rig.setup).await;
        cut.mend();
    };
    let (outcome, ()) = tokio::join!(rig.try_once(), meddling);
    assert_eq!(outcome.unwrap(), OnceOutcome::Complete);
    let (asked, header) = (i64::try_from(rig.requests().len()).unwrap(), rig.header().await);
    assert_eq!((header.scan_number, header.page), (Some(1), Some(6)), "the same scan went on");
    // What was asked for a page whose commit came to nothing is asked again, and counts with the page that was committed.
    let counted = header.requests.unwrap();
    assert!((asked - 1..=asked).contains(&counted), "{counted} counted, {asked} made");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_run_keeps_away_from_another_instance_that_reads_its_servers_or_waits() {
    let mut rig = Rig::scaled(still(20, 2), 10, 50.0).await;
    rig.source.scan.interval = Period::from_secs(600);
    rig.faults("servers hang x1");
    let stop = CancellationToken::new();
    let serving = rig.serve(&stop);
    let handle = rig.handle();
    let hangs = async || handle.faults_played().iter().any(|(_, times)| *times > 0);
    until("it reads its servers", hangs).await;
    let other = rig.peer(windfall_services::kafka(), "b");
    let refused = async || {
        let ended = run::run_once(&other, std::slice::from_ref(&rig.source), CancellationToken::new()).await;
        match ended {
            Err(ProducerError::AtWork { instance, .. }) => Some(instance),
            _ => None,
        }
    };
    assert_eq!(refused().await.as_deref(), Some("a"), "no page has shown its scan yet");
    assert!(!rig.parts().await.contains_key(""));

    // It waits for so long that its take-over is forgotten.
    let taken_at = rig.parts().await["owner"].updated_at;
    let shown = async || rig.parts().await["owner"].updated_at > taken_at.map(|at| at + 90_000);
    until("it shows that it still waits", shown).await;
    assert_eq!(refused().await.as_deref(), Some("a"));
    stop.cancel();
    serving.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_single_run_elsewhere_has_published_is_not_published_again_by_the_process_that_serves() {
    let mut rig = Rig::scaled(still(20, 2), 10, 50.0).await;
    rig.source.scan.interval = Period::from_secs(600);
    let stop = CancellationToken::new();
    let serving = rig.serve(&stop);
    until("it scans", async || !rig.requests().is_empty()).await;
    let ended = async |number| {
        let header = rig.parts().await.remove("");
        header.is_some_and(|header| header.scan_number >= Some(number) && header.state.as_deref() == Some("complete"))
    };
    until("its scan ends", async || ended(1).await).await;

    rig.command(Command::Add { device: Some("NEWDEVICE001".into()), server: None });
    let other = rig.peer(windfall_services::kafka(), "b");
    let outcome = run::run_once(&other, std::slice::from_ref(&rig.source), CancellationToken::new()).await;
    assert_eq!(outcome.unwrap(), OnceOutcome::Complete);
    assert_eq!(rig.events().await.len(), 21);
    until("the next scan of the one that serves ends", async || ended(3).await).await;
    assert!(rig.header().await.detail.unwrap().contains(r#""instance":"a""#));
    assert!(!serving.is_finished());
    stop.cancel();
    serving.await.unwrap().unwrap();
    assert_eq!(rig.events().await.len(), 21, "it has read what the other one had written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_serves_waits_for_a_single_run_elsewhere_and_goes_on_where_it_died() {
    let mut rig = Rig::scaled(still(20, 2), 10, 50.0).await;
    rig.source.scan.interval = Period::from_secs(400);
    let stop = CancellationToken::new();
    let serving = rig.serve(&stop);
    until("it scans", async || !rig.requests().is_empty()).await;
    let header = async || {
        let header = rig.parts().await.remove("").unwrap_or_default();
        (header.scan_number.unwrap_or(0), header.state.unwrap_or_default())
    };
    until("its scan ends", async || header().await == (1, "complete".to_owned())).await;

    rig.command(Command::Add { device: Some("NEWDEVICE001".into()), server: None });
    rig.faults("devices page=2 hang x1");
    let (other, source) = (rig.peer(windfall_services::kafka(), "b"), rig.source.clone());
    let single = tokio::spawn(async move { run::run_once(&other, &[source], CancellationToken::new()).await });
    let handle = rig.handle();
    let hangs = async || handle.faults_played().iter().any(|(_, times)| *times > 0);
    until("the single run is in the middle of its scan", hangs).await;
    let asked = rig.requests().len();
    until("the other waits for it", async || {
        reason(&rig.setup).is_some_and(|it| it.contains("single run of instance `b`"))
    })
    .await;
    assert_eq!((rig.requests().len(), header().await), (asked, (2, "running".to_owned())));

    single.abort();
    until("the scan ends that was begun", async || header().await == (2, "complete".to_owned())).await;
    assert!(rig.header().await.detail.unwrap().contains(r#""instance":"a""#));
    stop.cancel();
    serving.await.unwrap().unwrap();
    assert_eq!(rig.events().await.len(), 21);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_overtaken_between_two_lists_asks_apple_for_nothing_more() {
    let mut rig = Rig::new(still(60, 150), 10).await;
    rig.source.rate_limit = RateLimitConfig { requests: 100, per: Period::from_secs(60), share: 1.0 };
    let stop = CancellationToken::new();
    let first = rig.serve(&stop);
    until("it reads its linkage lists", async || rig.requests().iter().any(|asked| asked.route == "linkage")).await;
    // Whatever comes after the one request that the second process can make is of the first one.
    rig.faults("servers hang x1");
    let second = rig.serve_as(rig.peer(windfall_services::kafka(), "b"), &stop);
    let handle = rig.handle();
    let asks = async || handle.faults_played().iter().any(|(_, times)| *times > 0);
    until("the second one asks", asks).await;
    let asked = rig.requests().len();
    let error = tokio::time::timeout(Duration::from_secs(60), first).await.expect("the first one ends").unwrap();
    assert!(matches!(error, Err(ProducerError::Fenced { .. })), "{error:?}");

    let requests = rig.requests();
    let later: Vec<_> = requests[asked..].iter().map(|asked| asked.target.as_str()).collect();
    assert!(later.len() <= 1, "one was in flight at most: {later:?}");
    assert!((1..100).contains(&asked), "it was in the middle of its lists: {asked}");
    stop.cancel();
    second.await.unwrap().unwrap();
}
