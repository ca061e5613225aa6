//! Topics read to their ends, against a real broker.

use std::collections::BTreeMap;

use tokio::sync::watch;
use windfall_runtime::kafka::publisher::{Publisher, Transaction};
use windfall_runtime::kafka::table::{self, FoldProgress, FoldRequest, TableError};
use windfall_runtime::kafka::{Connection, Outgoing};
use windfall_runtime::registry::RegistryError;

use crate::kafka_support::*;

async fn publish(connection: &Connection, derived: Vec<Outgoing>) {
    let mut publisher = Publisher::start(connection, &connection.prefixed("p")).await.unwrap();
    publisher.commit(Transaction { derived, ..Transaction::default() }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_topic_ends_where_it_begins() {
    let connection = connection();
    let topic = topic(&connection, "t", 3).await;
    let folded = read(&connection, &topic, 3).await;
    assert_eq!(folded.records, 0);
    assert_eq!(folded.next_offsets, BTreeMap::from([(0, 0), (1, 0), (2, 0)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn aborted_records_are_not_seen_and_do_not_stop_the_end_from_being_reached() {
    let connection = connection();
    let topic = topic(&connection, "t", 2).await;
    OpenTransaction::begin(&connection, &connection.prefixed("other"), &topic, 1).abort();
    publish(&connection, records(&topic, 0, 0..5)).await;
    OpenTransaction::begin(&connection, &connection.prefixed("other"), &topic, 0).abort();
    let folded = read(&connection, &topic, 2).await;
    assert_eq!(folded.state, BTreeMap::from([(0, ["0", "1", "2", "3", "4"].map(str::to_owned).to_vec())]));
    assert_eq!(folded.next_offsets, BTreeMap::from([(0, 8), (1, 2)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_hides_the_tail_until_it_ends_and_is_reported() {
    let connection = connection();
    let topic = topic(&connection, "t", 1).await;
    publish(&connection, records(&topic, 0, 0..2)).await;
    let open = OpenTransaction::begin(&connection, &connection.prefixed("other"), &topic, 0);
    publish(&connection, records(&topic, 0, 2..4)).await;

    let (progress, mut told) = watch::channel(FoldProgress::default());
    let request = FoldRequest::whole(topic.as_str(), [0]).reporting(progress);
    let of_fold = connection.clone();
    let fold = tokio::spawn(async move { table::fold(&of_fold, request, BTreeMap::new(), keep).await });
    let hidden = tokio::time::timeout(PATIENCE, told.wait_for(|progress| !progress.hidden.is_empty()));
    let progress = hidden.await.unwrap().unwrap().clone();
    assert_eq!((progress.hidden[0].partition, progress.hidden[0].position, progress.hidden[0].end), (0, 3, 7));
    assert_eq!(progress.records, 2);
    assert!(!fold.is_finished(), "a committed record behind the open transaction is not seen yet");

    open.commit();
    let folded = tokio::time::timeout(PATIENCE, fold).await.unwrap().unwrap().unwrap();
    assert_eq!(folded.state[&0], ["0", "1", "open", "2", "3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fold_goes_on_from_where_an_earlier_one_ended() {
    let connection = connection();
    let topic = topic(&connection, "t", 1).await;
    publish(&connection, records(&topic, 0, 0..3)).await;
    let first = read(&connection, &topic, 1).await;
    publish(&connection, records(&topic, 0, 3..5)).await;
    let request = FoldRequest::tail(topic.as_str(), &first.next_offsets);
    let tail = table::fold(&connection, request, BTreeMap::new(), keep).await.unwrap();
    assert_eq!(tail.state[&0], ["3", "4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_behind_the_end_tells_of_a_recreated_topic() {
    let connection = connection();
    let topic = topic(&connection, "t", 1).await;
    let request = FoldRequest::tail(topic.as_str(), &BTreeMap::from([(0, 7)]));
    let error = table::fold(&connection, request, BTreeMap::new(), keep).await.unwrap_err();
    assert!(matches!(&error, TableError::OtherLog(other) if other.end == 0), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_whose_schema_is_not_told_is_named() {
    let connection = connection();
    let topic = topic(&connection, "t", 1).await;
    publish(&connection, records(&topic, 0, 0..3)).await;
    let request = FoldRequest::whole(topic.as_str(), [0]);
    let refuse = |_: &mut (), record: windfall_runtime::kafka::Record| match record.offset {
        1 => Err(RegistryError::NotRegistered { subject: "s".to_owned() }),
        _ => Ok(()),
    };
    let error = table::fold(&connection, request, (), refuse).await.unwrap_err();
    assert!(matches!(error, TableError::Schema { partition: 0, offset: 1, .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_record_is_found_behind_aborted_ones() {
    let connection = connection();
    let topic = topic(&connection, "t", 2).await;
    publish(&connection, records(&topic, 0, 0..3)).await;
    for _ in 0..20 {
        OpenTransaction::begin(&connection, &connection.prefixed("other"), &topic, 0).abort();
    }
    let newest = table::newest(&connection, &topic, 0..2).await.unwrap();
    assert_eq!(newest.iter().map(text).collect::<Vec<_>>(), ["2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_whose_newest_key_has_another_schema_id_is_refused() {
    let connection = connection();
    let topic = topic(&connection, "t", 1).await;
    let keyed = |id: u8| Outgoing::new(topic.as_str(), vec![0, 0, 0, 0, id, b'k'], "v").to_partition(0);
    table::check_key_schema(&connection, &topic, [0], 7).await.unwrap();
    publish(&connection, vec![keyed(9), keyed(7)]).await;
    table::check_key_schema(&connection, &topic, [0], 7).await.unwrap();
    let error = table::check_key_schema(&connection, &topic, [0], 9).await.unwrap_err();
    assert!(matches!(error, TableError::KeySchema { found: Some(7), ours: 9, .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_visible_record_is_found_in_front_of_an_open_transaction() {
    let connection = connection();
    let topic = topic(&connection, "t", 1).await;
    publish(&connection, records(&topic, 0, 0..2)).await;
    let open = OpenTransaction::begin(&connection, &connection.prefixed("other"), &topic, 0);
    // More than one look back, so that it begins behind the last stable offset.
    publish(&connection, records(&topic, 0, 2..40)).await;
    let newest = tokio::time::timeout(PATIENCE, table::newest(&connection, &topic, [0])).await.unwrap().unwrap();
    assert_eq!(newest.iter().map(|record| record.offset).collect::<Vec<_>>(), [1]);
    open.abort();
}
