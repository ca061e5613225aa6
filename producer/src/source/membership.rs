//! The membership that decides who polls a source: one group a source, over the single partition of `windfall.sources`.

use std::time::Duration;

use tracing::info;
use windfall_runtime::health::PartState;
use windfall_runtime::kafka::connection::SESSION_TIMEOUT;
use windfall_runtime::kafka::consumer::{BatchLimits, ConsumerError, Event, GroupConsumer, GroupOptions, Revoked};
use windfall_runtime::kafka::publisher::Input;
use windfall_runtime::kafka::{TopicPartition, groups};
use windfall_runtime::log_identity::Position;

use super::Source;
use crate::error::ProducerError;

/// A single run that was not given the source by then leaves it to whoever holds it.
pub(super) const JOINED_WITHIN: Duration = SESSION_TIMEOUT.saturating_add(Duration::from_secs(30));

/// The membership of one source's group.
pub(super) enum Member {
    /// This process is the only one by construction, and holds the source without any group.
    Alone,
    /// Whoever holds the partition polls.
    Joined(GroupConsumer),
}

impl Member {
    /// Waits until the source is given to this process; returns what each of its transactions must carry.
    pub(super) async fn assigned(&mut self, source: &Source) -> Result<Option<Input>, ConsumerError> {
        let Self::Joined(consumer) = self else { return Ok(None) };
        loop {
            match consumer.next().await {
                Event::Assigned(assignment) if assignment.partitions.is_empty() => {
                    info!(group = consumer.group().name(), "standing by: another process polls this source");
                    source.cluster.topics.forget(source.org());
                    source.part.clear("reason");
                    source.part.state(PartState::Standby);
                }
                // Nothing is ever read, so the assignment's own epoch stays the present one.
                Event::Assigned(assignment) => {
                    let at = |partition: TopicPartition| (partition, Position::at(0));
                    let positions = assignment.partitions.into_iter().map(at).collect();
                    return Ok(Some(Input { group: consumer.group(), epoch: assignment.id, positions, program: None }));
                }
                Event::Revoked(revoked) => revoked.ack(),
                Event::Batch(_) => {}
                Event::Failed(error) => return Err(error),
            }
        }
    }

    /// Waits until the source is taken from this process; the group goes on when what is returned is dropped.
    pub(super) async fn lost(&mut self) -> Result<Revoked, ConsumerError> {
        let Self::Joined(consumer) = self else { return std::future::pending().await };
        loop {
            match consumer.next().await {
                Event::Revoked(revoked) => return Ok(revoked),
                Event::Assigned(_) | Event::Batch(_) => {}
                Event::Failed(error) => return Err(error),
            }
        }
    }

    /// Ends the membership: a dynamic member leaves the group, a static one keeps its place until its session time-out.
    pub(super) async fn close(self) {
        if let Self::Joined(consumer) = self {
            consumer.close().await;
        }
    }
}

impl Source {
    fn group(&self) -> String {
        self.cluster.names.producer_group(self.org())
    }

    /// Joins the group of the source.
    pub(super) fn join(&self) -> Result<Member, ConsumerError> {
        let Some(membership) = self.membership.clone() else { return Ok(Member::Alone) };
        let topics = vec![self.cluster.names.sources()];
        let options = GroupOptions { group: self.group(), topics, membership, limits: BatchLimits::default() };
        GroupConsumer::start(&self.cluster.connection, options).map(Member::Joined)
    }

    /// Refuses a single run where the group has a living member: joining would take the source from it, or wait in vain.
    pub(super) async fn refuse_when_at_work(&self) -> Result<(), ProducerError> {
        if self.membership.is_none() {
            return Ok(());
        }
        let group = self.group();
        let members = groups::members(&self.cluster.connection, &group).await;
        let members =
            members.map_err(|source| self.no_member(ConsumerError::Ask { what: "members", group, source }))?;
        if members.is_empty() { Ok(()) } else { Err(self.at_work(members.join(", "))) }
    }

    pub(super) fn at_work(&self, members: String) -> ProducerError {
        ProducerError::AtWork { source_name: self.org().to_owned(), members }
    }

    pub(super) fn no_member(&self, source: ConsumerError) -> ProducerError {
        ProducerError::Membership { source_name: self.org().to_owned(), source: Box::new(source) }
    }
}
