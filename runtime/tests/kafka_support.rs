//! What the tests against a real broker share.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use windfall_runtime::kafka::config::{KafkaConfig, SchemaRegistryConfig};
use windfall_runtime::kafka::consumer::{Assignment, Batch, BatchLimits, Event, GroupConsumer, GroupOptions, Start};
use windfall_runtime::kafka::table::{self, FoldRequest, Folded};
use windfall_runtime::kafka::topics::{self, TopicSpec};
use windfall_runtime::kafka::{Connection, Membership, Outgoing, Record, TopicPartition};
use windfall_runtime::registry::RegistryError;
use windfall_schemas::topic::Cleanup;

/// Nothing here takes longer unless it is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A cluster under a prefix of its own.
pub(crate) fn connection() -> Connection {
    connection_to(windfall_services::kafka())
}

pub(crate) fn connection_to(bootstrap: &str) -> Connection {
    let mut config = KafkaConfig::new(bootstrap, SchemaRegistryConfig::embedded(None));
    config.topic_prefix = format!("t{}.", uuid::Uuid::new_v4().simple());
    config.replication_factor = 1;
    Connection::new(&config, "test", "one")
}

/// Creates a topic and returns its full name.
pub(crate) async fn topic(connection: &Connection, name: &str, partitions: i32) -> String {
    topic_with(connection, name, partitions, Cleanup::Compacted).await
}

pub(crate) async fn topic_with(connection: &Connection, name: &str, partitions: i32, cleanup: Cleanup) -> String {
    let name = connection.prefixed(name);
    let spec = TopicSpec { name: name.clone(), partitions, cleanup };
    topics::ensure(connection, &[spec], topics_create()).await.expect("topic is created");
    name
}

fn topics_create() -> windfall_runtime::kafka::config::ManageTopics {
    windfall_runtime::kafka::config::ManageTopics::Create
}

pub(crate) fn record(topic: &str, partition: i32, text: &str) -> Outgoing {
    Outgoing::new(topic, text.as_bytes().to_vec(), text.as_bytes().to_vec()).to_partition(partition)
}

pub(crate) fn records(topic: &str, partition: i32, texts: impl IntoIterator<Item = usize>) -> Vec<Outgoing> {
    texts.into_iter().map(|number| record(topic, partition, &number.to_string())).collect()
}

pub(crate) fn text(record: &Record) -> String {
    String::from_utf8(record.value.as_deref().unwrap_or_default().to_vec()).unwrap()
}

/// Reads a topic to its end, as texts by partition.
pub(crate) async fn read(connection: &Connection, topic: &str, partitions: i32) -> Folded<BTreeMap<i32, Vec<String>>> {
    let request = FoldRequest::whole(topic, 0..partitions);
    table::fold(connection, request, BTreeMap::new(), keep).await.expect("topic is read")
}

pub(crate) fn keep(state: &mut BTreeMap<i32, Vec<String>>, record: Record) -> Result<(), RegistryError> {
    state.entry(record.partition).or_default().push(text(&record));
    Ok(())
}

/// A transaction of another program, left open with one record in it.
pub(crate) struct OpenTransaction(BaseProducer);

impl OpenTransaction {
    pub(crate) fn begin(connection: &Connection, transactional_id: &str, topic: &str, partition: i32) -> Self {
        let mut settings = ClientConfig::new();
        settings.set("bootstrap.servers", connection.config().bootstrap_servers.join(","));
        let producer: BaseProducer = settings.set("transactional.id", transactional_id).create().unwrap();
        producer.init_transactions(PATIENCE).unwrap();
        producer.begin_transaction().unwrap();
        producer.send(BaseRecord::to(topic).partition(partition).key("open").payload("open")).unwrap();
        producer.flush(PATIENCE).unwrap();
        Self(producer)
    }

    pub(crate) fn commit(self) {
        self.0.commit_transaction(PATIENCE).unwrap();
    }

    pub(crate) fn abort(self) {
        self.0.abort_transaction(PATIENCE).unwrap();
    }
}

pub(crate) fn member(
    connection: &Connection,
    topic: &str,
    membership: Membership,
    max_records: usize,
) -> GroupConsumer {
    member_with(connection, topic, membership, BatchLimits { max_records, ..BatchLimits::default() })
}

pub(crate) fn member_with(
    connection: &Connection,
    topic: &str,
    membership: Membership,
    limits: BatchLimits,
) -> GroupConsumer {
    let options =
        GroupOptions { group: connection.prefixed("group"), topics: vec![topic.to_owned()], membership, limits };
    GroupConsumer::start(connection, options).unwrap()
}

pub(crate) async fn next(consumer: &mut GroupConsumer) -> Event {
    tokio::time::timeout(PATIENCE, consumer.next()).await.expect("an event comes")
}

/// Waits for an assignment that has partitions; what comes before is answered and dropped.
pub(crate) async fn assigned(consumer: &mut GroupConsumer) -> Assignment {
    loop {
        match next(consumer).await {
            Event::Assigned(assignment) if !assignment.partitions.is_empty() => return assignment,
            Event::Assigned(_) | Event::Batch(_) => {}
            Event::Revoked(revoked) => revoked.ack(),
            Event::Failed(error) => panic!("consumer failed: {error:?}"),
        }
    }
}

/// Starts all of an assignment where it was committed.
pub(crate) async fn start_committed(consumer: &GroupConsumer, assignment: &Assignment) -> u64 {
    let group = consumer.group();
    let committed = group.committed(&assignment.partitions).await.unwrap();
    let starts = committed.into_iter().map(|(at, offset)| (at, Start::from(offset.as_ref()))).collect();
    group.start_at(assignment, starts).await.unwrap()
}

pub(crate) async fn batch(consumer: &mut GroupConsumer) -> Batch {
    match next(consumer).await {
        Event::Batch(batch) => batch,
        other => panic!("a batch was expected, not {other:?}"),
    }
}

/// Takes batches until so many records have come.
pub(crate) async fn take(consumer: &mut GroupConsumer, records: usize) -> Vec<Record> {
    let mut taken = Vec::new();
    while taken.len() < records {
        taken.extend(batch(consumer).await.records);
    }
    taken
}

pub(crate) fn at(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition::new(topic, partition)
}
