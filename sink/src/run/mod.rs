//! The run loop of a sink: batches in, rows and positions out, trouble waited for.
//!
//! ```text
//! Assigned ─▶ claim in the store ─▶ seek to its positions ─▶ batches ─▶ Revoked ─▶ forget, answer
//!                  ▲                                            │
//!                  └───────── the store stands elsewhere ───────┘
//! ```
//!
//! Trouble of the environment pauses the sink: the batch in hand is kept and tried again with growing waits, while the
//! consumer's thread keeps its place in the group. A rebalance ends every wait. A membership that failed is followed by a new
//! one where that may help.

mod account;
mod member;
mod setup;
mod takeover;

pub use setup::{Report, Sink, Surroundings};

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use windfall_runtime::clock::SharedClock;
use windfall_runtime::diagnose::Diagnose;
use windfall_runtime::health::Part;
use windfall_runtime::kafka::consumer::{Assignment, Batch, Event, Group, GroupConsumer, GroupOptions};
use windfall_runtime::kafka::{Connection, Record, TopicPartition};
use windfall_runtime::retry::Backoff;
use windfall_runtime::stall::Stall;
use windfall_runtime::telemetry::chain;

use crate::error::SinkError;
use crate::freshness::RENEWAL;
use crate::letters::KafkaDeadLetters;
use crate::open::AnyStore;
use crate::record::{AssetReader, Refused};
use crate::store::StoreError;
use crate::work::Work;
use crate::writer::{Halt, Writer};

/// What is in flight when partitions go or the process stops may still end within this time; the group waits five seconds.
const GRACE: Duration = Duration::from_secs(3);
/// How soon a wait notices that its partitions have gone.
const WATCH: Duration = Duration::from_millis(50);
/// How often an idle sink looks whether it really is at the end.
const TICK: Duration = Duration::from_secs(15);
/// A member that the group still counts on after this long (three session time-outs) is no zombie: whoever took its
/// partitions over in the store was, with a claim that came late.
const RECLAIM: Duration = Duration::from_secs(30);
/// A store that is back is noticed within this time.
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(200), max: Duration::from_secs(10), factor: 2.0 };

/// What `--once` has to reach.
struct Goal {
    ends: BTreeMap<i32, i64>,
    /// How long an assignment is waited for.
    joining: Duration,
    join_by: Instant,
    /// Ends the run when nothing is stored any more.
    stall: Stall,
}

/// The assignment at work.
struct Current {
    assignment: Assignment,
    epoch: u64,
}

struct Running {
    sink: String,
    topic: String,
    connection: Connection,
    /// The membership, to join anew.
    options: GroupOptions,
    group: Group,
    writer: Writer<AnyStore, KafkaDeadLetters>,
    reader: AssetReader,
    clock: SharedClock,
    part: Part,
    stop: CancellationToken,
    goal: Option<Goal>,
    assignment: Option<Current>,
    /// Partitions behind whose position nothing was found, with that position.
    reached: BTreeMap<i32, i64>,
    /// Up to when each partition's deletions are known in the store.
    marks: BTreeMap<i32, DateTime<Utc>>,
    shown_at: Option<Instant>,
    /// The lag that was shown last.
    lag: Option<i64>,
    /// When partitions were first given up in this assignment.
    given_up_at: Option<Instant>,
    report: Report,
}

