//! What a network and other producers may do to transactions, and what the pipeline makes of it.

use std::time::Duration;

use anyhow::ensure;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use windfall_services::{Held, Kafka, KafkaOptions, Proxy};
use windfall_simulator::{Round, Simulator};
use windfall_tests::process::Windfall;
use windfall_tests::workbench::{PATIENCE, Workbench};

use crate::{PROGRAM, STAGES, settle, verdict};

/// Partitions of `abm.devices`.
const PARTITIONS: i32 = 12;

/// The parts of transactional ids by which the three writers of a pipeline are known.
const OWNERS: [&str; 3] = ["windfall-producer-", "windfall-map-", "windfall-merge-"];
/// Rounds of life that a writer gets to open the transaction into which the held commit falls.
const ROUNDS: usize = 10;

/// The first copy of a commit is held, its client cut, and the copy delivered inside the same writer's next transaction: twice for
/// each of the three writers.
#[test]
fn a_commit_that_arrives_late_tears_nothing_for_good() -> anyhow::Result<()> {
    let kafka = Kafka::start(&KafkaOptions { proxied: true, ..KafkaOptions::default() })?;
    let proxy = Proxy::start(kafka.proxy_port(), kafka.proxied_port())?;
    let by_proxy = format!("127.0.0.1:{}", proxy.port());
    let fleet = Simulator::builder().devices(600).servers(3).seed(11);
    let bench = Workbench::at("late_commit", PROGRAM, fleet, &by_proxy, kafka.bootstrap())?;
    let mut stages: Vec<Windfall> = STAGES.iter().map(|verb| bench.start(verb, None)).collect::<Result<_, _>>()?;
    settle(&bench, &mut stages)?;
    for owner in OWNERS.iter().chain(&OWNERS) {
        deliver_late(&bench, &proxy, owner)?;
        settle(&bench, &mut stages)?;
    }
    verdict(&bench, &mut stages)
}

fn deliver_late(bench: &Workbench, proxy: &Proxy, owner: &str) -> anyhow::Result<()> {
    proxy.hold_next_end(owner, true);
    for _ in 0..ROUNDS {
        bench.fleet().live(Round::of_each(2));
        if proxy.wait_held(Duration::from_secs(10), |held| matches!(held, Held::Delivered(..))) {
            let Held::Delivered(end, code) = proxy.held() else { unreachable!("it is delivered once") };
            ensure!(code >= 0, "the broker gave no answer to the late commit of {}", end.transactional_id);
            return Ok(());
        }
    }
    anyhow::bail!("no held commit of {owner} met a later transaction: {:?}", proxy.held())
}

/// A stranger's open transaction hides what the producer wrote after it, and the producer is started again meanwhile.
#[test]
fn a_hidden_tail_is_waited_for() -> anyhow::Result<()> {
    let bench = Workbench::new("hidden_tail", PROGRAM, Simulator::builder().devices(600).servers(3).seed(13))?;
    let mut stages: Vec<Windfall> = STAGES.iter().map(|verb| bench.start(verb, None)).collect::<Result<_, _>>()?;
    settle(&bench, &mut stages)?;
    let devices = bench.topic("abm.devices");
    let stranger = open_transaction(bench.readers(), &devices)?;
    bench.fleet().live(Round::of_each(5));
    // The producer sees its own changes in memory and publishes them behind the stranger's record; it says so at the end of the scan.
    wait_for_scan(&bench)?;
    stages[0].kill();
    let http = format!("127.0.0.1:{}", windfall_services::free_port());
    stages[0] = bench.start_serving(STAGES[0], None, &http)?;
    bench.wait_for_status(&http, "open transaction")?;
    stranger.abort_transaction(Duration::from_secs(10))?;
    settle(&bench, &mut stages)?;
    verdict(&bench, &mut stages)
}

fn open_transaction(bootstrap: &str, topic: &str) -> anyhow::Result<BaseProducer> {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("transactional.id", format!("stranger-{}", uuid::Uuid::new_v4()))
        .set("transaction.timeout.ms", "120000")
        .create()?;
    producer.init_transactions(Duration::from_secs(30))?;
    producer.begin_transaction()?;
    for partition in 0..PARTITIONS {
        let record = BaseRecord::<str, str>::to(topic).partition(partition).key("stranger").payload("never visible");
        producer.send(record).map_err(|(error, _)| error)?;
    }
    producer.flush(Duration::from_secs(10))?;
    // A compacted topic refuses records without a key, and then nothing would be hidden.
    ensure!(
        producer.client().fatal_error().is_none() && producer.in_flight_count() == 0,
        "the stranger's records were not taken"
    );
    Ok(producer)
}

/// Waits until a scan that begins after this moment is complete.
fn wait_for_scan(bench: &Workbench) -> anyhow::Result<()> {
    let begun = chrono::Utc::now();
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let scans = bench.read(&["abm.scans"])?;
        if windfall_tests::journal::complete_scans(&scans).iter().any(|(_, from, _)| *from > begun) {
            return Ok(());
        }
        ensure!(std::time::Instant::now() < deadline, "no scan was completed");
    }
}
