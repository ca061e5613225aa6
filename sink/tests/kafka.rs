//! A whole sink against a real broker.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use windfall_runtime::clock::SystemClock;
use windfall_runtime::diagnose::Diagnose as _;
use windfall_runtime::health::{PartState, StatusRegistry};
use windfall_runtime::kafka::config::{KafkaConfig, ManageTopics, SchemaRegistryConfig};
use windfall_runtime::kafka::publisher::{Publisher, Transaction};
use windfall_runtime::kafka::table::{self, FoldRequest};
use windfall_runtime::kafka::{Connection, Membership, Outgoing, Record, topics};
use windfall_runtime::registry::RegistryClient;
use windfall_runtime::registry::embedded::EmbeddedRegistry;
use windfall_runtime::worker::WorkerError;
use windfall_schemas::asset::{AssetKey, AssetRecord, Collection, Field, FieldType, FieldValue};
use windfall_schemas::topic::{CHANGE_PARTITIONS, Cleanup, CollectionTopics, Names, TopicSpec};
use windfall_schemas::wire::Codec;
use windfall_sink::store::AssetStore;
use windfall_sink::store::Cause;
use windfall_sink::store::memory::{Fault, Memory};
use windfall_sink::{Report, Sink, SinkConfig, SinkError, Surroundings};

use crate::subjects::{PostgresSubject, SqliteSubject, Subject, unique, until};

/// Nothing here takes longer unless it is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster under a prefix of its own, with a collection, its schemas and a sink's table.
pub(crate) struct Pipeline {
    connection: Connection,
    names: Names,
    collection: Collection,
    registry: RegistryClient,
    key: Codec,
    value: Codec,
    pub(crate) subject: PostgresSubject,
    /// Where the rows are instead, if not in PostgreSQL.
    pub(crate) sqlite: Option<SqliteSubject>,
    pub(crate) status: StatusRegistry,
}

impl Pipeline {
    pub(crate) async fn new() -> Self {
        let bootstrap = tokio::task::spawn_blocking(windfall_services::kafka).await.unwrap();
        let mut config = KafkaConfig::new(bootstrap, SchemaRegistryConfig::embedded(None));
        config.topic_prefix = format!("{}.", unique("t"));
        config.replication_factor = 1;
        let connection = Connection::new(&config, "sink-assets", "one");
        let names = Names::new(&*config.topic_prefix);
        let fields = [("color", FieldType::String), ("bought_at", FieldType::Timestamp)];
        let fields = fields.map(|(name, kind)| Field::new(name, kind)).to_vec();
        let collection = Collection::new("devices", fields).unwrap();
        let declared = CollectionTopics { collection: "devices", sources: Vec::new(), sinks: vec!["assets"] };
        topics::ensure(&connection, &names.collection_topics(&declared), ManageTopics::Create).await.unwrap();
        let registry = RegistryClient::embedded(EmbeddedRegistry::in_memory(), true);
        let topic = names.assets("devices");
        let key = registry.codec(&format!("{topic}-key"), &collection.key_schema()).await.unwrap();
        let value = registry.codec(&format!("{topic}-value"), &collection.value_schema()).await.unwrap();
        let subject = PostgresSubject::new().await;
        let status = StatusRegistry::new("one", SystemClock::shared());
        let pipeline = Self { connection, names, collection, registry, key, value, subject, sqlite: None, status };
        // Makes the table, so that it can be looked into before the sink has begun.
        let mut store = windfall_sink::open(&pipeline.config(), &pipeline.collection, &pipeline.names).unwrap();
        store.claim(&[]).await.unwrap();
        pipeline
    }

    pub(crate) fn topic(&self) -> String {
        self.names.assets("devices")
    }

    fn config(&self) -> SinkConfig {
        let mut config = serde_json::json!({
            "name": "assets", "type": "postgres", "url": self.subject.url, "collection": "devices",
            "table": format!("{}.assets", self.subject.schema), "batch": {"count": 100, "period": "5ms"},
        });
        if let Some(SqliteSubject { path, .. }) = &self.sqlite {
            let fields = config.as_object_mut().unwrap();
            fields.retain(|name, _| name != "url" && name != "table");
            fields.extend([("type".to_owned(), "sqlite".into()), ("path".to_owned(), path.to_str().into())]);
        }
        serde_json::from_value(config).unwrap()
    }

