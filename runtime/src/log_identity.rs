//! Decides whether a stored position is still valid in the log that it is used in (pure).
//!
//! A topic that was deleted and made anew, or that belongs to another cluster, has the name and the offsets of the topic that a
//! position was taken from. Only the broker's clock tells the two apart. Every topic of ours has `LogAppendTime`, so no
//! record below a position is younger than the greatest time that was read up to it, and every record of a new log is. The earliest
//! record that is younger than that time must therefore lie at or beyond the position.
//!
//! A position is the offset of the last *delivered* record plus one. A position behind markers or aborted records, which no reader
//! is shown, would have younger entries below it.

use crate::diagnose::{Diagnose, Diagnosis, Kind};
use crate::kafka::TopicPartition;

/// How far a partition has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The offset of the last delivered record plus one.
    pub next_offset: i64,
    /// The greatest `LogAppendTime` delivered up to there, in milliseconds since 1970; `None` where nobody noted it.
    pub log_time: Option<i64>,
}

impl Position {
    /// A position without a time: of a version that noted none, or of a partition that was never read.
    pub fn at(next_offset: i64) -> Self {
        Self { next_offset, log_time: None }
    }

    /// Moves the position behind a record.
    pub fn pass(&mut self, offset: i64, timestamp_ms: Option<i64>) {
        self.next_offset = offset + 1;
        self.log_time = self.log_time.max(timestamp_ms);
    }
}

/// What the broker tells of a partition that is to be read on from a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The earliest record that is younger than the position's time; `None` where there is none, or nobody knows the time.
    pub younger: Option<i64>,
    /// The offset that the next record will get.
    pub end: i64,
}

/// Tells whether the log is the one that the position was taken from.
///
/// | time beside the position | earliest younger record | end of the log | verdict |
/// | --- | --- | --- | --- |
/// | any | any | before the position | another log |
/// | known | before the position | any | another log |
/// | known | at or beyond the position, or none | at or beyond the position | the same log |
/// | unknown | not asked | at or beyond the position | taken as the same log: nothing tells them apart |
///
/// # Errors
/// [`OtherLog`] with the offsets and times that prove it.
pub fn judge(at: TopicPartition, position: Position, found: Found) -> Result<(), OtherLog> {
    let Position { next_offset, log_time } = position;
    let younger = found.younger.filter(|younger| log_time.is_some() && *younger < next_offset);
    if younger.is_none() && found.end >= next_offset {
        return Ok(());
    }
    Err(OtherLog { at, position, younger, end: found.end })
}

/// A log that is not the one that a position was taken from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{at}` is not the log that was read before: {}", clue(*position, *younger, *end))]
pub struct OtherLog {
    /// The partition.
    pub at: TopicPartition,
    /// The position that does not fit.
    pub position: Position,
    /// The record that lies below the position and is younger than everything read up to it.
    pub younger: Option<i64>,
    /// The end of the log.
    pub end: i64,
}

fn clue(position: Position, younger: Option<i64>, end: i64) -> String {
    let Position { next_offset, log_time } = position;
    match (younger, log_time.and_then(chrono::DateTime::from_timestamp_millis)) {
        (Some(younger), Some(time)) => format!(
            "it was read to offset {next_offset}, where no record is younger than {}, but the record at offset {younger} is younger",
            time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
        ),
        _ => format!("it was read to offset {next_offset}, and it ends at {end}"),
    }
}

impl Diagnose for OtherLog {
    fn diagnosis(&self) -> Diagnosis {
        Kind::Refused.help(format!(
            "see whether `kafka.bootstrap_servers` names the right cluster; if the topic was deleted and made anew, \
             `windfall topics accept {}` goes on with it as it is",
            self.at.topic
        ))
    }
}

/// Stands for the program beside an offset of zero where an operator has accepted the log as it is: it is read from its start.
pub const ACCEPTED: &str = "accepted";

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(next_offset: i64, log_time: Option<i64>, younger: Option<i64>, end: i64) -> bool {
        judge(TopicPartition::new("t", 3), Position { next_offset, log_time }, Found { younger, end }).is_ok()
    }

    #[test]
    fn a_log_is_the_same_where_everything_younger_lies_beyond_the_position() {
        assert!(verdict(40, Some(7), None, 40), "nothing has come since");
        assert!(verdict(40, Some(7), None, 41), "a marker has come since");
        assert!(verdict(40, Some(7), Some(40), 50));
        assert!(verdict(40, Some(7), Some(45), 50), "what lies between is a marker, aborted or compacted away");
        assert!(verdict(0, None, Some(0), 50), "nothing was read before");
    }

    #[test]
    fn a_log_that_was_made_anew_is_told_by_its_youth_even_when_it_has_grown_past_the_position() {
        assert!(!verdict(40, Some(7), Some(0), 50));
        assert!(!verdict(40, Some(7), Some(39), 40));
    }

    #[test]
    fn a_log_that_ends_before_the_position_is_another_one_whatever_the_times_are() {
        assert!(!verdict(40, Some(7), None, 0));
        assert!(!verdict(40, None, None, 39));
    }

    #[test]
    fn without_a_time_nothing_but_the_end_can_tell() {
        assert!(verdict(40, None, Some(0), 50));
    }

    #[test]
    fn a_refusal_names_the_partition_what_gave_it_away_and_the_command() {
        let at = TopicPartition::new("abm.devices", 3);
        let position = Position { next_offset: 40, log_time: Some(1_700_000_000_000) };
        let other = judge(at.clone(), position, Found { younger: Some(2), end: 90 }).unwrap_err();
        let text = format!("{other}; {}", other.help().unwrap());
        for part in
            ["`abm.devices/3`", "offset 40", "2023-11-14T22:13:20.000Z", "offset 2", "topics accept abm.devices"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        let other = judge(at, position, Found { younger: None, end: 5 }).unwrap_err();
        assert!(other.to_string().contains("it ends at 5"), "{other}");
    }

    #[test]
    fn a_position_passes_records_and_never_forgets_the_greatest_time() {
        let mut position = Position::at(0);
        position.pass(4, Some(90));
        position.pass(5, Some(80));
        assert_eq!(position, Position { next_offset: 6, log_time: Some(90) });
    }
}
