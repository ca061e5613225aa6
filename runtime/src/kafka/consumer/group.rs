//! The run loop's handle on its membership: offsets, positions, seeks.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::watch;

use super::error::ConsumerError;
use super::mailbox::{Assignment, Live, Mailbox, Turn};
use super::polling::GroupContext;
use crate::kafka::client::{ASK_TIMEOUT, first_offset, number};
use crate::kafka::groups::CommittedOffset;
use crate::kafka::record::TopicPartition;

/// A poll ends within milliseconds; one that serves a rebalance asks brokers and waits for the loop's answer, and ends the assignment.
const TURN_TIMEOUT: Duration = Duration::from_secs(20);
/// Partitions that were assigned a moment ago refuse to be sought (`_STATE`) until their fetcher has started.
const SEEK_PAUSE: Duration = Duration::from_millis(10);

/// Where reading of a partition begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the first record that the topic still holds.
    Beginning,
    /// At this offset, which is the next to be read.
    At(i64),
}

impl Start {
    /// Returns the offset, or zero for the beginning.
    pub fn number(self) -> i64 {
        match self {
            Self::Beginning => 0,
            Self::At(offset) => offset,
        }
    }
}

impl From<Option<&CommittedOffset>> for Start {
    /// A committed offset, or the beginning where none was ever committed.
    fn from(committed: Option<&CommittedOffset>) -> Self {
        match committed.map_or(0, |committed| committed.position.next_offset) {
            0 => Self::Beginning,
            next_offset => Self::At(next_offset),
        }
    }
}

/// A handle on a membership; cheap to clone, of no use once the consumer is gone.
#[derive(Debug, Clone)]
pub struct Group {
    name: Arc<str>,
    consumer: Weak<BaseConsumer<GroupContext>>,
    mailbox: Arc<Mailbox>,
}

impl Group {
    pub(super) fn new(name: &str, consumer: Weak<BaseConsumer<GroupContext>>, mailbox: Arc<Mailbox>) -> Self {
        Self { name: name.into(), consumer, mailbox }
    }

