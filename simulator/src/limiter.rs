//! Apple's rate limit as it was observed: so many reads in any sliding minute.

use std::collections::VecDeque;

use chrono::{DateTime, Duration, Utc};

/// So many requests in so long a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests admitted in any window.
    pub requests: u32,
    /// Length of the window in seconds.
    pub seconds: u32,
}

impl RateLimit {
    /// What clients of the live service found by trial: 20 reads a minute.
    pub const OBSERVED: Self = Self { requests: 20, seconds: 60 };
    /// What clients of the live token endpoint found: 30 requests in 5 minutes.
    pub const TOKENS: Self = Self { requests: 30, seconds: 300 };
}

/// Admits or refuses requests by a sliding window; refused ones do not count.
#[derive(Clone, Debug)]
pub(crate) struct Limiter {
    limit: RateLimit,
    admitted: VecDeque<DateTime<Utc>>,
}

impl Limiter {
    /// Makes a limiter whose window is empty.
    pub(crate) fn new(limit: RateLimit) -> Self {
        Self { limit, admitted: VecDeque::new() }
    }

    /// Admits a request that came at `now`, or returns the whole seconds to wait.
    pub(crate) fn admit(&mut self, now: DateTime<Utc>) -> Result<(), u32> {
        let window = Duration::seconds(i64::from(self.limit.seconds));
        while self.admitted.front().is_some_and(|at| *at <= now - window) {
            self.admitted.pop_front();
        }
        if self.admitted.len() < self.limit.requests as usize {
            self.admitted.push_back(now);
            return Ok(());
        }
        let free = self.admitted.front().map_or(now, |oldest| *oldest + window);
        let wait = (free - now).num_milliseconds().max(1);
        Err(u32::try_from((wait + 999) / 1000).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(1_795_000_000_000 + millis).unwrap()
    }

    proptest! {
        #[test]
        fn no_sliding_window_holds_more_than_the_limit(
            gaps in proptest::collection::vec(0_i64..20_000, 1..200),
        ) {
            let mut limiter = Limiter::new(RateLimit { requests: 5, seconds: 60 });
            let mut now = 0;
            let mut admitted: Vec<i64> = Vec::new();
            for gap in gaps {
                now += gap;
                if limiter.admit(at(now)).is_ok() {
                    admitted.push(now);
                }
            }
            for window in admitted.windows(6) {
                prop_assert!(window[5] - window[0] >= 60_000, "{window:?}");
            }
        }

        #[test]
        fn whoever_waits_as_long_as_told_is_admitted(gaps in proptest::collection::vec(0_i64..4_000, 6..60)) {
            let mut limiter = Limiter::new(RateLimit { requests: 5, seconds: 60 });
            let mut now = 0;
            for gap in gaps {
                now += gap;
                if let Err(seconds) = limiter.admit(at(now)) {
                    now += i64::from(seconds) * 1000;
                    prop_assert_eq!(limiter.admit(at(now)), Ok(()));
                }
            }
        }
    }

    #[test]
    fn the_twenty_first_read_of_a_minute_is_told_to_wait_for_the_first_to_leave() {
        let mut limiter = Limiter::new(RateLimit::OBSERVED);
        for second in 0..20 {
            assert_eq!(limiter.admit(at(second * 1000)), Ok(()));
        }
        assert_eq!(limiter.admit(at(19_500)), Err(41));
        assert_eq!(limiter.admit(at(59_999)), Err(1));
        assert_eq!(limiter.admit(at(60_000)), Ok(()));
    }
}
