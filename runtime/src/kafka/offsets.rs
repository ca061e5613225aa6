//! Offsets of a group that nobody is a member of: looked at, and set by an operator's command.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{Offset, TopicPartitionList};

use super::client::{PlainContext, make, retried};
use super::connection::{Connection, SESSION_TIMEOUT};
use super::consumer::{Committed, ConsumerError};
use super::record::TopicPartition;
use super::retire::retire;
use super::table::ASK_TIMEOUT;
use crate::log_identity::Beside;

/// A static member that has stopped counts as one until its session has run out.
const EMPTY_WITHIN: Duration = SESSION_TIMEOUT.saturating_add(Duration::from_secs(5));

/// Reads the committed offsets of a group.
///
/// # Errors
/// [`ConsumerError::Ask`] when no broker answers.
pub async fn committed(
    connection: &Connection,
    group: &str,
    partitions: Vec<TopicPartition>,
) -> Result<BTreeMap<TopicPartition, Option<Committed>>, ConsumerError> {
    as_group(connection, group, move |consumer| {
        let mut list = TopicPartitionList::new();
        for at in &partitions {
            list.add_partition(&at.topic, at.partition);
        }
        Committed::of(&consumer.committed_offsets(list, ASK_TIMEOUT)?)
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
    offsets: Vec<(TopicPartition, Committed)>,
) -> Result<(), ConsumerError> {
    as_group(connection, group, move |consumer| {
        let mut list = TopicPartitionList::new();
        for (at, Committed { position, program }) in &offsets {
            let mut element = list.add_partition(&at.topic, at.partition);
            element.set_metadata(Beside { log_time: position.log_time, program: program.clone() }.to_string());
            element.set_offset(Offset::Offset(position.next_offset))?;
        }
        let taken = |code| matches!(code, Code::UnknownMemberId | Code::RebalanceInProgress | Code::IllegalGeneration);
        retried(Instant::now() + EMPTY_WITHIN, taken, || consumer.commit(&list, CommitMode::Sync))
    })
    .await
}

async fn as_group<T: Send + 'static>(
    connection: &Connection,
    group: &str,
    work: impl FnOnce(&BaseConsumer<PlainContext>) -> Result<T, KafkaError> + Send + 'static,
) -> Result<T, ConsumerError> {
    let mut settings = connection.reader();
    settings.set("group.id", group);
    let group = group.to_owned();
    let ask = move || {
        let done = make::<_, BaseConsumer<PlainContext>>(&settings, PlainContext).and_then(|consumer| {
            let done = work(&consumer);
            retire("offsets", consumer);
            done
        });
        done.map_err(|source| ConsumerError::Ask { what: "offsets", group, source })
    };
    tokio::task::spawn_blocking(ask).await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}
