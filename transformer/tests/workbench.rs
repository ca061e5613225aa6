//! A cluster with topics of its own, device events to write into it, and what the loops made of them to be read back.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use windfall_runtime::clock::SystemClock;
use windfall_runtime::health::StatusRegistry;
use windfall_runtime::kafka::config::{KafkaConfig, ManageTopics};
use windfall_runtime::kafka::consumer::BatchLimits;
use windfall_runtime::kafka::mock::DemoCluster;
use windfall_runtime::kafka::publisher::{Publisher, Transaction};
use windfall_runtime::kafka::table::{self, FoldRequest};
use windfall_runtime::kafka::{Connection, Outgoing, Record, topics};
use windfall_runtime::registry::RegistryClient;
use windfall_runtime::registry::embedded::EmbeddedRegistry;
use windfall_runtime::telemetry::{self, LogFormat, LogOptions};
use windfall_schemas::asset::AssetRecord;
use windfall_schemas::contribution::{Contribution, ContributionKey};
use windfall_schemas::device::{self, DeviceValue};
use windfall_schemas::envelope::{Envelope, Kind, Op, Source};
use windfall_schemas::link::Link;
use windfall_schemas::topic::{Names, key_subject, value_subject};
use windfall_schemas::wire::Codec;
use windfall_transformer::{LoadedCollection, Report, Setup, TransformerError, load_collections, run, run_once};

/// Something that a real broker does within milliseconds has this long on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster under a prefix of its own.
pub(crate) struct Workbench {
    pub(crate) names: Names,
    pub(crate) setup: Setup,
    pub(crate) connection: Connection,
    pub(crate) collections: Vec<LoadedCollection>,
    device_key: Codec,
    device_value: Codec,
    publisher: Publisher,
    /// Ends with the workbench.
    _cluster: Option<DemoCluster>,
}

impl Workbench {
    /// Makes topics for the shipped collection.
    pub(crate) async fn new() -> Self {
        Self::with(load_collections(Path::new("."), &[]).unwrap()).await
    }

    /// Makes topics for collections.
    pub(crate) async fn with(collections: Vec<LoadedCollection>) -> Self {
        Self::over(collections, None).await
    }

    /// Makes topics on a broker whose clients go through `port` from now on, but for those of the test itself.
    pub(crate) async fn through(kafka: &windfall_services::Kafka, port: u16) -> Self {
        let collections = load_collections(Path::new("."), &[]).unwrap();
        let mut bench = Self::at(collections, None, kafka.bootstrap()).await;
        bench.setup.kafka.bootstrap_servers = vec![format!("127.0.0.1:{port}")];
        bench
    }

    /// Makes a cluster in this process, as the demo has it.
    pub(crate) async fn in_process() -> Self {
        let collections = load_collections(Path::new("."), &[]).unwrap();
        let names = Names::new("");
        let mut specs = names.base_topics();
        specs.extend(collections.iter().flat_map(|loaded| run::topics(&names, loaded)));
        specs.sort_by(|a, b| a.name.cmp(&b.name));
        specs.dedup_by(|a, b| a.name == b.name);
        let cluster = DemoCluster::start(&specs).unwrap();
        let mut bench = Self::over(collections, Some(cluster)).await;
        bench.setup.dynamic = true;
        bench
    }

    async fn over(collections: Vec<LoadedCollection>, cluster: Option<DemoCluster>) -> Self {
        let servers = match &cluster {
            Some(cluster) => cluster.bootstrap_servers().to_owned(),
            None => windfall_services::kafka().to_owned(),
        };
        Self::at(collections, cluster, &servers).await
    }

