//! A sink as a stage: what it is made of, how it is run, and what it does in its worker.
//!
//! The store decides where a sink stands: a take-over claims the partitions in the store and goes on from its positions, and each
//! batch moves the positions in its own transaction. The offsets committed to Kafka are for display only.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use metrics::{Label, counter, histogram};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};
use windfall_runtime::clock::SharedClock;
use windfall_runtime::diagnose::Diagnose as _;
use windfall_runtime::health::StatusPart;
use windfall_runtime::kafka::consumer::{Assignment, Batch, BatchLimits, Group, GroupOptions, Start};
use windfall_runtime::kafka::{Connection, Membership, Record, TopicPartition};
use windfall_runtime::log_identity::Position;
use windfall_runtime::metrics::{self as names, label};
use windfall_runtime::registry::RegistryClient;
use windfall_runtime::telemetry::chain;
use windfall_runtime::worker::{Done, GRACE, Handler, Logs, Session, Taken, Worker, WorkerOptions};
use windfall_schemas::asset::Collection;
use windfall_schemas::topic::Names;

use crate::config::SinkSettings;
use crate::error::SinkError;
use crate::freshness::{RENEWAL, as_of, away_too_long};
use crate::letters::KafkaDeadLetters;
use crate::lost;
use crate::record::{AssetReader, Refused};
use crate::store::{Applied, AssetStore, Claimed};
use crate::work::{BatchRecord, BatchWork, Fate};
use crate::writer::{Halt, Step, Writer};

/// Bytes of a batch: a few thousand flat records.
const MAX_BATCH_BYTES: usize = 8 * 1024 * 1024;
/// Offsets are shown to Kafka's tools no more often than this.
const SHOW_EVERY: Duration = Duration::from_secs(1);
/// How often rows are compared with their positions after a take-over: the store reads the whole table for it.
const COMPARE_EVERY: Duration = Duration::from_secs(3600);
/// Name of the stage in metrics.
const STAGE: &str = "sink";

/// What a sink needs from the process that it runs in.
pub struct Surroundings {
    /// The cluster, as the stage `sink-<name>`.
    pub connection: Connection,
    /// The collection that is written.
    pub collection: Collection,
    /// The schema registry.
    pub registry: RegistryClient,
    /// The machine's clock: the broker's time stamps are compared with it.
    pub clock: SharedClock,
    /// The handle by which the sink reports its state.
    pub part: StatusPart,
    /// Name of the process among its peers.
    pub instance: String,
    /// Whether the sink keeps its partitions over a restart.
    pub membership: Membership,
}

/// What a sink did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// What became of the records that the store took.
    pub applied: Applied,
    /// Records that went to the dead letters.
    pub dead_letters: u64,
}

/// A sink over a store, ready to run.
pub struct Sink<S> {
    settings: SinkSettings,
    surroundings: Surroundings,
    store: S,
}

impl<S: AssetStore> Sink<S> {
    /// Makes a sink that writes into `store`; connects to nothing yet.
    pub fn new(settings: impl Into<SinkSettings>, store: S, surroundings: Surroundings) -> Self {
        Self { settings: settings.into(), surroundings, store }
    }

    /// Runs until `stop` is cancelled; what is in flight then ends or is thrown away.
    ///
    /// # Errors
    /// When only an operator can help: see [`SinkError`].
    pub async fn run(self, stop: CancellationToken) -> Result<Report, SinkError> {
        run(self.worker(stop, false)).await
    }

    /// Writes all that the topic holds when the partitions have been assigned, and ends.
    ///
    /// Should be a dynamic member of its group.
    ///
    /// # Errors
    /// As [`Sink::run`]; another instance at work is an error, too.
    pub async fn run_once(self, stop: CancellationToken) -> Result<Report, SinkError> {
        run(self.worker(stop, true)).await
    }

