//! Taking partitions over: the store's positions decide where reading begins.

use std::collections::BTreeMap;

use tracing::info;
use windfall_runtime::diagnose::Diagnose;
use windfall_runtime::kafka::TopicPartition;
use windfall_runtime::kafka::consumer::{Assignment, ConsumerError, Start};
use windfall_runtime::kafka::table::{self, Extent};
use windfall_runtime::telemetry::chain;

use super::{Current, Running, gone};
use crate::error::SinkError;
use crate::freshness::away_too_long;
use crate::store::{Claimed, StoreError};

impl Running {
    /// Claims what was assigned and begins to read at the store's positions; waits for store and broker.
    ///
    /// `epoch` is the one in which the assignment stands. Once it has passed nothing is claimed any more: a late claim
    /// would shut out the member that has the partitions now.
    pub(super) async fn take_over(&mut self, assignment: Assignment, epoch: u64) -> Result<(), SinkError> {
        self.forget();
        let partitions: Vec<i32> = assignment.partitions.iter().map(|partition| partition.partition).collect();
        if let Some(goal) = &self.goal
            && partitions.len() < goal.ends.len()
        {
            return Err(self.elsewhere(partitions.len()));
        }
        match self.claim(&partitions, epoch).await? {
            Some(claimed) => self.begin(assignment, &claimed).await,
            None => Ok(()),
        }
    }

    /// Takes the present assignment over once more, after the store turned out to stand elsewhere.
    pub(super) async fn take_over_again(&mut self) -> Result<(), SinkError> {
        match self.assignment.take() {
            Some(Current { assignment, epoch }) => self.take_over(assignment, epoch).await,
            None => Ok(()),
        }
    }

    /// Claims partitions and looks whether the topic still holds what comes next; nothing when they have gone.
    async fn claim(&mut self, partitions: &[i32], epoch: u64) -> Result<Option<Vec<Claimed>>, SinkError> {
        let (group, stop) = (self.group.clone(), self.stop.clone());
        let mut attempt = 0;
        while !self.abandoned(epoch) {
            let claimed = tokio::select! {
                biased;
                claimed = self.claim_once(partitions) => claimed?,
                () = gone(&group, epoch, &stop) => return Ok(None),
            };
            let reason = match claimed {
                Ok(claimed) => return Ok(Some(claimed)),
                Err(reason) => reason,
            };
            attempt += 1;
            self.pause(attempt, &reason, || group.current(epoch)).await;
        }
        Ok(None)
    }

    /// Tries once; the inner error is a reason to try again.
    async fn claim_once(&mut self, partitions: &[i32]) -> Result<Result<Vec<Claimed>, String>, SinkError> {
        let claimed = match self.writer.claim(partitions).await {
            Ok(claimed) => claimed,
            Err(StoreError::Refused(source)) => return Err(SinkError::Refused { sink: self.sink.clone(), source }),
            Err(failure) => return Ok(Err(failure.told())),
        };
        let extents = match table::ends(&self.connection, &self.topic, partitions.iter().copied()).await {
            Ok(extents) => extents,
            Err(failure) => return Ok(Err(chain(&failure).to_string())),
        };
        for claimed in &claimed {
            self.may_go_on(claimed, extents.get(&claimed.partition))?;
        }
        Ok(Ok(claimed))
    }

    /// Begins to read where the store stands.
    async fn begin(&mut self, assignment: Assignment, claimed: &[Claimed]) -> Result<(), SinkError> {
        let start = |claimed: &Claimed| match claimed.next_offset {
            0 => Start::Beginning,
            next_offset => Start::At(next_offset),
        };
        let at = |claimed: &Claimed| TopicPartition::new(self.topic.as_str(), claimed.partition);
        let starts: BTreeMap<TopicPartition, Start> =
            claimed.iter().map(|claimed| (at(claimed), start(claimed))).collect();
        let mut attempt = 0;
        while !self.stop.is_cancelled() {
            match self.group.start_at(&assignment, starts.clone()).await {
                Ok(epoch) => {
                    info!(sink = %self.sink, partitions = claimed.len(), "partitions taken over");
                    self.marks =
                        claimed.iter().filter_map(|claimed| Some((claimed.partition, claimed.as_of?))).collect();
                    self.assignment = Some(Current { assignment, epoch });
                    self.part.detail("partitions", claimed.len());
                    self.part.clear("given_up");
                    self.part.progress();
                    return Ok(());
                }
                Err(ConsumerError::Reassigned { .. }) => return Ok(()),
                Err(failure) if failure.may_pass() => {
                    attempt += 1;
                    let reason = chain(&failure).to_string();
                    self.pause(attempt, &reason, || true).await;
                }
                Err(source) => return Err(SinkError::Consumer { sink: self.sink.clone(), source: source.into() }),
            }
        }
        Ok(())
    }

    /// Refuses positions that must not be gone on from.
    fn may_go_on(&self, claimed: &Claimed, extent: Option<&Extent>) -> Result<(), SinkError> {
        let Claimed { partition, next_offset, as_of, .. } = *claimed;
        if next_offset == 0 {
            return Ok(());
        }
        let (sink, topic) = (self.sink.clone(), self.topic.clone());
        match extent {
            Some(Extent { end, .. }) if *end < next_offset => {
                Err(SinkError::Recreated { sink, topic, partition, next_offset, end: *end })
            }
            Some(Extent { first, .. }) if *first > next_offset => {
                Err(SinkError::Expired { sink, topic, partition, next_offset, first: *first })
            }
            Some(_) | None => match as_of.filter(|as_of| away_too_long(Some(*as_of), self.clock.now())) {
                Some(as_of) => Err(SinkError::AwayTooLong { sink, topic, partition, as_of }),
                None => Ok(()),
            },
        }
    }
}
