//! A clock on which every wait is over at once, and is seen in the time.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use windfall_runtime::clock::Clock;

/// Time that passes only by waiting.
#[derive(Debug)]
pub(crate) struct PatientClock {
    nanos: AtomicU64,
    /// How far the wall clock is off, in seconds.
    wrong_by: AtomicI64,
}

impl PatientClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { nanos: AtomicU64::new(0), wrong_by: AtomicI64::new(0) })
    }

    pub(crate) fn pass(&self, duration: Duration) {
        self.nanos.fetch_add(duration.as_nanos() as u64, Ordering::SeqCst);
    }

    pub(crate) fn set_wrong_by(&self, seconds: i64) {
        self.wrong_by.store(seconds, Ordering::SeqCst);
    }

    /// The time as a right clock shows it.
    pub(crate) fn right(&self) -> DateTime<Utc> {
        DateTime::from_timestamp(1_795_260_000, 0).unwrap() + self.elapsed()
    }
}

impl Clock for PatientClock {
    fn now(&self) -> DateTime<Utc> {
        self.right() + chrono::Duration::seconds(self.wrong_by.load(Ordering::SeqCst))
    }

    fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::SeqCst))
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            self.pass(duration);
            tokio::task::yield_now().await;
        })
    }
}
