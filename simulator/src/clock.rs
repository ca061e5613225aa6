//! Where the simulator's two times come from: the life of the fleet, and the wall.

use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};

/// A function that tells the time.
pub type TimeSource = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

/// Tells the machine's own time.
pub fn system() -> TimeSource {
    Arc::new(Utc::now)
}

/// Tells a time that shows `origin` now and runs `scale` times as fast as the machine's.
pub fn scaled(origin: DateTime<Utc>, scale: f64) -> TimeSource {
    let started = std::time::Instant::now();
    Arc::new(move || {
        let elapsed = started.elapsed().as_secs_f64() * scale;
        origin + chrono::Duration::milliseconds((elapsed * 1000.0) as i64)
    })
}

/// A time that moves only when it is told to; clones share it.
#[derive(Clone, Debug)]
pub struct ManualClock {
    now: Arc<Mutex<DateTime<Utc>>>,
}

impl ManualClock {
    /// Makes a clock that shows `at`.
    pub fn new(at: DateTime<Utc>) -> Self {
        Self { now: Arc::new(Mutex::new(at)) }
    }

    /// Returns the time shown.
    pub fn now(&self) -> DateTime<Utc> {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows `at` from now on.
    pub fn set(&self, at: DateTime<Utc>) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    /// Moves on by `by`, back when it is negative.
    pub fn advance(&self, by: chrono::Duration) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }

    /// Returns this clock as a [`TimeSource`].
    pub fn source(&self) -> TimeSource {
        let clock = self.clone();
        Arc::new(move || clock.now())
    }
}
