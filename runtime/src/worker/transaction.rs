//! Commits by Kafka transaction: what follows from a batch, and the input offsets, in one.

use std::collections::BTreeMap;
use std::future::Future;

use tokio::task::yield_now;
use tokio::time::Instant;
use tracing::info;

use super::error::{Failure, WorkerError};
use super::handler::{Done, Handler, Session, Taken};
use super::logs::Logs;
use crate::kafka::consumer::{Assignment, Batch, Group};
use crate::kafka::groups::CommittedOffset;
use crate::kafka::publisher::{self, Input, PublishError, Publisher, Transaction};
use crate::kafka::{Connection, Outgoing, Record, TopicPartition};
use crate::log_identity::Position;
use crate::metrics::{self as names, label};

/// What a stage that commits by transaction does.
pub trait Stage: Send {
    /// What moves the stage's memory, once it is durable.
    type Effects: Send;
    /// Why a call failed.
    type Error: Failure;

    /// Name in metrics and logs: `map`, `merge`.
    fn name(&self) -> &'static str;

    /// Reads what is to be known of the partitions, and says where their input begins.
    ///
    /// `read_once` tells for each partition that was read before up to which offset: beyond the committed one where reading was
    /// begun again at an earlier one. May be dropped half-way; what was read is then forgotten and read again.
    fn take_over(
        &mut self,
        partitions: &[TopicPartition],
        committed: &BTreeMap<TopicPartition, Option<CommittedOffset>>,
        read_once: &BTreeMap<TopicPartition, i64>,
    ) -> impl Future<Output = Result<Taken, Self::Error>> + Send;

    /// Compares a bounded part of the own output with what it should be, and returns the differences; `None` when all is compared.
    fn reconcile(&mut self) -> Result<Option<Work<Self::Effects>>, Self::Error>;

    /// Computes what follows from records. Memory stays as it is.
    fn compute(
        &mut self,
        records: Vec<Record>,
    ) -> impl Future<Output = Result<Work<Self::Effects>, Self::Error>> + Send;

    /// The identity of the program that reads the input, to be noted beside its offsets.
    fn program(&self) -> Option<String> {
        None
    }

    /// Moves memory: the work is durable.
    fn settle(&mut self, effects: Self::Effects, committed: &publisher::Committed);

    /// A place for a test to interfere, before the commit.
    fn before_commit(&self) {}

    /// A place for a test to interfere, after the commit.
    fn after_commit(&self) {}
}

/// What is to be written, and what follows from it for memory.
#[derive(Debug, Default)]
pub struct Work<E> {
    /// What is derived, first.
    pub derived: Vec<Outgoing>,
    /// What follows from it.
    pub follow_up: Vec<Outgoing>,
    /// Input positions that are committed with what a reconciliation writes.
    pub next_offsets: Vec<(TopicPartition, i64)>,
    /// How many of the derived records are dead letters.
    pub dead_letters: u64,
    /// What moves memory.
    pub effects: E,
}

impl<E> Work<E> {
    /// Adds a dead letter.
    pub fn refuse(&mut self, letter: Outgoing) {
        self.derived.push(letter);
        self.dead_letters += 1;
    }

    /// Says whether there is nothing to write and nothing to move.
    pub fn is_empty(&self) -> bool {
        self.derived.is_empty() && self.follow_up.is_empty() && self.next_offsets.is_empty()
    }
}

/// A stage with its writer, which is thrown away when it fails.
pub struct Transactional<S> {
    stage: S,
    connection: Connection,
    transactional_id: String,
    publisher: Option<Publisher>,
    /// How far the input was read. Committed again with every reconciliation, so that the coordinator checks the membership:
    /// it is not asked about a transaction without offsets, and a member that was stopped meanwhile would write behind the one
    /// that goes on.
    logs: Logs,
}

impl<S: Stage> Transactional<S> {
    /// Makes the handler of a stage that writes under `transactional_id`.
    pub fn new(stage: S, connection: Connection, transactional_id: String) -> Self {
        let logs = Logs::new(connection.clone());
        Self { stage, connection, transactional_id, publisher: None, logs }
    }

