//! What an idle sink does by the hour, without waiting for one.

use std::pin::Pin;
use std::sync::{Arc, Mutex};

use chrono::TimeDelta;
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use windfall_runtime::clock::Clock;
use windfall_runtime::clock::SystemClock;
use windfall_runtime::health::{State, Status};
use windfall_runtime::kafka::config::{KafkaConfig, ManageTopics, SchemaRegistryConfig};
use windfall_runtime::kafka::{Membership, Outgoing, publisher, topics};
use windfall_runtime::registry::RegistryClient;
use windfall_runtime::registry::embedded::EmbeddedRegistry;
use windfall_schemas::asset::{Collection, Field, FieldType};
use windfall_schemas::topic::{CHANGE_PARTITIONS, CollectionTopics, Names};

use super::*;
use crate::store::memory::{Fault, Memory};
use crate::store::{AssetStore, Cause};

const PATIENCE: Duration = Duration::from_secs(60);

/// A clock that is set by hand.
struct HandClock(Mutex<DateTime<Utc>>);

impl HandClock {
    fn pass(&self, time: TimeDelta) -> DateTime<Utc> {
        let mut now = self.0.lock().unwrap();
        *now += time;
        *now
    }
}

impl Clock for HandClock {
    fn now(&self) -> DateTime<Utc> {
        *self.0.lock().unwrap()
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }

    fn sleep(&self, _: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::pending())
    }
}

/// A sink that has read its topic to the end, and now is idle.
struct Idle {
    running: Running,
    consumer: GroupConsumer,
    memory: Memory,
    clock: Arc<HandClock>,
    status: Status,
    names: Names,
    tombstone: Outgoing,
}

async fn publish(connection: &Connection, names: &Names, record: &Outgoing) {
    let mut writer = publisher::Publisher::start(connection, &names.topic("writer")).await.unwrap();
    let derived = vec![record.clone()];
    writer.commit(publisher::Transaction { derived, ..Default::default() }).await.unwrap();
}

impl Idle {
    async fn new(name: &str) -> Self {
        let bootstrap = tokio::task::spawn_blocking(windfall_services::kafka).await.unwrap();
        let mut kafka = KafkaConfig::new(bootstrap, SchemaRegistryConfig::embedded(None));
        kafka.topic_prefix = format!("{name}-{}-{}.", std::process::id(), Utc::now().timestamp_micros());
        kafka.replication_factor = 1;
        let connection = Connection::new(&kafka, "sink-assets", "one");
        let names = Names::new(&*kafka.topic_prefix);
        let collection = Collection::new("devices", vec![Field::new("color", FieldType::String)]).unwrap();
        let declared = CollectionTopics { collection: "devices", sources: Vec::new(), sinks: vec!["assets"] };
        topics::ensure(&connection, &names.collection_topics(&declared), ManageTopics::Create).await.unwrap();
        let topic = names.assets("devices");
        let schemas = RegistryClient::embedded(EmbeddedRegistry::in_memory(), true);
        let key = schemas.codec(&format!("{topic}-key"), &collection.key_schema()).await.unwrap();
        let key = key.encode(&windfall_schemas::asset::AssetKey { asset_id: "SIM1".to_owned() }).unwrap();
        let tombstone = Outgoing::tombstone(topic.as_str(), key);
        publish(&connection, &names, &tombstone).await;

        let clock = Arc::new(HandClock(Mutex::new(Utc::now())));
        let status = Status::new("one", clock.clone());
        let surroundings = Surroundings {
            connection,
            collection,
            registry: schemas,
            clock: clock.clone(),
            part: status.part("sink", Duration::from_secs(90)),
            instance: "one".to_owned(),
            membership: Membership::Dynamic,
        };
        let config = serde_json::json!({ "name": "assets", "type": "sqlite", "path": "never-opened.db", "collection": "devices" });
        let memory = Memory::default();
        let store = AnyStore::Memory(memory.open("assets", &topic));
        let sink = Sink::new(serde_json::from_value(config).unwrap(), surroundings).unwrap().with_store(store);
        let (running, consumer) = sink.start(CancellationToken::new(), None).unwrap();
        let mut idle = Self { running, consumer, memory, clock, status, names, tombstone };
        idle.read_to_end().await;
        idle
    }

