//! One request to Apple: the limiter's state is made durable before it, and it is repeated where that may help.

use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use tracing::warn;
use windfall_runtime::diagnose::Diagnose;
use windfall_runtime::metrics::{ERRORS, label};
use windfall_runtime::retry::Backoff;
use windfall_runtime::telemetry::chain;

use super::Interruption;
use super::session::Session;
use crate::apple::{DirectoryError, Retry};
use crate::checkpoint::Scans;
use crate::step::Step;

/// Tries of a request before the scan is put off: with doubling waits about half a minute.
pub(super) const TRIES: u32 = 6;
/// Tries of a look-up: its suspicion has a back-off of its own.
pub(super) const LOOK_UP_TRIES: u32 = 2;

impl Session<'_> {
    /// Sends a request until it is answered, `tries` times at most; waits that Apple asks for are no tries.
    pub(super) async fn ask<T, F>(&mut self, tries: u32, call: impl Fn() -> F) -> Result<T, Interruption>
    where
        F: Future<Output = Result<T, DirectoryError>>,
    {
        let mut attempt = 0;
        loop {
            self.save_limiter().await?;
            self.wait_for_turn().await?;
            self.confirm_after_a_pause().await?;
            let answer = self.waiting(call()).await?;
            // A `Retry-After` outlives a crash only when it is written before it is waited for.
            self.save_limiter().await?;
            let error = match answer {
                Ok(answer) => {
                    self.answered();
                    return Ok(answer);
                }
                Err(error) => error,
            };
            self.source.part.waits_for(Some(chain(&error).to_string()));
            counter!(ERRORS, label::STAGE => "producer", label::CODE => error.code()).increment(1);
            let wait = match (&error, error.retry()) {
                (_, Retry::Never) => return Err(Interruption::Directory(error)),
                // The budget makes the next request wait by itself.
                (DirectoryError::RateLimited { .. }, _) => Duration::ZERO,
                (_, Retry::After(wait)) => {
                    attempt += 1;
                    wait
                }
                (_, Retry::Backoff) => {
                    attempt += 1;
                    Backoff::default().wait(attempt, self.jitter())
                }
            };
            if attempt >= tries || (wait > Duration::from_secs(60) && attempt > 0) {
                return Err(Interruption::Directory(error));
            }
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            warn!(source = self.source.org(), error = %chain(&error), attempt, wait_ms, "request failed, trying again");
            let clock = Arc::clone(&self.source.clock);
            self.waiting(async move { clock.sleep(wait).await }).await?;
        }
    }

    /// Waits until the limiter admits a request. It waits here and not where the request is sent, because there must be no
    /// long wait between the confirmation of the membership and the request.
    async fn wait_for_turn(&mut self) -> Result<(), Interruption> {
        loop {
            let wait = self.directory.pace().wait;
            if wait.is_zero() {
                return Ok(());
            }
            let clock = Arc::clone(&self.source.clock);
            self.waiting(async move { clock.sleep(wait).await }).await?;
        }
    }

    /// Has the coordinator confirm that this process still holds the source, if it was paused since the last confirmation: the
    /// group may have given the source to another process, and both together would exceed Apple's limit.
    async fn confirm_after_a_pause(&mut self) -> Result<(), Interruption> {
        if self.ledger.paused_since(self.confirmed_at) {
            self.write(&Step::default()).await?;
        }
        Ok(())
    }

    /// Writes the limiter's state before the next request depends on it.
    async fn save_limiter(&mut self) -> Result<(), Interruption> {
        let Some(state) = self.directory.unsaved() else { return Ok(()) };
        let part = Scans::limiter_part(self.source.org(), &state, self.now());
        self.write(&Step { parts: vec![part], ..Step::default() }).await?;
        self.directory.saved(&state);
        Ok(())
    }

    /// Spreads retries of several sources; taken from the clock, so that a run can be repeated.
    fn jitter(&self) -> f64 {
        f64::from(self.source.clock.elapsed().subsec_millis()) / 1000.0
    }
}
