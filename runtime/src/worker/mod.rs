//! The worker that the map, the merge and every sink run in: a member of a consumer group, from its first assignment to its
//! shutdown.
//!
//! ```text
//! Assigned ─▶ take over ─▶ start_at ─▶ process: first without records, then batch by batch ─▶ Revoked ─▶ revoke, answer
//!                ▲  ▲                                        │
//!                │  └─ after a wait ◀── failed, may pass ◀───┤
//!                └──── ten seconds later ◀── held            └─ failed for good ─▶ end
//! Failed ─▶ a new member, after a wait, where that may help
//! ```
//!
//! After a failure the partitions are taken over again, and the records of the failed batch are read again from the stage's position.

mod error;
mod handler;
mod logs;
mod taking;
mod transaction;
mod working;

use std::collections::BTreeMap;
use std::time::Duration;

use ::metrics::Label;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

pub use error::{Failure, WorkerError};
pub use handler::{Done, GRACE, Handler, Session, Starts, Taken};
pub use logs::Logs;
pub use transaction::{Stage, Transactional, Work};

use crate::diagnose::Diagnose;
use crate::health::{PartState, STALLED_AFTER, StatusPart};
use crate::kafka::consumer::{Assignment, ConsumerError, Event, GroupConsumer, GroupOptions};
use crate::kafka::{Connection, TopicPartition, connection};
use crate::retry::{Backoff, Quiet};
use crate::telemetry::chain;

/// For `--once`: another member of the group must have left within this time.
const ASSIGNED_WITHIN: Duration = connection::SESSION_TIMEOUT.saturating_add(Duration::from_secs(30));
/// How often a worker computes its lag and gives its handler a batch without records.
const BEAT: Duration = Duration::from_secs(10);
/// A beat waits for the brokers no longer than this.
const BEAT_WITHIN: Duration = Duration::from_secs(2);
/// How often a handler that is held is asked again.
const HELD_FOR: Duration = Duration::from_secs(10);
/// A member that the group still counts on after this long (three session time-outs) is no zombie: whoever took its partitions
/// over was, and came late.
const RECLAIM: Duration = connection::SESSION_TIMEOUT.saturating_mul(3);
/// Brokers and stores that are back are noticed within this time.
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(200), max: Duration::from_secs(10), factor: 2.0 };
/// A worker without progress for this long is not ready: a beat, a transaction and a take-over of a small state fit into it.
pub const SILENCE: Duration = Duration::from_secs(60);

/// How a worker reads.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// The membership.
    pub group: GroupOptions,
    /// What tells its metrics from those of other workers: the stage, and the sink's name.
    pub labels: Vec<Label>,
    /// Whether it ends where its input ends when the first assignment has come.
    pub once: bool,
}

/// What a run has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Records read and made durable.
    pub records: u64,
    /// Records put into dead letters.
    pub dead_letters: u64,
}

/// A worker, ready to run.
pub struct Worker<H> {
    /// What it runs.
    pub handler: H,
    connection: Connection,
    options: WorkerOptions,
    part: StatusPart,
    stop: CancellationToken,
    assignment: Option<Assignment>,
    /// The session whose batches are taken; none while the assignment waits to be taken over.
    session: Option<Session>,
    /// When the assignment is taken over again.
    again_at: Option<Instant>,
    /// Up to where everything is durable.
    positions: BTreeMap<TopicPartition, i64>,
    /// Partitions that another process has taken over meanwhile: what is still queued of them moves no position.
    given_up: Vec<TopicPartition>,
    /// For `--once`: the ends of the whole input, as they were at the first take-over.
    goal: Option<BTreeMap<TopicPartition, i64>>,
    /// The lag that was shown last.
    lag: Option<i64>,
    failures: u32,
    /// Tells failures that follow each other once a minute.
    quiet: Quiet,
    began: Instant,
    /// Whether records failed that have not become durable since.
    unsettled: bool,
    report: Report,
}

