//! How a worker takes its assignment over.

use std::collections::BTreeMap;

use tokio::time::{Instant, timeout};
use tracing::warn;

use super::{HELD_FOR, Handler, Session, Starts, Taken, Worker, WorkerError};
use crate::kafka::consumer::{Assignment, Event, Group, GroupConsumer, Start};
use crate::kafka::table::{self, Extent, TableError};
use crate::kafka::{Connection, TopicPartition, topics};
use crate::log_identity::{Found, Position, judge};

impl<H: Handler> Worker<H> {
    /// Takes the assignment over, unless something more important comes in between, which is returned.
    pub(super) async fn take_over(
        &mut self,
        consumer: &mut GroupConsumer,
        group: &Group,
    ) -> Result<Option<Event>, H::Error> {
        (self.session, self.again_at) = (None, None);
        self.given_up.clear();
        self.part.clear("given_up");
        let Some(assignment) = self.assignment.clone() else { return Ok(None) };
        if assignment.partitions.is_empty() && !self.options.once {
            self.progress();
            return Ok(None);
        }
        let stop = self.stop.clone();
        let prepared = {
            let prepare = self.prepare(group, &assignment);
            tokio::pin!(prepare);
            let interrupted = tokio::select! {
                biased;
                () = stop.cancelled() => Ok(None),
                event = consumer.next_of(false) => Ok(Some(event)),
                prepared = &mut prepare => Err(prepared),
            };
            match interrupted {
                Err(prepared) => prepared,
                Ok(event) => {
                    let _ = timeout(H::FINISHES_WITHIN, prepare.as_mut()).await;
                    return Ok(event);
                }
            }
        };
        let begun = match prepared {
            Ok(Taken::From(starts)) => self.begin(group, &assignment, starts).await,
            Ok(Taken::Held(reason)) if self.options.once => {
                Err(WorkerError::Held { group: self.group_name(), reason }.into())
            }
            Ok(Taken::Held(reason)) => {
                if let Some(left_out) = self.quiet.tell(self.began.elapsed()) {
                    warn!(group = group.name(), reason, left_out, "held");
                }
                self.part.held(reason);
                self.again_at = Some(Instant::now() + HELD_FOR);
                return Ok(None);
            }
            Err(failure) => Err(failure),
        };
        begun.or_else(|failure| self.failed(group, failure)).map(|()| None)
    }

    /// Lets the handler take over, and compares where it stands with what the topics hold.
    async fn prepare(&mut self, group: &Group, assignment: &Assignment) -> Result<Taken, H::Error> {
        if self.options.once {
            self.set_goal(assignment).await?;
        }
        let mut taken = self.handler.take_over(group, assignment).await?;
        if let Taken::From(starts) = &mut taken {
            let extents = extents(&self.connection, starts.keys()).await.map_err(WorkerError::from)?;
            for (at, start) in starts {
                let Some(extent) = extents.get(at) else { continue };
                *start = Start::At(self.check(at, *start, *extent)?);
            }
        }
        Ok(taken)
    }

    /// Refuses a position that the topic does not hold any more, and makes each start a number.
    fn check(&self, at: &TopicPartition, start: Start, extent: Extent) -> Result<i64, WorkerError> {
        let Extent { first, end } = extent;
        let (group, topic, partition) = (self.group_name(), at.topic.to_string(), at.partition);
        match start {
            Start::Beginning => Ok(first),
            Start::At(position) if first > position => {
                Err(WorkerError::Expired { group, topic, partition, position, first })
            }
            Start::At(position) => {
                let judged = judge(at.clone(), Position::at(position), Found { younger: None, end });
                judged.map(|()| position).map_err(|other| WorkerError::OtherLog(Box::new(other)))
            }
        }
    }

    /// Begins a session at `starts` with a batch that holds nothing.
    pub(super) async fn begin(
        &mut self,
        group: &Group,
        assignment: &Assignment,
        starts: Starts,
    ) -> Result<(), H::Error> {
        let epoch = group.start_at(assignment, starts.clone()).await.map_err(WorkerError::from)?;
        let number = |(at, start): (&TopicPartition, &Start)| match start {
            Start::At(offset) => Some((at.clone(), *offset)),
            Start::Beginning => None,
        };
        self.positions = starts.iter().filter_map(number).collect();
        self.part.detail("partitions", starts.len());
        let starts = self.positions.clone();
        self.session = Some(Session { group: group.clone(), epoch, starts, stop: self.stop.clone() });
        self.idle().await?;
        if self.session.is_some() {
            self.progress();
        }
        Ok(())
    }

    /// For `--once`: notes the ends to be reached, and refuses to share the input with somebody else.
    async fn set_goal(&mut self, assignment: &Assignment) -> Result<(), WorkerError> {
        let group = self.group_name();
        let counts = topics::partition_counts(&self.connection).await?;
        let mut all = Vec::new();
        for topic in &self.options.group.topics {
            let missing = || WorkerError::NoTopic { group: group.clone(), topic: topic.clone() };
            let count = *counts.get(topic).ok_or_else(missing)?;
            all.extend((0..count).map(|partition| TopicPartition::new(topic.as_str(), partition)));
        }
        let (got, of) = (assignment.partitions.len(), all.len());
        if got < of {
            return Err(WorkerError::Shared { group, got, of });
        }
        if self.goal.is_none() {
            let ends = extents(&self.connection, all.iter()).await?;
            self.goal = Some(ends.into_iter().map(|(at, extent)| (at, extent.end)).collect());
        }
        Ok(())
    }

    /// Says whether the ends of a single run are reached and everything before them is durable.
    pub(super) fn reached(&self) -> bool {
        let durable =
            |(at, end): (&TopicPartition, &i64)| self.positions.get(at).is_some_and(|position| position >= end);
        self.session.is_some() && self.goal.as_ref().is_some_and(|goal| goal.iter().all(durable))
    }
}

/// Asks where partitions begin and end.
pub(super) async fn extents(
    connection: &Connection,
    partitions: impl Iterator<Item = &TopicPartition>,
) -> Result<BTreeMap<TopicPartition, Extent>, TableError> {
    let mut by_topic: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for at in partitions {
        by_topic.entry(&at.topic).or_default().push(at.partition);
    }
    let mut extents = BTreeMap::new();
    for (topic, partitions) in by_topic {
        let ends = table::ends(connection, topic, partitions).await?;
        extents.extend(ends.into_iter().map(|(partition, extent)| (TopicPartition::new(topic, partition), extent)));
    }
    Ok(extents)
}
