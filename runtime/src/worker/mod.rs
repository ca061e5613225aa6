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
//! What a failed batch held is read again from where its stage stands; so there is one way on after a failure, and it is the way in.

mod error;
mod handler;
mod logs;
mod transaction;

use std::collections::BTreeMap;
use std::time::Duration;

use ::metrics::Label;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

pub use error::{Failure, WorkerError};
pub use handler::{Done, GRACE, Handler, Session, Starts, Taken};
pub use logs::Logs;
pub use transaction::{Stage, Transactional, Work};

use crate::diagnose::Diagnose;
use crate::health::{PartState, STALLED_AFTER, StatusPart};
use crate::kafka::consumer::{Assignment, Batch, ConsumerError, Event, Group, GroupConsumer, GroupOptions, Start};
use crate::kafka::table::{self, Extent, TableError};
use crate::kafka::{Connection, TopicPartition, connection, topics};
use crate::log_identity::{Found, Position, judge};
use crate::metrics::{self as names, label};
use crate::retry::{Backoff, Quiet};
use crate::telemetry::chain;

/// Someone else who holds the group must let go within this time.
const ASSIGNED_WITHIN: Duration = connection::SESSION_TIMEOUT.saturating_add(Duration::from_secs(30));
/// How often a worker reckons its lag and gives its handler a batch without records.
const BEAT: Duration = Duration::from_secs(10);
/// Brokers that do not answer hold up a beat no longer than this.
const BEAT_WITHIN: Duration = Duration::from_secs(2);
/// How often a handler that is held is asked again.
const HELD_FOR: Duration = Duration::from_secs(10);
/// A member that the group still counts on after this long (three session time-outs) is no zombie: whoever took its partitions
/// over was, and came late.
const RECLAIM: Duration = connection::SESSION_TIMEOUT.saturating_mul(3);
/// Brokers and stores that are back are noticed within this time.
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(200), max: Duration::from_secs(10), factor: 2.0 };
/// Silence that means trouble: a beat, a transaction and a take-over of a small state fit into it.
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
    /// With what only an operator can mend; the status registry shows it, too.
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

    /// Serves as one member of the group after another: where a membership fails, a new one may do better.
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

    /// Takes the assignment over, unless something more important comes in between, which is returned.
    async fn take_over(&mut self, consumer: &mut GroupConsumer, group: &Group) -> Result<Option<Event>, H::Error> {
        (self.session, self.again_at) = (None, None);
        self.given_up.clear();
        self.part.clear("given_up");
        let Some(assignment) = self.assignment.clone() else { return Ok(None) };
        if assignment.partitions.is_empty() && !self.options.once {
            self.progress();
            return Ok(None);
        }
        let stop = self.stop.clone();
        let prepared = {
            let prepare = self.prepare(group, &assignment);
            tokio::pin!(prepare);
            let interrupted = tokio::select! {
                biased;
                () = stop.cancelled() => Ok(None),
                event = consumer.next_of(false) => Ok(Some(event)),
                prepared = &mut prepare => Err(prepared),
            };
            match interrupted {
                Err(prepared) => prepared,
                Ok(event) => {
                    let _ = timeout(H::FINISHES_WITHIN, prepare.as_mut()).await;
                    return Ok(event);
                }
            }
        };
        let begun = match prepared {
            Ok(Taken::From(starts)) => self.begin(group, &assignment, starts).await,
            Ok(Taken::Held(reason)) if self.options.once => {
                Err(WorkerError::Held { group: self.group_name(), reason }.into())
            }
            Ok(Taken::Held(reason)) => {
                if let Some(left_out) = self.quiet.tell(self.began.elapsed()) {
                    warn!(group = group.name(), reason, left_out, "held");
                }
                self.part.held(reason);
                self.again_at = Some(Instant::now() + HELD_FOR);
                return Ok(None);
            }
            Err(failure) => Err(failure),
        };
        begun.or_else(|failure| self.failed(group, failure)).map(|()| None)
    }

    /// Lets the handler take over, and compares where it stands with what the topics hold.
    async fn prepare(&mut self, group: &Group, assignment: &Assignment) -> Result<Taken, H::Error> {
        if self.options.once {
            self.set_goal(assignment).await?;
        }
        let mut taken = self.handler.take_over(group, assignment).await?;
        if let Taken::From(starts) = &mut taken {
            let extents = extents(&self.connection, starts.keys()).await.map_err(WorkerError::from)?;
            for (at, start) in starts {
                let Some(extent) = extents.get(at) else { continue };
                *start = Start::At(self.check(at, *start, *extent)?);
            }
        }
        Ok(taken)
    }

    /// Refuses a position that the topic does not hold any more, and makes each start a number.
    fn check(&self, at: &TopicPartition, start: Start, extent: Extent) -> Result<i64, WorkerError> {
        let Extent { first, end } = extent;
        let (group, topic, partition) = (self.group_name(), at.topic.to_string(), at.partition);
        match start {
            Start::Beginning => Ok(first),
            Start::At(position) if first > position => {
                Err(WorkerError::Expired { group, topic, partition, position, first })
            }
            Start::At(position) => {
                let judged = judge(at.clone(), Position::at(position), Found { younger: None, end });
                judged.map(|()| position).map_err(|other| WorkerError::OtherLog(Box::new(other)))
            }
        }
    }

    /// Begins a session at `starts` with a batch that holds nothing.
    async fn begin(&mut self, group: &Group, assignment: &Assignment, starts: Starts) -> Result<(), H::Error> {
        let epoch = group.start_at(assignment, starts.clone()).await.map_err(WorkerError::from)?;
        let number = |(at, start): (&TopicPartition, &Start)| match start {
            Start::At(offset) => Some((at.clone(), *offset)),
            Start::Beginning => None,
        };
        self.positions = starts.iter().filter_map(number).collect();
        self.part.detail("partitions", starts.len());
        let starts = self.positions.clone();
        self.session = Some(Session { group: group.clone(), epoch, starts, stop: self.stop.clone() });
        self.idle().await?;
        if self.session.is_some() {
            self.progress();
        }
        Ok(())
    }

    /// Gives the handler a batch without records.
    async fn idle(&mut self) -> Result<(), H::Error> {
        let Some(epoch) = self.session.as_ref().map(|session| session.epoch) else { return Ok(()) };
        self.process(Batch { epoch, records: Vec::new(), reached: Vec::new() }).await
    }

    /// Has a batch made durable; one of another session is dropped.
    async fn process(&mut self, batch: Batch) -> Result<(), H::Error> {
        let Some(session) = self.session.take_if(|session| session.epoch == batch.epoch) else { return Ok(()) };
        let records = u64::try_from(batch.records.len()).unwrap_or(u64::MAX);
        let reached = batch.reached.iter().map(|reached| (reached.partition.clone(), reached.next_offset));
        let heard = records > 0 || !batch.reached.is_empty();
        let moved: Vec<(TopicPartition, i64)> = {
            let read = batch.positions().into_iter().map(|(at, position)| (at, position.next_offset));
            read.chain(reached).collect()
        };
        if !self.part.is_paused() {
            self.part.moved(Duration::ZERO);
        }
        let Done { dead_letters, given_up } = match session.finish(self.handler.process(&session, batch)).await {
            Some(Ok(done)) => done,
            Some(Err(failure)) => {
                self.unsettled |= records > 0;
                return self.failed(&session.group, failure);
            }
            // The event that ended the session is waiting.
            None => return Ok(()),
        };
        self.report.records += records;
        self.report.dead_letters += dead_letters;
        if dead_letters > 0 {
            self.part.detail("dead_letters", self.report.dead_letters);
        }
        if !given_up.is_empty() {
            self.give_up(&session.group, &given_up);
        }
        for (at, offset) in moved {
            if let Some(position) = self.positions.get_mut(&at).filter(|_| !self.given_up.contains(&at)) {
                *position = offset.max(*position);
            }
        }
        self.unsettled &= records == 0;
        self.session = Some(session);
        if heard {
            self.progress();
        }
        Ok(())
    }

    /// Shows progress, unless records failed that have not become durable since: they are only read again.
    fn progress(&mut self) {
        if !self.unsettled {
            self.failures = 0;
            self.part.progress();
            if self.quiet.over() {
                info!(group = self.group_name(), "working again");
            }
        }
    }

    /// Stops reading partitions that another process has taken over; the assignment is taken over again if it still stands
    /// when the group would have noticed that this member is gone.
    fn give_up(&mut self, group: &Group, partitions: &[TopicPartition]) {
        let numbers: Vec<i32> = partitions.iter().map(|at| at.partition).collect();
        warn!(group = group.name(), partitions = ?numbers, "partitions given up: another instance has taken them over");
        if let Err(failure) = group.give_up(partitions) {
            warn!(group = group.name(), error = %chain(&failure), "partitions given up are still read");
        }
        self.given_up.extend_from_slice(partitions);
        self.part.detail("given_up", numbers);
        self.again_at.get_or_insert(Instant::now() + RECLAIM);
    }

    /// Ends the session after a failure, and the worker where only an operator can help.
    fn failed(&mut self, group: &Group, failure: H::Error) -> Result<(), H::Error> {
        self.session = None;
        let stands = |assignment: &Assignment| group.stands(assignment);
        if !self.assignment.as_ref().is_some_and(stands) {
            debug!(group = group.name(), error = %chain(&failure), "assignment has changed meanwhile");
            return Ok(());
        }
        let Some(wait) = self.wait_after(&failure) else { return Err(failure) };
        self.again_at = Some(Instant::now() + wait);
        Ok(())
    }

    /// Counts and shows a failure, and says how long to wait before another try; nothing when there is to be none.
    fn wait_after(&mut self, failure: &H::Error) -> Option<Duration> {
        let mut labels = self.options.labels.clone();
        labels.push(Label::new(label::CODE, failure.code()));
        ::metrics::counter!(names::ERRORS, labels).increment(1);
        self.failures += 1;
        let wait = BACKOFF.next(failure.retry(), self.failures, 0.5)?;
        let reason = failure.told();
        match self.quiet.tell(self.began.elapsed()) {
            Some(left_out) => {
                warn!(group = self.group_name(), error = reason, attempt = self.failures, left_out, "trying again");
            }
            None => debug!(group = self.group_name(), error = reason, attempt = self.failures, "trying again"),
        }
        self.part.paused(reason);
        Some(wait)
    }

    /// Shows the lag, unless something more important comes in between, which is returned, and gives the handler a batch without
    /// records.
    async fn beat(&mut self, consumer: &mut GroupConsumer) -> Result<Option<Event>, H::Error> {
        let Some(assignment) = self.assignment.clone() else { return Ok(None) };
        let (connection, stop) = (self.connection.clone(), self.stop.clone());
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(None),
            event = consumer.next_of(false) => return Ok(Some(event)),
            asked = timeout(BEAT_WITHIN, extents(&connection, assignment.partitions.iter())) => {
                if let Ok(Ok(extents)) = asked {
                    self.show_lag(&extents);
                }
            }
        }
        self.idle().await.map(|()| None)
    }

    /// Shows how many offsets are not durable yet. To be at the end is progress, or to have come nearer; that brokers answer is
    /// none: a consumer that delivers nothing any more is not ready.
    fn show_lag(&mut self, extents: &BTreeMap<TopicPartition, Extent>) {
        // A member without partitions stands by: that is its work.
        let working = self.session.is_some() || extents.is_empty();
        let behind = |(at, extent): (&TopicPartition, &Extent)| {
            (extent.end - self.positions.get(at).copied().unwrap_or(extent.first)).max(0)
        };
        let lag: i64 = extents.iter().map(behind).sum();
        self.part.detail("lag_records", lag);
        #[allow(clippy::cast_precision_loss)] // A gauge is a float.
        ::metrics::gauge!(names::CONSUMER_LAG, self.options.labels.clone()).set(lag as f64);
        let before = self.lag.replace(lag);
        if working && lag == 0 {
            self.unsettled = false;
        }
        if working && (lag == 0 || before.is_some_and(|before| lag < before)) {
            self.progress();
        }
    }

    /// For `--once`: notes the ends to be reached, and refuses to share the input with somebody else.
    async fn set_goal(&mut self, assignment: &Assignment) -> Result<(), WorkerError> {
        let group = self.group_name();
        let counts = topics::partition_counts(&self.connection).await?;
        let mut all = Vec::new();
        for topic in &self.options.group.topics {
            let missing = || WorkerError::NoTopic { group: group.clone(), topic: topic.clone() };
            let count = *counts.get(topic).ok_or_else(missing)?;
            all.extend((0..count).map(|partition| TopicPartition::new(topic.as_str(), partition)));
        }
        let (got, of) = (assignment.partitions.len(), all.len());
        if got < of {
            return Err(WorkerError::Shared { group, got, of });
        }
        if self.goal.is_none() {
            let ends = extents(&self.connection, all.iter()).await?;
            self.goal = Some(ends.into_iter().map(|(at, extent)| (at, extent.end)).collect());
        }
        Ok(())
    }

    /// Says whether the ends of a single run are reached and everything before them is durable.
    fn reached(&self) -> bool {
        let durable =
            |(at, end): (&TopicPartition, &i64)| self.positions.get(at).is_some_and(|position| position >= end);
        self.session.is_some() && self.goal.as_ref().is_some_and(|goal| goal.iter().all(durable))
    }

    fn group_name(&self) -> String {
        self.options.group.group.clone()
    }
}

/// Asks where partitions begin and end.
async fn extents(
    connection: &Connection,
    partitions: impl Iterator<Item = &TopicPartition>,
) -> Result<BTreeMap<TopicPartition, Extent>, TableError> {
    let mut by_topic: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for at in partitions {
        by_topic.entry(&at.topic).or_default().push(at.partition);
    }
    let mut extents = BTreeMap::new();
    for (topic, partitions) in by_topic {
        let ends = table::ends(connection, topic, partitions).await?;
        extents.extend(ends.into_iter().map(|(partition, extent)| (TopicPartition::new(topic, partition), extent)));
    }
    Ok(extents)
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
