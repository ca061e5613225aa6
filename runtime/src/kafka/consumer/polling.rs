//! The thread that polls, and what the client calls back in it.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};
use rdkafka::{Offset, TopicPartitionList};
use tracing::{debug, warn};

use super::GroupOptions;
use super::batch::{Batch, Cutter, Reached};
use super::error::ConsumerError;
use super::group::partition_list;
use super::mailbox::{Live, Mailbox, Revoked};
use crate::kafka::client::{first_offset, log_error};
use crate::kafka::record::{Record, TopicPartition};

/// A poll ends by itself after this long, so that seeks and the end need not wait for a record.
const IDLE_POLL: Duration = Duration::from_millis(50);
/// A full queue is waited for this long before the partitions are paused: a pause throws fetched records away.
const PATIENCE: Duration = Duration::from_millis(200);
/// How often a paused member polls and looks whether there is room again.
const PAUSED_POLL: Duration = Duration::from_millis(5);
/// The loop has this long to answer a revocation; then the group goes on without it, and the broker refuses its commits.
const REVOKE_DEADLINE: Duration = Duration::from_secs(5);
/// First offsets are asked for inside a rebalance, which must not take long; without an answer the member fails, and a new one may do better.
const FIRST_OFFSETS_DEADLINE: Duration = Duration::from_secs(10);
/// The handle's short calls end within this time; then the client is destroyed.
const HANDLE_DEADLINE: Duration = Duration::from_secs(5);

/// Answers the client's callbacks, which run inside a poll.
pub(crate) struct GroupContext {
    group: String,
    mailbox: Arc<Mailbox>,
}

impl GroupContext {
    pub(super) fn new(group: String, mailbox: Arc<Mailbox>) -> Self {
        Self { group, mailbox }
    }

    /// Assigns at the first offset and paused: `auto.offset.reset=error` would fail a group without offsets at once.
    ///
    /// Not at the logical `Beginning`: that asks a broker, and an answer that comes after a seek or a pause makes librdkafka (2.12.1)
    /// ask again half a second later and go to the beginning then, whatever was sought meanwhile. Nor at 0 where that is gone: the client
    /// fetches before it is paused, and a partition that was told "out of range" cannot be sought any more.
    fn assign(&self, consumer: &BaseConsumer<Self>, list: &mut TopicPartitionList) {
        let partitions = partitions_of(list);
        debug!(group = self.group, partitions = partitions.len(), "partitions assigned");
        let fatal = |source| ConsumerError::Fatal { group: self.group.clone(), source };
        let paused = self.set_first_offsets(consumer, list, &partitions).and_then(|()| {
            consumer.assign(list).map_err(fatal)?;
            consumer.pause(list).map_err(fatal)
        });
        match paused {
            Ok(()) => self.mailbox.assigned(partitions),
            Err(error) => self.mailbox.fail(error),
        }
    }

    fn set_first_offsets(
        &self,
        consumer: &BaseConsumer<Self>,
        list: &mut TopicPartitionList,
        partitions: &[TopicPartition],
    ) -> Result<(), ConsumerError> {
        let deadline = Instant::now() + FIRST_OFFSETS_DEADLINE;
        for at in partitions {
            let first = first_offset(consumer, at, deadline, || self.mailbox.stopped());
            let first = first.map_err(|source| asked(&self.group, source))?;
            list.set_partition_offset(&at.topic, at.partition, Offset::Offset(first))
                .map_err(|source| ConsumerError::Fatal { group: self.group.clone(), source })?;
        }
        Ok(())
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let partitions = partitions_of(list);
        debug!(group = self.group, partitions = partitions.len(), "partitions revoked");
        if !self.mailbox.stopped() {
            let (ack, acked) = sync_channel(1);
            self.mailbox.revoked(Revoked { partitions, lost: consumer.assignment_lost(), ack });
            self.await_ack(&acked);
        }
        if let Err(error) = consumer.unassign() {
            warn!(%error, group = self.group, "partitions not unassigned");
        }
    }

