//! The producer on real parts: the simulator as Apple, a real Kafka, a registry in this process.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use windfall_producer::config::{BreakerConfig, RateLimitConfig, ScanConfig, SourceConfig, SourceKind};
use windfall_producer::error::ProducerError;
use windfall_producer::ledger::Cluster;
use windfall_producer::run::{self, Setup};
use windfall_producer::source::OnceOutcome;
use windfall_runtime::clock::{Clock, ScaledClock, SharedClock, SystemClock};
use windfall_runtime::config::Period;
use windfall_runtime::health::StatusRegistry;
use windfall_runtime::kafka::config::{KafkaConfig, SchemaRegistryConfig};
use windfall_runtime::kafka::table::{self, FoldRequest};
use windfall_runtime::kafka::{Connection, Headers, groups};
use windfall_runtime::reader::Decoder;
use windfall_runtime::registry::RegistryClient;
use windfall_runtime::registry::embedded::EmbeddedRegistry;
use windfall_runtime::secret::Secret;
use windfall_schemas::device::{DeviceKey, DeviceValue};
use windfall_schemas::envelope::Envelope;
use windfall_schemas::notification::{Notification, NotificationKey};
use windfall_schemas::reject::RejectValue;
use windfall_schemas::scan::{ScanKey, ScanValue};
use windfall_schemas::server::{ServerKey, ServerValue};
use windfall_schemas::topic::{Names, value_subject};
use windfall_simulator::journal::{Record, Response};
use windfall_simulator::{Command, Handle, JournalMode, Running, Simulator};

/// A wall clock that can be wrong, in milliseconds.
pub(crate) struct Wrong {
    right: SystemClock,
    pub(crate) by: AtomicI64,
}

impl Wrong {
    pub(crate) fn by(by: i64) -> Arc<Self> {
        Arc::new(Self { right: SystemClock::new(), by: AtomicI64::new(by) })
    }
}

impl Clock for Wrong {
    fn now(&self) -> DateTime<Utc> {
        self.right.now() + chrono::Duration::milliseconds(self.by.load(Ordering::Relaxed))
    }

    fn elapsed(&self) -> Duration {
        self.right.elapsed()
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.right.sleep(duration)
    }
}

/// One organization, one producer, and everything around them.
pub(crate) struct Rig {
    sim: Running,
    pub(crate) setup: Setup,
    pub(crate) source: SourceConfig,
    pub(crate) names: Names,
}

/// A record as a reader gets it.
pub(crate) struct Read<K, V> {
    pub(crate) key: Option<K>,
    pub(crate) value: Option<V>,
    pub(crate) partition: i32,
    pub(crate) headers: Headers,
}

/// A simulator whose devices do nothing by themselves and that limits nothing.
pub(crate) fn still(devices: u32, servers: u16) -> Simulator {
    Simulator::builder()
        .devices(devices)
        .servers(servers)
        .seed(11)
        .still()
        .rate_limit(None)
        .token_limit(None)
        .journal(JournalMode::Memory)
}

impl Rig {
    /// Starts a simulator of one organization on the machine's time, and makes a producer that asks it fast.
    pub(crate) async fn new(sim: Simulator, page_size: u16) -> Self {
        Self::with_clock(sim, page_size, SystemClock::shared(), windfall_services::kafka()).await
    }

    /// The same on a broker of its own.
    pub(crate) async fn on(bootstrap: &str, sim: Simulator, page_size: u16) -> Self {
        Self::with_clock(sim, page_size, SystemClock::shared(), bootstrap).await
    }

    /// The same in compressed time; the simulator lives in it as well.
    pub(crate) async fn scaled(sim: Simulator, page_size: u16, scale: f64) -> Self {
        let clock: SharedClock = Arc::new(ScaledClock::new(Utc::now(), scale));
        Self::on_clock(sim, page_size, clock).await
    }

    /// The same by another clock, which is the simulator's as well.
    pub(crate) async fn on_clock(sim: Simulator, page_size: u16, clock: SharedClock) -> Self {
        let wall = Arc::clone(&clock);
        let sim = sim.wall_clock(Arc::new(move || wall.now()));
        Self::with_clock(sim, page_size, clock, windfall_services::kafka()).await
    }