    async fn at(collections: Vec<LoadedCollection>, cluster: Option<DemoCluster>, servers: &str) -> Self {
        logs();
        let prefix = if cluster.is_some() { String::new() } else { format!("t{}-{}.", std::process::id(), unique()) };
        let mut kafka: KafkaConfig = serde_json::from_value(serde_json::json!({
            "bootstrap_servers": [servers],
            "schema_registry": { "embedded": {} },
            "topic_prefix": prefix,
            "replication_factor": 1,
        }))
        .unwrap();
        if cluster.is_some() {
            kafka.manage_topics = ManageTopics::Simulated;
        }
        let registry = RegistryClient::embedded(EmbeddedRegistry::in_memory(), true);
        let clock = SystemClock::shared();
        let names = Names::new(prefix);
        let setup = Setup {
            instance: "bench".to_owned(),
            status: StatusRegistry::new("bench", clock.clone()),
            kafka,
            registry,
            clock,
            dynamic: false,
            limits: BatchLimits::default(),
        };
        let connection = Connection::new(&setup.kafka, "bench", "bench");
        let mut specs = names.base_topics();
        specs.retain(|spec| spec.name == names.devices());
        for loaded in &collections {
            specs.extend(run::topics(&names, loaded));
        }
        specs.dedup_by(|a, b| a.name == b.name);
        topics::ensure(&connection, &specs, setup.kafka.manage_topics).await.unwrap();
        let device_key = setup.registry.codec(&key_subject(&names.devices()), device::KEY_SCHEMA).await.unwrap();
        let device_value = setup.registry.codec(&value_subject(&names.devices()), device::VALUE_SCHEMA).await.unwrap();
        let publisher = Publisher::start(&connection, &names.topic("bench-producer")).await.unwrap();
        Self { names, setup, connection, collections, device_key, device_value, publisher, _cluster: cluster }
    }

    /// The collection that is worked on.
    pub(crate) fn collection(&self) -> &windfall_schemas::asset::Collection {
        &self.collections[0].collection.schema
    }

    /// The change event of a device.
    pub(crate) fn event(&self, op: Op, kind: Kind, ts_ms: i64, device: &DeviceValue) -> Outgoing {
        let envelope = Envelope {
            before: None,
            after: (op != Op::Delete).then(|| device.clone()),
            source: Source { ts_ms, db: device.org.clone(), table: "devices".to_owned(), ..Source::default() },
            op,
            ts_ms: Some(ts_ms),
            ts_us: None,
            ts_ns: None,
            transaction: None,
            event_id: Some(format!("{}-{ts_ms}", device.device_id)),
            kind: Some(kind),
            changed: Vec::new(),
            fingerprint: Some(device.fingerprint()),
            evidence: Vec::new(),
        };
        let key = self.device_key.encode(&device.key()).unwrap();
        Outgoing::new(self.names.devices(), key, self.device_value.encode(&envelope).unwrap())
    }

    /// A device as it is seen for the first time.
    pub(crate) fn added(&self, ts_ms: i64, device: &DeviceValue) -> Outgoing {
        self.event(Op::Create, Kind::Added, ts_ms, device)
    }

    /// A device that has changed.
    pub(crate) fn updated(&self, ts_ms: i64, device: &DeviceValue) -> Outgoing {
        self.event(Op::Update, Kind::Updated, ts_ms, device)
    }

    /// The tombstone of a device.
    pub(crate) fn tombstone(&self, device: &DeviceValue) -> Outgoing {
        Outgoing::tombstone(self.names.devices(), self.device_key.encode(&device.key()).unwrap())
    }

    /// Writes records in one transaction.
    pub(crate) async fn write(&mut self, records: Vec<Outgoing>) {
        let transaction = Transaction { derived: records, ..Transaction::default() };
        self.publisher.commit(transaction).await.unwrap();
    }

    /// Runs map and merge to the ends of their input.
    pub(crate) async fn once(&self) -> Result<Report, TransformerError> {
        run_once(&self.setup, &self.collections, CancellationToken::new()).await
    }

    /// Runs both loops until they are stopped.
    pub(crate) fn start(&self) -> Running {
        let stop = CancellationToken::new();
        let (setup, collections, token) = (self.setup.clone(), self.collections.clone(), stop.clone());
        Running { stop, task: tokio::spawn(async move { run(&setup, &collections, token).await }) }
    }

    /// Reads all committed records of a topic, by partition and offset.
    pub(crate) async fn log(&self, topic: &str) -> Vec<Record> {
        let partitions = topics::partition_count(&self.connection, topic).await.unwrap().unwrap_or(0);
        let request = FoldRequest::whole(topic, 0..partitions);
        let folded = table::fold(&self.connection, request, Vec::new(), |log, record| {
            log.push(record);
            Ok(())
        });
        let mut log = folded.await.unwrap().state;
        log.sort_by_key(|record| (record.partition, record.offset));
        log
    }

    /// All committed records of the collection's own topics.
    pub(crate) async fn own_output(&self) -> Vec<Record> {
        let name = self.collection().name().to_owned();
        let mut output = Vec::new();
        let names = &self.names;
        for topic in [names.links(&name), names.contributions(&name), names.assets(&name), names.conflicts(&name)] {
            output.extend(self.log(&topic).await);
        }
        output
    }

    async fn codec(&self, bytes: &[u8]) -> Codec {
        let (reference, _) = windfall_schemas::wire::unframe(bytes, None).unwrap();
        self.setup.registry.writer(reference).await.unwrap()
    }

