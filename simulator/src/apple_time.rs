//! Date-times as Apple writes them.

use chrono::{DateTime, Utc};

/// Milliseconds since 1970, the compact form of a moment inside a fleet.
pub(crate) type Millis = i64;

/// One day.
pub(crate) const DAY: Millis = 86_400_000;

/// Writes a moment in Apple's form: UTC with `Z`, up to three fraction digits, trailing zeros cut.
pub(crate) fn written(at: Millis) -> String {
    let mut text = moment(at).format("%Y-%m-%dT%H:%M:%S").to_string();
    let fraction = at.rem_euclid(1000);
    if fraction > 0 {
        text.push('.');
        text.push_str(format!("{fraction:03}").trim_end_matches('0'));
    }
    text.push('Z');
    text
}

/// Returns the moment `seconds` after another one, earlier when they are negative; the moment itself beyond all calendars.
pub(crate) fn later(at: DateTime<Utc>, seconds: i64) -> DateTime<Utc> {
    chrono::Duration::try_seconds(seconds).and_then(|by| at.checked_add_signed(by)).unwrap_or(at)
}

/// Returns a moment as a date-time.
pub(crate) fn moment(at: Millis) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(at).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_zeros_of_the_fraction_are_cut() {
        let second = 1_524_064_025_000;
        for (millis, end) in [(0, "05Z"), (520, "05.52Z"), (100, "05.1Z"), (7, "05.007Z"), (255, "05.255Z")] {
            assert_eq!(written(second + millis), format!("2018-04-18T15:07:{end}"));
        }
    }
}