    async fn with_clock(sim: Simulator, page_size: u16, clock: SharedClock, bootstrap: &str) -> Self {
        let sim = sim.start("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let account = sim.credentials()[0].clone();
        let source = SourceConfig {
            name: account.org.clone(),
            kind: SourceKind::Abm,
            client_id: account.client_id.clone(),
            key_id: Some(account.key_id.clone()),
            private_key: Secret::new(account.private_key_pem.clone()),
            api_url: Some(sim.url()),
            token_url: sim.token_url(),
            rate_limit: RateLimitConfig { requests: 10_000, per: Period::from_secs(60), share: 1.0 },
            scan: ScanConfig { page_size, ..ScanConfig::default() },
            breaker: BreakerConfig::default(),
        };
        let prefix = format!("t{}.", uuid::Uuid::new_v4().simple());
        let registry = SchemaRegistryConfig::embedded(None);
        let mut kafka = KafkaConfig::new(bootstrap, registry);
        kafka.topic_prefix.clone_from(&prefix);
        kafka.replication_factor = 1;
        let setup = Setup {
            instance: "a".to_owned(),
            connection: Connection::new(&kafka, "producer", "a"),
            registry: RegistryClient::embedded(EmbeddedRegistry::in_memory(), true),
            status: StatusRegistry::new("a", Arc::clone(&clock)),
            alone: false,
            clock,
        };
        Self { sim, setup, source, names: Names::new(prefix) }
    }

    /// Makes the source of another organization of the same simulator.
    pub(crate) fn account(&self, org: &str) -> SourceConfig {
        let account = self.sim.credentials().iter().find(|account| account.org == org).unwrap();
        SourceConfig {
            name: org.to_owned(),
            client_id: account.client_id.clone(),
            key_id: Some(account.key_id.clone()),
            private_key: Secret::new(account.private_key_pem.clone()),
            ..self.source.clone()
        }
    }

    pub(crate) fn handle(&self) -> Handle {
        self.sim.handle()
    }

    pub(crate) fn command(&self, command: Command) {
        self.handle().command(command).unwrap();
    }

    pub(crate) fn faults(&self, script: &str) {
        self.handle().add_faults(script).unwrap();
    }

    /// Serial numbers of the devices that belong to the organization, in order.
    pub(crate) fn devices(&self) -> Vec<String> {
        let truth = self.handle().truth();
        truth.devices.into_iter().filter(|device| device.released_at.is_none()).map(|device| device.id).collect()
    }

    /// Scans once, as `--once` does.
    pub(crate) async fn once(&self) -> OnceOutcome {
        self.try_once().await.unwrap()
    }

    pub(crate) async fn try_once(&self) -> Result<OnceOutcome, ProducerError> {
        run::run_once(&self.setup, std::slice::from_ref(&self.source), CancellationToken::new()).await
    }

    /// Serves in the background until the token is cancelled.
    pub(crate) fn serve(&self, shutdown: &CancellationToken) -> JoinHandle<Result<(), ProducerError>> {
        self.serve_as(self.setup.clone(), shutdown)
    }

    /// The same as another process.
    pub(crate) fn serve_as(&self, setup: Setup, shutdown: &CancellationToken) -> JoinHandle<Result<(), ProducerError>> {
        let (source, shutdown) = (self.source.clone(), shutdown.clone());
        tokio::spawn(async move { run::run(&setup, &[source], shutdown).await })
    }

    /// Makes another process of the same pipeline, which reaches the broker in its own way.
    pub(crate) fn peer(&self, bootstrap: &str, instance: &str) -> Setup {
        let mut kafka = self.setup.connection.config().clone();
        kafka.bootstrap_servers = vec![bootstrap.to_owned()];
        Setup {
            instance: instance.to_owned(),
            connection: Connection::new(&kafka, "producer", instance),
            status: StatusRegistry::new(instance, Arc::clone(&self.setup.clock)),
            ..self.setup.clone()
        }
    }

    /// Waits until every process has left the group of the organization, as one does that is killed, after its session time-out.
    pub(crate) async fn nobody_at_work(&self) {
        let group = self.names.producer_group(&self.source.name);
        let left = async || groups::members(&self.setup.connection, &group).await.unwrap().is_empty();
        until("the group is empty", left).await;
    }

    pub(crate) async fn cluster(&self) -> Cluster {
        run::connect(&self.setup.connection, self.setup.registry.clone()).await.unwrap()
    }

    async fn read<K, V>(&self, topic: String, partitions: i32) -> Vec<Read<K, V>>
    where
        K: DeserializeOwned + Send + 'static,
        V: DeserializeOwned + Send + 'static,
    {
        let decoder = Decoder::new(self.setup.registry.clone(), value_subject(&topic));
        let request = FoldRequest::whole(topic, 0..partitions);
        let folded = table::fold(&self.setup.connection, request, Vec::new(), move |read, record| {
            decoder.learn_blocking(&record)?;
            let key = record.key.as_ref().map(|_| decoder.key(&record).unwrap());
            let value = decoder.value(&record).unwrap();
            read.push(Read { key, value, partition: record.partition, headers: record.headers });
            Ok(())
        });
        folded.await.unwrap().state
    }

    /// The whole log of the devices, tombstones included, each partition in its order.
    pub(crate) async fn device_log(&self) -> Vec<Read<DeviceKey, Envelope<DeviceValue>>> {
        self.read(self.names.devices(), 12).await
    }

    /// The events of the devices.
    pub(crate) async fn events(&self) -> Vec<Envelope<DeviceValue>> {
        self.device_log().await.into_iter().filter_map(|read| read.value).collect()
    }

    /// The events of the devices, where others have written what cannot be read.
    pub(crate) async fn readable_events(&self) -> Vec<Envelope<DeviceValue>> {
        let decoder = Decoder::new(self.setup.registry.clone(), value_subject(&self.names.devices()));
        let request = FoldRequest::whole(self.names.devices(), 0..12);
        let folded = table::fold(&self.setup.connection, request, Vec::new(), move |read, record| {
            decoder.learn_blocking(&record)?;
            if let (Ok(_), Ok(Some(value))) = (decoder.key::<DeviceKey>(&record), decoder.value(&record)) {
                read.push(value);
            }
            Ok(())
        });
        folded.await.unwrap().state
    }

    pub(crate) async fn server_log(&self) -> Vec<Read<ServerKey, Envelope<ServerValue>>> {
        self.read(self.names.servers(), 1).await
    }

    pub(crate) async fn rejects(&self) -> Vec<RejectValue> {
        let rejects: Vec<Read<DeviceKey, RejectValue>> = self.read(self.names.rejects(), 3).await;
        rejects.into_iter().filter_map(|read| read.value).collect()
    }

    pub(crate) async fn notifications(&self) -> Vec<Notification> {
        let told: Vec<Read<NotificationKey, Notification>> = self.read(self.names.notifications(), 1).await;
        told.into_iter().filter_map(|read| read.value).collect()
    }

    /// The parts of the scan state that are not tombstoned, by name.
    pub(crate) async fn parts(&self) -> BTreeMap<String, ScanValue> {
        let parts = self.all_parts().await.into_iter().filter(|(key, _)| key.org == self.source.name);
        parts.map(|(key, value)| (key.part, value)).collect()
    }

    /// The headers of the devices' newest scans, by organization.
    pub(crate) async fn scans(&self) -> BTreeMap<String, ScanValue> {
        let headers = self.all_parts().await.into_iter().filter(|(key, _)| key.part.is_empty());
        headers.map(|(key, value)| (key.org, value)).collect()
    }

    async fn all_parts(&self) -> BTreeMap<ScanKey, ScanValue> {
        let mut parts = BTreeMap::new();
        for Read { key, value, .. } in self.read::<ScanKey, ScanValue>(self.names.scans(), 1).await {
            let key = key.unwrap();
            if key.table == "devices" {
                match value {
                    Some(value) => parts.insert(key, value),
                    None => parts.remove(&key),
                };
            }
        }
        parts
    }

    /// The header of the devices' newest scan.
    pub(crate) async fn header(&self) -> ScanValue {
        self.parts().await.remove("").expect("a scan has been made")
    }

    /// What was asked of the API, token requests left out.
    pub(crate) fn requests(&self) -> Vec<Response> {
        let asked = self.handle().journal().into_iter().filter_map(|line| match line.record {
            Record::Response(response) if response.route != "token" => Some(*response),
            _ => None,
        });
        asked.collect()
    }
}

/// Waits until `met` says so, and fails the test when it does not in two minutes.
pub(crate) async fn until(what: &str, mut met: impl AsyncFnMut() -> bool) {
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    let waiting = async {
        while !met().await {
            pace.tick().await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(120), waiting).await.is_ok(), "{what} within two minutes");
}

/// `kind` and id of each event, sorted.
pub(crate) fn told(events: &[Envelope<DeviceValue>]) -> Vec<String> {
    let mut told: Vec<String> = events
        .iter()
        .map(|event| {
            let id = event.after.as_ref().or(event.before.as_ref()).map_or("", |value| value.device_id.as_str());
            format!("{} {id}", event.kind.as_ref().unwrap())
        })
        .collect();
    told.sort();
    told
}
