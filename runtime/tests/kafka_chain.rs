//! Consume, copy, produce and commit in one transaction, while members come and go: every record once, in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use windfall_runtime::kafka::consumer::{Assignment, Batch, ConsumerError, Event, GroupConsumer, Start};
use windfall_runtime::kafka::publisher::{Input, PublishError, Publisher, Transaction};
use windfall_runtime::kafka::{Connection, Membership, Outgoing};

use crate::kafka_support::*;

const PARTITIONS: i32 = 4;
const EACH: usize = 600;

/// A stage in small: copies its input, record by record, into the same partition of its output.
struct Copier {
    connection: Connection,
    output: String,
    transactional_id: String,
    consumer: GroupConsumer,
    copied: Arc<AtomicUsize>,
    assignment: Option<Assignment>,
    publisher: Option<Publisher>,
}

impl Copier {
    async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        loop {
            let event = tokio::select! {
                event = self.consumer.next() => event,
                _ = &mut stop => break,
            };
            match event {
                Event::Assigned(assignment) => {
                    self.assignment = Some(assignment);
                    self.take_over().await;
                }
                Event::Revoked(revoked) => {
                    self.publisher = None;
                    self.assignment = None;
                    revoked.ack();
                }
                Event::Batch(batch) => self.copy(batch).await,
                Event::Failed(error) => panic!("{error:?}"),
            }
        }
        self.publisher = None;
        self.consumer.close().await;
    }

    /// Fences, reads the committed offsets, begins there.
    async fn take_over(&mut self) {
        let Some(assignment) = self.assignment.clone() else { return };
        self.publisher = Some(Publisher::start(&self.connection, &self.transactional_id).await.unwrap());
        let group = self.consumer.group();
        let committed = group.committed(&assignment.partitions).await.unwrap();
        let starts = committed.into_iter().map(|(at, offset)| (at, Start::from(offset))).collect();
        match group.start_at(&assignment, starts).await {
            Ok(_) | Err(ConsumerError::Reassigned { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
    }

    async fn copy(&mut self, batch: Batch) {
        let Some(publisher) = &mut self.publisher else { return };
        if batch.records.is_empty() {
            return;
        }
        let derived = batch.records.iter().map(|record| {
            let (key, value) = (record.key.clone().unwrap(), record.value.clone().unwrap());
            Outgoing::new(self.output.as_str(), key, value).to_partition(record.partition)
        });
        let input = Input { group: self.consumer.group(), epoch: batch.epoch, next_offsets: batch.next_offsets() };
        let transaction = Transaction { derived: derived.collect(), input: Some(input), ..Transaction::default() };
        match publisher.commit(transaction).await {
            Ok(committed) => {
                self.copied.fetch_add(committed.derived.len(), Ordering::SeqCst);
            }
            Err(PublishError::Reassigned(_)) => {}
            Err(_) => self.take_over().await,
        }
    }
}

struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    fn start(connection: &Connection, input: &str, name: &str, copied: &Arc<AtomicUsize>) -> Self {
        let (stop, stopped) = oneshot::channel();
        let copier = Copier {
            connection: connection.clone(),
            output: connection.prefixed("out"),
            transactional_id: connection.prefixed(name),
            consumer: member(connection, input, Membership::Dynamic, 40),
            copied: Arc::clone(copied),
            assignment: None,
            publisher: None,
        };
        Self { stop, task: tokio::spawn(copier.run(stopped)) }
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap();
    }
}

async fn until(copied: &AtomicUsize, wanted: usize) {
    let reached = async {
        while copied.load(Ordering::SeqCst) < wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let all = copied.load(Ordering::SeqCst);
    tokio::time::timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("stuck at {all}, wanted {wanted}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_is_copied_once_and_in_order_while_members_come_and_go() {
    let connection = connection();
    let input = topic(&connection, "in", PARTITIONS).await;
    let output = topic(&connection, "out", PARTITIONS).await;
    let mut publisher = Publisher::start(&connection, &connection.prefixed("filler")).await.unwrap();
    let derived = (0..PARTITIONS).flat_map(|partition| records(&input, partition, 0..EACH)).collect();
    publisher.commit(Transaction { derived, ..Transaction::default() }).await.unwrap();

    let copied = Arc::new(AtomicUsize::new(0));
    let start = |name| Running::start(&connection, &input, name, &copied);
    let first = start("first");
    until(&copied, 200).await;
    let second = start("second");
    until(&copied, 600).await;
    first.stop().await;
    until(&copied, 900).await;
    let third = start("third");
    until(&copied, 1_300).await;
    // A zombie: nobody acknowledges, commits or leaves for it any more.
    second.task.abort();
    until(&copied, usize::try_from(PARTITIONS).unwrap() * EACH).await;
    third.stop().await;

    let expected: Vec<String> = (0..EACH).map(|number| number.to_string()).collect();
    let read = read(&connection, &output, PARTITIONS).await.state;
    assert_eq!(read, (0..PARTITIONS).map(|partition| (partition, expected.clone())).collect::<BTreeMap<_, _>>());
}
