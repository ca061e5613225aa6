//! Taking an assignment over: nothing is computed before all of this has been done, in this order.

use std::collections::BTreeMap;

use tokio::task::yield_now;
use tokio::time::Instant;
use tracing::info;
use windfall_runtime::kafka::TopicPartition;
use windfall_runtime::kafka::consumer::{Assignment, Group, GroupConsumer, Start};
use windfall_runtime::kafka::publisher::Publisher;

use super::{Driver, Held, Step, Turn, rebalance};
use crate::error::TransformerError;
use crate::stage::{Stage, Starts};

impl<S: Stage> Driver<S> {
    /// Takes the partitions over: fence, committed offsets, own output, positions, differences.
    pub(super) async fn take(
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

    pub(super) async fn begin(
        &mut self,
        group: &Group,
        assignment: &Assignment,
        starts: Starts,
        goal: BTreeMap<TopicPartition, i64>,
    ) -> Result<(), TransformerError> {
        let epoch = group.start_at(assignment, starts).await?;
        self.show_details();
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
}
