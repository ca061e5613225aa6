//! The run loop that both stages share: assignments, take-overs, batches, and a writer that is thrown away when it fails.
//!
//! ```text
//! Assigned ─▶ fence (a writer) ─▶ committed offsets ─▶ fold own output ─▶ start_at ─▶ publish differences ─▶ batches
//!    ▲                                                                                                        │
//!    └──────────────── writer dead: a new one, and the same again ◀── commit failed ◀─────────────────────────┤
//! Revoked ─▶ memory stays as a cache ◀────────────────────────────────────────────────────────────────────────┘
//! Failed  ─▶ memory stays as a cache, and a new member joins where that may help
//! ```
//!
//! Memory moves only after a commit that answered OK, or by reading the topic.

mod lag;
mod member;
mod takeover;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use windfall_runtime::diagnose::Diagnose;
use windfall_runtime::health::{Part, State};
use windfall_runtime::kafka::consumer::{Assignment, Batch, BatchLimits, Event, Group, GroupConsumer};
use windfall_runtime::kafka::publisher::{Input, Publisher, Transaction};
use windfall_runtime::kafka::{Connection, Membership, TopicPartition, connection};
use windfall_runtime::log_identity::Position;
use windfall_runtime::metrics::{self as names, label};
use windfall_runtime::stall::Stall;
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
    /// Ends a single run that does nothing any more.
    pub(crate) stall: Stall,
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
/// What is in flight at a shutdown has this long to be committed; the process ends after ten seconds anyway.
const COMMIT_WITHIN: Duration = Duration::from_secs(5);
/// Silence that means trouble: a transaction and a take-over of a small state fit into it.
pub(crate) const SILENCE: Duration = Duration::from_secs(60);
/// First pause after a failure; doubled up to [`MAX_PAUSE`].
const PAUSE: Duration = Duration::from_millis(200);
/// By then the group has told a member that another process has replaced it: its writer must not fence the other's.
const VERDICT: Duration = connection::SESSION_TIMEOUT;
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
    /// Where reading began.
    starts: Starts,
    /// The lag that was shown last.
    lag: Option<i64>,
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
    /// The step failed and passes: the assignment is taken over again after a while.
    Again(Assignment, Duration),
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
        let (stall, once, group) = (self.options.stall.clone(), self.options.once, self.options.group.clone());
        let result = tokio::select! {
            biased;
            ended = self.join() => ended,
            reason = stall.over(), if once => Err(TransformerError::Stalled { group, after: stall.limit(), reason }),
        };
        self.publisher = None;
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
                Step::Again(assignment, pause) => Some(self.pause(consumer, assignment, pause).await),
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
        let pause = self.note(&error);
        Ok(Step::Again(assignment, if error.fenced() { VERDICT } else { pause }))
    }

    /// Counts and shows a failure that passes, and says how long to wait before another try.
    fn note(&mut self, error: &TransformerError) -> Duration {
        self.failures += 1;
        let code = error.code();
        warn!(group = self.options.group, error = %chain(error), attempt = self.failures, "taking over again");
        metrics::counter!(names::ERRORS, label::STAGE => self.stage.name(), label::CODE => code).increment(1);
        self.part.paused(chain(error).to_string());
        self.options.stall.failed(chain(error).to_string());
        PAUSE.saturating_mul(1 << self.failures.min(10)).min(MAX_PAUSE)
    }

    /// Waits before another try; an event or the shutdown ends the wait.
    async fn pause(&mut self, consumer: &mut GroupConsumer, assignment: Assignment, pause: Duration) -> Turn {
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

    async fn batch(&mut self, group: &Group, batch: Batch) -> Result<Step, TransformerError> {
        let Some(held) = &self.held else { return Ok(Step::Done) };
        if batch.epoch != held.epoch {
            return Ok(Step::Done);
        }
        let (assignment, epoch) = (held.assignment.clone(), held.epoch);
        let next_offsets = batch.positions();
        let Batch { epoch: _, records, reached } = batch;
        let len = records.len();
        self.options.stall.read();
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
        next_offsets: Vec<(TopicPartition, Position)>,
    ) -> Result<(), TransformerError> {
        let Work { derived, follow_up, next_offsets: moved, dead_letters, effects } = work;
        let mut next_offsets = next_offsets;
        next_offsets.extend(moved.into_iter().map(|(at, offset)| (at, Position::at(offset))));
        let input = Input { group: group.clone(), epoch, positions: next_offsets, program: None };
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
        self.options.stall.done();
        let seconds = (committed.timing.delivery + committed.timing.offsets + committed.timing.commit).as_secs_f64();
        metrics::histogram!(names::TRANSACTION_SECONDS, label::STAGE => self.stage.name()).record(seconds);
        self.report.dead_letters += dead_letters;
        if dead_letters > 0 {
            self.part.detail("dead_letters", self.report.dead_letters);
        }
        self.stage.settle(effects, &committed);
        self.show_details();
        Ok(())
    }

    /// Shows what the stage has to tell.
    fn show_details(&self) {
        for (name, detail) in self.stage.details() {
            match detail {
                Some(detail) => self.part.detail(name, detail),
                None => self.part.clear(name),
            }
        }
    }

    /// Says whether the ends that were asked for are reached and everything before them is committed.
    fn reached(&self) -> bool {
        self.options.once && self.held.as_ref().is_some_and(|held| held.goal.is_empty())
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
mod tests;
