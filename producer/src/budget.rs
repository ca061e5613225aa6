//! The request budget of one organization: when the next request may leave, and whose turn it is.
//!
//! Pure over a clock value: times come in as arguments, waits go out as values.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// What must survive a restart: the part `limiter` of `abm.scans`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LimiterState {
    /// No request before this: a `Retry-After`.
    pub not_before: Option<DateTime<Utc>>,
    /// How long that was in all, in milliseconds: a clock that is set back makes no wait longer.
    pub retry_after_ms: u64,
    /// Requests per period of the limit, after a 429; `None` where nothing is slowed down.
    pub requests: Option<f64>,
    /// When tokens were last asked for, oldest first.
    pub tokens: Vec<DateTime<Utc>>,
    /// Refused token requests in a row.
    pub refusals: u32,
}

/// How fast requests are let through.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pace {
    /// Until the next request may leave.
    pub wait: Duration,
    /// Whether that is a `Retry-After`.
    pub throttled: bool,
    /// Time between two requests now.
    pub period: Duration,
    /// Requests of the last period of the limit.
    pub used: u32,
    /// How many would be allowed in it.
    pub limit: u32,
}

impl Pace {
    /// Estimates how long so many requests take from now on.
    #[must_use]
    pub fn estimate(&self, requests: u32) -> Duration {
        match requests {
            0 => Duration::ZERO,
            more => self.wait + self.period * (more - 1),
        }
    }
}
