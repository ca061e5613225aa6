//! Admits the requests of an organization, one at a time, as its budget allows.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::{counter, gauge};
use tokio::sync::Notify;
use windfall_runtime::clock::SharedClock;
use windfall_runtime::metrics::{
    RATE_LIMIT_THROTTLED, RATE_LIMIT_TOKENS, RATE_LIMIT_USED_RATIO, RATE_LIMIT_WAIT_SECONDS, label,
};

use crate::budget::{Budget, Limit, LimiterState, Pace, Priority, Ticket, Turn};

/// The clock begins at zero with the process, and requests of the previous process lie before that. Adding this to the
/// clock gives them a positive time. It is as long as the longest period of a limit.
const HEAD_START: Duration = Duration::from_secs(24 * 60 * 60);

/// Lets requests through as the budget allows: never two at a time, never more than the limit in any period.
pub struct Limiter {
    source: String,
    clock: SharedClock,
    budget: Mutex<Budget>,
    /// Which jobs used the last period, for the metrics alone.
    jobs: Mutex<VecDeque<(Duration, Priority)>>,
    /// What each job has waited beyond the whole seconds that were counted.
    fractions: Mutex<HashMap<Priority, Duration>>,
    per: Duration,
    /// Notified when a waiter left, a request ended or the budget changed: every waiter asks again.
    changed: Notify,
}

/// The right to send one request; held until its answer has been read.
#[must_use]
pub struct Permit<'a> {
    limiter: &'a Limiter,
    priority: Priority,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let now = self.limiter.now();
        let mut budget = self.limiter.lock();
        budget.answered(now);
        let pace = budget.pace(now);
        drop(budget);
        self.limiter.show(self.priority, now, pace);
        self.limiter.changed.notify_waiters();
    }
}

/// Removes a waiter from the queue when its future is dropped before its turn.
struct Place<'a> {
    limiter: &'a Limiter,
    ticket: Option<Ticket>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.limiter.lock().leave(ticket);
            self.limiter.changed.notify_waiters();
        }
    }
}

impl Limiter {
    /// Takes `source` over: nothing leaves before what `state` says, and not within one period.
    pub fn take_over(source: &str, limit: Limit, state: &LimiterState, clock: SharedClock) -> Self {
        let budget = Budget::take_over(limit, state, clock.elapsed() + HEAD_START, clock.now());
        Self {
            source: source.to_owned(),
            clock,
            budget: Mutex::new(budget),
            jobs: Mutex::new(VecDeque::new()),
            fractions: Mutex::default(),
            per: limit.per,
            changed: Notify::new(),
        }
    }

    /// Begins anew with what `state` says, as [`Limiter::take_over`] does: others may have used the budget up to this moment.
    pub fn take_over_again(&self, state: &LimiterState) {
        self.lock().take_over_again(state, self.now(), self.clock.now());
        self.changed.notify_waiters();
    }

    fn now(&self) -> Duration {
        self.clock.elapsed() + HEAD_START
    }

    /// Waits for a turn. Whoever drops the future before gives its place in the queue up.
    pub async fn admit(&self, priority: Priority) -> Permit<'_> {
        let mut place = Place { limiter: self, ticket: None };
        let ticket = self.lock().enter(priority);
        place.ticket = Some(ticket);
        self.changed.notify_waiters();
        let came = self.now();
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let turn = self.lock().ask(ticket, self.now());
            match turn {
                Turn::Go => break,
                Turn::Busy => changed.await,
                Turn::Wait(wait) => tokio::select! {
                    () = self.clock.sleep(wait) => {}
                    () = changed => {}
                },
            }
        }
        place.ticket = None;
        self.count_wait(priority, self.now().saturating_sub(came));
        Permit { limiter: self, priority }
    }

    fn count_wait(&self, priority: Priority, waited: Duration) {
        let mut fractions = self.fractions.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = whole_seconds(fractions.entry(priority).or_default(), waited);
        counter!(RATE_LIMIT_WAIT_SECONDS, label::SOURCE => self.source.clone(), label::JOB => priority.as_str())
            .increment(seconds);
    }

    /// Notes a 429.
    pub fn throttled(&self, retry_after: Duration) {
        counter!(RATE_LIMIT_THROTTLED, label::SOURCE => self.source.clone()).increment(1);
        self.lock().throttled(retry_after, self.now(), self.clock.now());
        self.changed.notify_waiters();
    }

    /// Notes that the server asked for patience for another reason than the limit.
    pub fn hold(&self, retry_after: Duration) {
        self.lock().hold(retry_after, self.now(), self.clock.now());
        self.changed.notify_waiters();
    }

    /// Writes what must survive a restart.
    pub fn write(&self, state: &mut LimiterState) {
        self.lock().write(state);
    }

    /// Tells how fast requests are let through now.
    pub fn pace(&self) -> Pace {
        self.lock().pace(self.now())
    }

    fn show(&self, priority: Priority, now: Duration, pace: Pace) {
        let left = pace.limit.saturating_sub(pace.used);
        gauge!(RATE_LIMIT_TOKENS, label::SOURCE => self.source.clone()).set(f64::from(left));
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.push_back((now, priority));
        while jobs.front().is_some_and(|(at, _)| *at + self.per <= now) {
            jobs.pop_front();
        }
        for job in Priority::ALL {
            let used = jobs.iter().filter(|(_, by)| *by == job).count();
            gauge!(RATE_LIMIT_USED_RATIO, label::SOURCE => self.source.clone(), label::JOB => job.as_str())
                .set(used as f64 / f64::from(pace.limit.max(1)));
        }
    }

    /// The budget holds plain numbers, which a panic leaves usable, so a poisoned lock is used on.
    fn lock(&self) -> MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds a wait to what is left of earlier ones, and takes the whole seconds out: a counter has no others.
fn whole_seconds(left: &mut Duration, waited: Duration) -> u64 {
    let all = *left + waited;
    *left = Duration::from_nanos(u64::from(all.subsec_nanos()));
    all.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_below_a_second_add_up() {
        let mut left = Duration::ZERO;
        let counted: u64 = (0..10).map(|_| whole_seconds(&mut left, Duration::from_millis(750))).sum();
        assert_eq!((counted, left), (7, Duration::from_millis(500)));
    }
}
