//! What a sink shows of itself: metrics, the status board, and offsets for people to look at.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use metrics::{counter, gauge, histogram};
use tokio::time::{Duration, Instant};
use tracing::debug;
use windfall_runtime::kafka::{TopicPartition, table};
use windfall_runtime::metrics::{self as names, label};
use windfall_runtime::telemetry::chain;

use super::Running;
use crate::freshness::as_of;
use crate::store::Applied;
use crate::work::{Entry, Fate};
use crate::writer::Step;

/// Offsets are shown to Kafka's tools no more often than this.
const SHOW_EVERY: Duration = Duration::from_secs(1);
/// A broker is asked no longer than this for what is only shown: a rebalance waits meanwhile.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// Name of the stage in metrics.
const STAGE: &str = "sink";

impl Running {
    /// Counts what a step did.
    pub(super) fn account(&mut self, step: &Step) {
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
            self.part.detail("dead_letters", self.report.dead_letters);
        }
        let now = self.clock.now();
        for entry in done {
            self.measure(entry, now);
        }
        if !done.is_empty() {
            debug!(sink = %self.sink, records = done.len(), written, deleted, stale, dead, "batch stored");
            self.part.progress();
            if let Some(goal) = &self.goal {
                goal.stall.done();
            }
        }
    }

    fn measure(&mut self, entry: &Entry, now: DateTime<Utc>) {
        let Entry { record, observed_ms, fate } = entry;
        let written = record.timestamp_ms.and_then(DateTime::from_timestamp_millis);
        self.marks.insert(record.partition, as_of(now, written, false));
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

    /// Counts an error by its cause.
    pub(super) fn count_error(&self, code: &'static str) {
        counter!(names::ERRORS, label::STAGE => STAGE, label::SINK => self.sink.clone(), label::CODE => code)
            .increment(1);
    }

    /// After a batch: lag as far as it is known without asking, offsets now and then.
    pub(super) async fn after_batch(&mut self) {
        let at_end = self.writer.positions().keys().all(|partition| self.reached.contains_key(partition));
        if at_end {
            self.set_lag(0);
        }
        self.part.progress();
        if at_end || self.shown_at.is_none_or(|shown| shown.elapsed() >= SHOW_EVERY) {
            self.show_offsets().await;
        }
    }

    /// Commits the positions to Kafka, for display alone; nothing is ever read back.
    pub(super) async fn show_offsets(&mut self) {
        let Some(current) = &self.assignment else { return };
        let offsets: Vec<(TopicPartition, i64)> = self
            .writer
            .positions()
            .iter()
            .map(|(partition, offset)| (TopicPartition::new(self.topic.as_str(), *partition), *offset))
            .collect();
        let (group, epoch) = (self.group.clone(), current.epoch);
        self.shown_at = Some(Instant::now());
        let shown = tokio::spawn(async move {
            if let Err(failure) = group.commit(epoch, &offsets).await {
                debug!(error = %chain(&failure), "offsets not shown");
            }
        });
        if self.stop.is_cancelled() || self.goal.is_some() {
            let _ = tokio::time::timeout(SHOW_EVERY, shown).await;
        }
    }

    /// Asks where the topic ends and shows how far away that is. To be there is progress, or to have come nearer; an answer
    /// alone is none: a sink that hears nothing any more is not ready.
    pub(super) async fn show_lag(&mut self) {
        let positions = self.furthest();
        let asked = table::ends(&self.connection, &self.topic, positions.keys().copied());
        match tokio::time::timeout(ASK_TIMEOUT, asked).await {
            Err(_) => debug!(sink = %self.sink, "end of the topic not told in time"),
            Ok(Ok(extents)) => {
                let behind = |(partition, position): (&i32, &i64)| {
                    extents.get(partition).map_or(0, |extent| (extent.end - position).max(0))
                };
                let lag: i64 = positions.iter().map(behind).sum();
                let before = self.lag;
                self.set_lag(lag);
                if lag == 0 || before.is_some_and(|before| lag < before) {
                    self.part.progress();
                }
            }
            Ok(Err(failure)) => debug!(sink = %self.sink, error = %chain(&failure), "end of the topic not asked"),
        }
    }

    /// The furthest offset of each partition up to which everything is stored: markers lie behind the last record.
    fn furthest(&self) -> BTreeMap<i32, i64> {
        let position = |(partition, stored): (&i32, &i64)| {
            let reached = self.reached.get(partition).copied().unwrap_or(*stored);
            (*partition, reached.max(*stored))
        };
        self.writer.positions().iter().map(position).collect()
    }

    fn set_lag(&mut self, lag: i64) {
        self.lag = Some(lag);
        self.part.detail("lag", lag);
        // Precise up to 2^53 records.
        #[allow(clippy::cast_precision_loss)]
        gauge!(names::CONSUMER_LAG, label::STAGE => STAGE, label::SINK => self.sink.clone()).set(lag as f64);
    }
}

fn seconds(span: chrono::TimeDelta) -> f64 {
    span.to_std().unwrap_or_default().as_secs_f64()
}
