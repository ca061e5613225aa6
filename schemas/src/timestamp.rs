//! Apple's times: ISO 8601 with 0 to 9 fraction digits, `Z` or an offset. A time without a zone is UTC, and a date alone
//! is its midnight in UTC.

use chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, SecondsFormat, Utc};

/// A text that is no time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a time such as 2026-08-03T11:20:00.5Z")]
pub struct TimestampError {
    /// The text, cut to 64 characters.
    pub text: String,
}

/// Reads a time to the instant it names; the offset is used and forgotten. A leap second is the first of the next minute.
pub fn parse(text: &str) -> Result<DateTime<Utc>, TimestampError> {
    let trimmed = text.trim();
    let zoned = DateTime::parse_from_rfc3339(trimmed)
        // Offsets without a colon, which ISO 8601 allows and RFC 3339 does not.
        .or_else(|_| DateTime::<FixedOffset>::parse_from_str(trimmed, "%Y-%m-%dT%H:%M:%S%.f%z"))
        .map(|time| time.with_timezone(&Utc));
    let without_zone = || NaiveDateTime::parse_from_str(trimmed, "%Y-%m-%dT%H:%M:%S%.f");
    let date = || NaiveDate::parse_from_str(trimmed, "%Y-%m-%d").map(|date| date.and_time(NaiveTime::MIN));
    zoned
        .or_else(|_| without_zone().or_else(|_| date()).map(|time| time.and_utc()))
        .map_err(|_| TimestampError { text: trimmed.chars().take(64).collect() })
}

/// Reads a time to epoch milliseconds, the form that stands in the records; finer digits are cut.
pub fn parse_millis(text: &str) -> Result<i64, TimestampError> {
    parse(text).map(|time| time.timestamp_millis())
}

/// Writes epoch milliseconds as ISO 8601 in UTC; `None` outside of the years that chrono can name.
pub fn format_millis(millis: i64) -> Option<String> {
    DateTime::<Utc>::from_timestamp_millis(millis).map(|time| time.to_rfc3339_opts(SecondsFormat::Millis, true))
}