    async fn read_to_end(&mut self) {
        let read = async {
            while self.running.reached.len() < usize::try_from(CHANGE_PARTITIONS).unwrap() {
                let event = self.consumer.next().await;
                self.running.on(event).await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, read).await.expect("the topic is read to its end");
    }

    async fn look(&mut self) {
        self.running.look_around().await.unwrap();
    }

    /// Up to when each partition's deletions are known in the store.
    fn marks(&self) -> Vec<Option<DateTime<Utc>>> {
        (0..CHANGE_PARTITIONS).map(|partition| self.memory.as_of(partition)).collect()
    }

    fn given_up(&self) -> Option<serde_json::Value> {
        self.status.snapshot().parts["sink"].details.get("given_up").cloned()
    }
}

fn all(mark: DateTime<Utc>) -> Vec<Option<DateTime<Utc>>> {
    vec![Some(mark); usize::try_from(CHANGE_PARTITIONS).unwrap()]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_hears_nothing_any_more_makes_no_progress() {
    let mut idle = Idle::new("deaf").await;
    let shown = |idle: &Idle| {
        let part = idle.status.snapshot().parts["sink"].clone();
        (part.progress_at, part.details["lag"].clone())
    };
    let at_end = idle.clock.pass(TimeDelta::minutes(1));
    idle.look().await;
    assert_eq!(shown(&idle), (Some(at_end), 0.into()), "to be at the end is progress");
    publish(&idle.running.connection, &idle.names, &idle.tombstone).await;
    for _ in 0..2 {
        idle.clock.pass(TimeDelta::minutes(1));
        idle.look().await;
        // The record and its transaction's marker.
        assert_eq!(shown(&idle), (Some(at_end), 2.into()), "a broker that answers is none");
    }
    idle.running.lag = Some(100);
    let nearer = idle.clock.pass(TimeDelta::minutes(1));
    idle.look().await;
    assert_eq!(shown(&idle), (Some(nearer), 2.into()), "to have come nearer is");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_partition_renews_its_mark_by_the_hour_and_no_sooner() {
    let mut idle = Idle::new("renew").await;
    let began = idle.clock.pass(TimeDelta::minutes(61));
    idle.look().await;
    assert_eq!(idle.marks(), all(began), "those without any record, too");
    let calls = idle.memory.calls();
    idle.clock.pass(TimeDelta::minutes(59));
    idle.look().await;
    assert_eq!((idle.marks(), idle.memory.calls()), (all(began), calls), "the store is left alone");
    let later = idle.clock.pass(TimeDelta::minutes(2));
    idle.look().await;
    assert_eq!(idle.marks(), all(later));
    assert_eq!(idle.given_up(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_partition_that_was_taken_over_in_the_store_is_given_up_and_the_others_stay() {
    let mut idle = Idle::new("fenced").await;
    let began = idle.clock.pass(TimeDelta::minutes(61));
    idle.look().await;
    assert_eq!(idle.marks(), all(began));
    // As a process does that was given the partition while this one was stopped.
    idle.memory.open("assets", &idle.running.topic).claim(&[3]).await.unwrap();
    let later = idle.clock.pass(TimeDelta::minutes(61));
    idle.look().await;
    assert_eq!(idle.given_up(), Some(serde_json::json!([3])));
    assert!(!idle.running.writer.positions().contains_key(&3), "nothing is written for it any more");
    let mut expected = all(later);
    expected[3] = Some(began);
    idle.look().await;
    assert_eq!(idle.marks(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_the_group_still_counts_on_takes_a_partition_again_that_it_gave_up() {
    let mut idle = Idle::new("reclaim").await;
    idle.memory.open("assets", &idle.running.topic).claim(&[3]).await.unwrap();
    idle.clock.pass(TimeDelta::minutes(61));
    idle.look().await;
    idle.look().await;
    assert!(!idle.running.writer.positions().contains_key(&3), "not at once: the other may be the one who goes on");
    idle.running.given_up_at = Instant::now().checked_sub(RECLAIM);
    idle.look().await;
    assert_eq!(idle.given_up(), None);
    // Read to the end again, it is renewed under an epoch of our own.
    idle.read_to_end().await;
    let later = idle.clock.pass(TimeDelta::minutes(61));
    idle.look().await;
    assert_eq!(idle.marks(), all(later));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_a_slow_leader_has_failed_is_followed_by_another() {
    let cluster = MockCluster::new(1).unwrap();
    let kafka = KafkaConfig::new(&cluster.bootstrap_servers(), SchemaRegistryConfig::embedded(None));
    let topic = Names::new("").assets("devices");
    cluster.create_topic(&topic, CHANGE_PARTITIONS, 1).unwrap();
    let status = Status::new("one", SystemClock::shared());
    let part = || status.snapshot().parts["sink"].clone();
    // An ask takes two requests, for the first offset and for the last.
    cluster.request_errors(RDKafkaApiKey::ListOffsets, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN; 2]);
    let surroundings = Surroundings {
        connection: Connection::new(&kafka, "sink-assets", "one"),
        collection: Collection::new("devices", vec![Field::new("color", FieldType::String)]).unwrap(),
        registry: RegistryClient::embedded(EmbeddedRegistry::in_memory(), true),
        clock: SystemClock::shared(),
        part: status.part("sink", Duration::from_secs(90)),
        instance: "one".to_owned(),
        membership: Membership::Dynamic,
    };
    let config =
        serde_json::json!({ "name": "assets", "type": "sqlite", "path": "never-opened.db", "collection": "devices" });
    let sink = Sink::new(serde_json::from_value(config).unwrap(), surroundings).unwrap();
    let store = AnyStore::Memory(Memory::default().open("assets", &topic));
    let stop = CancellationToken::new();
    let running = tokio::spawn(sink.with_store(store).run(stop.clone()));
    let mut reason = None;
    let taken = async {
        while part().state != State::Running {
            reason = reason.take().or_else(|| part().details.get("reason").cloned());
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, taken).await.expect("another member takes its place");
    let reason = reason.unwrap_or_default().to_string();
    assert!(reason.contains("first offsets"), "it says what failed: {reason}");
    stop.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_run_whose_store_stays_away_ends_and_says_so() {
    let mut idle = Idle::new("stalled").await;
    for _ in 0..100 {
        idle.memory.fault(Fault::Refuse(Cause::DiskFull));
    }
    let ends = (0..CHANGE_PARTITIONS).map(|partition| (partition, 1_000)).collect();
    let stall = Stall::new(Duration::from_secs(1));
    idle.running.goal = Some(Goal { ends, joining: PATIENCE, join_by: Instant::now() + PATIENCE, stall });
    idle.running.assignment.take();
    let consumer = GroupConsumer::start(&idle.running.connection, idle.running.options.clone()).unwrap();
    idle.consumer.close().await;
    idle.running.group = consumer.group();
    let ended = tokio::time::timeout(PATIENCE, idle.running.join_or_stall(consumer)).await.expect("it ends by itself");
    let Err(SinkError::Stalled { reason, .. }) = &ended else { panic!("{ended:?}") };
    assert!(reason.contains("no space is left"), "{reason}");
}
