//! Asks the brokers for what [`log_identity`](crate::log_identity) needs to judge.

use std::collections::BTreeMap;
use std::time::Instant;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Offset, TopicPartitionList};

use super::client::{ASK_TIMEOUT, PlainContext, ask, number, passing, retried};
use super::connection::Connection;
use super::record::TopicPartition;
use super::table::TableError;
use crate::log_identity::{Found, Position, judge};

/// Refuses a topic of which one of the positions was taken from another log.
///
/// Asks one question for all partitions, and a second one for the ends of those that hold nothing younger. Returns for each
/// partition before which offset everything was read once, by the times beside the positions: beyond the position where reading
/// was begun again at an earlier one.
///
/// # Errors
/// [`TableError::OtherLog`] for the first partition that does not fit, [`TableError::Ask`] when no broker answers.
pub async fn check(
    connection: &Connection,
    topic: &str,
    positions: &BTreeMap<i32, Position>,
) -> Result<BTreeMap<i32, i64>, TableError> {
    // Nothing was ever read where there is neither an offset nor a time.
    let positions: BTreeMap<i32, Position> =
        positions.iter().filter(|(_, position)| **position != Position::at(0)).map(|(at, it)| (*at, *it)).collect();
    if positions.is_empty() {
        return Ok(BTreeMap::new());
    }
    let name = topic.to_owned();
    let asked = positions.clone();
    let found = ask(connection.asker(), move |client| found(client, &name, &asked)).await;
    let found = found.map_err(|source| TableError::Ask { topic: topic.to_owned(), source })?;
    let judged = positions.iter().map(|(at, position)| {
        let found = found[at];
        judge(TopicPartition::new(topic, *at), *position, found).map_err(Box::new)?;
        let next = found.younger.or((found.end < i64::MAX).then_some(found.end));
        Ok((*at, position.log_time.and(next).unwrap_or(position.next_offset)))
    });
    judged.collect()
}

/// Asks what is to be known of each partition; the end is `i64::MAX` where the partition holds something younger, and so ends
/// beyond its position.
fn found(
    client: &BaseConsumer<PlainContext>,
    topic: &str,
    positions: &BTreeMap<i32, Position>,
) -> KafkaResult<BTreeMap<i32, Found>> {
    let ask = |times: BTreeMap<i32, Offset>| -> KafkaResult<BTreeMap<i32, i64>> {
        if times.is_empty() {
            return Ok(BTreeMap::new());
        }
        let answer = retried(Instant::now() + ASK_TIMEOUT * 3, passing, || {
            let mut list = TopicPartitionList::new();
            times.iter().try_for_each(|(at, time)| list.add_partition_offset(topic, *at, *time))?;
            let answer = client.offsets_for_times(list, ASK_TIMEOUT)?;
            answer.elements().iter().try_for_each(|element| element.error())?;
            Ok(answer)
        })?;
        let offset = |element: &TopicPartitionListElem<'_>| Some((element.partition(), number(element.offset())?));
        Ok(answer.elements().iter().filter_map(offset).collect())
    };
    let time = |(at, position): (&i32, &Position)| Some((*at, Offset::Offset(position.log_time? + 1)));
    let younger = ask(positions.iter().filter_map(time).collect())?;
    // A client takes a logical offset for a time as brokers do.
    let quiet = positions.keys().filter(|at| !younger.contains_key(at));
    let ends = ask(quiet.map(|at| (*at, Offset::End)).collect())?;
    let found = |at: &i32| Found { younger: younger.get(at).copied(), end: ends.get(at).copied().unwrap_or(i64::MAX) };
    Ok(positions.keys().map(|at| (*at, found(at))).collect())
}
