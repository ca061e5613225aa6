//! Whether a position is still good in a log, asked of a real broker.

use std::collections::BTreeMap;

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use windfall_runtime::kafka::publisher::{Publisher, Transaction};
use windfall_runtime::kafka::table::{self, FoldRequest, TableError};
use windfall_runtime::kafka::{Connection, log};
use windfall_runtime::log_identity::Position;

use crate::kafka_support::*;

async fn publish(connection: &Connection, topic: &str, partition: i32, count: usize) {
    let mut publisher = Publisher::start(connection, &connection.prefixed("p")).await.unwrap();
    let derived = records(topic, partition, 0..count);
    publisher.commit(Transaction { derived, ..Transaction::default() }).await.unwrap();
}

/// How far a reader of all that is there has read each partition.
async fn read_through(connection: &Connection, topic: &str, partitions: i32) -> BTreeMap<i32, Position> {
    let request = FoldRequest::whole(topic, 0..partitions);
    let folded = table::fold(connection, request, BTreeMap::new(), |read: &mut BTreeMap<i32, Position>, record| {
        read.entry(record.partition).or_insert(Position::at(0)).pass(record.offset, record.timestamp_ms);
        Ok(())
    });
    folded.await.unwrap().state
}

/// Deletes the topic and makes it anew.
async fn make_anew(connection: &Connection, name: &str, partitions: i32) {
    let full = connection.prefixed(name);
    let mut settings = rdkafka::ClientConfig::new();
    settings.set("bootstrap.servers", connection.config().bootstrap_servers.join(","));
    let admin: AdminClient<DefaultClientContext> = settings.create().unwrap();
    let deleted = admin.delete_topics(&[&full], &AdminOptions::new()).await.unwrap();
    deleted.into_iter().for_each(|result| drop(result.unwrap()));
    while windfall_runtime::kafka::topics::partition_count(connection, &full).await.unwrap().is_some() {}
    topic(connection, name, partitions).await;
}

fn is_other(checked: Result<BTreeMap<i32, i64>, TableError>) -> Option<i32> {
    match checked {
        Ok(_) => None,
        Err(TableError::OtherLog(other)) => Some(other.at.partition),
        Err(error) => panic!("{error:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_only_grew_is_the_same_log_whatever_hides_in_it() {
    let connection = connection();
    let topic = topic(&connection, "t", 3).await;
    publish(&connection, &topic, 0, 5).await;
    publish(&connection, &topic, 1, 5).await;
    let positions = read_through(&connection, &topic, 3).await;
    assert_eq!((positions.len(), positions[&0].next_offset), (2, 5));
    assert_eq!(is_other(log::check(&connection, &topic, &positions).await), None, "a marker lies behind the position");
    OpenTransaction::begin(&connection, &connection.prefixed("other"), &topic, 0).abort();
    publish(&connection, &topic, 0, 7).await;
    let begun_again = Position { next_offset: 0, ..positions[&0] };
    let read_once = log::check(&connection, &topic, &BTreeMap::from([(0, begun_again)])).await.unwrap();
    assert!((5..=8).contains(&read_once[&0]), "what was read once is told from what came later: {read_once:?}");
    assert_eq!(is_other(log::check(&connection, &topic, &positions).await), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_made_anew_is_told_while_it_is_empty_short_and_when_it_has_grown_past_the_position() {
    let connection = connection();
    let topic = topic(&connection, "t", 2).await;
    publish(&connection, &topic, 1, 5).await;
    let positions = read_through(&connection, &topic, 2).await;
    make_anew(&connection, "t", 2).await;
    assert_eq!(is_other(log::check(&connection, &topic, &positions).await), Some(1), "it is empty");
    publish(&connection, &topic, 1, 3).await;
    assert_eq!(is_other(log::check(&connection, &topic, &positions).await), Some(1), "it is shorter");
    publish(&connection, &topic, 1, 20).await;
    assert_eq!(is_other(log::check(&connection, &topic, &positions).await), Some(1), "it is longer");
    let untimed = BTreeMap::from([(1, Position::at(5))]);
    assert_eq!(is_other(log::check(&connection, &topic, &untimed).await), None, "without a time nothing tells");
}