    pub(crate) async fn check(&self) -> Result<Vec<String>, SinkError> {
        windfall_sink::check(&self.config(), &self.collection, &self.names, &self.connection).await
    }

    fn sink(&self, instance: &str, membership: Membership) -> Sink<impl AssetStore + use<>> {
        let store = windfall_sink::open(&self.config(), &self.collection, &self.names).unwrap();
        self.sink_over(store, instance, membership)
    }

    fn sink_over<S: AssetStore>(&self, store: S, instance: &str, membership: Membership) -> Sink<S> {
        let surroundings = Surroundings {
            connection: Connection::new(self.connection.config(), "sink-assets", instance),
            collection: self.collection.clone(),
            registry: self.registry.clone(),
            clock: SystemClock::shared(),
            part: self.status.part(format!("sink assets {instance}"), Duration::from_secs(90)),
            instance: instance.to_owned(),
            membership,
        };
        Sink::new(self.config(), store, surroundings)
    }

    pub(crate) async fn once(&self) -> Result<Report, SinkError> {
        let run = self.sink("once", Membership::Dynamic).run_once(CancellationToken::new());
        tokio::time::timeout(PATIENCE, run).await.expect("the sink ends by itself")
    }

    /// Deletes the topic and creates it again, empty.
    async fn make_anew(&self) {
        let topic = self.topic();
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", windfall_services::kafka()).create().unwrap();
        for deleted in admin.delete_topics(&[&topic], &AdminOptions::new()).await.unwrap() {
            deleted.unwrap();
        }
        let gone = async { while topics::partition_count(&self.connection, &topic).await.unwrap().is_some() {} };
        tokio::time::timeout(PATIENCE, gone).await.unwrap();
        let spec = TopicSpec { name: topic, partitions: CHANGE_PARTITIONS, cleanup: Cleanup::Compacted };
        topics::ensure(&self.connection, &[spec], ManageTopics::Create).await.unwrap();
    }

    pub(crate) fn asset(&self, asset_id: &str, color: &str) -> Outgoing {
        let record = AssetRecord {
            asset_id: asset_id.to_owned(),
            fields: vec![FieldValue::String(color.to_owned()), FieldValue::Null],
            version: 1,
            ..AssetRecord::default()
        };
        let value = self.collection.encode_asset(&self.value, &record).unwrap();
        Outgoing::new(self.topic(), self.key(asset_id), value)
    }

    pub(crate) fn key(&self, asset_id: &str) -> Vec<u8> {
        self.key.encode(&AssetKey { asset_id: asset_id.to_owned() }).unwrap()
    }

    /// Publishes in one transaction, as the merger does.
    pub(crate) async fn publish(&self, records: Vec<Outgoing>) {
        let mut publisher = Publisher::start(&self.connection, &self.names.topic("merge")).await.unwrap();
        publisher.commit(Transaction { derived: records, ..Transaction::default() }).await.unwrap();
    }

    async fn dead_letters(&self) -> Vec<Record> {
        let topic = self.names.dead_letters(&self.topic(), &self.names.sink_group("assets"));
        let request = FoldRequest::whole(topic, 0..3);
        let keep = |all: &mut Vec<Record>, record| {
            all.push(record);
            Ok(())
        };
        table::fold(&self.connection, request, Vec::new(), keep).await.unwrap().state
    }

    pub(crate) async fn colors(&self) -> BTreeMap<String, String> {
        let rows = match &self.sqlite {
            None => self.subject.rows().await,
            Some(sqlite) => sqlite.rows().await,
        };
        rows.into_iter().map(|(id, (color, ..))| (id, color.unwrap_or_default())).collect()
    }

