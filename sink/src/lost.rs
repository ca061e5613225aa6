//! Finds rows that a store has lost although its positions say that they were written.
//!
//! If a table was truncated or restored from an older backup, its positions are ahead of its rows. The rows alone do not show it:
//! an asset may have been deleted for good, and a record may have been refused. So the newest live record below each position is
//! read from the topic. Its row must have its guard or a greater one, unless the record was refused; then it is among the dead
//! letters, as long as these are kept.
//!
//! | the newest live record below the position | verdict |
//! | --- | --- |
//! | none | nothing is known |
//! | at or below the greatest guard of the partition's rows | nothing is missing as far as can be told |
//! | beyond it, and among the sink's dead letters | nothing is missing as far as can be told |
//! | beyond it, older than dead letters are kept, while other partitions have rows | nothing is known |
//! | beyond it, else | rows are lost |
//!
//! Rows of a higher generation than their position are refused as well: no record would ever be newer than such a row.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use windfall_runtime::diagnose::{Diagnose, Diagnosis, Kind};
use windfall_runtime::kafka::table::{self, FoldRequest, TableError};
use windfall_runtime::kafka::{Connection, Record};
use windfall_schemas::topic::{Names, REJECT_PARTITIONS};

use crate::error::SinkError;
use crate::store::{GENERATION, PartitionProgress, StoreProgress};

/// How long dead letters are kept.
const LETTERS: TimeDelta = TimeDelta::days(30);

/// The table does not hold what its positions say was written.
#[derive(Debug, thiserror::Error)]
#[error(
    "sink `{sink}` has lost rows: partition {} of `{topic}` was written up to offset {} of generation {}, {}",
    partition.partition, partition.position.next_offset, partition.generation, rows(partition.greatest, *offset)
)]
pub struct Lost {
    /// The sink.
    pub sink: String,
    /// The topic.
    pub topic: String,
    /// The partition, with its position and the end of its rows.
    pub partition: PartitionProgress,
    /// A live record that lies between the rows and the position; `None` where the rows are of a higher generation.
    pub offset: Option<i64>,
    /// What has the sink read the topic again.
    pub reread: String,
}

fn rows(greatest: Option<(i64, i64)>, offset: Option<i64>) -> String {
    let end = match greatest {
        Some((generation, offset)) => format!("and its rows end at offset {offset} of generation {generation}"),
        None => "and it has no rows".to_owned(),
    };
    match offset {
        Some(offset) => format!("{end}, though a live record stands at offset {offset}"),
        None => format!("{end}, so that no record is newer than its row"),
    }
}

impl Diagnose for Lost {
    fn diagnosis(&self) -> Diagnosis {
        Kind::Refused.help(format!(
            "put the table back together with `windfall_positions` from one backup, or have the sink read the topic again \
             from its start, which brings back every row that is missing: run `{}` in the store",
            self.reread
        ))
    }
}

/// Compares what a store holds with the topic that it is filled from.
///
/// # Errors
/// [`SinkError::Lost`] where rows are missing, and [`SinkError::Worker`] where no broker answers.
pub(crate) async fn look(
    connection: &Connection,
    names: &Names,
    sink: &str,
    topic: &str,
    held: &StoreProgress,
    now: DateTime<Utc>,
) -> Result<(), SinkError> {
    let lost = |partition: &PartitionProgress, offset: Option<i64>| {
        let newest = held.partitions.iter().filter_map(|at| Some(at.greatest?.0)).max().unwrap_or_default();
        let reread = held.reread.replace(GENERATION, &newest.max(partition.generation).to_string());
        let (sink, topic) = (sink.to_owned(), topic.to_owned());
        SinkError::Lost(Box::new(Lost { sink, topic, partition: partition.clone(), offset, reread }))
    };
    if let Some(partition) = held.partitions.iter().find(|at| at.greatest.is_some_and(|(row, _)| row > at.generation)) {
        return Err(lost(partition, None));
    }
    let read = held.partitions.iter().filter(|at| at.position.next_offset > 0);
    let below: BTreeMap<i32, i64> = read.map(|at| (at.partition, at.position.next_offset)).collect();
    if below.is_empty() {
        return Ok(());
    }
    let suspects = beyond(table::newest_live(connection, topic, &below).await.map_err(unread)?, &held.partitions, now);
    if suspects.is_empty() {
        return Ok(());
    }
    let letters = names.dead_letters(topic, &names.sink_group(sink));
    let refused = table::fold(connection, FoldRequest::whole(letters, 0..REJECT_PARTITIONS), BTreeSet::new(), note);
    let refused = refused.await.map_err(unread)?.state;
    match suspects.into_iter().find(|(at, offset)| !refused.contains(&(at.partition, *offset))) {
        Some((partition, offset)) => Err(lost(partition, Some(offset))),
        None => Ok(()),
    }
}

