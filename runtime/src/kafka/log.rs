//! Asks the brokers what [`log_identity`](crate::log_identity) judges by.

use std::collections::BTreeMap;
use std::time::Instant;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::client::{PlainContext, make, number, passing, retried};
use super::connection::Connection;
use super::record::TopicPartition;
use super::retire::retire;
use super::table::{ASK_TIMEOUT, TableError};
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
    let (asker, name, topic) = (connection.asker(), topic.to_owned(), topic.to_owned());
    let work = move || check_blocking(&asker, &topic, &positions);
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|source| Err(TableError::Ended { topic: name, source }))
}

fn check_blocking(
    asker: &ClientConfig,
    topic: &str,
    positions: &BTreeMap<i32, Position>,
) -> Result<BTreeMap<i32, i64>, TableError> {
    let failed = |source| TableError::Ask { topic: topic.to_owned(), source };
    let client = make::<_, BaseConsumer<PlainContext>>(asker, PlainContext).map_err(failed)?;
    let ask = |times: BTreeMap<i32, Offset>| -> Result<BTreeMap<i32, i64>, TableError> {
        if times.is_empty() {
            return Ok(BTreeMap::new());
        }
        let deadline = Instant::now() + ASK_TIMEOUT * 3;
        let answer = retried(deadline, passing, || {
            let mut list = TopicPartitionList::new();
            times.iter().try_for_each(|(at, time)| list.add_partition_offset(topic, *at, *time))?;
            let answer = client.offsets_for_times(list, ASK_TIMEOUT)?;
            answer.elements().iter().try_for_each(|element| element.error())?;
            Ok(answer)
        });
        let answer = answer.map_err(failed)?;
        let offset = |element: &TopicPartitionListElem<'_>| Some((element.partition(), number(element.offset())?));
        Ok(answer.elements().iter().filter_map(offset).collect())
    };
    let time = |(at, position): (&i32, &Position)| Some((*at, Offset::Offset(position.log_time? + 1)));
    let younger = ask(positions.iter().filter_map(time).collect())?;
    // A client takes a logical offset for a time as brokers do.
    let quiet = positions.keys().filter(|at| !younger.contains_key(at));
    let ends = ask(quiet.map(|at| (*at, Offset::End)).collect())?;
    let judged = positions.iter().map(|(at, position)| {
        // A partition that holds something younger ends beyond it.
        let found = Found { younger: younger.get(at).copied(), end: ends.get(at).copied().unwrap_or(i64::MAX) };
        judge(TopicPartition::new(topic, *at), *position, found).map_err(Box::new)?;
        let read_once = position.log_time.and(found.younger.or(ends.get(at).copied()));
        Ok((*at, read_once.unwrap_or(position.next_offset)))
    });
    let judged = judged.collect();
    retire("log identity", client);
    judged
}
