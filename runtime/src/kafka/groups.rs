//! Groups that this process is no member of: who belongs to them, and their offsets, which an operator's command may set.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Offset, TopicPartitionList};

use super::client::{ASK_TIMEOUT, PlainContext, ask, number, passing, retried};
use super::connection::{Connection, SESSION_TIMEOUT};
use super::consumer::{ConsumerError, partition_list};
use super::record::TopicPartition;
use crate::log_identity::Position;

/// A coordinator that has not answered by then is out of reach.
const DESCRIBED_WITHIN: Duration = Duration::from_secs(30);
const TRY: Duration = Duration::from_secs(5);
/// A static member that has stopped counts as one until its session has run out.
const EMPTY_WITHIN: Duration = SESSION_TIMEOUT.saturating_add(Duration::from_secs(5));

/// A committed offset, and what stands beside it as its metadata: `windfall/1 <time or -> <program or ->`.
///
/// Kafka keeps up to 4,096 bytes of metadata; this takes less than 100.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// How far the group has read.
    pub position: Position,
    /// The identity of the program that has read up to there, a hash in hex, where one was noted.
    pub program: Option<String>,
}

const FORM: &str = "windfall/1";

impl CommittedOffset {
    fn metadata(&self) -> String {
        let time = self.position.log_time.map_or_else(|| "-".to_owned(), |time| time.to_string());
        format!("{FORM} {time} {}", self.program.as_deref().unwrap_or("-"))
    }

    /// Reads the metadata of an offset. What somebody else wrote, or a version of another form, says nothing.
    fn parse(next_offset: i64, metadata: &str) -> Self {
        let mut words = metadata.split(' ');
        let ours = words.next() == Some(FORM);
        let mut words = words.take_while(|_| ours);
        let log_time = words.next().and_then(|time| time.parse().ok());
        let program = words.next().filter(|program| *program != "-").map(str::to_owned);
        Self { position: Position { next_offset, log_time }, program }
    }

    /// Adds the offset with its metadata to what is to be committed.
    pub(super) fn add_to(&self, list: &mut TopicPartitionList, at: &TopicPartition) -> KafkaResult<()> {
        let mut element = list.add_partition(&at.topic, at.partition);
        element.set_metadata(self.metadata());
        element.set_offset(Offset::Offset(self.position.next_offset))
    }

    /// Reads what a coordinator answers; a partition without a committed offset has none.
    pub(super) fn of(list: &TopicPartitionList) -> KafkaResult<BTreeMap<TopicPartition, Option<Self>>> {
        let committed = |element: TopicPartitionListElem<'_>| {
            // A partition whose offset was not read must not look like one that has none: it would begin at the beginning.
            element.error()?;
            let known = number(element.offset()).map(|next_offset| Self::parse(next_offset, element.metadata()));
            Ok((TopicPartition::new(element.topic(), element.partition()), known))
        };
        list.elements().into_iter().map(committed).collect()
    }
}

/// Lists the living members of a group by client id and host, without joining it; a group that does not exist has none.
///
/// A member that was killed counts as living until its session time-out has passed.
///
/// # Errors
/// When no broker answers.
pub async fn members(connection: &Connection, group: &str) -> KafkaResult<Vec<String>> {
    let group = group.to_owned();
    ask(connection.asker(), move |client| {
        let again = |code| passing(code) || matches!(code, Code::Partial | Code::WaitingForCoordinator);
        let describe = || client.fetch_group_list(Some(&group), TRY);
        let list = retried(Instant::now() + DESCRIBED_WITHIN, again, describe)?;
        let members = list.groups().iter().flat_map(|group| group.members());
        let named =
            members.map(|member| format!("`{}` at {}", member.client_id(), member.client_host().trim_matches('/')));
        Ok(named.collect())
    })
    .await
}

/// Reads the committed offsets of a group.
///
/// # Errors
/// [`ConsumerError::Ask`] when no broker answers.
pub async fn committed(
    connection: &Connection,
    group: &str,
    partitions: Vec<TopicPartition>,
) -> Result<BTreeMap<TopicPartition, Option<CommittedOffset>>, ConsumerError> {
    as_group(connection, group, move |consumer| {
        let list = partition_list(partitions.iter().map(|at| (at, Offset::Invalid)));
        CommittedOffset::of(&consumer.committed_offsets(list, ASK_TIMEOUT)?)
    })
    .await
}

/// Sets the offsets of a group that has no member; waits until a member that has stopped counts no longer.
///
/// # Errors
/// [`ConsumerError::Ask`] when no broker answers, or the group has a living member.
pub async fn commit(
    connection: &Connection,
    group: &str,
    offsets: Vec<(TopicPartition, CommittedOffset)>,
) -> Result<(), ConsumerError> {
    as_group(connection, group, move |consumer| {
        let mut list = TopicPartitionList::new();
        offsets.iter().try_for_each(|(at, offset)| offset.add_to(&mut list, at))?;
        let taken = |code| matches!(code, Code::UnknownMemberId | Code::RebalanceInProgress | Code::IllegalGeneration);
        retried(Instant::now() + EMPTY_WITHIN, taken, || consumer.commit(&list, CommitMode::Sync))
    })
    .await
}

async fn as_group<T: Send + 'static>(
    connection: &Connection,
    group: &str,
    work: impl FnOnce(&BaseConsumer<PlainContext>) -> KafkaResult<T> + Send + 'static,
) -> Result<T, ConsumerError> {
    let mut settings = connection.reader();
    settings.set("group.id", group);
    let failed = |source| ConsumerError::Ask { what: "offsets", group: group.to_owned(), source };
    ask(settings, work).await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_beside_an_offset_is_read_as_it_was_written() {
        let program = Some("0123456789abcdef0123456789abcdef".to_owned());
        let cases = [(None, None), (Some(1_700_000_000_000), None), (None, program.clone()), (Some(-1), program)];
        for (log_time, program) in cases {
            let offset = CommittedOffset { position: Position { next_offset: 7, log_time }, program };
            assert!(offset.metadata().len() < 100);
            assert_eq!(CommittedOffset::parse(7, &offset.metadata()), offset);
        }
        for foreign in ["", "windfall/2 7 x", "{\"a\":1}", "windfall/1"] {
            let nothing = CommittedOffset { position: Position::at(7), program: None };
            assert_eq!(CommittedOffset::parse(7, foreign), nothing, "{foreign}");
        }
    }
}
