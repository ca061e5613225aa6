//! When to try again: the decision as a value, and how long to wait.

use std::time::Duration;

/// What a failure says about another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The same try fails again; somebody must change something first.
    Never,
    /// It may pass; wait longer each time.
    Backoff,
    /// The other side said when.
    After(Duration),
}

/// Waits that grow by `factor` from `first` to `max`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    /// Wait after the first failure.
    pub first: Duration,
    /// No wait is longer.
    pub max: Duration,
    /// Growth from one wait to the next.
    pub factor: f64,
}

impl Default for Backoff {
    /// From half a second, below which a restarting server is only disturbed, to a minute, in which people notice.
    fn default() -> Self {
        Self { first: Duration::from_millis(500), max: Duration::from_secs(60), factor: 2.0 }
    }
}

impl Backoff {
    /// Returns the wait after the failure number `attempt` (from 1), between half and all of the grown wait.
    ///
    /// `jitter` lies in `0.0..1.0` and comes from the caller, so that a run can be repeated.
    #[must_use]
    pub fn wait(&self, attempt: u32, jitter: f64) -> Duration {
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let grown = self.first.as_secs_f64() * self.factor.powi(exponent);
        let capped = grown.min(self.max.as_secs_f64());
        Duration::from_secs_f64(capped * (0.5 + jitter.clamp(0.0, 1.0) / 2.0))
    }

    /// Returns how long to wait before the next try, or none when there is to be none.
    #[must_use]
    pub fn next(&self, retry: Retry, attempt: u32, jitter: f64) -> Option<Duration> {
        match retry {
            Retry::Never => None,
            Retry::Backoff => Some(self.wait(attempt, jitter)),
            Retry::After(wait) => Some(wait),
        }
    }
}

/// How often an outage that lasts is logged again.
const TOLD_AGAIN: Duration = Duration::from_secs(60);

/// Limits the log of an outage: a message when it begins, and one a minute while it lasts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quiet {
    told_at: Option<Duration>,
    left_out: u64,
}

impl Quiet {
    /// Makes a limiter for an outage that has not begun.
    pub const fn new() -> Self {
        Self { told_at: None, left_out: 0 }
    }

    /// Returns whether to log at the time `now` of any clock, and then how many messages were left out since the last one.
    pub fn tell(&mut self, now: Duration) -> Option<u64> {
        if self.told_at.is_some_and(|told_at| now.saturating_sub(told_at) < TOLD_AGAIN) {
            self.left_out += 1;
            return None;
        }
        self.told_at = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }

    /// Ends the outage; returns whether its beginning was logged, so that its end is logged as well.
    pub fn over(&mut self) -> bool {
        std::mem::take(self).told_at.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_wait_doubles_until_its_limit() {
        let backoff = Backoff::default();
        let waits: Vec<_> = [1, 2, 3, 8, u32::MAX].into_iter().map(|n| backoff.wait(n, 1.0).as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 60_000, 60_000]);
    }

    #[test]
    fn what_the_other_side_said_is_obeyed_to_the_second() {
        let said = Duration::from_secs(177);
        assert_eq!(Backoff::default().next(Retry::After(said), 9, 0.3), Some(said));
        assert_eq!(Backoff::default().next(Retry::Never, 1, 0.3), None);
    }

    #[test]
    fn an_outage_is_told_when_it_begins_once_a_minute_and_when_it_ends() {
        let mut quiet = Quiet::new();
        let told: Vec<_> = (0..150).filter_map(|second| quiet.tell(Duration::from_secs(second))).collect();
        assert_eq!(told, [0, 59, 59]);
        assert!(quiet.over() && !quiet.over());
        assert_eq!(quiet.tell(Duration::from_secs(151)), Some(0), "the next outage is told at once");
    }

    proptest! {
        #[test]
        fn a_wait_stays_between_half_and_all_of_the_grown_one(attempt in 1u32..200, jitter in 0.0f64..1.0) {
            let backoff = Backoff::default();
            let wait = backoff.wait(attempt, jitter);
            prop_assert!(wait <= backoff.wait(attempt, 1.0));
            prop_assert!(wait >= backoff.wait(attempt, 1.0) / 2);
        }
    }
}
