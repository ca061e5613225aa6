//! Consume, copy, produce and commit in one transaction, while members come and go: every record once, in order.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use windfall_runtime::kafka::consumer::{Assignment, Batch, ConsumerError, Event, GroupConsumer, Start};
use windfall_runtime::kafka::publisher::{Input, PublishError, Publisher, Transaction};
use windfall_runtime::kafka::{Connection, Membership, Outgoing};

use crate::kafka_support::*;

const PARTITIONS: i32 = 4;
/// What the writer of the input is ahead of the slowest, so that every rebalance meets a loop at work.
const AHEAD: usize = 800;
/// Records of each partition that are written at a time.
const CHUNK: usize = 50;

/// A stage in small: copies its input, record by record, into the same partition of its output.
struct Copier {
    connection: Connection,
    output: String,
    transactional_id: String,
    consumer: GroupConsumer,
    /// How many partitions it has.
    has: watch::Sender<usize>,
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
                    let has = assignment.partitions.len();
                    self.assignment = Some(assignment);
                    self.take_over().await;
                    self.has.send_replace(has);
                }
                Event::Revoked(revoked) => {
                    self.has.send_replace(0);
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
        let starts = committed.into_iter().map(|(at, offset)| (at, Start::from(offset.as_ref()))).collect();
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
        let input =
            Input { group: self.consumer.group(), epoch: batch.epoch, positions: batch.positions(), program: None };
        let transaction = Transaction { derived: derived.collect(), input: Some(input), ..Transaction::default() };
        match publisher.commit(transaction).await {
            Ok(_) | Err(PublishError::Reassigned(_)) => {}
            Err(_) => self.take_over().await,
        }
    }
}

struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    has: watch::Receiver<usize>,
}

impl Running {
    fn start(connection: &Connection, input: &str, name: &str) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (has, seen) = watch::channel(0);
        let copier = Copier {
            connection: connection.clone(),
            output: connection.prefixed("out"),
            transactional_id: connection.prefixed(name),
            consumer: member(connection, input, Membership::Dynamic, 40),
            has,
            assignment: None,
            publisher: None,
        };
        Self { stop, task: tokio::spawn(copier.run(stopped)), has: seen }
    }

    /// Waits until it has so many partitions and has begun to read them.
    async fn has(&mut self, partitions: usize) {
        reached(&mut self.has, |has| *has == partitions).await;
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap();
    }
}

async fn reached(seen: &mut watch::Receiver<usize>, enough: impl Fn(&usize) -> bool) -> usize {
    let last = *seen.borrow();
    let waiting = tokio::time::timeout(PATIENCE, seen.wait_for(|now| enough(now)));
    *waiting.await.unwrap_or_else(|_| panic!("stuck, {last} at the beginning")).unwrap()
}

/// Counts what others see of the output: the truth of what was copied, whoever lived to hear of it.
fn count(connection: &Connection, output: &str) -> watch::Receiver<usize> {
    let reader = connection.open_reader().unwrap();
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset(output, partition, Offset::Offset(0)).unwrap();
    }
    reader.assign(&all).unwrap();
    let (counted, seen) = watch::channel(0);
    std::thread::spawn(move || {
        while !counted.is_closed() {
            match reader.poll(Duration::from_millis(50)) {
                Some(Ok(_)) => counted.send_modify(|count| *count += 1),
                None | Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(error)) => panic!("{error:?}"),
            }
        }
    });
    seen
}

/// Writes numbers into every partition, always somewhat ahead of what was copied, until it is told to stop; returns how many each has.
async fn fill(
    connection: Connection,
    input: String,
    mut seen: watch::Receiver<usize>,
    mut stop: oneshot::Receiver<()>,
) -> usize {
    let mut publisher = Publisher::start(&connection, &connection.prefixed("filler")).await.unwrap();
    let (all, mut each) = (usize::try_from(PARTITIONS).unwrap(), 0);
    loop {
        tokio::select! {
            biased;
            _ = &mut stop => return each,
            room = seen.wait_for(|seen| each * all < *seen + AHEAD) => drop(room.unwrap()),
        }
        let derived = (0..PARTITIONS).flat_map(|partition| records(&input, partition, each..each + CHUNK)).collect();
        publisher.commit(Transaction { derived, ..Transaction::default() }).await.unwrap();
        each += CHUNK;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_is_copied_once_and_in_order_while_members_come_and_go() {
    let connection = connection();
    let input = topic(&connection, "in", PARTITIONS).await;
    let output = topic(&connection, "out", PARTITIONS).await;
    let mut seen = count(&connection, &output);
    let (stop, stopped) = oneshot::channel();
    let filling = tokio::spawn(fill(connection.clone(), input.clone(), seen.clone(), stopped));
    let start = |name| Running::start(&connection, &input, name);

    let mut first = start("first");
    first.has(4).await;
    more(&mut seen).await;
    let mut second = start("second");
    second.has(2).await;
    more(&mut seen).await;
    first.stop().await;
    second.has(4).await;
    more(&mut seen).await;
    let mut third = start("third");
    third.has(2).await;
    more(&mut seen).await;
    // A zombie: nobody commits any more or gives up what it has begun, which would hide the output until the broker ends it.
    second.task.abort();
    drop(Publisher::start(&connection, &connection.prefixed("second")).await.unwrap());
    third.has(4).await;
    more(&mut seen).await;
    stop.send(()).unwrap();
    let each = filling.await.unwrap();
    reached(&mut seen, |seen| *seen == each * usize::try_from(PARTITIONS).unwrap()).await;
    third.stop().await;

    let expected: Vec<String> = (0..each).map(|number| number.to_string()).collect();
    let read = read(&connection, &output, PARTITIONS).await.state;
    assert_eq!(read, (0..PARTITIONS).map(|partition| (partition, expected.clone())).collect::<BTreeMap<_, _>>());
}

/// Waits until some more has been copied.
async fn more(seen: &mut watch::Receiver<usize>) {
    let now = *seen.borrow();
    reached(seen, |seen| *seen >= now + 100).await;
}
