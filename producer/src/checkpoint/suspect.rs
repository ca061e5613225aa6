//! A device that complete scans lack and that no evidence has settled yet.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use windfall_schemas::scan::ScanPart;

use super::header::cut;
use super::{ScanRecord, detailed};
use crate::release::Absence;

/// First wait after a look-up that settled nothing, in milliseconds.
const FIRST_WAIT: i64 = 60_000;
/// Longest wait between look-ups of one device, in milliseconds.
const LONGEST_WAIT: i64 = 60 * 60_000;

/// A device that is missing and may have been released.
///
/// When scans have missed it is told by the steady clock of [`crate::step::Moment`], when it is tried again by the wall clock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Suspect {
    /// The complete scans that missed it.
    #[serde(flatten)]
    pub absence: Absence,
    /// Look-ups that settled nothing.
    pub tries: u32,
    /// When the next look-up may be made, in epoch milliseconds.
    pub next_try_at: i64,
    /// What the last look-up said, for people.
    pub last_answer: Option<String>,
}

impl Suspect {
    /// Begins a suspicion with the first complete scan that missed the device.
    pub fn new(scan: u64, ended_at: i64) -> Self {
        let absence = Absence { first_scan: scan, first_ended_at: ended_at, last_scan: scan, last_ended_at: ended_at };
        Self { absence, tries: 0, next_try_at: ended_at, last_answer: None }
    }

    /// Notes another complete scan that missed the device.
    pub fn missed_again(&self, scan: u64, ended_at: i64) -> Self {
        let absence = Absence { last_scan: scan, last_ended_at: ended_at, ..self.absence };
        Self { absence, ..self.clone() }
    }

    /// Notes a look-up that settled nothing: the next one waits twice as long, an hour at most.
    pub fn tried(&self, why: String, at: i64) -> Self {
        let wait = FIRST_WAIT.saturating_mul(1 << self.tries.min(16)).min(LONGEST_WAIT);
        Self { absence: self.absence, tries: self.tries + 1, next_try_at: at + wait, last_answer: Some(cut(why)) }
    }

    /// How long until the next look-up may be made: nothing where that is further off than any wait of ours, as a clock that
    /// was ahead leaves it.
    #[must_use]
    pub fn wait(&self, now: i64) -> Duration {
        let left = self.next_try_at.saturating_sub(now);
        u64::try_from(left).ok().filter(|_| left <= LONGEST_WAIT).map_or(Duration::ZERO, Duration::from_millis)
    }

    /// Writes the suspicion as a record.
    #[must_use]
    pub fn part(&self, org: &str, device_id: &str, scan_id: &str, at: i64) -> ScanRecord {
        let mut value = detailed(org, &ScanPart::Suspect(device_id.to_owned()), self, at);
        value.scan_id = scan_id.to_owned();
        value.started_at = Some(self.absence.first_ended_at);
        ScanRecord::set(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_up_that_a_clock_ahead_has_put_off_is_due() {
        let suspect = Suspect::new(1, 0).tried("503".into(), 1_000);
        assert_eq!(suspect.wait(1_000), Duration::from_millis(60_000));
        assert_eq!(suspect.wait(61_000), Duration::ZERO);
        assert_eq!(suspect.wait(90_000), Duration::ZERO);
        let ahead = Suspect::new(1, 0).tried("503".into(), 24 * 60 * 60_000);
        assert_eq!(ahead.wait(1_000), Duration::ZERO, "the clock was set back by a day");
    }
}
