//! The run loop that both stages share: assignments, take-overs, batches, and a writer that is thrown away when it fails.
//!
//! ```text
//! Assigned ─▶ fence (a writer) ─▶ committed offsets ─▶ fold own output ─▶ start_at ─▶ publish differences ─▶ batches
//!    ▲                                                                                                        │
//!    └──────────────── writer dead: a new one, and the same again ◀── commit failed ◀─────────────────────────┤
//! Revoked ─▶ memory stays as a cache ◀────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Memory moves only after a commit that answered OK, or by reading the topic.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use windfall_runtime::health::{Part, State};
use windfall_runtime::kafka::consumer::{
    Assignment, Batch, BatchLimits, Event, Group, GroupConsumer, GroupOptions, Start,
};
use windfall_runtime::kafka::publisher::{Input, Publisher, Transaction};
use windfall_runtime::kafka::table::Extent;
use windfall_runtime::kafka::{Connection, Membership, TopicPartition, connection, table};
use windfall_runtime::metrics::{self as names, label};
use windfall_runtime::telemetry::chain;

use crate::error::TransformerError;
use crate::stage::{Stage, Starts, Work};

/// How a loop reads and writes.
#[derive(Debug, Clone)]
pub(crate) struct DriverOptions {
    pub(crate) group: String,
    pub(crate) topics: Vec<String>,
    /// Partitions of each topic.
    pub(crate) partitions: i32,
    pub(crate) transactional_id: String,
    pub(crate) membership: Membership,
    pub(crate) limits: BatchLimits,
    /// Stop at the ends that the input has at the beginning.
    pub(crate) once: bool,
}

/// What a run has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Records read.
    pub records: u64,
    /// Records put into dead letters.
    pub dead_letters: u64,
}

/// Someone else who holds the group must let go within this time.
const ASSIGNED_WITHIN: Duration = connection::SESSION_TIMEOUT.saturating_add(Duration::from_secs(30));
/// How often an idle loop says that it lives, and reckons its lag.
const BEAT: Duration = Duration::from_secs(10);
/// Brokers that do not answer hold up an idle loop no longer than this.
const BEAT_WITHIN: Duration = Duration::from_secs(2);
/// What is in flight at a shutdown has this long to be committed; the process ends after ten seconds anyway.
const COMMIT_WITHIN: Duration = Duration::from_secs(5);
/// Silence that means trouble: a transaction and a take-over of a small state fit into it.
pub(crate) const SILENCE: Duration = Duration::from_secs(60);
/// First pause after a failure; doubled up to [`MAX_PAUSE`].
const PAUSE: Duration = Duration::from_millis(200);
/// Longest pause between two tries.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// A loop in the making.
pub(crate) struct Driver<S: Stage> {
    pub(crate) stage: S,
    pub(crate) connection: Connection,
    pub(crate) options: DriverOptions,
    pub(crate) part: Part,
    pub(crate) shutdown: CancellationToken,
    publisher: Option<Publisher>,
    held: Option<Held>,
    failures: u32,
    report: Report,
}

/// The assignment that is being worked on.
struct Held {
    assignment: Assignment,
    epoch: u64,
    /// For `--once`: the ends still to be reached.
    goal: BTreeMap<TopicPartition, i64>,
}

/// What the loop does next.
enum Turn {
    Event(Event),
    Retake(Assignment),
    Beat,
    Stop,
}

/// How a step ended.
enum Step {
    Done,
    /// Something more important came in between: it is handled first.
    Interrupted(Turn),
    /// The step failed and passes: the assignment is taken over again after a pause.
    Again(Assignment),
}

impl<S: Stage> Driver<S> {
    pub(crate) fn new(
        stage: S,
        connection: Connection,
        options: DriverOptions,
        part: Part,
        shutdown: CancellationToken,
    ) -> Self {
        let report = Report::default();
        Self { stage, connection, options, part, shutdown, publisher: None, held: None, failures: 0, report }
    }

    /// Runs until shutdown, until the ends are reached, or until only an operator can help.
    pub(crate) async fn run(mut self) -> Result<Report, TransformerError> {
        let options = GroupOptions {
            group: self.options.group.clone(),
            topics: self.options.topics.clone(),
            membership: self.options.membership.clone(),
            limits: self.options.limits,
        };
        let mut consumer = GroupConsumer::start(&self.connection, options)?;
        let result = self.serve(&mut consumer).await;
        drop(self.publisher.take());
        consumer.close().await;
        match &result {
            Ok(()) => self.part.state(State::Finished),
            Err(error) => self.part.failed(chain(error).to_string()),
        }
        result.map(|()| self.report)
    }

