//! Transactions of the writer, against a real broker.

use windfall_runtime::kafka::consumer::{ConsumerError, Start};
use windfall_runtime::kafka::groups::CommittedOffset;
use windfall_runtime::kafka::publisher::{Input, PublishError, Publisher, Transaction};
use windfall_runtime::kafka::record::Delivered;
use windfall_runtime::kafka::{Membership, Outgoing};
use windfall_runtime::log_identity::Position;
use windfall_schemas::partition;

use crate::kafka_support::*;

fn offsets(delivered: &[Delivered]) -> Vec<i64> {
    delivered.iter().map(|delivered| delivered.offset).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_stands_in_the_order_of_its_phases() {
    let connection = connection();
    let topic = topic(&connection, "t", 1).await;
    let mut publisher = Publisher::start(&connection, &connection.prefixed("p")).await.unwrap();
    let transaction = Transaction {
        derived: records(&topic, 0, 0..3),
        follow_up: records(&topic, 0, 3..5),
        checkpoint: records(&topic, 0, 5..6),
        input: None,
    };
    let committed = publisher.commit(transaction).await.unwrap();
    assert_eq!(offsets(&committed.derived), [0, 1, 2]);
    assert_eq!(offsets(&committed.follow_up), [3, 4]);
    assert_eq!(offsets(&committed.checkpoint), [5]);
    let read = read(&connection, &topic, 1).await;
    assert_eq!(read.state[&0], ["0", "1", "2", "3", "4", "5"]);
    assert_eq!(read.next_offsets[&0], 7, "the marker takes an offset");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_goes_where_javas_partitioner_puts_it() {
    let connection = connection();
    let topic = topic(&connection, "t", 12).await;
    let mut publisher = Publisher::start(&connection, &connection.prefixed("p")).await.unwrap();
    let keys: Vec<Vec<u8>> = (0..60).map(|number| format!("\0\0\0\0{number}key-{number}").into_bytes()).collect();
    let derived = keys.iter().map(|key| Outgoing::new(topic.as_str(), key.clone(), "v")).collect();
    let committed = publisher.commit(Transaction { derived, ..Transaction::default() }).await.unwrap();
    let expected: Vec<i32> = keys.iter().map(|key| partition::for_key(key, 12)).collect();
    let found: Vec<i32> = committed.derived.iter().map(|delivered| delivered.partition).collect();
    assert_eq!(found, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_writer_fences_the_first_which_is_dead_from_then_on() {
    let connection = connection();
    let topic = topic(&connection, "t", 1).await;
    let id = connection.prefixed("p");
    let mut first = Publisher::start(&connection, &id).await.unwrap();
    let one = |text: &str| Transaction { derived: vec![record(&topic, 0, text)], ..Transaction::default() };
    first.commit(one("first")).await.unwrap();
    let mut second = Publisher::start(&connection, &id).await.unwrap();
    let error = first.commit(one("zombie")).await.unwrap_err();
    assert!(matches!(error, PublishError::Fenced { .. }), "{error:?}");
    assert!(first.is_dead());
    assert!(matches!(first.commit(one("again")).await.unwrap_err(), PublishError::Dead { .. }));
    second.commit(one("second")).await.unwrap();
    assert_eq!(read(&connection, &topic, 1).await.state[&0], ["first", "second"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_was_given_up_does_not_fence_the_next() {
    let connection = connection();
    let topic = topic(&connection, "t", 1).await;
    let id = connection.prefixed("p");
    for round in 0..3 {
        for _ in 0..2 {
            let start = std::pin::pin!(Publisher::start(&connection, &id));
            assert!(futures_util::poll!(start).is_pending());
        }
        let mut publisher = Publisher::start(&connection, &id).await.unwrap();
        for number in 0..3 {
            let derived = vec![record(&topic, 0, &format!("{round}-{number}"))];
            publisher.commit(Transaction { derived, ..Transaction::default() }).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_writer_left_open_is_aborted_by_its_successor() {
    let connection = connection();
    let topic = topic(&connection, "t", 1).await;
    let id = connection.prefixed("p");
    let _open = OpenTransaction::begin(&connection, &id, &topic, 0);
    let mut successor = Publisher::start(&connection, &id).await.unwrap();
    let after = Transaction { derived: vec![record(&topic, 0, "after")], ..Transaction::default() };
    successor.commit(after).await.unwrap();
    assert_eq!(read(&connection, &topic, 1).await.state[&0], ["after"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_too_large_is_refused_before_anything_is_written() {
    let connection = connection();
    let topic = topic(&connection, "t", 1).await;
    let mut publisher = Publisher::start(&connection, &connection.prefixed("p")).await.unwrap();
    let large = Outgoing::new(topic.as_str(), "k", vec![0; 1_100_000]).to_partition(0);
    let derived = vec![record(&topic, 0, "small"), large];
    let error = publisher.commit(Transaction { derived, ..Transaction::default() }).await.unwrap_err();
    assert!(matches!(error, PublishError::TooLarge { index: 1, .. }), "{error:?}");
    assert!(!publisher.is_dead());
    let derived = vec![record(&topic, 0, "next")];
    publisher.commit(Transaction { derived, ..Transaction::default() }).await.unwrap();
    assert_eq!(read(&connection, &topic, 1).await.state[&0], ["next"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_delivery_uses_the_writer_up_and_shows_nothing() {
    let connection = connection();
    let topic = topic(&connection, "t", 1).await;
    let id = connection.prefixed("p");
    let mut publisher = Publisher::start(&connection, &id).await.unwrap();
    let derived = vec![record(&topic, 0, "good"), record(&topic, 99, "nowhere")];
    let error = publisher.commit(Transaction { derived, ..Transaction::default() }).await.unwrap_err();
    assert!(matches!(error, PublishError::Delivery { .. }), "{error:?}");
    assert!(publisher.is_dead());
    let mut rebuilt = Publisher::start(&connection, &id).await.unwrap();
    let derived = vec![record(&topic, 0, "rebuilt")];
    rebuilt.commit(Transaction { derived, ..Transaction::default() }).await.unwrap();
    assert_eq!(read(&connection, &topic, 1).await.state[&0], ["rebuilt"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_nobody_awaited_to_its_end_uses_the_writer_up() {
    let connection = connection();
    let topic = topic(&connection, "t", 1).await;
    let mut publisher = Publisher::start(&connection, &connection.prefixed("p")).await.unwrap();
    let derived = vec![record(&topic, 0, "x")];
    {
        let commit = std::pin::pin!(publisher.commit(Transaction { derived, ..Transaction::default() }));
        assert!(futures_util::poll!(commit).is_pending());
    }
    assert!(publisher.is_dead());
    let derived = vec![record(&topic, 0, "y")];
    let error = publisher.commit(Transaction { derived, ..Transaction::default() }).await.unwrap_err();
    assert!(matches!(error, PublishError::Dead { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_transaction_is_none() {
    let connection = connection();
    let topic = topic(&connection, "t", 1).await;
    let mut publisher = Publisher::start(&connection, &connection.prefixed("p")).await.unwrap();
    publisher.commit(Transaction::default()).await.unwrap();
    assert_eq!(read(&connection, &topic, 1).await.next_offsets[&0], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn input_offsets_move_with_the_output_and_only_in_their_epoch() {
    let connection = connection();
    let (source, output) = (topic(&connection, "in", 1).await, topic(&connection, "out", 1).await);
    let mut publisher = Publisher::start(&connection, &connection.prefixed("p")).await.unwrap();
    let derived = records(&source, 0, 0..4);
    publisher.commit(Transaction { derived, ..Transaction::default() }).await.unwrap();

    let mut consumer = member(&connection, &source, Membership::Dynamic, 100);
    let assignment = assigned(&mut consumer).await;
    let epoch = start_committed(&consumer, &assignment).await;
    assert_eq!(take(&mut consumer, 4).await.len(), 4);
    let group = consumer.group();
    let position = |next_offset| Position { next_offset, log_time: Some(1_700_000_000_000 + next_offset) };
    let program = Some("5eed".to_owned());
    let input = |epoch, next| Input {
        group: group.clone(),
        epoch,
        positions: vec![(at(&source, 0), position(next))],
        program: program.clone(),
    };
    let output_of = |text: &str, input| Transaction {
        derived: vec![record(&output, 0, text)],
        input: Some(input),
        ..Transaction::default()
    };
    publisher.commit(output_of("done", input(epoch, 4))).await.unwrap();
    let committed = group.committed(&assignment.partitions).await.unwrap();
    let beside = CommittedOffset { position: position(4), program: program.clone() };
    assert_eq!(committed[&at(&source, 0)], Some(beside), "what stands beside the offset is committed with it");

    let starts = [(at(&source, 0), Start::At(2))].into();
    let later = group.start_at(&assignment, starts).await.unwrap();
    let error = publisher.commit(output_of("stale", input(epoch, 3))).await.unwrap_err();
    assert!(matches!(error, PublishError::Reassigned(ConsumerError::Reassigned { .. })), "{error:?}");
    assert!(!publisher.is_dead(), "nothing was written, so nothing is in doubt");
    publisher.commit(output_of("later", input(later, 4))).await.unwrap();
    assert_eq!(read(&connection, &output, 1).await.state[&0], ["done", "later"]);
    consumer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_has_left_commits_nothing() {
    let connection = connection();
    let (source, output) = (topic(&connection, "in", 1).await, topic(&connection, "out", 1).await);
    let mut publisher = Publisher::start(&connection, &connection.prefixed("p")).await.unwrap();
    let mut consumer = member(&connection, &source, Membership::Dynamic, 100);
    let assignment = assigned(&mut consumer).await;
    let epoch = start_committed(&consumer, &assignment).await;
    let group = consumer.group();
    consumer.close().await;
    let transaction = Transaction {
        derived: vec![record(&output, 0, "zombie")],
        input: Some(Input { group, epoch, positions: vec![(at(&source, 0), Position::at(1))], program: None }),
        ..Transaction::default()
    };
    let error = publisher.commit(transaction).await.unwrap_err();
    assert!(matches!(error, PublishError::Reassigned(_)), "{error:?}");
    assert_eq!(read(&connection, &output, 1).await.next_offsets[&0], 0);
}