    /// Returns the group's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads the committed offsets of `partitions` as of now, waiting for transactions that are about to change them.
    ///
    /// # Errors
    /// [`ConsumerError::Ask`] when no broker answers.
    pub async fn committed(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, Option<CommittedOffset>>, ConsumerError> {
        let list = partition_list(partitions.iter().map(|partition| (partition, Offset::Invalid)));
        let found = self
            .blocking(move |consumer| consumer.committed_offsets(list, ASK_TIMEOUT))
            .await?
            .map_err(|source| self.ask("committed offsets", source))?;
        CommittedOffset::of(&found).map_err(|source| self.ask("committed offsets", source))
    }

    /// Begins to deliver: pauses everything, seeks, and resumes the partitions named; the others stay paused.
    ///
    /// Called after each assignment, and again to go back (the list must then name every partition that is to go on). Returns the epoch of
    /// the batches that follow; those of earlier epochs are gone, also the ones already queued.
    ///
    /// # Errors
    /// [`ConsumerError::Reassigned`] when the assignment is no longer the present one: another event is waiting.
    pub async fn start_at(
        &self,
        assignment: &Assignment,
        starts: BTreeMap<TopicPartition, Start>,
    ) -> Result<u64, ConsumerError> {
        let (this, assignment) = (self.clone(), assignment.clone());
        self.blocking(move |consumer| this.start_blocking(consumer, &assignment, &starts)).await?
    }

    fn start_blocking(
        &self,
        consumer: &BaseConsumer<GroupContext>,
        assignment: &Assignment,
        starts: &BTreeMap<TopicPartition, Start>,
    ) -> Result<u64, ConsumerError> {
        let _flow = self.mailbox.flow();
        if !self.mailbox.shut(assignment.id) {
            return Err(self.reassigned());
        }
        let all = partition_list(assignment.partitions.iter().map(|partition| (partition, Offset::Invalid)));
        consumer.pause(&all).map_err(|source| self.ask("partitions", source))?;
        let offsets = self.offsets_of(consumer, assignment, starts)?;
        self.seek(consumer, assignment, offsets.clone())?;
        // A poll that began before the seek may hold a record of before; only when it has ended may anything be believed.
        match self.mailbox.await_turn(assignment.id, Instant::now() + TURN_TIMEOUT) {
            Turn::Taken => {}
            Turn::Gone => return Err(self.reassigned()),
            // No other event is on its way: who is told of one would wait for ever.
            Turn::Late => return Err(self.not_set("a poll has not ended in time".to_owned())),
        }
        let mut live = Live::new();
        for (partition, start) in offsets {
            live.entry(partition.topic).or_default().insert(partition.partition, start);
        }
        let epoch = self.mailbox.open(assignment.id, live).ok_or_else(|| self.reassigned())?;
        let listed = partition_list(starts.keys().map(|partition| (partition, Offset::Invalid)));
        consumer.resume(&listed).map_err(|source| self.ask("partitions", source))?;
        Ok(epoch)
    }

    fn seek(
        &self,
        consumer: &BaseConsumer<GroupContext>,
        assignment: &Assignment,
        mut left: Vec<(TopicPartition, i64)>,
    ) -> Result<(), ConsumerError> {
        let deadline = Instant::now() + ASK_TIMEOUT;
        while !left.is_empty() {
            let list = partition_list(left.iter().map(|(partition, offset)| (partition, Offset::Offset(*offset))));
            let answer = consumer.seek_partitions(list, ASK_TIMEOUT).map_err(|source| self.ask("positions", source))?;
            let mut reason = String::new();
            left.retain(|(at, _)| match answer.find_partition(&at.topic, at.partition).map(|found| found.error()) {
                Some(Ok(())) => false,
                Some(Err(error)) => {
                    reason = format!("{at}: {error}");
                    true
                }
                None => true,
            });
            if left.is_empty() {
                break;
            }
            if !self.mailbox.current_assignment(assignment.id) {
                return Err(self.reassigned());
            }
            if Instant::now() >= deadline {
                return Err(self.not_set(reason));
            }
            thread::sleep(SEEK_PAUSE);
        }
        Ok(())
    }

    /// Makes each start a number: a seek to a logical offset asks a broker, and its late answer may undo a later seek.
    fn offsets_of(
        &self,
        consumer: &BaseConsumer<GroupContext>,
        assignment: &Assignment,
        starts: &BTreeMap<TopicPartition, Start>,
    ) -> Result<Vec<(TopicPartition, i64)>, ConsumerError> {
        let deadline = Instant::now() + ASK_TIMEOUT;
        let gone = || self.mailbox.stopped() || !self.mailbox.current_assignment(assignment.id);
        let number = |(at, start): (&TopicPartition, &Start)| {
            let offset = match start {
                Start::At(offset) => *offset,
                Start::Beginning => first_offset(consumer, at, deadline, gone)
                    .map_err(|source| if gone() { self.reassigned() } else { self.ask("first offsets", source) })?,
            };
            Ok((at.clone(), offset))
        };
        starts.iter().map(number).collect()
    }

    /// Stops reading partitions until the next assignment; batches that are queued may still hold records of them.
    ///
    /// # Errors
    /// [`ConsumerError::Ask`] when the client refuses.
    pub fn give_up(&self, partitions: &[TopicPartition]) -> Result<(), ConsumerError> {
        self.mailbox.give_up(partitions);
        let consumer = self.consumer.upgrade().ok_or_else(|| self.reassigned())?;
        let list = partition_list(partitions.iter().map(|partition| (partition, Offset::Invalid)));
        consumer.pause(&list).map_err(|source| self.ask("partitions", source))
    }

    /// Returns the position of each assigned partition that has one: the offset that would be delivered next.
    ///
    /// # Errors
    /// [`ConsumerError::Reassigned`] when the consumer is gone.
    pub fn position(&self) -> Result<BTreeMap<TopicPartition, i64>, ConsumerError> {
        let consumer = self.consumer.upgrade().ok_or_else(|| self.reassigned())?;
        let list = consumer.position().map_err(|source| self.ask("positions", source))?;
        let known = |element: &TopicPartitionListElem<'_>| {
            Some((TopicPartition::new(element.topic(), element.partition()), number(element.offset())?))
        };
        Ok(list.elements().iter().filter_map(known).collect())
    }