impl Running {
    async fn drive(&mut self, mut consumer: GroupConsumer) -> Result<(), SinkError> {
        let stop = self.stop.clone();
        let mut tick = tokio::time::interval_at(Instant::now() + TICK, TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        info!(sink = %self.sink, topic = %self.topic, "sink started");
        let ended = loop {
            if self.goal_reached() {
                break Ok(());
            }
            let join_by = self.goal.as_ref().filter(|_| self.assignment.is_none()).map(|goal| goal.join_by);
            let step = tokio::select! {
                biased;
                () = stop.cancelled() => break Ok(()),
                event = consumer.next() => self.on(event).await,
                _ = tick.tick() => self.look_around().await,
                () = until(join_by) => Err(self.elsewhere(0)),
            };
            if let Err(failure) = step {
                break Err(failure);
            }
        };
        self.show_offsets().await;
        consumer.close().await;
        info!(sink = %self.sink, records = self.report.applied.total(), dead_letters = self.report.dead_letters, "sink ended");
        ended
    }

    async fn on(&mut self, event: Event) -> Result<(), SinkError> {
        match event {
            Event::Assigned(assignment) => {
                // An assignment begins an epoch, whose number is its own.
                let epoch = assignment.id;
                self.take_over(assignment, epoch).await
            }
            Event::Revoked(revoked) => {
                self.forget();
                revoked.ack();
                Ok(())
            }
            Event::Batch(batch) => self.process(batch).await,
            Event::Failed(source) => Err(SinkError::Consumer { sink: self.sink.clone(), source: source.into() }),
        }
    }

    fn forget(&mut self) {
        self.assignment = None;
        self.reached.clear();
        self.marks.clear();
        self.lag = None;
        self.given_up_at = None;
        self.writer.release();
    }

    fn goal_reached(&self) -> bool {
        let Some(goal) = &self.goal else { return false };
        let reached = |partition: &i32| self.reached.get(partition).copied().unwrap_or(0);
        self.assignment.is_some() && goal.ends.iter().all(|(partition, end)| reached(partition) >= *end)
    }

    fn elsewhere(&self, assigned: usize) -> SinkError {
        let partitions = self.goal.as_ref().map_or(0, |goal| goal.ends.len());
        SinkError::AnotherInstance { sink: self.sink.clone(), assigned, partitions }
    }

    /// Reads a batch and stores it, however long that takes; ends early when its partitions go.
    async fn process(&mut self, batch: Batch) -> Result<(), SinkError> {
        let Batch { epoch, records, reached } = batch;
        let received = self.clock.now();
        if !self.learn(epoch, &records).await? {
            return Ok(());
        }
        let mut read = Vec::with_capacity(records.len());
        for record in records {
            let outcome = self.reader.read(&record);
            self.reached.remove(&record.partition);
            read.push((record, outcome));
        }
        let reached: Vec<(i32, i64)> = reached.iter().map(|end| (end.partition.partition, end.next_offset)).collect();
        let mut work = Work::new(read, reached.iter().copied(), received);
        let mut attempt = 0;
        while !work.is_done() {
            let halt = match self.step(epoch, &mut work).await {
                None => return Ok(()),
                Some(Ok(())) => {
                    attempt = 0;
                    continue;
                }
                Some(Err(halt)) => halt,
            };
            attempt += 1;
            match self.after_halt(halt)? {
                Next::Wait(reason) => self.pause(attempt, &reason, || self.group.current(epoch)).await,
                Next::TakeOver => return self.take_over_again().await,
            }
        }
        for (partition, next_offset) in reached {
            if self.writer.positions().get(&partition).is_some_and(|position| *position <= next_offset) {
                self.reached.insert(partition, next_offset);
            }
        }
        self.after_batch().await;
        Ok(())
    }

    /// Asks for the schemas of a batch, waiting for the registry if need be; false when its partitions have gone.
    async fn learn(&mut self, epoch: u64, records: &[Record]) -> Result<bool, SinkError> {
        let mut attempt = 0;
        while !self.abandoned(epoch) {
            match self.reader.learn(records).await {
                Ok(()) => return Ok(true),
                Err(error) if error.may_pass() => {
                    attempt += 1;
                    let reason = chain(&error).to_string();
                    self.pause(attempt, &reason, || self.group.current(epoch)).await;
                }
                Err(source) => return Err(SinkError::Registry { sink: self.sink.clone(), source: source.into() }),
            }
        }
        Ok(false)
    }

    /// Tries the next part; nothing when its partitions have gone and it did not end in time.
    async fn step(&mut self, epoch: u64, work: &mut Work) -> Option<Result<(), Halt>> {
        if self.abandoned(epoch) {
            return None;
        }
        let (group, stop) = (self.group.clone(), self.stop.clone());
        let step = tokio::select! {
            biased;
            step = self.writer.step(work) => step,
            () = gone(&group, epoch, &stop) => return None,
        };
        Some(step.map(|step| {
            self.account(&step);
            if !step.fenced.is_empty() {
                self.give_up(&step.fenced);
            }
        }))
    }

    fn abandoned(&self, epoch: u64) -> bool {
        self.stop.is_cancelled() || !self.group.current(epoch)
    }

    /// Decides what follows when a part could not be stored.
    fn after_halt(&mut self, halt: Halt) -> Result<Next, SinkError> {
        let sink = self.sink.clone();
        match halt {
            Halt::Store(failure) => {
                let StoreError::Environment { cause, .. } = &failure else {
                    return Ok(Next::Wait(chain(&failure).to_string()));
                };
                self.count_error(cause.label());
                Ok(Next::Wait(failure.told()))
            }
            Halt::DeadLetters(source) => {
                self.count_error("dead_letters");
                Ok(Next::Wait(format!("dead letters could not be delivered: {}", chain(&*source))))
            }
            Halt::Behind { partition, expected, found } => {
                warn!(%sink, partition, expected, found, "the store stands before what was read, reading again");
                Ok(Next::TakeOver)
            }
            Halt::Refused(source) => Err(SinkError::Refused { sink, source }),
            Halt::TooManyDeadLetters { refused, window, last } => {
                let Refused { kind, message, .. } = last;
                Err(SinkError::TooManyDeadLetters { sink, refused, window, kind, message })
            }
        }
    }

    /// Shows why the sink waits, and waits; ends early when it stops or `ours` no longer holds.
    async fn pause(&self, attempt: u32, reason: &str, ours: impl Fn() -> bool) {
        let wait = BACKOFF.wait(attempt, rand::random());
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        warn!(sink = %self.sink, error = reason, attempt, wait_ms, "sink paused");
        self.part.paused(reason);
        if let Some(goal) = &self.goal {
            goal.stall.failed(reason);
        }
        let until = Instant::now() + wait;
        while ours() && Instant::now() < until {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(WATCH.min(until - Instant::now())) => {}
            }
        }
    }

