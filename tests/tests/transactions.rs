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

/// The first copy of a commit is held, its client cut, and the copy delivered inside the transaction that follows: six times.
#[test]
fn a_commit_that_arrives_late_tears_nothing_for_good() -> anyhow::Result<()> {
    let kafka = Kafka::start(&KafkaOptions { proxied: true, ..KafkaOptions::default() })?;
    let proxy = Proxy::start(kafka.proxy_port(), kafka.proxied_port())?;
    let by_proxy = format!("127.0.0.1:{}", proxy.port());
    let fleet = Simulator::builder().devices(600).servers(3).seed(11);
    let bench = Workbench::at("late_commit", PROGRAM, fleet, &by_proxy, kafka.bootstrap())?;
    let mut stages: Vec<Windfall> = STAGES.iter().map(|verb| bench.start(verb, None)).collect::<Result<_, _>>()?;
    settle(&bench, &mut stages)?;
    let mut delivered = 0;
    for _ in 0..6 {
        proxy.hold_next_end(true);
        bench.fleet().live(Round::of_each(3));
        if proxy.wait_held(Duration::from_secs(20), |held| matches!(held, Held::Delivered(..))) {
            delivered += 1;
        } else {
            // No transaction followed: the copy reaches an idle instance, which is a case of its own.
            proxy.deliver_now();
        }
        settle(&bench, &mut stages)?;
    }
    ensure!(delivered > 0, "no held commit ever met a later transaction");
    verdict(&bench, &mut stages)
}

/// A stranger's open transaction hides what the producer and the transformer wrote after it; both are started again meanwhile.
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