    fn worker(self, stop: CancellationToken, once: bool) -> Worker<SinkHandler<S>> {
        let Self { settings, surroundings, store } = self;
        let Surroundings { connection, collection, registry, clock, part, instance, membership } = surroundings;
        let names = Names::new(&*connection.config().topic_prefix);
        let topic = names.assets(collection.name());
        let group = names.sink_group(&settings.name);
        let limits = BatchLimits {
            max_records: usize::try_from(settings.batch.count.get()).unwrap_or(usize::MAX),
            max_bytes: MAX_BATCH_BYTES,
            linger: settings.batch.period.get(),
        };
        let letters = KafkaDeadLetters {
            connection: connection.clone(),
            topic: names.dead_letters(&topic, &group),
            service: format!("windfall-sink-{}", settings.name),
            instance,
            component: settings.store,
            clock: clock.clone(),
            sender: None,
        };
        let rows = SinkHandler {
            writer: Writer::new(store, letters, &settings.dlq),
            reader: AssetReader::new(collection, registry, &topic),
            sink: settings.name.clone(),
            topic: topic.clone(),
            clock,
            part: part.clone(),
            once,
            reached: BTreeMap::new(),
            watermarks: BTreeMap::new(),
            shown_at: None,
            compared_at: None,
            names,
            report: Report::default(),
            logs: Logs::new(connection.clone()),
            connection: connection.clone(),
        };
        let labels = vec![Label::new(label::STAGE, STAGE), Label::new(label::SINK, settings.name)];
        let group = GroupOptions { group, topics: vec![topic], membership, limits };
        Worker::new(rows, connection, WorkerOptions { group, labels, once }, part, stop)
    }
}

async fn run<S: AssetStore>(mut worker: Worker<SinkHandler<S>>) -> Result<Report, SinkError> {
    // On the heap: whoever runs a sink need not have room for all that it may wait for.
    Box::pin(worker.run()).await?;
    Ok(worker.handler.report)
}

/// A sink's part in its worker: records become rows.
struct SinkHandler<S> {
    sink: String,
    topic: String,
    writer: Writer<S, KafkaDeadLetters>,
    reader: AssetReader,
    clock: SharedClock,
    part: StatusPart,
    once: bool,
    /// Partitions that were read to their end, each with the offset of the end.
    reached: BTreeMap<i32, i64>,
    /// For each partition, up to when the store knows every deletion.
    watermarks: BTreeMap<i32, DateTime<Utc>>,
    shown_at: Option<Instant>,
    /// When the rows were last compared with their positions; `None` after a take-over.
    compared_at: Option<Instant>,
    connection: Connection,
    names: Names,
    report: Report,
    /// How far the topic was read, with the times that the store keeps.
    logs: Logs,
}

impl<S: AssetStore> Handler for SinkHandler<S> {
    type Error = SinkError;

    const FINISHES_WITHIN: Duration = GRACE;

    async fn take_over(&mut self, _: &Group, assignment: &Assignment) -> Result<Taken, SinkError> {
        let partitions: Vec<i32> = assignment.partitions.iter().map(|at| at.partition).collect();
        let claimed = self.writer.claim(&partitions).await.map_err(|failure| self.failed(Halt::Store(failure)))?;
        let position = |claimed: &Claimed| {
            let Claimed { next_offset, log_time, .. } = *claimed;
            (self.at(claimed.partition), Position { next_offset, log_time })
        };
        let positions: Vec<_> = claimed.iter().map(position).collect();
        self.logs.take(positions).await?;
        let now = self.clock.now();
        if let Some(Claimed { partition, as_of: Some(as_of), .. }) =
            claimed.iter().find(|claimed| claimed.next_offset > 0 && away_too_long(claimed.as_of, now))
        {
            let (sink, topic) = (self.sink.clone(), self.topic.clone());
            return Err(SinkError::AwayTooLong { sink, topic, partition: *partition, as_of: *as_of });
        }
        (self.compared_at, self.reached) = (None, BTreeMap::new());
        self.watermarks = claimed.iter().filter_map(|claimed| Some((claimed.partition, claimed.as_of?))).collect();
        let start = |claimed: &Claimed| match claimed.next_offset {
            0 => Start::Beginning,
            next_offset => Start::At(next_offset),
        };
        Ok(Taken::From(claimed.iter().map(|claimed| (self.at(claimed.partition), start(claimed))).collect()))
    }