    async fn serve(&mut self, consumer: &mut GroupConsumer) -> Result<(), TransformerError> {
        let group = consumer.group();
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let shutdown = self.shutdown.clone();
        let deadline = sleep(ASSIGNED_WITHIN);
        tokio::pin!(deadline);
        let mut waiting = self.options.once;
        let mut next = None;
        loop {
            let turn = match next.take() {
                Some(turn) => turn,
                None => tokio::select! {
                    biased;
                    () = shutdown.cancelled() => Turn::Stop,
                    event = consumer.next() => Turn::Event(event),
                    _ = beat.tick() => Turn::Beat,
                    () = &mut deadline, if waiting => {
                        return Err(TransformerError::NotAssigned { group: self.options.group.clone() });
                    }
                },
            };
            waiting &= !matches!(turn, Turn::Event(Event::Assigned(_)));
            let step = match turn {
                Turn::Stop => return Ok(()),
                Turn::Beat => self.beat(consumer, &group).await,
                Turn::Event(Event::Revoked(revoked)) => {
                    info!(group = self.options.group, partitions = revoked.partitions.len(), "partitions revoked");
                    self.held = None;
                    revoked.ack();
                    Step::Done
                }
                Turn::Event(Event::Failed(error)) => return Err(error.into()),
                Turn::Event(Event::Assigned(assignment)) => {
                    info!(group = self.options.group, partitions = assignment.partitions.len(), "partitions assigned");
                    self.take(consumer, &group, assignment).await?
                }
                Turn::Retake(assignment) => self.take(consumer, &group, assignment).await?,
                Turn::Event(Event::Batch(batch)) => self.batch(&group, batch).await?,
            };
            next = match step {
                Step::Done if self.reached() => return Ok(()),
                Step::Done => None,
                Step::Interrupted(turn) => Some(turn),
                Step::Again(assignment) => Some(self.pause(consumer, assignment).await),
            };
        }
    }

    /// Sorts a failure: what only an operator can mend ends the loop, everything else leads to another take-over.
    fn failed(&mut self, error: TransformerError, assignment: Assignment) -> Result<Step, TransformerError> {
        self.held = None;
        if error.reassigned() {
            debug!(group = self.options.group, error = %chain(&error), "assignment has changed meanwhile");
            return Ok(Step::Done);
        }
        if matches!(error, TransformerError::CutShort) {
            warn!(group = self.options.group, error = %chain(&error), "stopping");
            return Ok(Step::Interrupted(Turn::Stop));
        }
        if !error.may_pass() {
            return Err(error);
        }
        self.failures += 1;
        let code = error.code();
        warn!(group = self.options.group, error = %chain(&error), attempt = self.failures, "taking over again");
        metrics::counter!(names::ERRORS, label::STAGE => self.stage.name(), label::CODE => code).increment(1);
        self.part.paused(chain(&error).to_string());
        Ok(Step::Again(assignment))
    }