impl<H: Handler> Worker<H> {
    /// Makes a worker; connects to nothing yet.
    pub fn new(
        handler: H,
        connection: Connection,
        options: WorkerOptions,
        part: StatusPart,
        stop: CancellationToken,
    ) -> Self {
        Self {
            handler,
            connection,
            options,
            part,
            stop,
            assignment: None,
            session: None,
            again_at: None,
            positions: BTreeMap::new(),
            given_up: Vec::new(),
            goal: None,
            lag: None,
            failures: 0,
            quiet: Quiet::new(),
            began: Instant::now(),
            unsettled: false,
            report: Report::default(),
        }
    }

    /// Runs until the stop, until the ends of a single run are reached, or until only an operator can help.
    ///
    /// # Errors
    /// With an error that only an operator can mend; the status registry shows it, too.
    pub async fn run(&mut self) -> Result<Report, H::Error> {
        let (part, once, group) = (self.part.clone(), self.options.once, self.group_name());
        let ended = tokio::select! {
            biased;
            ended = self.join() => ended,
            reason = part.stalled(STALLED_AFTER), if once => {
                Err(WorkerError::Stalled { group, after: STALLED_AFTER, reason }.into())
            }
        };
        match &ended {
            Ok(()) => part.state(PartState::Finished),
            Err(failure) => {
                error!(group = self.group_name(), error = %chain(failure), help = failure.help().as_deref(), "stopped");
                part.failed(chain(failure).to_string());
            }
        }
        ended.map(|()| self.report)
    }

    /// Joins the group, and joins it again when the membership fails and another try may help.
    async fn join(&mut self) -> Result<(), H::Error> {
        loop {
            let ended = match GroupConsumer::start(&self.connection, self.options.group.clone()) {
                Ok(mut consumer) => {
                    let ended = self.serve(&mut consumer).await;
                    self.release();
                    consumer.close().await;
                    ended?
                }
                Err(failure) => Some(failure),
            };
            let Some(failure) = ended else { return Ok(()) };
            let failure = H::Error::from(WorkerError::Consumer(failure));
            let Some(wait) = self.wait_after(&failure) else { return Err(failure) };
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Serves until the membership fails, and returns why; nothing when the run is over.
    async fn serve(&mut self, consumer: &mut GroupConsumer) -> Result<Option<ConsumerError>, H::Error> {
        let (group, stop) = (consumer.group(), self.stop.clone());
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let join_by = Instant::now() + ASSIGNED_WITHIN;
        let mut joined = !self.options.once;
        let mut waiting = None;
        while !self.reached() {
            let working = self.session.is_some();
            let event = match waiting.take() {
                Some(event) => event,
                None => tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok(None),
                    () = until(self.again_at) => {
                        waiting = self.take_over(consumer, &group).await?;
                        continue;
                    }
                    _ = beat.tick() => {
                        waiting = self.beat(consumer).await?;
                        continue;
                    }
                    // What is read while nothing can be done stays in the queue, and a full queue pauses the reading.
                    event = consumer.next_of(working) => event,
                    () = sleep_until(join_by), if !joined => {
                        return Err(WorkerError::NotAssigned { group: self.group_name() }.into());
                    }
                },
            };
            match event {
                Event::Failed(failure) => return Ok(Some(failure)),
                Event::Revoked(revoked) => {
                    info!(group = group.name(), partitions = revoked.partitions.len(), "partitions revoked");
                    self.release();
                    revoked.ack();
                }
                Event::Assigned(assignment) => {
                    info!(group = group.name(), partitions = assignment.partitions.len(), "partitions assigned");
                    joined = true;
                    self.assignment = Some(assignment);
                    waiting = self.take_over(consumer, &group).await?;
                }
                Event::Batch(batch) => self.process(batch).await?,
            }
        }
        Ok(None)
    }

    /// Forgets the assignment.
    fn release(&mut self) {
        (self.assignment, self.session, self.again_at, self.lag) = (None, None, None, None);
        self.positions.clear();
        self.handler.revoke();
    }

    fn group_name(&self) -> String {
        self.options.group.group.clone()
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
