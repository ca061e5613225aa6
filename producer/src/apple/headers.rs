//! The few response headers that mean something to us.

use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

use crate::budget::LONGEST_RETRY_AFTER;

/// Longest request id that is kept.
const MAX_REQUEST_ID: usize = 64;

/// Reads `Retry-After`: seconds, or a date, which counts from the server's own `Date` where it gives one.
///
/// `None` when the header is missing or says nothing that can be understood. Seconds are rounded up. What is longer than
/// [`LONGEST_RETRY_AFTER`] is cut to it, here where it comes in: errors carry the wait to schedulers, which add it to times.
pub(super) fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        let sound = seconds.is_finite() && seconds >= 0.0;
        return sound.then(|| Duration::from_secs(seconds.ceil() as u64).min(LONGEST_RETRY_AFTER));
    }
    let until = DateTime::parse_from_rfc2822(text).ok()?.with_timezone(&Utc);
    let from = date(headers).unwrap_or(now);
    Some((until - from).to_std().unwrap_or_default().min(LONGEST_RETRY_AFTER))
}

/// Reads the server's `Date`.
pub(super) fn date(headers: &HeaderMap) -> Option<DateTime<Utc>> {
    let text = headers.get(DATE)?.to_str().ok()?;
    DateTime::parse_from_rfc2822(text).ok().map(|date| date.with_timezone(&Utc))
}

/// Reads `X-Apple-Request-Uuid`, cut and without anything that could disturb a log.
pub(super) fn request_id(headers: &HeaderMap) -> Option<String> {
    let text = headers.get("x-apple-request-uuid")?.to_str().ok()?;
    let id: String = text.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(MAX_REQUEST_ID).collect();
    (!id.is_empty()).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_795_260_000, 0).unwrap()
    }

    fn read(pairs: &[(&'static str, &str)]) -> Option<Duration> {
        let headers = pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        retry_after(&headers, now())
    }

    #[test]
    fn seconds_are_taken_as_they_are_and_rounded_up() {
        for (text, seconds) in [("0", 0), ("1", 1), ("60", 60), ("3600", 3600), (" 7 ", 7), ("1.2", 2)] {
            assert_eq!(read(&[("retry-after", text)]), Some(Duration::from_secs(seconds)), "{text}");
        }
    }

    #[test]
    fn a_date_counts_from_the_servers_own_clock() {
        let far_from_ours =
            [("date", "Sat, 21 Nov 2015 09:14:03 GMT"), ("retry-after", "Sat, 21 Nov 2015 09:15:08 GMT")];
        assert_eq!(read(&far_from_ours), Some(Duration::from_secs(65)));
        let past = [("date", "Sat, 21 Nov 2015 09:14:03 GMT"), ("retry-after", "Sat, 21 Nov 2015 09:00:00 GMT")];
        assert_eq!(read(&past), Some(Duration::ZERO));
    }

    #[test]
    fn no_answer_makes_us_wait_longer_than_a_day() {
        let year = "31536000";
        for text in [year, "1e19", "1e300", "18446744073709551615", "Fri, 31 Dec 9999 23:59:59 GMT"] {
            assert_eq!(read(&[("retry-after", text)]), Some(LONGEST_RETRY_AFTER), "{text}");
        }
        let apart = [("date", "Mon, 01 Jan 0001 00:00:00 GMT"), ("retry-after", "Fri, 31 Dec 9999 23:59:59 GMT")];
        assert_eq!(read(&apart), Some(LONGEST_RETRY_AFTER));
    }

    #[test]
    fn garbage_says_nothing() {
        for text in ["", "soon", "-5", "NaN", "inf", "1;2", "2026-11-21T09:14:03Z"] {
            assert_eq!(read(&[("retry-after", text)]), None, "{text}");
        }
        assert_eq!(read(&[]), None);
    }
}
