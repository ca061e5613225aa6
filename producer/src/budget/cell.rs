//! The pacing: one request, then none for a period.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::Clock;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

/// Shows the time that it was last given.
#[derive(Debug, Clone, Default)]
struct Given(Arc<AtomicU64>);

impl Given {
    fn set(&self, now: Duration) {
        self.0.store(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Clock for Given {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::from(self.0.load(Ordering::Relaxed))
    }
}

type Gcra = RateLimiter<NotKeyed, InMemoryState, Given, governor::middleware::NoOpMiddleware<Nanos>>;

/// A rate limiter with a burst of one, on the time that it is given.
#[derive(Debug)]
pub(super) struct Cell {
    period: Duration,
    clock: Given,
    gcra: Gcra,
    last: Option<Duration>,
}

impl Cell {
    /// Makes a cell that admits at once, and then once in each `period`.
    pub(super) fn new(period: Duration, now: Duration) -> Self {
        let clock = Given::default();
        clock.set(now);
        Self { period, gcra: gcra(period, &clock), clock, last: None }
    }

    pub(super) fn period(&self) -> Duration {
        self.period
    }

    /// Changes the pace; the last request still counts. A quota is fixed once built, so the cell is built anew.
    pub(super) fn set_period(&mut self, period: Duration) {
        self.period = period;
        if let Some(last) = self.last {
            self.clock.set(last);
        }
        self.gcra = gcra(period, &self.clock);
        if self.last.is_some() {
            let counted = self.gcra.check();
            debug_assert!(counted.is_ok(), "a new cell admits its first request");
        }
    }

    /// When the next request may leave.
    pub(super) fn opens(&self) -> Duration {
        self.last.map_or(Duration::ZERO, |last| last + self.period)
    }

    /// Admits a request, or says how long to wait.
    pub(super) fn admit(&mut self, now: Duration) -> Result<(), Duration> {
        self.clock.set(now);
        match self.gcra.check() {
            Ok(()) => {
                self.last = Some(now);
                Ok(())
            }
            Err(refused) => Err(refused.wait_time_from(self.clock.now())),
        }
    }
}

fn gcra(period: Duration, clock: &Given) -> Gcra {
    // A period of zero cannot be: limits and shares are finite and `Limit::ours` is at most 2^32.
    let quota =
        Quota::with_period(period.max(Duration::from_nanos(1))).unwrap_or(Quota::per_hour(std::num::NonZeroU32::MIN));
    RateLimiter::direct_with_clock(quota, clock.clone())
}
