//! Taking partitions over: the store's positions decide where reading begins.

use std::collections::BTreeMap;

use tracing::info;
use windfall_runtime::kafka::TopicPartition;
use windfall_runtime::kafka::consumer::{Assignment, ConsumerError, Start};
use windfall_runtime::kafka::table::{self, Extent};
use windfall_runtime::telemetry::chain;

use super::{Current, Running};
use crate::error::SinkError;
use crate::freshness::away_too_long;
use crate::record::SchemaSource;
use crate::store::{Claimed, StoreError};

impl<R: SchemaSource> Running<R> {
    /// Claims what was assigned and begins to read at the store's positions; waits for store and broker.
    pub(super) async fn take_over(&mut self, assignment: Assignment) -> Result<(), SinkError> {
        self.forget();
        let partitions: Vec<i32> = assignment.partitions.iter().map(|partition| partition.partition).collect();
        if let Some(goal) = &self.goal
            && partitions.len() < goal.ends.len()
        {
            return Err(self.elsewhere(partitions.len()));
        }
        let mut attempt = 0;
        while !self.stop.is_cancelled() {
            let reason = match self.begin(&assignment, &partitions).await? {
                Begun::At(epoch) => {
                    self.assignment = Some(Current { assignment, epoch });
                    self.part.detail("partitions", partitions.len());
                    self.part.clear("given_up");
                    self.part.progress();
                    return Ok(());
                }
                Begun::Gone => return Ok(()),
                Begun::Later(reason) => reason,
            };
            attempt += 1;
            self.pause(attempt, &reason, || true).await;
        }
        Ok(())
    }

    /// Takes the present assignment over once more, after the store turned out to stand elsewhere.
    pub(super) async fn take_over_again(&mut self) -> Result<(), SinkError> {
        match self.assignment.take() {
            Some(current) => self.take_over(current.assignment).await,
            None => Ok(()),
        }
    }

    async fn begin(&mut self, assignment: &Assignment, partitions: &[i32]) -> Result<Begun, SinkError> {
        let claimed = match self.writer.claim(partitions).await {
            Ok(claimed) => claimed,
            Err(StoreError::Refused(source)) => return Err(SinkError::Refused { sink: self.sink.clone(), source }),
            Err(failure) => return Ok(Begun::Later(format!("{}; {}", chain(&failure), failure.help()))),
        };
        let extents = match table::ends(&self.connection, &self.topic, partitions.iter().copied()).await {
            Ok(extents) => extents,
            Err(failure) => return Ok(Begun::Later(chain(&failure).to_string())),
        };
        let mut starts = BTreeMap::new();
        for claimed in &claimed {
            let start = self.start_of(claimed, extents.get(&claimed.partition))?;
            starts.insert(TopicPartition::new(self.topic.as_str(), claimed.partition), start);
        }
        match self.group.start_at(assignment, starts).await {
            Ok(epoch) => {
                info!(sink = %self.sink, partitions = partitions.len(), "partitions taken over");
                self.marks = claimed.iter().filter_map(|claimed| Some((claimed.partition, claimed.as_of?))).collect();
                Ok(Begun::At(epoch))
            }
            Err(ConsumerError::Reassigned { .. }) => Ok(Begun::Gone),
            Err(failure) if failure.may_pass() => Ok(Begun::Later(chain(&failure).to_string())),
            Err(source) => Err(SinkError::Consumer { sink: self.sink.clone(), source: source.into() }),
        }
    }

    /// Decides where reading begins, unless the store's position is one that must not be gone on from.
    fn start_of(&self, claimed: &Claimed, extent: Option<&Extent>) -> Result<Start, SinkError> {
        let Claimed { partition, next_offset, as_of, .. } = *claimed;
        if next_offset == 0 {
            return Ok(Start::Beginning);
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
                None => Ok(Start::At(next_offset)),
            },
        }
    }
}

/// What came of beginning.
enum Begun {
    /// Reading has begun, in this epoch.
    At(u64),
    /// The assignment is no longer there; another event tells more.
    Gone,
    /// Something is away; why.
    Later(String),
}