    /// Commits offsets outside of any transaction, for display; a sink's truth is its own position row.
    ///
    /// # Errors
    /// [`ConsumerError::Ask`] when the coordinator refuses or does not answer.
    pub async fn commit(&self, epoch: u64, offsets: &[(TopicPartition, i64)]) -> Result<(), ConsumerError> {
        if !self.mailbox.current(epoch) {
            return Err(self.reassigned());
        }
        let list = partition_list(offsets.iter().map(|(partition, offset)| (partition, Offset::Offset(*offset))));
        self.blocking(move |consumer| consumer.commit(&list, rdkafka::consumer::CommitMode::Sync))
            .await?
            .map_err(|source| self.ask("offsets", source))
    }

    /// Shows whether the partitions are paused until the loop has taken a batch.
    #[must_use]
    pub fn paused(&self) -> watch::Receiver<bool> {
        self.mailbox.watch_paused()
    }

    /// Returns whether records of `epoch` may still be committed.
    pub fn current(&self, epoch: u64) -> bool {
        self.mailbox.current(epoch)
    }

    /// Returns whether this process did not poll for half a session time-out at some time since `moment`, because it was paused.
    ///
    /// The coordinator may have expelled it meanwhile, and only a commit that carries the membership tells.
    pub fn paused_since(&self, moment: Instant) -> bool {
        self.mailbox.paused_since(moment)
    }

    /// Returns whether the assignment is still the present one; if not, an event tells more.
    pub fn stands(&self, assignment: &Assignment) -> bool {
        self.mailbox.current_assignment(assignment.id)
    }

    /// Ends when records of `epoch` may no longer be committed.
    pub async fn over(&self, epoch: u64) {
        self.mailbox.over(epoch).await;
    }

    /// Fetches the membership as of now, for a transaction over records of `epoch`.
    ///
    /// The binding shows no generation, so a membership that may be void is told by other signs: the assignment of the epoch
    /// must stand, before and after the fetch, and must not be lost. (A coordinator skips its check only when generation *and* member id
    /// are empty, which is the state of a member that has left.)
    pub(crate) fn metadata(&self, epoch: u64) -> Result<ConsumerGroupMetadata, ConsumerError> {
        let consumer = self.consumer.upgrade().ok_or_else(|| self.reassigned())?;
        if !self.mailbox.current(epoch) {
            return Err(self.reassigned());
        }
        let metadata = consumer.group_metadata().ok_or_else(|| self.reassigned())?;
        if consumer.assignment_lost() || !self.mailbox.current(epoch) {
            return Err(self.reassigned());
        }
        Ok(metadata)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&BaseConsumer<GroupContext>) -> T + Send + 'static,
    ) -> Result<T, ConsumerError> {
        let consumer = self.consumer.upgrade().ok_or_else(|| self.reassigned())?;
        tokio::task::spawn_blocking(move || work(&consumer)).await.map_err(|_| self.reassigned())
    }

    fn not_set(&self, reason: String) -> ConsumerError {
        ConsumerError::Seek { group: self.name.to_string(), reason }
    }

    fn reassigned(&self) -> ConsumerError {
        ConsumerError::Reassigned { group: self.name.to_string() }
    }

    fn ask(&self, what: &'static str, source: KafkaError) -> ConsumerError {
        ConsumerError::Ask { what, group: self.name.to_string(), source }
    }
}

/// Makes the client's list of partitions.
pub(in crate::kafka) fn partition_list<'a>(
    partitions: impl Iterator<Item = (&'a TopicPartition, Offset)>,
) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in partitions {
        // Fails only for offsets that no caller of ours makes: those counted from the tail by a negative number.
        let _ = list.add_partition_offset(&partition.topic, partition.partition, offset);
    }
    list
}