    /// Waits until the table holds what `expected` says.
    async fn await_colors(&self, expected: &BTreeMap<String, String>) {
        let wait = async {
            let mut changes = self.subject.changes().await;
            while self.colors().await != *expected {
                changes.next().await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("the table comes to hold it");
    }
}

pub(crate) fn assets(count: usize, color: &str) -> BTreeMap<String, String> {
    (0..count).map(|number| (format!("SIM{number:05}"), color.to_owned())).collect()
}

impl Pipeline {
    pub(crate) fn records(&self, assets: &BTreeMap<String, String>) -> Vec<Outgoing> {
        assets.iter().map(|(id, color)| self.asset(id, color)).collect()
    }
}

type Running = JoinHandle<Result<Report, SinkError>>;

fn spawn<S: AssetStore + 'static>(sink: Sink<S>) -> (CancellationToken, Running) {
    let stop = CancellationToken::new();
    (stop.clone(), tokio::spawn(sink.run(stop)))
}

async fn end(stop: CancellationToken, running: Running) -> Report {
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(10), running).await.expect("it stops in time").unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn once_writes_all_that_the_topic_holds_and_a_second_time_nothing() {
    let pipeline = Pipeline::new().await;
    let wanted = assets(500, "red");
    pipeline.publish(pipeline.records(&wanted)).await;
    pipeline
        .publish(vec![
            pipeline.asset("SIM00007", "blue"),
            Outgoing::tombstone(pipeline.topic(), pipeline.key("SIM00009")),
        ])
        .await;
    let report = pipeline.once().await.unwrap();
    assert_eq!((report.applied.total(), report.dead_letters), (502, 0));
    let rows = pipeline.subject.rows().await;
    assert_eq!(rows.len(), 500);
    assert_eq!(rows["SIM00007"].0.as_deref(), Some("blue"));
    assert!(rows["SIM00009"].1, "the tombstone's asset is marked as deleted");
    let guards: Vec<_> = rows.values().map(|(_, _, guard)| *guard).collect();
    assert!(guards.iter().all(|(generation, partition, _)| *generation == 1 && *partition < CHANGE_PARTITIONS));
    assert_eq!(pipeline.once().await.unwrap().applied.total(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_reaches_its_row_while_the_sink_runs_and_the_rest_after_a_restart() {
    let pipeline = Pipeline::new().await;
    let member = || Membership::Static { instance: "one".to_owned() };
    let (stop, running) = spawn(pipeline.sink("one", member()));
    pipeline.publish(pipeline.records(&assets(50, "red"))).await;
    pipeline.await_colors(&assets(50, "red")).await;
    let report = end(stop, running).await;
    assert_eq!(report.applied.applied, 50);
    pipeline.publish(pipeline.records(&assets(50, "blue"))).await;
    let (stop, running) = spawn(pipeline.sink("one", member()));
    pipeline.await_colors(&assets(50, "blue")).await;
    assert_eq!(end(stop, running).await.applied.total(), 50, "what was stored is not read again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_record_goes_to_the_dead_letters_with_its_place_and_all_others_are_stored() {
    let pipeline = Pipeline::new().await;
    let mut wanted = assets(300, "red");
    let mut records = pipeline.records(&wanted);
    records.insert(120, pipeline.asset("BAD1", "nul\0byte"));
    records.push(Outgoing::new(pipeline.topic(), pipeline.key("BAD2"), b"no frame".to_vec()).to_partition(0));
    pipeline.publish(records).await;
    let report = pipeline.once().await.unwrap();
    assert_eq!((report.applied.applied, report.dead_letters), (300, 2));
    let mut letters = pipeline.dead_letters().await;
    letters.sort_by_key(|letter| letter.headers.text("__connect.errors.stage").map(str::to_owned));
    let header = |letter: &Record, name: &str| letter.headers.text(name).unwrap().to_owned();
    assert_eq!(header(&letters[0], "__connect.errors.stage"), "TASK_PUT");
    assert_eq!(header(&letters[0], "__connect.errors.exception.class.name"), "22021");
    assert_eq!(header(&letters[0], "__connect.errors.topic"), pipeline.topic());
    assert_eq!(header(&letters[0], "__connect.errors.connector.name"), "windfall-sink-assets");
    assert_eq!(letters[0].key.as_deref(), Some(&*pipeline.key("BAD1")));
    assert_eq!(header(&letters[1], "__connect.errors.stage"), "VALUE_CONVERTER");
    assert_eq!(letters[1].value.as_deref(), Some(b"no frame".as_slice()));
    wanted.retain(|id, _| !id.starts_with("BAD"));
    assert_eq!(pipeline.colors().await, wanted);
    assert_eq!(pipeline.once().await.unwrap().dead_letters, 0, "the position has passed them");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_whose_records_are_all_bad_stops_instead_of_emptying_the_topic() {
    let pipeline = Pipeline::new().await;
    let bad = (0..60).map(|number| pipeline.asset(&format!("BAD{number}"), "nul\0byte")).collect();
    pipeline.publish(bad).await;
    let error = pipeline.once().await.unwrap_err();
    assert!(matches!(error, SinkError::TooManyDeadLetters { refused: 21, .. }), "{error:?}");
    assert!(error.help().unwrap().contains("nack_threshold"));
    assert_eq!(pipeline.dead_letters().await.len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_pauses_the_sink_with_its_reason_and_everything_arrives_after_it() {
    let pipeline = Pipeline::new().await;
    pipeline.publish(pipeline.records(&assets(40, "red"))).await;
    let memory = Memory::default();
    for cause in [Cause::Connection, Cause::Login, Cause::DiskFull, Cause::Locked, Cause::Conflict] {
        memory.fault(Fault::Refuse(cause));
    }
    memory.fault(Fault::LoseAnswer(Cause::TimedOut));
    memory.fault(Fault::LoseAnswer(Cause::TimedOut));
    let (stop, running) =
        spawn(pipeline.sink_over(memory.open("assets", &pipeline.topic()), "one", Membership::Dynamic));
    let mut seen = Vec::new();
    let stored = until(|| {
        let snapshot = pipeline.status.snapshot();
        let part = &snapshot.parts["sink assets one"];
        if part.state == PartState::Paused {
            let reason = part.details["reason"].as_str().unwrap().to_owned();
            if seen.last() != Some(&reason) {
                seen.push(reason);
            }
        }
        memory.rows().len() == 40
    });
    tokio::time::timeout(PATIENCE, stored).await.unwrap();
    assert!(seen.iter().any(|reason| reason.contains("no space is left")), "{seen:?}");
    assert_eq!(memory.rows().len(), 40);
    end(stop, running).await;
    assert!(pipeline.dead_letters().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_members_share_the_partitions_and_no_row_is_lost_or_goes_back() {
    let pipeline = Pipeline::new().await;
    let (stop_one, one) = spawn(pipeline.sink("one", Membership::Dynamic));
    pipeline.publish(pipeline.records(&assets(200, "red"))).await;
    pipeline.await_colors(&assets(200, "red")).await;
    let (stop_two, two) = spawn(pipeline.sink("two", Membership::Dynamic));
    for color in ["blue", "green", "grey"] {
        pipeline.publish(pipeline.records(&assets(200, color))).await;
    }
    pipeline.await_colors(&assets(200, "grey")).await;
    let details = |part: &str| pipeline.status.snapshot().parts[part].details.clone();
    let shared = until(|| details("sink assets two").get("partitions") == Some(&6.into()));
    tokio::time::timeout(PATIENCE, shared).await.expect("the second member gets half of the partitions");
    pipeline.publish(pipeline.records(&assets(200, "gold"))).await;
    pipeline.await_colors(&assets(200, "gold")).await;
    let (first, second) = (end(stop_one, one).await, end(stop_two, two).await);
    assert!(second.applied.applied > 0, "both have worked");
    assert_eq!(first.applied.stale + second.applied.stale, 0, "nobody wrote what another had written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_fenced_in_the_store_gives_up_and_writes_nothing() {
    let pipeline = Pipeline::new().await;
    let (stop, running) = spawn(pipeline.sink("one", Membership::Dynamic));
    pipeline.publish(pipeline.records(&assets(30, "red"))).await;
    pipeline.await_colors(&assets(30, "red")).await;
    // As a process does that took the partitions over while this one was stopped.
    let names = &pipeline.names;
    let mut heir = windfall_sink::open(&pipeline.config(), &pipeline.collection, names).unwrap();
    heir.claim(&(0..CHANGE_PARTITIONS).collect::<Vec<_>>()).await.unwrap();
    pipeline.publish(pipeline.records(&assets(30, "blue"))).await;
    let given_up = until(|| pipeline.status.snapshot().parts["sink assets one"].details.contains_key("given_up"));
    tokio::time::timeout(PATIENCE, given_up).await.unwrap();
    assert_eq!(end(stop, running).await.applied.applied, 30);
    assert_eq!(pipeline.colors().await, assets(30, "red"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_made_anew_and_ends_below_the_position_stops_the_sink() {
    let pipeline = Pipeline::new().await;
    pipeline.publish(pipeline.records(&assets(30, "red"))).await;
    pipeline.once().await.unwrap();
    pipeline.make_anew().await;
    let error = pipeline.once().await.unwrap_err();
    let SinkError::Worker(failure) = &error else { panic!("{error:?}") };
    let WorkerError::OtherLog(other) = &**failure else { panic!("{error:?}") };
    assert!(other.position.next_offset > 0, "{other:?}");
    assert_eq!(pipeline.colors().await, assets(30, "red"), "the rows are left as they were");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_made_anew_and_has_grown_past_the_position_stops_the_sink_at_every_start() {
    let pipeline = Pipeline::new().await;
    pipeline.publish(pipeline.records(&assets(30, "red"))).await;
    pipeline.once().await.unwrap();
    pipeline.make_anew().await;
    for color in ["blue", "green", "grey"] {
        pipeline.publish(pipeline.records(&assets(60, color))).await;
    }
    for _ in 0..2 {
        let error = pipeline.once().await.unwrap_err();
        assert!(
            matches!(&error, SinkError::Worker(failure) if matches!(**failure, WorkerError::OtherLog(_))),
            "{error:?}"
        );
        assert!(error.told().contains(&format!("windfall topics accept {}", pipeline.topic())), "{}", error.told());
    }
    assert_eq!(pipeline.colors().await, assets(30, "red"), "nothing of the new log is written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_was_away_for_longer_than_deletions_are_kept_does_not_go_on() {
    let pipeline = Pipeline::new().await;
    pipeline.publish(pipeline.records(&assets(30, "red"))).await;
    pipeline.once().await.unwrap();
    let age = |days: u32| {
        format!("update {}.windfall_positions set as_of = now() - interval '{days} days'", pipeline.subject.schema)
    };
    pipeline.subject.by_hand(&age(58)).await;
    pipeline.once().await.unwrap();
    pipeline.subject.by_hand(&age(60)).await;
    let error = pipeline.once().await.unwrap_err();
    assert!(matches!(error, SinkError::AwayTooLong { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(&pipeline.topic()) && text.contains("deletions may be missing"), "{text}");
    assert!(error.help().unwrap().contains("new table"));
    assert_eq!(pipeline.colors().await, assets(30, "red"), "the table is left as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn once_beside_a_running_sink_says_that_another_is_at_work() {
    let pipeline = Arc::new(Pipeline::new().await);
    let (stop, running) = spawn(pipeline.sink("one", Membership::Dynamic));
    pipeline.publish(pipeline.records(&assets(5, "red"))).await;
    pipeline.await_colors(&assets(5, "red")).await;
    let error = pipeline.once().await.unwrap_err();
    assert!(
        matches!(&error, SinkError::Worker(failure) if matches!(**failure, WorkerError::Shared { .. } | WorkerError::NotAssigned { .. })),
        "{error:?}"
    );
    end(stop, running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_finds_what_is_wrong_with_a_store() {
    let pipeline = Pipeline::new().await;
    pipeline.check().await.unwrap();
    let mut other = pipeline.config();
    other.name = "other".to_owned();
    let error =
        windfall_sink::check(&other, &pipeline.collection, &pipeline.names, &pipeline.connection).await.unwrap_err();
    assert!(matches!(error, SinkError::Refused { .. }), "{error:?}");
}