    /// Reads the flat records in the order of their log; `None` is a tombstone.
    pub(crate) async fn flat(&self) -> Vec<(String, Option<AssetRecord>)> {
        let mut flat = Vec::new();
        for record in self.log(&self.names.assets(self.collection().name())).await {
            let key = record.key.as_ref().unwrap();
            let key: windfall_schemas::asset::AssetKey = self.codec(key).await.decode(key).unwrap();
            let value = match &record.value {
                Some(value) => Some(self.collection().decode_asset(&self.codec(value).await, value).unwrap()),
                None => None,
            };
            flat.push((key.asset_id, value));
        }
        flat
    }

    /// Folds the flat records: the assets that stand now.
    pub(crate) async fn assets(&self) -> BTreeMap<String, AssetRecord> {
        let mut assets = BTreeMap::new();
        for (asset_id, record) in self.flat().await {
            match record {
                Some(record) => assets.insert(asset_id, record),
                None => assets.remove(&asset_id),
            };
        }
        assets
    }

    /// Reads the contributions in the order of their log; `None` is a withdrawal.
    pub(crate) async fn contributions(&self) -> Vec<(ContributionKey, Option<Contribution>)> {
        let mut contributions = Vec::new();
        for record in self.log(&self.names.contributions(self.collection().name())).await {
            let key = record.key.as_ref().unwrap();
            let key = self.codec(key).await.decode(key).unwrap();
            let value = match &record.value {
                Some(value) => Some(self.collection().decode_contribution(&self.codec(value).await, value).unwrap()),
                None => None,
            };
            contributions.push((key, value));
        }
        contributions
    }

    /// Reads the last link of each source record.
    pub(crate) async fn links(&self) -> BTreeMap<String, Link> {
        let mut links = BTreeMap::new();
        for record in self.log(&self.names.links(self.collection().name())).await {
            let value = record.value.as_ref().unwrap();
            let link: Link = self.codec(value).await.decode(value).unwrap();
            assert_eq!(link.source_partition, record.partition, "a link lies in its source record's partition");
            links.insert(link.source_key.clone(), link);
        }
        links
    }

    /// What the status shows of a part under a name.
    pub(crate) fn detail(&self, part: &str, name: &str) -> Option<serde_json::Value> {
        self.setup.status.snapshot().parts.get(part)?.details.get(name).cloned()
    }

    /// Reads the dead letters of the records of a topic that a group refused.
    pub(crate) async fn dead_letters(&self, topic: &str, group: &str) -> Vec<Record> {
        self.log(&self.names.dead_letters(topic, group)).await
    }

    /// The value of a field of a flat record, as text.
    pub(crate) fn field(&self, record: &AssetRecord, name: &str) -> String {
        record.fields[self.collection().position(name).unwrap()].to_string()
    }

    /// Waits until the assets are as wanted.
    pub(crate) async fn await_assets(&self, wanted: impl Fn(&BTreeMap<String, AssetRecord>) -> bool) {
        eventually("the assets are as wanted", || async { wanted(&self.assets().await) }).await;
    }
}

/// Both loops at work.
pub(crate) struct Running {
    pub(crate) stop: CancellationToken,
    pub(crate) task: tokio::task::JoinHandle<Result<(), TransformerError>>,
}

impl Running {
    /// Stops the loops as a signal does.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }

    /// Ends the loops where they stand, with whatever is open.
    pub(crate) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// Asks again until the answer is yes; each question takes a round trip to the broker, so nothing spins.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, question: impl Fn() -> F) {
    let asked = async { while !question().await {} };
    assert!(tokio::time::timeout(PATIENCE, asked).await.is_ok(), "not within {PATIENCE:?}: {what}");
}

/// A device with a serial number.
pub(crate) fn device(org: &str, id: &str, serial: &str) -> DeviceValue {
    DeviceValue {
        org: org.to_owned(),
        device_id: id.to_owned(),
        serial_number: serial.to_owned(),
        status: Some("UNASSIGNED".to_owned()),
        product_family: Some("Mac".to_owned()),
        ..DeviceValue::default()
    }
}

/// Shows logs where `WINDFALL_LOG` asks for them.
fn logs() {
    if let Ok(filter) = std::env::var("WINDFALL_LOG") {
        // The first test installs them for all.
        let _ = telemetry::install(&LogOptions { format: LogFormat::Text, filter, colour: false });
    }
}

fn unique() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    format!("{nanos:x}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
