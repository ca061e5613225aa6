//! The request budget of one organization: when the next request may leave, and whose turn it is.
//!
//! Pure over a clock value: times come in as arguments, waits go out as values. [`crate::apple::limiter`] stands at the
//! door, waits and measures.
//!
//! # Never more than the limit in any minute of Apple's
//!
//! A request reaches Apple some time between the moment it leaves us and the moment its answer has been read. So a
//! request may leave only when the answer to the one `limit` places before it lies a whole period back: however long
//! each took on its way, Apple cannot see `limit + 1` of them within the period. Beside that, requests are paced:
//! never two within `period / limit` plus 2 %, so that the limit is spread over the minute and nothing comes in bursts.

mod cell;
mod tokens;
mod turns;

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

pub use tokens::{TokenBudget, TokenWait};
pub use turns::{Priority, Ticket};

use cell::Cell;
use turns::Turns;

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
    /// Whom they refused: a hash of client id, key id and public key.
    pub account: Option<String>,
    /// No token request before this: the token endpoint's `Retry-After`.
    pub tokens_not_before: Option<DateTime<Utc>>,
}

impl LimiterState {
    /// Joins what two processes know: the longer waits, the slower pace, the token requests of both.
    #[must_use]
    pub fn merge(self, other: &Self) -> Self {
        let Self { not_before, retry_after_ms, requests, tokens, refusals, account, tokens_not_before } = other;
        let (not_before, retry_after_ms) = (self.not_before, self.retry_after_ms).max((*not_before, *retry_after_ms));
        // Whoever asked last knows how the endpoint answers now.
        let (refusals, account) = match tokens.last() >= self.tokens.last() {
            true => (*refusals, account.clone()),
            false => (self.refusals, self.account),
        };
        let tokens: BTreeSet<_> = self.tokens.into_iter().chain(tokens.iter().copied()).collect();
        Self {
            not_before,
            retry_after_ms,
            requests: self.requests.into_iter().chain(*requests).reduce(f64::min),
            tokens: tokens.into_iter().collect(),
            refusals,
            account,
            tokens_not_before: self.tokens_not_before.max(*tokens_not_before),
        }
    }
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
    /// Requests of the last period of the limit, since the source was taken over.
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

/// What the organization's API account may ask for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit {
    /// So many requests …
    pub requests: u32,
    /// … in so long a time …
    pub per: Duration,
    /// … of which this part is ours, above 0 and at most 1.
    pub share: f64,
}

/// Room for what Apple's clock and ours disagree in: 20 requests at exactly 3.000 s gave 21 in a minute at the server.
const SLACK: f64 = 1.02;
/// A period lies a little longer back than Apple's own.
const WINDOW_SLACK: Duration = Duration::from_millis(50);
/// After this many refusals in a row the pace falls no further.
const SLOWEST: f64 = 1.0 / 16.0;
/// No `Retry-After` is obeyed for longer: what is larger is a mistake.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

impl Limit {
    /// Returns how many requests are ours in `per`; below 1 where the share is small.
    fn ours(&self) -> f64 {
        f64::from(self.requests.max(1)) * self.share.clamp(0.001, 1.0)
    }

    /// Returns how many whole requests are ours in `per`; the share of a small limit may be less, which pacing keeps.
    fn window(&self) -> usize {
        (self.ours().floor() as usize).max(1)
    }
}

/// Whether a request may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Now; the budget counts it as in flight.
    Go,
    /// Not before so long.
    Wait(Duration),
    /// Another one is in flight, or comes first.
    Busy,
}

/// The budget of one organization.
#[derive(Debug)]
pub struct Budget {
    limit: Limit,
    /// Requests per `limit.per` at the present pace.
    rate: f64,
    rate_changed: Duration,
    /// When the source was taken over: what was answered until then is reckoned, not counted.
    begun: Duration,
    cell: Cell,
    /// When the answers of the last requests had been read, oldest first; as many as the limit.
    answered: VecDeque<Duration>,
    in_flight: bool,
    not_before: Duration,
    retry_after: Option<(DateTime<Utc>, Duration)>,
    turns: Turns,
}

impl Budget {
    /// Takes a source over: nothing leaves before what `state` says, and not within one period.
    ///
    /// A predecessor may have used its budget up to this moment, so its requests are counted as the worst it can have
    /// done: that costs less than a period more, once, and holds over any number of crashes.
    ///
    /// `now` is the time since the clock was made, `wall` the same moment as people read it.
    pub fn take_over(limit: Limit, state: &LimiterState, now: Duration, wall: DateTime<Utc>) -> Self {
        let ours = limit.ours();
        let rate = state.requests.filter(|rate| rate.is_finite()).map_or(ours, |rate| rate.clamp(ours * SLOWEST, ours));
        let retry_after = state.not_before.map(|until| (until, Duration::from_millis(state.retry_after_ms)));
        let left = retry_after.map_or(Duration::ZERO, |(until, whole)| {
            (until - wall).to_std().unwrap_or_default().min(whole.min(LONGEST_RETRY_AFTER))
        });
        let period = period(&limit, rate);
        Self {
            limit,
            rate,
            rate_changed: now,
            begun: now,
            cell: Cell::new(period, now),
            answered: predecessor(&limit, now),
            in_flight: false,
            not_before: now + left.max(period),
            retry_after: retry_after.filter(|_| !left.is_zero()),
            turns: Turns::default(),
        }
    }