    /// Waits before another try; an event or the shutdown ends the wait.
    async fn pause(&mut self, consumer: &mut GroupConsumer, assignment: Assignment) -> Turn {
        let pause = PAUSE.saturating_mul(1 << self.failures.min(10)).min(MAX_PAUSE);
        let wait = sleep(pause);
        tokio::pin!(wait);
        loop {
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Turn::Stop,
                event = consumer.next() => if let Some(event) = rebalance(event) { return Turn::Event(event) },
                () = &mut wait => return Turn::Retake(assignment),
            }
        }
    }

    /// Takes the partitions over: fence, committed offsets, own output, positions, differences.
    async fn take(
        &mut self,
        consumer: &mut GroupConsumer,
        group: &Group,
        assignment: Assignment,
    ) -> Result<Step, TransformerError> {
        self.held = None;
        if self.options.once {
            self.all_of(&assignment)?;
        }
        if assignment.partitions.is_empty() {
            self.part.progress();
            return Ok(Step::Done);
        }
        let shutdown = self.shutdown.clone();
        let prepared = {
            let prepare = self.prepare(group, &assignment);
            tokio::pin!(prepare);
            loop {
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return Ok(Step::Interrupted(Turn::Stop)),
                    event = consumer.next() => if let Some(event) = rebalance(event) {
                        return Ok(Step::Interrupted(Turn::Event(event)));
                    },
                    prepared = &mut prepare => break prepared,
                }
            }
        };
        let begun = match prepared {
            Ok((starts, goal)) => self.begin(group, &assignment, starts, goal).await,
            Err(error) => Err(error),
        };
        match begun {
            Ok(()) => Ok(Step::Done),
            Err(error) => self.failed(error, assignment),
        }
    }

    /// Fences, reads the committed offsets, and reads what the stage must know.
    async fn prepare(
        &mut self,
        group: &Group,
        assignment: &Assignment,
    ) -> Result<(Starts, BTreeMap<TopicPartition, i64>), TransformerError> {
        if self.publisher.as_ref().is_none_or(Publisher::is_dead) {
            self.publisher = None;
            self.publisher = Some(Publisher::start(&self.connection, &self.options.transactional_id).await?);
        }
        let committed = group.committed(&assignment.partitions).await?;
        let fresh = committed.values().filter(|offset| offset.is_none()).count();
        if fresh > 0 {
            info!(group = self.options.group, partitions = fresh, "no committed offset, beginning at the start");
        }
        let extents = if self.options.once { self.extents(&assignment.partitions).await? } else { BTreeMap::new() };
        let started = Instant::now();
        let starts = self.stage.take_over(&assignment.partitions, &committed).await?;
        let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        info!(group = self.options.group, partitions = starts.len(), elapsed_ms, "own output read");
        // A partition in which nothing is left to read has no end to be met.
        let goal = extents.into_iter().filter_map(|(at, extent)| {
            let from = match starts.get(&at)? {
                Start::Beginning => extent.first,
                Start::At(offset) => *offset,
            };
            (from < extent.end).then_some((at, extent.end))
        });
        let goal = goal.collect();
        Ok((starts, goal))
    }

    async fn begin(
        &mut self,
        group: &Group,
        assignment: &Assignment,
        starts: Starts,
        goal: BTreeMap<TopicPartition, i64>,
    ) -> Result<(), TransformerError> {
        let epoch = group.start_at(assignment, starts).await?;
        while let Some(work) = self.stage.heal()? {
            if work.is_empty() {
                yield_now().await;
            } else {
                self.commit(group, epoch, work, Vec::new()).await?;
            }
            if self.shutdown.is_cancelled() || !group.current(epoch) {
                // What is left over is found and published at the next take-over.
                return Ok(());
            }
        }
        self.held = Some(Held { assignment: assignment.clone(), epoch, goal });
        self.part.progress();
        Ok(())
    }

    async fn batch(&mut self, group: &Group, batch: Batch) -> Result<Step, TransformerError> {
        let Some(held) = &self.held else { return Ok(Step::Done) };
        if batch.epoch != held.epoch {
            return Ok(Step::Done);
        }
        let (assignment, epoch) = (held.assignment.clone(), held.epoch);
        let next_offsets = batch.next_offsets();
        let Batch { epoch: _, records, reached } = batch;
        let len = records.len();
        if len > 0 {
            let work = match self.stage.compute(records).await {
                Ok(work) => work,
                Err(error) => return self.failed(error, assignment),
            };
            if let Err(error) = self.commit(group, epoch, work, next_offsets).await {
                return self.failed(error, assignment);
            }
            self.report.records += u64::try_from(len).unwrap_or(u64::MAX);
            self.failures = 0;
        }
        if let Some(held) = &mut self.held {
            for reached in reached {
                held.goal.retain(|at, end| *at != reached.partition || reached.next_offset < *end);
            }
        }
        self.part.progress();
        Ok(Step::Done)
    }

    async fn commit(
        &mut self,
        group: &Group,
        epoch: u64,
        work: Work<S::Effects>,
        next_offsets: Vec<(TopicPartition, i64)>,
    ) -> Result<(), TransformerError> {
        let Work { derived, follow_up, next_offsets: moved, dead_letters, effects } = work;
        let mut next_offsets = next_offsets;
        next_offsets.extend(moved);
        let input = Input { group: group.clone(), epoch, next_offsets };
        let transaction = Transaction { derived, follow_up, checkpoint: Vec::new(), input: Some(input) };
        let publisher = self.publisher.as_mut().ok_or(TransformerError::NoWriter)?;
        self.stage.before_commit();
        // A commit that is dropped leaves a writer that nobody uses again.
        let committed = tokio::select! {
            biased;
            committed = publisher.commit(transaction) => committed?,
            () = overdue(&self.shutdown, COMMIT_WITHIN) => return Err(TransformerError::CutShort),
        };
        self.stage.after_commit();
        let seconds = (committed.timing.delivery + committed.timing.offsets + committed.timing.commit).as_secs_f64();
        metrics::histogram!(names::TRANSACTION_SECONDS, label::STAGE => self.stage.name()).record(seconds);
        self.report.dead_letters += dead_letters;
        self.stage.settle(effects, &committed);
        Ok(())
    }

    /// For `--once`: a member that has not all partitions shares them with somebody who is at work.
    fn all_of(&self, assignment: &Assignment) -> Result<(), TransformerError> {
        let topics = i32::try_from(self.options.topics.len()).unwrap_or(i32::MAX);
        let of = usize::try_from(self.options.partitions.saturating_mul(topics)).unwrap_or(usize::MAX);
        let got = assignment.partitions.len();
        if got < of {
            return Err(TransformerError::Shared { group: self.options.group.clone(), got, of });
        }
        Ok(())
    }

    /// Says whether the ends that were asked for are reached and everything before them is committed.
    fn reached(&self) -> bool {
        self.options.once && self.held.as_ref().is_some_and(|held| held.goal.is_empty())
    }

    async fn extents(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, Extent>, TransformerError> {
        let mut extents = BTreeMap::new();
        for topic in &self.options.topics {
            let of_topic = partitions.iter().filter(|at| *at.topic == **topic).map(|at| at.partition);
            for (partition, extent) in table::ends(&self.connection, topic, of_topic).await? {
                extents.insert(TopicPartition::new(topic.as_str(), partition), extent);
            }
        }
        Ok(extents)
    }

    /// Shows the lag for as long as nothing more important comes in between; a batch waits for it.
    async fn beat(&mut self, consumer: &mut GroupConsumer, group: &Group) -> Step {
        let shutdown = self.shutdown.clone();
        let show = timeout(BEAT_WITHIN, self.show_lag(group));
        tokio::pin!(show);
        let mut batch = None;
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Step::Interrupted(Turn::Stop),
                _ = &mut show => break,
                event = consumer.next(), if batch.is_none() => match event {
                    event @ Event::Batch(_) => batch = Some(event),
                    event => return Step::Interrupted(Turn::Event(event)),
                },
            }
        }
        batch.map_or(Step::Done, |batch| Step::Interrupted(Turn::Event(batch)))
    }

    /// Shows the lag, reckoned by position; reaching the brokers is progress.
    async fn show_lag(&mut self, group: &Group) {
        let Some(held) = &self.held else { return };
        let partitions = held.assignment.partitions.clone();
        let (Ok(positions), Ok(extents)) = (group.position(), self.extents(&partitions).await) else { return };
        let lag: i64 = extents.iter().filter_map(|(at, extent)| Some((extent.end - positions.get(at)?).max(0))).sum();
        self.part.detail("lag_records", lag);
        self.part.detail("partitions", partitions.len());
        #[allow(clippy::cast_precision_loss)] // A gauge is a float.
        metrics::gauge!(names::CONSUMER_LAG, label::STAGE => self.stage.name()).set(lag as f64);
        self.part.progress();
    }
}

/// Keeps what must be handled now; a batch was read before positions were set and is read again.
fn rebalance(event: Event) -> Option<Event> {
    match event {
        Event::Batch(_) => None,
        event @ (Event::Assigned(_) | Event::Revoked(_) | Event::Failed(_)) => Some(event),
    }
}

/// Ends `within` after the shutdown: a commit under way has had its time.
async fn overdue(shutdown: &CancellationToken, within: Duration) {
    shutdown.cancelled().await;
    sleep(within).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_commit_is_given_up_after_a_shutdown_and_never_before() {
        let shutdown = CancellationToken::new();
        let commit = yield_now();
        let in_time = tokio::select! {
            () = commit => true,
            () = overdue(&shutdown, Duration::ZERO) => false,
        };
        assert!(in_time);
        shutdown.cancel();
        let in_time = tokio::select! {
            () = std::future::pending() => true,
            () = overdue(&shutdown, Duration::ZERO) => false,
        };
        assert!(!in_time);
    }
}
