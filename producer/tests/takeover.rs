//! Several processes and one organization: who works, who stands by, and who goes on.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use tokio_util::sync::CancellationToken;
use windfall_producer::error::ProducerError;
use windfall_producer::run::{self, Setup};
use windfall_producer::source::OnceOutcome;
use windfall_runtime::config::Period;
use windfall_runtime::diagnose::{Diagnose as _, Kind};
use windfall_runtime::health::PartState;
use windfall_runtime::kafka::consumer::ConsumerError;
use windfall_schemas::topic::source_member;
use windfall_services::{Direction, Kafka, KafkaOptions, Proxy};
use windfall_simulator::Command;

use crate::rig::{Rig, Wrong, still, until};

const HOUR: i64 = 3_600_000;

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
        until("the writer is thrown away", async || reason(setup).is_some()).await;
    }

    fn mend(&self) {
        self.proxy.deaf(None);
        self.proxy.cut();
    }
}

fn reason(setup: &Setup) -> Option<String> {
    setup.status.snapshot().parts.get("producer acme")?.details.get("reason").map(ToString::to_string)
}

fn state(setup: &Setup, org: &str) -> Option<PartState> {
    Some(setup.status.snapshot().parts.get(&format!("producer {org}"))?.state)
}

/// Waits for scans to begin and end after this moment, read in the way of `setup`.
async fn scans_on(rig: &mut Rig, setup: &Setup) {
    let reader = std::mem::replace(&mut rig.setup, setup.clone());
    let number = async || rig.parts().await.get("").map_or(0, |header| header.scan_number.unwrap());
    let from = number().await;
    until("two more scans end", async || number().await >= from + 3).await;
    rig.setup = reader;
}

/// Tells that each device was published, and nothing twice.
async fn published_once(rig: &Rig, devices: usize) {
    let events = rig.events().await;
    let ids: BTreeSet<_> = events.iter().map(|event| event.event_id.clone().unwrap()).collect();
    let known: BTreeSet<_> = events.iter().map(|event| event.after.as_ref().unwrap().device_id.clone()).collect();
    assert_eq!((events.len(), ids.len(), known.len()), (devices, devices, devices));
}