    /// Takes the source over again, after others may have used its budget; whoever waits keeps its place.
    pub fn take_over_again(&mut self, state: &LimiterState, now: Duration, wall: DateTime<Utc>) {
        let turns = std::mem::take(&mut self.turns);
        *self = Self { turns, ..Self::take_over(self.limit, state, now, wall) };
    }

    /// Enters somebody who waits; [`Budget::leave`] must follow if no [`Turn::Go`] does.
    pub fn enter(&mut self, priority: Priority) -> Ticket {
        self.turns.enter(priority)
    }

    /// Takes somebody who waits out of the queue.
    pub fn leave(&mut self, ticket: Ticket) {
        self.turns.leave(ticket);
    }

    /// Asks whether the holder of `ticket` may send its request.
    pub fn ask(&mut self, ticket: Ticket, now: Duration) -> Turn {
        if self.in_flight || self.turns.first() != Some(ticket) {
            return Turn::Busy;
        }
        self.speed_up(now);
        let wait = self.wait(now);
        if !wait.is_zero() {
            return Turn::Wait(wait);
        }
        // Nothing above admits sooner than the cell; should it ever, the cell has the last word.
        if let Err(wait) = self.cell.admit(now) {
            return Turn::Wait(wait);
        }
        self.turns.take(ticket);
        self.in_flight = true;
        Turn::Go
    }

    /// Notes that the answer of the request in flight has been read, or will not be.
    pub fn answered(&mut self, now: Duration) {
        self.in_flight = false;
        self.answered.push_back(now);
        while self.answered.len() > self.window() {
            self.answered.pop_front();
        }
    }

    /// Notes a 429: nothing leaves before `retry_after`, and then at half the pace.
    pub fn throttled(&mut self, retry_after: Duration, now: Duration, wall: DateTime<Utc>) {
        let ours = self.limit.ours();
        self.set_rate((self.rate / 2.0).max(ours * SLOWEST), now);
        self.hold(retry_after, now, wall);
    }

    /// Notes that nothing may leave before `retry_after`.
    pub fn hold(&mut self, retry_after: Duration, now: Duration, wall: DateTime<Utc>) {
        let retry_after = retry_after.min(LONGEST_RETRY_AFTER);
        if !retry_after.is_zero() && now + retry_after > self.not_before {
            self.not_before = now + retry_after;
            self.retry_after = Some((wall + retry_after, retry_after));
        }
    }

    /// Returns what must survive a restart of what this budget knows; the rest is left as it is in `state`.
    pub fn write(&self, state: &mut LimiterState) {
        state.not_before = self.retry_after.map(|(until, _)| until);
        state.retry_after_ms =
            self.retry_after.map_or(0, |(_, whole)| u64::try_from(whole.as_millis()).unwrap_or(u64::MAX));
        state.requests = (self.rate < self.limit.ours()).then_some(self.rate);
    }

    /// Tells how fast requests are let through.
    pub fn pace(&self, now: Duration) -> Pace {
        let lately = |answered: &&Duration| **answered > self.begun && **answered + self.limit.per > now;
        let used = self.answered.iter().filter(lately).count();
        Pace {
            wait: self.wait(now),
            throttled: self.retry_after.is_some() && self.not_before > now,
            period: self.cell.period(),
            used: u32::try_from(used).unwrap_or(u32::MAX),
            limit: u32::try_from(self.window()).unwrap_or(u32::MAX),
        }
    }

    /// How many of our requests Apple may see within `limit.per`.
    fn window(&self) -> usize {
        self.limit.window()
    }

    fn wait(&self, now: Duration) -> Duration {
        let full = self.answered.len() >= self.window();
        let window_opens = match self.answered.front() {
            Some(oldest) if full => *oldest + self.limit.per + WINDOW_SLACK,
            _ => Duration::ZERO,
        };
        self.not_before.max(window_opens).max(self.cell.opens()).saturating_sub(now)
    }

    /// One request more in each period that passed without a 429, up to what is ours.
    fn speed_up(&mut self, now: Duration) {
        let quiet = now.saturating_sub(self.rate_changed.max(self.not_before)).as_secs_f64();
        let steps = (quiet / self.limit.per.as_secs_f64()).floor();
        let ours = self.limit.ours();
        if self.rate < ours && steps >= 1.0 {
            self.set_rate((self.rate + steps).min(ours), now);
        }
    }

    fn set_rate(&mut self, rate: f64, now: Duration) {
        self.rate = rate;
        self.rate_changed = now;
        self.cell.set_period(period(&self.limit, rate));
    }
}

/// When a predecessor's last requests were answered at the latest, if it went on at full pace until `now`.
///
/// Its last request may just have left, so that the one before was just answered; the others lie a period apart.
fn predecessor(limit: &Limit, now: Duration) -> VecDeque<Duration> {
    let period = period(limit, limit.ours());
    let back = |place: usize| period.saturating_mul(u32::try_from(place.saturating_sub(1)).unwrap_or(u32::MAX));
    (0..limit.window()).rev().map(|place| now.saturating_sub(back(place))).collect()
}

fn period(limit: &Limit, rate: f64) -> Duration {
    limit.per.mul_f64(SLACK / rate)
}
