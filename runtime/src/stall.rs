//! A run that is to end by itself must not wait for ever: how long nothing was done, and what was waited for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

/// A single run that has done nothing for so long waits for somebody to look after it; a restart of brokers or of a store ends sooner.
pub const STALLED_AFTER: Duration = Duration::from_secs(300);

/// Watches over a single run; copies share what they know.
#[derive(Debug, Clone)]
pub struct Stall {
    limit: Duration,
    known: Arc<Known>,
}

#[derive(Debug, Default)]
struct Known {
    moved: Notify,
    reasons: Mutex<Reasons>,
}

#[derive(Debug, Default)]
struct Reasons {
    failed: Option<String>,
    hidden: Option<String>,
}

impl Stall {
    /// Makes a watch that ends a run in which nothing was done for `limit`.
    #[must_use]
    pub fn new(limit: Duration) -> Self {
        Self { limit, known: Arc::default() }
    }

    /// Returns how long nothing may be done.
    #[must_use]
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Says that something durable was done.
    pub fn done(&self) {
        self.reasons().failed = None;
        self.known.moved.notify_one();
    }

    /// Says that something was read, which counts only while nothing failed: what fails is read again and again.
    pub fn read(&self) {
        if self.reasons().failed.is_none() {
            self.known.moved.notify_one();
        }
    }

    /// Says what failed and is tried again.
    pub fn failed(&self, reason: impl Into<String>) {
        self.reasons().failed = Some(reason.into());
    }

    /// Says what hides that which is to be read next, if anything does.
    pub fn hidden(&self, reason: Option<String>) {
        self.reasons().hidden = reason;
    }

    /// Ends when nothing was done for the limit, and says what was waited for.
    pub async fn over(&self) -> String {
        while timeout(self.limit, self.known.moved.notified()).await.is_ok() {}
        let reasons = self.reasons();
        let known = reasons.failed.as_ref().or(reasons.hidden.as_ref());
        known.map_or_else(|| "an answer of Kafka".to_owned(), Clone::clone)
    }

    fn reasons(&self) -> MutexGuard<'_, Reasons> {
        self.known.reasons.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Stall {
    fn default() -> Self {
        Self::new(STALLED_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reading_again_what_fails_again_is_nothing_done() {
        let stall = Stall::new(Duration::from_millis(1));
        assert_eq!(stall.over().await, "an answer of Kafka");
        stall.hidden(Some("an open transaction".to_owned()));
        assert_eq!(stall.over().await, "an open transaction");
        stall.failed("the store is away");
        assert_eq!(stall.over().await, "the store is away");
        let again = async {
            loop {
                stall.read();
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = again => {}
            reason = stall.over() => assert_eq!(reason, "the store is away"),
        }
    }

    #[tokio::test]
    async fn what_is_done_and_what_is_read_before_anything_failed_is_waited_for() {
        let stall = Stall::new(Duration::from_millis(200));
        stall.failed("the store is away");
        stall.done();
        let moving = async {
            for _ in 0..1_000 {
                stall.read();
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            () = moving => {}
            reason = stall.over() => panic!("{reason}"),
        }
    }
}