    /// Stops reading partitions that another has taken over; the next assignment begins anew.
    fn give_up(&mut self, partitions: &[i32]) {
        warn!(sink = %self.sink, ?partitions, "partitions given up: another instance has taken them over in the store");
        let given: Vec<TopicPartition> =
            partitions.iter().map(|partition| TopicPartition::new(self.topic.as_str(), *partition)).collect();
        if let Err(failure) = self.group.give_up(&given) {
            warn!(sink = %self.sink, error = %chain(&failure), "partitions given up are still read");
        }
        for partition in partitions {
            self.reached.remove(partition);
        }
        self.given_up_at.get_or_insert_with(Instant::now);
        self.part.detail("given_up", partitions.to_vec());
    }

    /// Looks whether an idle sink is at the end, shows its lag, and renews the marks of partitions without records.
    async fn look_around(&mut self) -> Result<(), SinkError> {
        let Some(Current { epoch, .. }) = self.assignment else { return Ok(()) };
        if self.abandoned(epoch) {
            return Ok(());
        }
        if self.given_up_at.is_some_and(|given_up_at| given_up_at.elapsed() >= RECLAIM) {
            warn!(sink = %self.sink, "the group still gives partitions to this instance that it gave up, taking them over again");
            return self.take_over_again().await;
        }
        self.show_lag().await;
        let now = self.clock.now();
        let due = |partition: &i32| self.marks.get(partition).is_none_or(|mark| now - mark >= RENEWAL);
        let reached: BTreeMap<i32, i64> =
            self.reached.iter().filter(|(partition, _)| due(partition)).map(|(at, offset)| (*at, *offset)).collect();
        if reached.is_empty() {
            return Ok(());
        }
        let (group, stop) = (self.group.clone(), self.stop.clone());
        let renewed = tokio::select! {
            biased;
            renewed = self.writer.renew(&reached, now) => renewed,
            () = gone(&group, epoch, &stop) => return Ok(()),
        };
        match renewed {
            Ok(fenced) if fenced.is_empty() => {
                self.marks.extend(reached.keys().map(|partition| (*partition, now)));
                Ok(())
            }
            Ok(fenced) => {
                self.give_up(&fenced);
                Ok(())
            }
            Err(halt) => match self.after_halt(halt)? {
                Next::Wait(reason) => {
                    self.part.paused(reason);
                    Ok(())
                }
                Next::TakeOver => self.take_over_again().await,
            },
        }
    }
}

/// What follows when a part could not be stored.
enum Next {
    /// The same again, after a while.
    Wait(String),
    /// The assignment anew.
    TakeOver,
}

/// Ends a while after `epoch` has passed or the sink is to stop: what is in flight may still end by then.
async fn gone(group: &Group, epoch: u64, stop: &CancellationToken) {
    while group.current(epoch) && !stop.is_cancelled() {
        tokio::time::sleep(WATCH).await;
    }
    tokio::time::sleep(GRACE).await;
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
