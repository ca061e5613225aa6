//! Time as an argument: the wall clock, or one that a demo or a test drives.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

/// A clock that schedulers, limiters and caches are handed instead of reading the machine's.
pub trait Clock: Send + Sync {
    /// Returns the wall time, for what people and other machines read.
    fn now(&self) -> DateTime<Utc>;
    /// Returns the time since the clock was made; never goes back, so intervals are taken from it.
    fn elapsed(&self) -> Duration;
    /// Waits for `duration` of this clock's time.
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// A shared clock.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's own clock.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// Makes a clock whose [`Clock::elapsed`] begins now.
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }

    /// Makes a shared clock.
    pub fn shared() -> SharedClock {
        Arc::new(Self::new())
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// A clock that runs `scale` times as fast as the machine's, from a chosen moment on.
#[derive(Debug)]
pub struct ScaledClock {
    started: Instant,
    origin: DateTime<Utc>,
    scale: f64,
}

impl ScaledClock {
    /// Makes a clock that shows `origin` now and runs `scale` times as fast as the machine's.
    ///
    /// # Panics
    /// When `scale` is not above zero.
    pub fn new(origin: DateTime<Utc>, scale: f64) -> Self {
        assert!(scale > 0.0 && scale.is_finite(), "a clock's scale must be above zero");
        Self { started: Instant::now(), origin, scale }
    }
}

impl Clock for ScaledClock {
    fn now(&self) -> DateTime<Utc> {
        self.origin + chrono::Duration::from_std(self.elapsed()).unwrap_or(chrono::Duration::MAX)
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed().mul_f64(self.scale)
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(tokio::time::sleep(duration.div_f64(self.scale)))
    }
}
