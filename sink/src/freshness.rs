//! The watermark of a reader of a compacted topic: up to when it knows every deletion (pure).
//!
//! The topics keep each record whole for 30 days, and a tombstone for 30 days after the log was first cleaned past it.
//! A reader that is at the end knows every deletion up to now, and each later one stays for 60 days. A reader in the
//! middle knows them up to the time of its record, whatever the log still held then; and a record that it was shown at
//! all had not been cleaned away yet, so that a deletion of it stays for 30 days from now.

use chrono::{DateTime, TimeDelta, Utc};

/// How long a deletion can be read once the log has been cleaned past it.
const RETENTION: TimeDelta = TimeDelta::days(30);
/// A reader that was away longer than this may have missed deletions: 60 days less one for clocks.
pub(crate) const MAX_AWAY: TimeDelta = TimeDelta::days(59);
/// How often a partition without records renews its watermark.
pub(crate) const RENEWAL: TimeDelta = TimeDelta::hours(1);

/// Returns up to when every deletion is known, after records were received at `received` and the last of them was
/// written at `written` by the broker's clock; `at_end` when nothing lay behind it.
pub(crate) fn as_of(received: DateTime<Utc>, written: Option<DateTime<Utc>>, at_end: bool) -> DateTime<Utc> {
    if at_end {
        return received;
    }
    let shown = received - RETENTION;
    written.map_or(shown, |written| written.clamp(shown, received.max(shown)))
}

/// Whether a reader with the watermark `as_of` must not resume at `now`, but rebuild.
pub(crate) fn away_too_long(as_of: Option<DateTime<Utc>>, now: DateTime<Utc>) -> bool {
    as_of.is_some_and(|as_of| now - as_of > MAX_AWAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(day: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::days(10_000 + day)
    }

    #[test]
    fn a_reader_at_the_end_knows_everything_up_to_now() {
        assert_eq!(as_of(day(0), Some(day(-200)), true), day(0));
        assert_eq!(as_of(day(0), None, true), day(0));
    }

    #[test]
    fn a_reader_in_a_backlog_knows_what_its_record_knew_but_a_first_read_of_an_old_log_can_be_resumed() {
        assert_eq!(as_of(day(0), Some(day(-3)), false), day(-3));
        assert_eq!(as_of(day(0), Some(day(-200)), false), day(-30));
        assert!(!away_too_long(Some(day(-30)), day(29)));
        assert!(away_too_long(Some(day(-30)), day(30)));
    }

    #[test]
    fn a_brokers_clock_that_runs_ahead_promises_nothing() {
        assert_eq!(as_of(day(0), Some(day(2)), false), day(0));
    }

    #[test]
    fn a_reader_that_was_away_for_59_days_goes_on_and_one_longer_rebuilds() {
        assert!(!away_too_long(Some(day(0)), day(59)));
        assert!(away_too_long(Some(day(0)), day(59) + TimeDelta::seconds(1)));
        assert!(!away_too_long(None, day(99)), "what was never read has nothing to miss");
    }
}