/// The topic did not answer, or is another one.
pub(crate) fn unread(error: TableError) -> SinkError {
    SinkError::Worker(Box::new(error.into()))
}

fn note(refused: &mut BTreeSet<(i32, i64)>, letter: Record) -> Result<(), windfall_runtime::registry::RegistryError> {
    let number = |name| letter.headers.text(name).and_then(|text| text.parse::<i64>().ok());
    let at = number("__connect.errors.partition").and_then(|partition| i32::try_from(partition).ok());
    refused.extend(at.zip(number("__connect.errors.offset")));
    Ok(())
}

/// The partitions whose rows do not reach the newest live record, each with its offset.
fn beyond(newest: Vec<Record>, held: &[PartitionProgress], now: DateTime<Utc>) -> Vec<(&PartitionProgress, i64)> {
    let empty = held.iter().all(|at| at.greatest.is_none());
    let suspect = |record: Record| {
        let at = held.iter().find(|at| at.partition == record.partition)?;
        let written = at.greatest.filter(|(generation, _)| *generation == at.generation).map(|(_, offset)| offset);
        let kept =
            record.timestamp_ms.and_then(DateTime::from_timestamp_millis).is_some_and(|time| now - time < LETTERS);
        (written < Some(record.offset) && (kept || empty)).then_some((at, record.offset))
    };
    newest.into_iter().filter_map(suspect).collect()
}

#[cfg(test)]
mod tests {
    use windfall_runtime::kafka::Headers;
    use windfall_runtime::log_identity::Position;

    use super::*;

    fn at(partition: i32, greatest: Option<(i64, i64)>) -> PartitionProgress {
        PartitionProgress { partition, generation: 2, position: Position::at(90), greatest }
    }

    /// Finds what is beyond the rows when the newest live record stands at offset 50 of partition 0 and is so many days old.
    fn found(days: i64, held: &[PartitionProgress]) -> bool {
        let now = DateTime::UNIX_EPOCH + TimeDelta::days(1_000);
        let timestamp_ms = Some((now - TimeDelta::days(days)).timestamp_millis());
        let (topic, headers) = ("t".into(), Headers::new());
        let record = Record { topic, partition: 0, offset: 50, timestamp_ms, key: None, value: None, headers };
        !beyond(vec![record], held, now).is_empty()
    }

    #[test]
    fn rows_up_to_the_newest_live_record_miss_nothing() {
        assert!(!found(0, &[at(0, Some((2, 50)))]));
        assert!(!found(0, &[at(0, Some((2, 80)))]), "the greatest guard may be a deleted record's or a tombstone's");
    }

    #[test]
    fn rows_that_end_before_it_are_lost_and_those_of_an_earlier_generation_do_not_count() {
        assert!(found(0, &[at(0, Some((2, 49)))]));
        assert!(found(0, &[at(0, Some((1, 80)))]));
        assert!(found(0, &[at(0, None), at(1, Some((2, 7)))]));
    }

    #[test]
    fn a_record_whose_dead_letter_may_have_expired_proves_nothing_beside_rows_of_other_partitions() {
        assert!(!found(31, &[at(0, None), at(1, Some((2, 7)))]));
        assert!(found(31, &[at(0, None), at(1, None)]), "an empty table holds no row of any record");
    }
}
