//! Membership of groups, against a real broker.

use std::collections::{BTreeMap, BTreeSet};

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use windfall_runtime::diagnose::Diagnose as _;
use windfall_runtime::kafka::consumer::{Batch, BatchLimits, ConsumerError, Event, Start};
use windfall_runtime::kafka::publisher::{Publisher, Transaction};
use windfall_runtime::kafka::{Connection, Membership, Record};
use windfall_schemas::topic::Cleanup;

use crate::kafka_support::*;

async fn filled(connection: &Connection, partitions: i32, each: usize) -> String {
    let topic = topic(connection, "t", partitions).await;
    let mut publisher = Publisher::start(connection, &connection.prefixed("p")).await.unwrap();
    let derived = (0..partitions).flat_map(|partition| records(&topic, partition, 0..each)).collect();
    publisher.commit(Transaction { derived, ..Transaction::default() }).await.unwrap();
    topic
}

/// Waits until the thread has paused what it reads, since nobody takes anything.
async fn paused(paused: &mut tokio::sync::watch::Receiver<bool>) {
    let paused = paused.wait_for(|paused| *paused);
    tokio::time::timeout(PATIENCE, paused).await.expect("it pauses").unwrap();
}

/// Asserts that each partition's records are there from `from` on, without a gap and without a repetition.
fn assert_whole(records: &[Record], partitions: i32, from: i64, each: i64) {
    for partition in 0..partitions {
        let offsets: Vec<i64> =
            records.iter().filter(|record| record.partition == partition).map(|record| record.offset).collect();
        assert_eq!(offsets, (from..each).collect::<Vec<_>>(), "partition {partition}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_without_offsets_begins_at_the_beginning_and_its_position_passes_the_marker() {
    let connection = connection();
    let topic = filled(&connection, 3, 10).await;
    let mut consumer = member(&connection, &topic, Membership::Dynamic, 7);
    let assignment = assigned(&mut consumer).await;
    assert_eq!(assignment.partitions.len(), 3);
    let epoch = start_committed(&consumer, &assignment).await;
    let (mut taken, mut ended) = (Vec::new(), BTreeSet::new());
    while taken.len() < 30 || ended.len() < 3 {
        let batch = batch(&mut consumer).await;
        assert_eq!(batch.epoch, epoch);
        assert!(batch.records.len() <= 7);
        taken.extend(batch.records);
        ended.extend(
            batch.reached.iter().filter(|reached| reached.next_offset == 11).map(|reached| reached.partition.clone()),
        );
    }
    assert_whole(&taken, 3, 0, 10);
    assert!(consumer.group().position().unwrap().values().all(|position| *position == 11));
    consumer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_behind_the_last_record_reaches_the_end_without_one() {
    let connection = connection();
    let topic = topic(&connection, "t", 3).await;
    let mut publisher = Publisher::start(&connection, &connection.prefixed("p")).await.unwrap();
    let derived = (0..2).flat_map(|partition| records(&topic, partition, 0..10)).collect();
    publisher.commit(Transaction { derived, ..Transaction::default() }).await.unwrap();
    let mut consumer = member(&connection, &topic, Membership::Dynamic, 10);
    let assignment = assigned(&mut consumer).await;
    // In front of the marker, behind it, and in a partition that holds nothing.
    let starts = [(at(&topic, 0), Start::At(10)), (at(&topic, 1), Start::At(11)), (at(&topic, 2), Start::At(0))];
    consumer.group().start_at(&assignment, starts.into()).await.unwrap();
    let mut ends = BTreeMap::new();
    while ends != BTreeMap::from([(0, 11), (1, 11), (2, 0)]) {
        let Batch { records, reached, .. } = batch(&mut consumer).await;
        assert!(records.is_empty(), "{records:?}");
        ends.extend(reached.into_iter().map(|reached| (reached.partition.partition, reached.next_offset)));
    }
    consumer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_flows_before_the_start_is_set() {
    let connection = connection();
    let topic = filled(&connection, 1, 10).await;
    let mut consumer = member(&connection, &topic, Membership::Dynamic, 100);
    let assignment = assigned(&mut consumer).await;
    let early = tokio::time::timeout(std::time::Duration::from_millis(700), consumer.next()).await;
    assert!(early.is_err(), "{early:?}");
    consumer.group().start_at(&assignment, [(at(&topic, 0), Start::At(6))].into()).await.unwrap();
    assert_whole(&take(&mut consumer, 4).await, 1, 6, 10);
    consumer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_set_at_once_after_the_assignment_holds() {
    let connection = connection();
    let topic = filled(&connection, 2, 50).await;
    for round in 0..5 {
        let mut consumer = member(&connection, &topic, Membership::Dynamic, 10);
        let assignment = assigned(&mut consumer).await;
        let starts = (0..2).map(|partition| (at(&topic, partition), Start::At(30))).collect();
        consumer.group().start_at(&assignment, starts).await.unwrap();
        assert_whole(&take(&mut consumer, 40).await, 2, 30, 50);
        // A late answer to the assignment's own offset would take the reader back half a second later.
        let late = tokio::time::timeout(std::time::Duration::from_millis(800), take(&mut consumer, 1)).await;
        assert!(late.is_err(), "round {round}: {late:?}");
        consumer.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_whose_first_records_are_gone_is_read_from_what_is_left() {
    let connection = connection();
    // A broker deletes records of such topics alone; a compacted one always begins at 0.
    let topic = topic_with(&connection, "t", 1, Cleanup::Deleted { retention_ms: 3_600_000 }).await;
    let mut publisher = Publisher::start(&connection, &connection.prefixed("p")).await.unwrap();
    publisher.commit(Transaction { derived: records(&topic, 0, 0..20), ..Transaction::default() }).await.unwrap();
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", windfall_services::kafka()).create().unwrap();
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(&topic, 0, Offset::Offset(8)).unwrap();
    let deleted = admin.delete_records(&before, &AdminOptions::new()).await.unwrap();
    assert!(deleted.elements().iter().all(|element| element.error().is_ok()), "{deleted:?}");
    let mut consumer = member(&connection, &topic, Membership::Dynamic, 10);
    let assignment = assigned(&mut consumer).await;
    start_committed(&consumer, &assignment).await;
    assert_whole(&take(&mut consumer, 12).await, 1, 8, 20);
    consumer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn going_back_drops_what_was_queued_and_repeats_nothing_else() {
    let connection = connection();
    let topic = filled(&connection, 2, 400).await;
    let mut consumer = member(&connection, &topic, Membership::Dynamic, 20);
    let assignment = assigned(&mut consumer).await;
    let mut epoch = start_committed(&consumer, &assignment).await;
    for from in [5, 150, 0, 33, 390] {
        take(&mut consumer, 40).await;
        let starts = (0..2).map(|partition| (at(&topic, partition), Start::At(from))).collect();
        let later = consumer.group().start_at(&assignment, starts).await.unwrap();
        assert!(later > epoch);
        epoch = later;
        let wanted = usize::try_from(2 * (400 - from)).unwrap();
        let taken = take(&mut consumer, wanted).await;
        assert_whole(&taken, 2, from, 400);
        let starts = (0..2).map(|partition| (at(&topic, partition), Start::Beginning)).collect();
        consumer.group().start_at(&assignment, starts).await.unwrap();
    }
    consumer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_in_the_making_does_not_outlive_its_epoch() {
    let connection = connection();
    let topic = filled(&connection, 1, 50).await;
    let limits = BatchLimits { linger: std::time::Duration::from_secs(3), ..BatchLimits::default() };
    let mut consumer = member_with(&connection, &topic, Membership::Dynamic, limits);
    let assignment = assigned(&mut consumer).await;
    let group = consumer.group();
    let starts = || [(at(&topic, 0), Start::Beginning)].into();
    group.start_at(&assignment, starts()).await.unwrap();
    let all_read = async {
        while group.position().unwrap().get(&at(&topic, 0)) != Some(&51) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, all_read).await.unwrap();
    group.start_at(&assignment, starts()).await.unwrap();
    assert_whole(&take(&mut consumer, 50).await, 1, 0, 50);
    consumer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_that_takes_nothing_is_waited_for_and_misses_nothing() {
    let connection = connection();
    let topic = filled(&connection, 2, 3_000).await;
    let mut consumer = member(&connection, &topic, Membership::Dynamic, 50);
    let assignment = assigned(&mut consumer).await;
    start_committed(&consumer, &assignment).await;
    let mut is_paused = consumer.group().paused();
    let mut taken = take(&mut consumer, 100).await;
    paused(&mut is_paused).await;
    let read = consumer.group().position().unwrap();
    assert!(read.values().sum::<i64>() < 1_000, "{read:?} were read ahead of the loop");
    // The broker answers often meanwhile, and the thread goes on polling.
    for _ in 0..50 {
        consumer.group().committed(&assignment.partitions).await.unwrap();
    }
    assert_eq!(consumer.group().position().unwrap(), read, "nothing is read while it is paused");
    taken.extend(take(&mut consumer, 5_900).await);
    assert_whole(&taken, 2, 0, 3_000);
    consumer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_was_given_up_stays_silent_while_the_other_goes_on() {
    let connection = connection();
    let topic = filled(&connection, 2, 50).await;
    let mut consumer = member(&connection, &topic, Membership::Dynamic, 10);
    let assignment = assigned(&mut consumer).await;
    let group = consumer.group();
    let starts = (0..2).map(|partition| (at(&topic, partition), Start::Beginning)).collect();
    group.start_at(&assignment, starts).await.unwrap();
    take(&mut consumer, 100).await;
    group.give_up(&[at(&topic, 0)]).unwrap();
    let mut publisher = Publisher::start(&connection, &connection.prefixed("p")).await.unwrap();
    let both = |numbers: std::ops::Range<usize>| Transaction {
        derived: (0..2).flat_map(|partition| records(&topic, partition, numbers.clone())).collect(),
        ..Transaction::default()
    };
    publisher.commit(both(50..550)).await.unwrap();
    // The thread pauses and resumes what it reads, which must not bring the partition back.
    paused(&mut group.paused()).await;
    let mut taken = take(&mut consumer, 500).await;
    // Whatever of the other partition waits in the broker would come before or with these.
    publisher.commit(both(550..600)).await.unwrap();
    taken.extend(take(&mut consumer, 50).await);
    let stray = taken.iter().find(|record| record.partition != 1);
    assert!(stray.is_none(), "{stray:?}");
    assert_eq!(taken.len(), 550);
    consumer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_members_share_partitions_and_one_takes_over_what_the_other_leaves() {
    let connection = connection();
    let topic = filled(&connection, 4, 20).await;
    let mut first = member(&connection, &topic, Membership::Dynamic, 100);
    let all = assigned(&mut first).await;
    assert_eq!(all.partitions.len(), 4);
    let epoch = start_committed(&first, &all).await;
    take(&mut first, 80).await;
    let done: Vec<_> = (0..4).map(|partition| (at(&topic, partition), 20)).collect();
    first.group().commit(epoch, &done).await.unwrap();

    let mut second = member(&connection, &topic, Membership::Dynamic, 100);
    let (mine, theirs) = tokio::join!(assigned(&mut first), assigned(&mut second));
    assert_eq!((mine.partitions.len(), theirs.partitions.len()), (2, 2));
    assert!(!first.group().current(epoch), "the epoch ended with the assignment");
    assert!(matches!(first.group().commit(epoch, &done).await, Err(ConsumerError::Reassigned { .. })));
    let early = first.group().start_at(&all, [(at(&topic, 0), Start::Beginning)].into()).await;
    assert!(matches!(early, Err(ConsumerError::Reassigned { .. })), "{early:?}");

    start_committed(&second, &theirs).await;
    second.close().await;
    let again = assigned(&mut first).await;
    assert_eq!(again.partitions.len(), 4);
    start_committed(&first, &again).await;
    let mut publisher = Publisher::start(&connection, &connection.prefixed("p")).await.unwrap();
    let derived = (0..4).flat_map(|partition| records(&topic, partition, 20..25)).collect();
    publisher.commit(Transaction { derived, ..Transaction::default() }).await.unwrap();
    assert_eq!(take(&mut first, 20).await.len(), 20, "what was committed is not read again");
    first.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_group_waits_for_the_answer_to_a_revocation() {
    let connection = connection();
    let topic = filled(&connection, 2, 5).await;
    let mut first = member(&connection, &topic, Membership::Dynamic, 100);
    let assignment = assigned(&mut first).await;
    start_committed(&first, &assignment).await;
    let mut second = member(&connection, &topic, Membership::Dynamic, 100);
    let revoked = loop {
        match next(&mut first).await {
            Event::Revoked(revoked) => break revoked,
            Event::Batch(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(!revoked.lost);
    assert_eq!(revoked.partitions.len(), 2);
    let early = tokio::time::timeout(std::time::Duration::from_millis(1_500), second.next()).await;
    assert!(early.is_err(), "the other got partitions before the answer: {early:?}");
    drop(revoked);
    assert_eq!(assigned(&mut second).await.partitions.len(), 1);
    second.close().await;
    first.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_of_the_same_instance_fences_the_first() {
    let connection = connection();
    let topic = filled(&connection, 1, 1).await;
    let membership = || Membership::Static { instance: "host-a".to_owned() };
    let mut first = member(&connection, &topic, membership(), 100);
    assigned(&mut first).await;
    let mut second = member(&connection, &topic, membership(), 100);
    assigned(&mut second).await;
    let error = loop {
        match next(&mut first).await {
            Event::Failed(error) => break error,
            Event::Revoked(revoked) => revoked.ack(),
            Event::Assigned(_) | Event::Batch(_) => {}
        }
    };
    assert!(matches!(error, ConsumerError::Fenced { .. }), "{error:?}");
    assert!(error.help().unwrap().contains("instance"));
    second.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_member_that_comes_back_gets_its_partitions_without_a_rebalance() {
    let connection = connection();
    let topic = filled(&connection, 2, 1).await;
    let membership = |instance: &str| Membership::Static { instance: instance.to_owned() };
    let mut other = member(&connection, &topic, membership("host-b"), 100);
    assigned(&mut other).await;
    let mut first = member(&connection, &topic, membership("host-a"), 100);
    let (ours, theirs) = tokio::join!(assigned(&mut first), assigned(&mut other));
    assert_eq!((ours.partitions.len(), theirs.partitions.len()), (1, 1));
    first.close().await;
    let mut again = member(&connection, &topic, membership("host-a"), 100);
    assert_eq!(assigned(&mut again).await.partitions, ours.partitions);
    start_committed(&other, &theirs).await;
    assert_eq!(take(&mut other, 1).await.len(), 1, "the other member was not disturbed");
    tokio::join!(again.close(), other.close());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_that_is_not_there_any_more_is_an_error_not_a_jump() {
    let connection = connection();
    let topic = filled(&connection, 1, 3).await;
    let mut consumer = member(&connection, &topic, Membership::Dynamic, 100);
    let assignment = assigned(&mut consumer).await;
    consumer.group().start_at(&assignment, [(at(&topic, 0), Start::At(1_000))].into()).await.unwrap();
    let error = loop {
        match next(&mut consumer).await {
            Event::Failed(error) => break error,
            Event::Batch(batch) => assert_eq!(batch.records, []),
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(error, ConsumerError::OutOfRange { .. }), "{error:?}");
}