    async fn process(&mut self, session: &Session, batch: Batch) -> Result<Done, SinkError> {
        self.logs.look().await?;
        let read = batch.positions();
        let Batch { epoch: _, records, reached } = batch;
        let received = self.clock.now();
        let idle = records.is_empty();
        let learned = self.reader.learn(&records).await;
        learned.map_err(|source| SinkError::Registry { sink: self.sink.clone(), source: source.into() })?;
        let outcome = |record: Record| {
            let outcome = self.reader.read(&record);
            (record, outcome)
        };
        let outcomes: Vec<_> = records.into_iter().map(outcome).collect();
        for (record, _) in &outcomes {
            self.reached.remove(&record.partition);
        }
        let ends: Vec<(i32, i64)> = reached.iter().map(|end| (end.partition.partition, end.next_offset)).collect();
        let mut work = BatchWork::new(outcomes, ends.iter().copied(), received);
        let (before, mut fenced) = (self.report.dead_letters, Vec::new());
        while !work.is_done() {
            let step = self.writer.step(&mut work).await.map_err(|halt| self.failed(halt))?;
            self.account(&step);
            fenced.extend(step.fenced);
        }
        self.logs.pass(read);
        let ours = self.writer.positions();
        self.reached.extend(ends.into_iter().filter(|(at, end)| ours.get(at).is_some_and(|position| position <= end)));
        if idle {
            self.compare(received).await;
            fenced.extend(self.renew(received).await?);
        }
        self.reached.retain(|partition, _| !fenced.contains(partition));
        let at_end = self.writer.positions().keys().all(|partition| self.reached.contains_key(partition));
        self.show_offsets(session, idle || at_end).await;
        let given_up = fenced.into_iter().map(|partition| self.at(partition)).collect();
        Ok(Done { dead_letters: self.report.dead_letters - before, given_up })
    }

    fn revoke(&mut self) {
        self.reached.clear();
        self.watermarks.clear();
        self.writer.release();
    }
}

impl<S: AssetStore> SinkHandler<S> {
    fn at(&self, partition: i32) -> TopicPartition {
        TopicPartition::new(self.topic.as_str(), partition)
    }

    fn failed(&self, halt: Halt) -> SinkError {
        let sink = self.sink.clone();
        match halt {
            Halt::Store(error) => SinkError::of_store(sink, error),
            Halt::DeadLetters(source) => SinkError::DeadLetters { sink, source },
            Halt::Behind { partition, expected, found } => SinkError::Behind { sink, partition, expected, found },
            Halt::TooManyDeadLetters { refused, window, last } => {
                let Refused { kind, message, .. } = last;
                SinkError::TooManyDeadLetters { sink, refused, window, kind, message }
            }
        }
    }

    /// Reports in the status whether the store has lost rows below its positions. The sink goes on, since what it writes is right.
    async fn compare(&mut self, now: DateTime<Utc>) {
        if self.compared_at.is_some_and(|compared_at| compared_at.elapsed() < COMPARE_EVERY) {
            return;
        }
        self.compared_at = Some(Instant::now());
        let looked = match self.writer.held().await {
            Ok(held) => lost::look(&self.connection, &self.names, &self.sink, &self.topic, &held, now).await,
            Err(failure) => Err(self.failed(Halt::Store(failure))),
        };
        match looked {
            Ok(()) => self.part.clear("lost"),
            Err(failure @ SinkError::Lost(_)) => {
                error!(sink = %self.sink, error = %chain(&failure), help = failure.help().as_deref(), "rows are lost");
                self.part.detail("lost", failure.told());
            }
            Err(failure) => {
                debug!(sink = %self.sink, error = %chain(&failure), "rows not compared with their positions")
            }
        }
    }

