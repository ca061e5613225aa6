//! The end of a single run that comes on no more: a scheduler would wait for it in vain.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use windfall_runtime::clock::SharedClock;

/// A single run to which nothing has come for so long ends: longer than any failure that passes by itself within a scan,
/// shorter than the pause between two runs of a scheduler.
const PATIENCE: Duration = Duration::from_secs(600);
/// A slow limit may let this many of its periods pass.
const PERIODS: u32 = 3;

/// When a source last came on, and what has kept it since.
#[derive(Debug)]
pub(crate) struct Stall {
    /// In milliseconds of the clock.
    until: AtomicU64,
    at_work: AtomicBool,
    met: Mutex<String>,
}

/// What a source has stalled in.
#[derive(Debug)]
pub(super) struct Stalled {
    /// Whether it had taken the source over.
    pub(super) at_work: bool,
    pub(super) seconds: u64,
    pub(super) why: String,
}

impl Stall {
    /// Begins now.
    pub(crate) fn new(clock: &SharedClock) -> Self {
        let stall = Self {
            until: AtomicU64::new(0),
            at_work: AtomicBool::new(false),
            met: Mutex::new("nothing was heard".to_owned()),
        };
        stall.moved(clock, Duration::ZERO);
        stall
    }

    /// Notes that something came of it; `period` is the time between two requests.
    pub(super) fn moved(&self, clock: &SharedClock, period: Duration) {
        let until = clock.elapsed() + PATIENCE.max(period.saturating_mul(PERIODS));
        self.until.store(u64::try_from(until.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Notes whether the source is taken over.
    pub(super) fn at_work(&self, at_work: bool) {
        self.at_work.store(at_work, Ordering::Relaxed);
    }

    /// Notes what keeps it.
    pub(super) fn met(&self, why: impl ToString) {
        *self.met.lock().unwrap_or_else(PoisonError::into_inner) = why.to_string();
    }

    /// Waits until nothing has come for too long.
    pub(super) async fn watch(&self, clock: &SharedClock) -> Stalled {
        loop {
            let until = Duration::from_millis(self.until.load(Ordering::Relaxed));
            let left = until.saturating_sub(clock.elapsed());
            if left.is_zero() {
                let why = self.met.lock().unwrap_or_else(PoisonError::into_inner).clone();
                return Stalled { at_work: self.at_work.load(Ordering::Relaxed), seconds: PATIENCE.as_secs(), why };
            }
            clock.sleep(left).await;
        }
    }
}
