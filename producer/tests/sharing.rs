//! Several sources of one process, and the topics that they share.

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use windfall_producer::ledger::{Cluster, Found, Ledger};
use windfall_producer::run;
use windfall_runtime::kafka::table::{self, FoldRequest};
use windfall_schemas::device::{DeviceKey, DeviceValue};
use windfall_schemas::envelope::Envelope;

use crate::rig::{Rig, still};

const ORGS: [&str; 3] = ["acme", "globex", "initech"];

/// Three organizations of 30 devices each, all of them scanned once, and the cluster of a process that is to serve them.
async fn scanned() -> (Rig, Cluster) {
    let rig = Rig::new(still(30, 1).orgs(ORGS.map(str::to_owned).to_vec()), 10).await;
    let sources = ORGS.map(|org| rig.account(org));
    run::run_once(&rig.setup, &sources, CancellationToken::new()).await.unwrap();
    let cluster = rig.cluster().await;
    ORGS.iter().for_each(|org| cluster.topics.expect(org));
    (rig, cluster)
}

async fn take_over(cluster: &Cluster, org: &str) -> Found {
    Ledger::take_over(cluster, org, None, |_| ()).await.unwrap().1
}

/// How many records stand in the topics that a take-over reads.
async fn records(rig: &Rig) -> u64 {
    let mut records = 0;
    for (topic, partitions) in [(rig.names.devices(), 12), (rig.names.servers(), 1), (rig.names.scans(), 1)] {
        let request = FoldRequest::whole(topic, 0..partitions);
        records += table::fold(&rig.setup.connection, request, (), |(), _| Ok(())).await.unwrap().records;
    }
    records
}

/// An event of the device `device` of `org`, as the producer writes it: its key and its value.
async fn event(rig: &Rig, cluster: &Cluster, org: &str, device: &str) -> (Vec<u8>, Vec<u8>) {
    let events: Vec<Envelope<DeviceValue>> = rig.events().await;
    let mut event = events.into_iter().find(|event| event.after.as_ref().unwrap().org == org).unwrap();
    event.after.as_mut().unwrap().device_id = device.to_owned();
    let key = DeviceKey { org: org.to_owned(), device_id: device.to_owned() };
    (cluster.codecs.device_key.encode(&key).unwrap(), cluster.codecs.device_value.encode(&event).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn three_sources_read_their_topics_once() {
    let (rig, cluster) = scanned().await;
    let all = records(&rig).await;
    let [acme, globex, initech] = ORGS.map(|org| take_over(&cluster, org));
    let found = tokio::join!(acme, globex, initech);
    let found = [found.0, found.1, found.2];
    assert_eq!(found.each_ref().map(|found| found.memory.fleet.len()), [30, 30, 30], "each has its own devices");
    assert_eq!(found.iter().map(|found| found.records).sum::<u64>(), all, "each record is read for one of them");

    cluster.topics.expect("acme");
    let again = take_over(&cluster, "acme").await;
    assert_eq!((again.memory.fleet.len(), again.records), (30, all), "what a source has taken is kept for nobody else");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_stands_by_is_read_for_when_it_is_assigned() {
    let (rig, cluster) = scanned().await;
    let all = records(&rig).await;
    cluster.topics.forget("globex");
    assert_eq!(take_over(&cluster, "acme").await.records, all);
    assert_eq!(take_over(&cluster, "initech").await.records, 0, "it was read with the first");
    let found = take_over(&cluster, "globex").await;
    assert_eq!((found.memory.fleet.len(), found.records), (30, all));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_source_goes_on_before_the_open_transaction_of_another_whatever_was_read_before() {
    let (rig, cluster) = scanned().await;
    take_over(&cluster, "acme").await;
    let (key, value) = event(&rig, &cluster, "globex", "HIDDEN000001").await;
    let settings = cluster.connection.config().bootstrap_servers.join(",");
    let stranger: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", settings)
        .set("transactional.id", rig.names.devices())
        .create()
        .unwrap();
    let within = std::time::Duration::from_secs(30);
    stranger.init_transactions(within).unwrap();
    stranger.begin_transaction().unwrap();
    stranger.send(BaseRecord::to(&rig.names.devices()).partition(3).key(&key).payload(&value)).unwrap();
    stranger.flush(within).unwrap();

    let waiting = ["globex", "initech"].map(|org| {
        let (told, hidden) = mpsc::unbounded_channel();
        let cluster = cluster.clone();
        let report = move |progress: &table::FoldProgress| {
            progress.hidden.iter().for_each(|hidden| told.send(hidden.partition).unwrap_or_default());
        };
        (tokio::spawn(async move { Ledger::take_over(&cluster, org, None, report).await.unwrap().1 }), hidden)
    });
    let mut taken = Vec::new();
    for (taking, mut hidden) in waiting {
        assert_eq!(hidden.recv().await, Some(3), "it waits, and says where");
        taken.push(taking);
    }
    stranger.commit_transaction(within).unwrap();
    let mut found = Vec::new();
    for taking in taken {
        found.push(taking.await.unwrap());
    }
    let fleets: Vec<_> =
        found.iter().map(|found| (found.memory.fleet.len(), found.memory.fleet.is_live("HIDDEN000001"))).collect();
    assert_eq!(fleets, [(31, true), (30, false)]);
    assert_eq!(found.iter().map(|found| found.records).sum::<u64>(), 1, "the rest was read before");
}