    fn await_ack(&self, acked: &std::sync::mpsc::Receiver<()>) {
        let deadline = Instant::now() + REVOKE_DEADLINE;
        while !self.mailbox.stopped() {
            let patience = deadline.saturating_duration_since(Instant::now()).min(IDLE_POLL);
            match acked.recv_timeout(patience) {
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) if Instant::now() >= deadline => {
                    warn!(group = self.group, "revocation not answered in time, the group goes on");
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

impl ClientContext for GroupContext {
    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl ConsumerContext for GroupContext {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, answer: RDKafkaRespErr, list: &mut TopicPartitionList) {
        match answer {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign(consumer, list),
            _ => self.revoke(consumer, list),
        }
    }
}

fn forbidden(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
    )
}

/// What it means that a first offset was not told.
fn asked(group: &str, source: KafkaError) -> ConsumerError {
    let group = group.to_owned();
    if source.rdkafka_error_code().is_some_and(forbidden) {
        return ConsumerError::Refused { group, source };
    }
    ConsumerError::Ask { what: "first offsets", group, source }
}

fn partitions_of(list: &TopicPartitionList) -> Vec<TopicPartition> {
    let mut topics: Vec<Arc<str>> = Vec::new();
    list.elements()
        .iter()
        .map(|element| {
            let known = topics.iter().find(|topic| &***topic == element.topic()).cloned();
            let topic = known.unwrap_or_else(|| {
                topics.push(element.topic().into());
                topics[topics.len() - 1].clone()
            });
            TopicPartition { topic, partition: element.partition() }
        })
        .collect()
}

/// The polling thread: the client, and the batch in the making.
pub(super) struct Polling {
    consumer: Arc<BaseConsumer<GroupContext>>,
    mailbox: Arc<Mailbox>,
    group: String,
    cutter: Cutter,
    revision: u64,
    epoch: u64,
    live: Live,
}

impl Polling {
    pub(super) fn new(consumer: Arc<BaseConsumer<GroupContext>>, mailbox: Arc<Mailbox>, options: GroupOptions) -> Self {
        let GroupOptions { group, topics: _, membership: _, limits } = options;
        Self { consumer, mailbox, group, cutter: Cutter::new(limits), revision: 0, epoch: 0, live: Live::new() }
    }

    /// Polls until it is told to stop or fails for good, then leaves the group.
    pub(super) fn run(mut self) {
        while !self.mailbox.stopped() {
            let patience = self.cutter.open_for(Instant::now()).unwrap_or(IDLE_POLL).min(IDLE_POLL);
            if let Err(error) = self.poll(patience) {
                self.mailbox.fail(error);
                break;
            }
            if self.cutter.open_for(Instant::now()).is_some_and(|open_for| open_for.is_zero()) {
                let batch = self.cutter.cut(self.epoch);
                if let Err(error) = self.hand_over(batch) {
                    self.mailbox.fail(error);
                    break;
                }
            }
        }
        self.retire();
    }

    /// Polls once and keeps what may be read.
    fn poll(&mut self, patience: Duration) -> Result<(), ConsumerError> {
        self.mailbox.take_turn();
        let consumer = Arc::clone(&self.consumer);
        let polled = consumer.poll(patience);
        // Only now: a poll serves rebalances, and a seek may have ended while it waited.
        self.refresh();
        match polled {
            None => Ok(()),
            Some(Ok(message)) => {
                self.keep(&message);
                Ok(())
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                self.reach(partition);
                Ok(())
            }
            Some(Err(error)) => self.judge(error),
        }
    }

    fn refresh(&mut self) {
        if self.mailbox.revision() == self.revision {
            return;
        }
        let view = self.mailbox.view();
        if view.epoch != self.epoch {
            self.cutter.clear();
        }
        (self.revision, self.epoch, self.live) = (view.revision, view.epoch, view.live);
    }

    fn keep(&mut self, message: &BorrowedMessage<'_>) {
        let Some((topic, partitions)) = self.live.get_key_value(message.topic()) else { return };
        if partitions.contains_key(&message.partition()) {
            self.cutter.push(Record::detach(message, Arc::clone(topic)), Instant::now());
        }
    }

    /// The event names no topic, so every live partition of that number tells its position, which is true for each.
    ///
    /// One of which nothing was delivered since the seek has no position: it stands where it was set.
    fn reach(&mut self, partition: i32) {
        let Ok(positions) = self.consumer.position() else { return };
        let reached = self.live.iter().filter_map(|(topic, partitions)| {
            let start = *partitions.get(&partition)?;
            let next_offset = match positions.find_partition(topic, partition).map(|found| found.offset()) {
                Some(Offset::Offset(position)) => position,
                _ => start,
            };
            Some(Reached { partition: TopicPartition { topic: Arc::clone(topic), partition }, next_offset })
        });
        let reached = reached.collect();
        self.cutter.reach(reached, Instant::now());
    }

    fn judge(&self, source: KafkaError) -> Result<(), ConsumerError> {
        let group = self.group.clone();
        let fatal = matches!(source, KafkaError::MessageConsumptionFatal(_));
        match source.rdkafka_error_code() {
            Some(RDKafkaErrorCode::FencedInstanceId) => Err(ConsumerError::Fenced { group }),
            Some(RDKafkaErrorCode::Fatal) if self.fenced() => Err(ConsumerError::Fenced { group }),
            _ if fatal => Err(ConsumerError::Fatal { group, source }),
            Some(RDKafkaErrorCode::Fatal) => Err(ConsumerError::Fatal { group, source }),
            // Offset 0 of the assignment may be gone; where to read is not decided yet.
            Some(RDKafkaErrorCode::AutoOffsetReset) if self.live.is_empty() => Ok(()),
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                Err(ConsumerError::OutOfRange { group, source })
            }
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                Err(ConsumerError::Refused { group, source })
            }
            Some(code) if forbidden(code) => Err(ConsumerError::Refused { group, source }),
            _ => {
                warn!(error = %source, group = self.group, "consumer met an error and goes on");
                Ok(())
            }
        }
    }

    fn fenced(&self) -> bool {
        matches!(self.consumer.client().fatal_error(), Some((RDKafkaErrorCode::FencedInstanceId, _)))
    }

    /// Hands a batch over; while there is no room it keeps its place in the group by polling paused partitions.
    fn hand_over(&mut self, batch: Batch) -> Result<(), ConsumerError> {
        let epoch = batch.epoch;
        let mut waiting = match self.mailbox.offer(batch, PATIENCE) {
            Ok(()) => return Ok(()),
            Err(batch) => batch,
        };
        let paused = self.flow(epoch, BaseConsumer::pause);
        self.mailbox.set_paused(paused);
        loop {
            self.poll(PAUSED_POLL)?;
            if self.mailbox.stopped() || self.mailbox.epoch() != epoch {
                break;
            }
            waiting = match self.mailbox.offer(waiting, PAUSED_POLL) {
                Ok(()) => {
                    if paused {
                        self.flow(epoch, BaseConsumer::resume);
                    }
                    break;
                }
                Err(batch) => batch,
            };
        }
        self.mailbox.set_paused(false);
        Ok(())
    }

    /// Pauses or resumes what is live, unless a new epoch has begun or is about to: it decides for itself what flows.
    fn flow(
        &self,
        epoch: u64,
        change: impl Fn(&BaseConsumer<GroupContext>, &TopicPartitionList) -> KafkaResult<()>,
    ) -> bool {
        let Some(_flow) = self.mailbox.try_flow() else { return false };
        if self.mailbox.epoch() != epoch {
            return false;
        }
        let live = self.live.iter().flat_map(|(topic, partitions)| {
            partitions.keys().map(|partition| TopicPartition { topic: Arc::clone(topic), partition: *partition })
        });
        let live: Vec<TopicPartition> = live.collect();
        let list = partition_list(live.iter().map(|partition| (partition, Offset::Invalid)));
        let changed = change(&self.consumer, &list);
        if let Err(error) = &changed {
            warn!(%error, group = self.group, "partitions neither paused nor resumed");
        }
        changed.is_ok()
    }

    /// Destroys the client here, off the async threads, once the handle's short calls have let go of it.
    fn retire(self) {
        let deadline = Instant::now() + HANDLE_DEADLINE;
        self.mailbox.stop();
        while Arc::strong_count(&self.consumer) > 1 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
    }
}