    /// The stage, for tests.
    #[cfg(test)]
    pub(super) fn stage(&mut self) -> &mut S {
        &mut self.stage
    }

    async fn reconcile(&mut self, session: &Session) -> Result<(), S::Error> {
        if self.logs.positions.is_empty() {
            self.logs.positions =
                session.starts.iter().map(|(at, offset)| (at.clone(), Position::at(*offset))).collect();
        }
        // What a session that is over leaves undone is found and published at the next take-over.
        while !session.is_over()
            && let Some(mut work) = self.stage.reconcile()?
        {
            if work.is_empty() {
                yield_now().await;
                continue;
            }
            for (at, offset) in work.next_offsets.drain(..) {
                self.logs.positions.entry(at).or_insert(Position::at(offset)).next_offset = offset;
            }
            let positions = self.logs.positions.iter().map(|(at, position)| (at.clone(), *position)).collect();
            self.commit(session, work, positions).await?;
        }
        Ok(())
    }

    async fn commit(
        &mut self,
        session: &Session,
        work: Work<S::Effects>,
        positions: Vec<(TopicPartition, Position)>,
    ) -> Result<Done, S::Error> {
        let Work { derived, follow_up, next_offsets: _, dead_letters, effects } = work;
        let input =
            Input { group: session.group.clone(), epoch: session.epoch, positions, program: self.stage.program() };
        let transaction = Transaction { derived, follow_up, checkpoint: Vec::new(), input: Some(input) };
        let publisher = self.publisher.as_mut().ok_or_else(|| {
            WorkerError::from(PublishError::Dead {
                transactional_id: self.transactional_id.clone(),
                why: "it was not started".to_owned(),
            })
        })?;
        self.stage.before_commit();
        let committed = publisher.commit(transaction).await.map_err(WorkerError::from)?;
        self.stage.after_commit();
        metrics::histogram!(names::TRANSACTION_SECONDS, label::STAGE => self.stage.name())
            .record(committed.took.as_secs_f64());
        self.stage.settle(effects, &committed);
        Ok(Done { dead_letters, ..Done::default() })
    }
}

impl<S: Stage> Handler for Transactional<S> {
    type Error = S::Error;

    async fn take_over(&mut self, group: &Group, assignment: &Assignment) -> Result<Taken, S::Error> {
        if self.publisher.as_ref().is_none_or(Publisher::is_dead) {
            self.publisher = None;
            let started = Publisher::start(&self.connection, &self.transactional_id).await;
            self.publisher = Some(started.map_err(WorkerError::from)?);
        }
        let committed = group.committed(&assignment.partitions).await.map_err(WorkerError::from)?;
        let known = committed.iter().filter_map(|(at, known)| Some((at.clone(), known.as_ref()?.position)));
        let read_once = self.logs.take(known.collect::<Vec<_>>()).await?;
        let fresh = committed.len() - self.logs.positions.len();
        if fresh > 0 {
            info!(group = group.name(), partitions = fresh, "no committed offset, beginning at the start");
        }
        let started = Instant::now();
        let taken = self.stage.take_over(&assignment.partitions, &committed, &read_once).await?;
        if let Taken::From(starts) = &taken {
            // What is read again must not look as if it had been.
            for (at, position) in &mut self.logs.positions {
                let start = starts.get(at).map_or(position.next_offset, |start| start.number());
                position.next_offset = position.next_offset.min(start);
            }
        }
        let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        info!(group = group.name(), partitions = committed.len(), elapsed_ms, "own output read");
        Ok(taken)
    }

    async fn process(&mut self, session: &Session, batch: Batch) -> Result<Done, S::Error> {
        self.logs.look().await?;
        self.reconcile(session).await?;
        if batch.records.is_empty() {
            return Ok(Done::default());
        }
        let positions = batch.positions();
        let work = self.stage.compute(batch.records).await?;
        let positions = self.logs.pass(positions);
        self.commit(session, work, positions).await
    }

    /// Throws a writer away whose commit was not waited for: what it had open is aborted before the group goes on.
    fn revoke(&mut self) {
        self.publisher.take_if(|publisher| publisher.is_dead());
    }
}