/// Two names of processes, of which the first is the one that holds `acme` when both are there.
fn instances() -> [String; 2] {
    let mut names = ["p".to_owned(), "q".to_owned()];
    names.sort_by_key(|name| source_member("acme", name));
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_cut_off_gives_the_source_up_and_stands_by_when_it_is_back() {
    let cut = Cut::start();
    let mut rig = cut.rig().await;
    let [holder, heir] = instances();
    rig.setup = rig.peer(&format!("127.0.0.1:{}", cut.proxy.port()), &holder);
    let ours = rig.setup.clone();
    let stop = CancellationToken::new();
    let first = rig.serve(&stop);
    until("it scans", async || rig.requests().len() > 10).await;
    let other = rig.peer(cut.kafka.bootstrap(), &heir);
    let second = rig.serve_as(other.clone(), &stop);
    until("the other one stands by", async || state(&other, "acme") == Some(PartState::Standby)).await;
    assert!(other.status.snapshot().ready, "whoever stands by is ready");

    cut.off(&ours).await;
    scans_on(&mut rig, &other).await;
    rig.command(Command::Add { device: Some("NEWDEVICE001".into()), server: None });
    cut.mend();
    let back = async || matches!(state(&ours, "acme"), Some(PartState::Running | PartState::Standby));
    until("the first one is back in the group", back).await;
    scans_on(&mut rig, &other).await;
    assert!(!first.is_finished() && !second.is_finished(), "neither ends");
    stop.cancel();
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    rig.setup = other;
    published_once(&rig, 61).await;
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
    published_once(&rig, 61).await;
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
async fn a_single_run_leaves_the_source_to_the_process_that_serves_it_whatever_its_clock_says() {
    let mut rig = Rig::new(still(60, 2), 10).await;
    rig.source.scan.interval = Period::from_secs(1);
    let stop = CancellationToken::new();
    let serving = rig.serve(&stop);
    until("it scans", async || !rig.requests().is_empty()).await;
    for by in [0, HOUR, -HOUR] {
        let other = Setup { clock: Wrong::by(by), ..rig.peer(windfall_services::kafka(), "b") };
        let ended = run::run_once(&other, std::slice::from_ref(&rig.source), CancellationToken::new()).await;
        let error = ended.unwrap_err();
        assert!(matches!(&error, ProducerError::AtWork { .. }), "{error:?}");
        assert!(error.to_string().contains("`windfall-producer-a` at "), "it is named: {error}");
        assert_eq!(error.kind(), Kind::Superseded, "exit code 1");
    }
    stop.cancel();
    serving.await.unwrap().unwrap();
    published_once(&rig, 60).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_whose_clock_is_wrong_stands_by_and_goes_on_when_the_other_is_killed() {
    for by in [HOUR, -HOUR] {
        let mut rig = Rig::new(still(60, 2), 10).await;
        rig.source.scan.interval = Period::from_secs(1);
        let [holder, heir] = instances();
        rig.setup = rig.peer(windfall_services::kafka(), &holder);
        let stop = CancellationToken::new();
        let first = rig.serve(&stop);
        until("it scans", async || rig.requests().len() > 10).await;
        let other = Setup { clock: Wrong::by(by), ..rig.peer(windfall_services::kafka(), &heir) };
        let second = rig.serve_as(other.clone(), &stop);
        until("the other one stands by", async || state(&other, "acme") == Some(PartState::Standby)).await;
        rig.command(Command::Add { device: Some("NEWDEVICE001".into()), server: None });

        first.abort();
        let heir_scans = async || {
            let header = rig.parts().await.remove("").unwrap_or_default();
            header.detail.is_some_and(|detail| detail.contains(&format!(r#""instance":"{heir}""#)))
        };
        until("the other one scans", heir_scans).await;
        let asked = rig.requests().len();
        until("it asks on", async || rig.requests().len() > asked + 20).await;
        stop.cancel();
        second.await.unwrap().unwrap();
        published_once(&rig, 61).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebalance_in_the_middle_of_a_page_repeats_at_most_that_page() {
    let rig = Rig::new(still(60, 2), 10).await;
    let handle = rig.handle();
    let stop = CancellationToken::new();
    let [heir, holder] = instances();
    // The heir comes first in the order of the members, so the group gives it the source when it joins.
    let first = rig.serve_as(rig.peer(windfall_services::kafka(), &holder), &stop);
    rig.faults("devices page=4 hang x1");
    let hangs = async || handle.faults_played().iter().any(|(_, times)| *times > 0);
    until("the fourth page is asked for", hangs).await;
    let second = rig.serve_as(rig.peer(windfall_services::kafka(), &heir), &stop);
    let header = async || rig.parts().await.remove("").unwrap_or_default();
    until("the scan ends", async || header().await.state.as_deref() == Some("complete")).await;
    let header = header().await;
    assert_eq!((header.scan_number, header.page), (Some(1), Some(6)), "the same scan went on");
    assert!(header.detail.unwrap().contains(&format!(r#""instance":"{heir}""#)));
    let pages =
        |page| rig.requests().iter().filter(|asked| asked.route == "devices" && asked.page == Some(page)).count();
    assert_eq!([1, 2, 3, 4, 5, 6].map(pages), [1, 1, 1, 2, 1, 1]);
    assert!(!first.is_finished(), "it stands by");
    stop.cancel();
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    published_once(&rig, 60).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_sources_spread_over_two_processes() {
    const ORGS: [&str; 3] = ["acme", "globex", "initech"];
    let rig = Rig::new(still(30, 1).orgs(ORGS.map(str::to_owned).to_vec()), 10).await;
    let sources = ORGS.map(|org| rig.account(org));
    // Of most pairs of names each comes first for some source.
    let first = |org: &str, peer: &str| source_member(org, "p") < source_member(org, peer);
    let spreads = |peer: &String| ORGS.iter().any(|org| first(org, peer)) && !ORGS.iter().all(|org| first(org, peer));
    let peer = (0..).map(|number| format!("q{number}")).find(spreads).unwrap();
    let setups = ["p", &peer].map(|instance| rig.peer(windfall_services::kafka(), instance));
    let stop = CancellationToken::new();
    let serving = setups.clone().map(|setup| {
        let (sources, stop) = (sources.clone(), stop.clone());
        tokio::spawn(async move { run::run(&setup, &sources, stop).await })
    });
    let spread = async || {
        ORGS.iter().all(|org| {
            let [ours, theirs] = if first(org, &peer) { [0, 1] } else { [1, 0] };
            state(&setups[ours], org) == Some(PartState::Running)
                && state(&setups[theirs], org) == Some(PartState::Standby)
        })
    };
    until("each source is held by the first in its order", spread).await;
    let scans = async || rig.scans().await.values().filter(|it| it.state.as_deref() == Some("complete")).count();
    until("all are scanned", async || scans().await == 3).await;
    stop.cancel();
    for serving in serving {
        serving.await.unwrap().unwrap();
    }
    published_once(&rig, 90).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_of_the_same_instance_ends_the_first_which_names_the_setting() {
    let mut rig = Rig::new(still(20, 1), 10).await;
    rig.source.scan.interval = Period::from_secs(1);
    let (first_stop, second_stop) = (CancellationToken::new(), CancellationToken::new());
    let first = rig.serve(&first_stop);
    until("it scans", async || rig.requests().len() > 3).await;
    let second = rig.serve(&second_stop);
    let error = first.await.unwrap().unwrap_err();
    let fenced = |source: &ConsumerError| matches!(source, ConsumerError::Fenced { .. });
    assert!(matches!(&error, ProducerError::Membership { source, .. } if fenced(source)), "{error:?}");
    assert!(error.help().unwrap().contains("--instance"), "{error}");
    assert!(!second.is_finished(), "the one that took over goes on");
    second_stop.cancel();
    second.await.unwrap().unwrap();
    published_once(&rig, 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_ends_a_transaction_for_taking_too_long_ends_no_source() {
    let cut = Cut::start();
    let mut rig = cut.rig().await;
    let stop = CancellationToken::new();
    let serving = rig.serve(&stop);
    rig.setup = rig.peer(cut.kafka.bootstrap(), "reader");
    until("it scans", async || rig.requests().len() > 10).await;
    cut.proxy.stall_ends("windfall-producer-acme");
    rig.command(Command::Add { device: Some("NEWDEVICE001".into()), server: None });
    assert!(cut.proxy.wait_stalled(Duration::from_secs(60)), "a commit is on its way");
    // Reading committed records to the end of the topic takes until the broker has ended the transaction by itself.
    assert!(!rig.scans().await.is_empty());
    cut.proxy.release();
    let added = async || rig.events().await.len() == 61;
    until("the change is published", added).await;
    assert!(!serving.is_finished());
    stop.cancel();
    serving.await.unwrap().unwrap();
    published_once(&rig, 61).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_another_process_was_told_is_kept_by_the_one_that_takes_over_again() {
    let cut = Cut::start();
    let mut rig = cut.rig().await;
    let [holder, heir] = instances();
    rig.setup = rig.peer(&format!("127.0.0.1:{}", cut.proxy.port()), &holder);
    let ours = rig.setup.clone();
    let stop = CancellationToken::new();
    let first = rig.serve(&stop);
    until("it scans", async || rig.requests().len() > 10).await;
    let other = rig.peer(cut.kafka.bootstrap(), &heir);
    let second = rig.serve_as(other.clone(), &stop);
    until("the other one stands by", async || state(&other, "acme") == Some(PartState::Standby)).await;
    cut.off(&ours).await;
    scans_on(&mut rig, &other).await;
    rig.setup = other;
    rig.faults("devices 429 retry-after=45 x1");
    let refused = || rig.requests().iter().position(|asked| asked.status == Some(429));
    until("the other one is told to wait", async || refused().is_some()).await;
    let kept = async || rig.parts().await["limiter"].detail.as_ref().is_some_and(|it| it.contains("45000"));
    until("that is durable", kept).await;
    second.abort();
    cut.mend();
    let at = refused().unwrap();
    until("the first one has the source again, and asks", async || rig.requests().len() > at + 1).await;
    let requests = rig.requests();
    let waited = requests[at + 1].at_wall - requests[at].at_wall;
    assert!(waited >= chrono::Duration::seconds(45), "it came after {waited}");
    stop.cancel();
    first.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_of_devices_that_was_made_anew_adds_no_fleet_again_and_stops_the_source_at_every_start() {
    // A linkage list that is never readable keeps every scan incomplete.
    for faults in ["", "linkage 403"] {
        let rig = Rig::new(still(60, 2), 20).await;
        rig.handle().add_faults(faults).unwrap();
        rig.once().await;
        assert_eq!(rig.events().await.len(), 60);
        let devices = rig.cluster().await.names.devices();
        let settings = rig.setup.connection.config().bootstrap_servers.join(",");
        let admin: AdminClient<DefaultClientContext> =
            rdkafka::ClientConfig::new().set("bootstrap.servers", settings).create().unwrap();
        for deleted in admin.delete_topics(&[&devices], &AdminOptions::new()).await.unwrap() {
            deleted.unwrap();
        }
        for _ in 0..2 {
            let outcome = rig.try_once().await;
            let told = format!("{outcome:?}");
            assert!(told.contains("Lost") && told.contains("seen: 60"), "{faults}: {told}");
        }
        assert_eq!(rig.events().await.len(), 0, "nothing is written into the new topic");
    }
}