    /// Renews the watermarks of partitions without new records; returns the partitions that another process has taken over.
    async fn renew(&mut self, now: DateTime<Utc>) -> Result<Vec<i32>, SinkError> {
        let due = |partition: &i32| self.watermarks.get(partition).is_none_or(|watermark| now - watermark >= RENEWAL);
        let reached: BTreeMap<i32, i64> =
            self.reached.iter().filter(|(partition, _)| due(partition)).map(|(at, offset)| (*at, *offset)).collect();
        if reached.is_empty() {
            return Ok(Vec::new());
        }
        let fenced = self.writer.renew(&reached, now).await.map_err(|halt| self.failed(halt))?;
        if fenced.is_empty() {
            self.watermarks.extend(reached.keys().map(|partition| (*partition, now)));
        }
        Ok(fenced)
    }

    /// Updates the report and the metrics after a step.
    fn account(&mut self, step: &Step) {
        let Step { applied, done, fenced: _ } = step;
        let Applied { applied: written, deleted, stale, unchanged, folded } = *applied;
        self.report.applied += *applied;
        let dead = done.iter().filter(|entry| entry.fate != Fate::Store).count() as u64;
        self.report.dead_letters += dead;
        for (outcome, count) in
            [("ok", written + deleted), ("stale", stale), ("noop", unchanged + folded), ("dlq", dead)]
        {
            if count > 0 {
                counter!(names::RECORDS, label::STAGE => STAGE, label::SINK => self.sink.clone(), label::OUTCOME => outcome)
                    .increment(count);
            }
        }
        if dead > 0 {
            counter!(names::DLQ_RECORDS, label::SINK => self.sink.clone()).increment(dead);
        }
        let now = self.clock.now();
        for entry in done {
            self.measure(entry, now);
        }
        if !done.is_empty() {
            debug!(sink = %self.sink, records = done.len(), written, deleted, stale, dead, "batch stored");
            self.part.progress();
        }
    }

    fn measure(&mut self, entry: &BatchRecord, now: DateTime<Utc>) {
        let BatchRecord { record, observed_ms, fate } = entry;
        let written = record.timestamp_ms.and_then(DateTime::from_timestamp_millis);
        self.watermarks.insert(record.partition, as_of(now, written, false));
        if *fate != Fate::Store {
            return;
        }
        if let Some(written) = written {
            histogram!(names::SINK_LAG_SECONDS, label::SINK => self.sink.clone()).record(seconds(now - written));
        }
        if let Some(observed) = observed_ms.and_then(DateTime::from_timestamp_millis) {
            histogram!(names::END_TO_END_SECONDS, label::SINK => self.sink.clone()).record(seconds(now - observed));
        }
    }

    /// Commits the positions to Kafka now and then, for display alone; nothing is ever read back.
    async fn show_offsets(&mut self, session: &Session, now: bool) {
        if !now && self.shown_at.is_some_and(|shown_at| shown_at.elapsed() < SHOW_EVERY) {
            return;
        }
        self.shown_at = Some(Instant::now());
        let offset = |(partition, offset): (&i32, &i64)| (self.at(*partition), *offset);
        let offsets: Vec<(TopicPartition, i64)> = self.writer.positions().iter().map(offset).collect();
        let (group, epoch) = (session.group.clone(), session.epoch);
        let shown = tokio::spawn(async move {
            if let Err(failure) = group.commit(epoch, &offsets).await {
                debug!(error = %chain(&failure), "offsets not shown");
            }
        });
        if self.once || session.is_over() {
            let _ = timeout(SHOW_EVERY, shown).await;
        }
    }
}

fn seconds(span: chrono::TimeDelta) -> f64 {
    span.to_std().unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests;
