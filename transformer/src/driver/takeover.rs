//! Taking an assignment over: nothing is computed before all of this has been done, in this order.

use std::collections::BTreeMap;

use tokio::task::yield_now;
use tokio::time::Instant;
use tracing::info;
use windfall_runtime::kafka::TopicPartition;
use windfall_runtime::kafka::consumer::{Assignment, Group, GroupConsumer, Start};
use windfall_runtime::kafka::publisher::Publisher;
use windfall_runtime::kafka::table::Extent;
use windfall_runtime::log_identity::Position;

use super::{Driver, Held, Step, Turn, rebalance};
use crate::error::TransformerError;
use crate::stage::{Stage, Starts};

/// Where partitions stand.
type Positions = BTreeMap<TopicPartition, i64>;

/// What a take-over has found out before anything is written.
#[derive(Debug, Default)]
pub(super) struct Ground {
    pub(super) starts: Starts,
    /// For `--once`: the ends to be reached.
    pub(super) goal: Positions,
    /// Committed again with every difference that is published, so that the coordinator checks the membership: it is not asked
    /// about a transaction without offsets, and a member that was stopped meanwhile would write behind the one who goes on.
    pub(super) fence: Positions,
}

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
            Ok(ground) => self.begin(group, &assignment, ground).await,
            Err(error) => Err(error),
        };
        match begun {
            Ok(()) => Ok(Step::Done),
            Err(error) => self.failed(error, assignment),
        }
    }

    /// Fences, reads the committed offsets, and reads what the stage must know.
    async fn prepare(&mut self, group: &Group, assignment: &Assignment) -> Result<Ground, TransformerError> {
        if self.publisher.as_ref().is_none_or(Publisher::is_dead) {
            self.publisher = None;
            self.publisher = Some(Publisher::start(&self.connection, &self.options.transactional_id).await?);
        }
        let committed = group.committed(&assignment.partitions).await?;
        let fresh = committed.values().filter(|offset| offset.is_none()).count();
        if fresh > 0 {
            info!(group = self.options.group, partitions = fresh, "no committed offset, beginning at the start");
        }
        let asked = self.options.once || fresh == committed.len();
        let extents = if asked { self.extents(&assignment.partitions).await? } else { BTreeMap::new() };
        let started = Instant::now();
        let starts = self.stage.take_over(&assignment.partitions, &committed).await?;
        let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        info!(group = self.options.group, partitions = starts.len(), elapsed_ms, "own output read");
        let from = |at: &TopicPartition, extent: &Extent| match starts.get(at)? {
            Start::Beginning => Some(extent.first),
            Start::At(offset) => Some(*offset),
        };
        // A partition in which nothing is left to read has no end to be met.
        let goal = extents.iter().filter(|(at, extent)| from(at, extent).is_some_and(|from| from < extent.end));
        let goal = goal.map(|(at, extent)| (at.clone(), extent.end)).collect();
        let stood: Positions = committed
            .iter()
            .filter_map(|(at, offset)| Some((at.clone(), offset.as_ref()?.position.next_offset)))
            .collect();
        let begins = extents.iter().filter_map(|(at, extent)| Some((at.clone(), from(at, extent)?)));
        let fence = if stood.is_empty() { begins.collect() } else { stood };
        Ok(Ground { starts, goal, fence })
    }

    pub(super) async fn begin(
        &mut self,
        group: &Group,
        assignment: &Assignment,
        ground: Ground,
    ) -> Result<(), TransformerError> {
        let Ground { starts, goal, mut fence } = ground;
        let epoch = group.start_at(assignment, starts.clone()).await?;
        self.show_details();
        while let Some(mut work) = self.stage.heal()? {
            if work.is_empty() {
                yield_now().await;
            } else {
                fence.extend(work.next_offsets.drain(..));
                let present = fence.iter().map(|(at, offset)| (at.clone(), Position::at(*offset))).collect();
                self.commit(group, epoch, work, present).await?;
            }
            if self.shutdown.is_cancelled() || !group.current(epoch) {
                // What is left over is found and published at the next take-over.
                return Ok(());
            }
        }
        self.show_details();
        self.held = Some(Held { assignment: assignment.clone(), epoch, goal, starts, lag: None });
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
