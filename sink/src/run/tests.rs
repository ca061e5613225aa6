//! What an idle sink does by the hour, without waiting for one.

use std::pin::Pin;
use std::sync::{Arc, Mutex};

use chrono::TimeDelta;
use windfall_runtime::clock::Clock;
use windfall_runtime::health::StatusRegistry;
use windfall_runtime::kafka::config::{KafkaConfig, SchemaRegistryConfig};
use windfall_runtime::registry::embedded::EmbeddedRegistry;
use windfall_schemas::asset::{Field, FieldType};
use windfall_schemas::topic::CHANGE_PARTITIONS;

use super::*;
use crate::store::memory::{Memory, MemoryStore};

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
    rows: SinkHandler<MemoryStore>,
    memory: Memory,
    clock: Arc<HandClock>,
}

impl Idle {
    async fn new() -> Self {
        let kafka = KafkaConfig::new("127.0.0.1:1", SchemaRegistryConfig::embedded(None));
        let clock = Arc::new(HandClock(Mutex::new(Utc::now())));
        let surroundings = Surroundings {
            connection: Connection::new(&kafka, "sink-assets", "one"),
            collection: Collection::new("devices", vec![Field::new("color", FieldType::String)]).unwrap(),
            registry: RegistryClient::embedded(EmbeddedRegistry::in_memory(), true),
            clock: clock.clone(),
            part: StatusRegistry::new("one", clock.clone()).part("sink", Duration::from_secs(90)),
            instance: "one".to_owned(),
            membership: Membership::Dynamic,
        };
        let config = serde_json::json!({ "name": "assets", "type": "sqlite", "path": "never-opened.db", "collection": "devices" });
        let memory = Memory::default();
        let store = memory.open("assets", "assets.devices");
        let sink = Sink::new(serde_json::from_value::<crate::SinkConfig>(config).unwrap(), store, surroundings);
        let mut rows = sink.worker(CancellationToken::new(), false).handler;
        rows.writer.claim(&(0..CHANGE_PARTITIONS).collect::<Vec<_>>()).await.unwrap();
        rows.reached = (0..CHANGE_PARTITIONS).map(|partition| (partition, 0)).collect();
        Self { rows, memory, clock }
    }

    async fn renew(&mut self) -> Vec<i32> {
        let now = self.clock.now();
        self.rows.renew(now).await.unwrap()
    }

    /// Up to when each partition's deletions are known in the store.
    fn watermarks(&self) -> Vec<Option<DateTime<Utc>>> {
        (0..CHANGE_PARTITIONS).map(|partition| self.memory.as_of(partition)).collect()
    }
}

fn all(mark: DateTime<Utc>) -> Vec<Option<DateTime<Utc>>> {
    vec![Some(mark); usize::try_from(CHANGE_PARTITIONS).unwrap()]
}

#[tokio::test]
async fn an_idle_partition_renews_its_mark_by_the_hour_and_no_sooner() {
    let mut idle = Idle::new().await;
    let began = idle.clock.pass(TimeDelta::minutes(61));
    assert!(idle.renew().await.is_empty());
    assert_eq!(idle.watermarks(), all(began), "those without any record, too");
    let calls = idle.memory.calls();
    idle.clock.pass(TimeDelta::minutes(59));
    idle.renew().await;
    assert_eq!((idle.watermarks(), idle.memory.calls()), (all(began), calls), "the store is left alone");
    let later = idle.clock.pass(TimeDelta::minutes(2));
    idle.renew().await;
    assert_eq!(idle.watermarks(), all(later));
}

#[tokio::test]
async fn an_idle_partition_that_was_taken_over_in_the_store_is_given_up_and_the_others_stay() {
    let mut idle = Idle::new().await;
    let began = idle.clock.pass(TimeDelta::minutes(61));
    idle.renew().await;
    // As a process does that was given the partition while this one was stopped.
    idle.memory.open("assets", "assets.devices").claim(&[3]).await.unwrap();
    let later = idle.clock.pass(TimeDelta::minutes(61));
    assert_eq!(idle.renew().await, [3]);
    assert!(!idle.rows.writer.positions().contains_key(&3), "nothing is written for it any more");
    idle.rows.reached.remove(&3);
    assert!(idle.renew().await.is_empty());
    let mut expected = all(later);
    expected[3] = Some(began);
    assert_eq!(idle.watermarks(), expected);
}
