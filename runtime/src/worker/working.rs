//! How a worker has batches made durable, and what it does about failures and lag.

use std::collections::BTreeMap;
use std::time::Duration;

use ::metrics::Label;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use super::taking::extents;
use super::{BACKOFF, BEAT_WITHIN, Done, Failure, Handler, RECLAIM, Worker};
use crate::diagnose::Diagnose;
use crate::kafka::TopicPartition;
use crate::kafka::consumer::{Assignment, Batch, Event, Group, GroupConsumer};
use crate::kafka::table::Extent;
use crate::metrics::{self as names, label};
use crate::telemetry::chain;

impl<H: Handler> Worker<H> {
    /// Gives the handler a batch without records.
    pub(super) async fn idle(&mut self) -> Result<(), H::Error> {
        let Some(epoch) = self.session.as_ref().map(|session| session.epoch) else { return Ok(()) };
        self.process(Batch { epoch, records: Vec::new(), reached: Vec::new() }).await
    }

    /// Has a batch made durable; one of another session is dropped.
    pub(super) async fn process(&mut self, batch: Batch) -> Result<(), H::Error> {
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
    pub(super) fn progress(&mut self) {
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
    pub(super) fn give_up(&mut self, group: &Group, partitions: &[TopicPartition]) {
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
    pub(super) fn failed(&mut self, group: &Group, failure: H::Error) -> Result<(), H::Error> {
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
    pub(super) fn wait_after(&mut self, failure: &H::Error) -> Option<Duration> {
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
    pub(super) async fn beat(&mut self, consumer: &mut GroupConsumer) -> Result<Option<Event>, H::Error> {
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
    pub(super) fn show_lag(&mut self, extents: &BTreeMap<TopicPartition, Extent>) {
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
}
