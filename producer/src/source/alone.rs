//! Before there is work to do: saying so, and seeing that nobody else does it, or has done it meanwhile.
//!
//! A process that serves and a single run elsewhere write under transactional ids of their own, so neither fences the other.
//! Each says that it is at work before it looks for the other; a single run that finds one ends, and one that serves waits
//! and then takes over again, since its memory is behind.

use std::sync::Arc;

use tracing::info;

use super::Interruption;
use super::tenure::{HEARTBEAT, Tenure, millis};
use crate::apple::DeviceDirectory;
use crate::checkpoint::{Scans, single_run};
use crate::step::Step;

impl<D: DeviceDirectory + 'static> Tenure<'_, D> {
    /// Waits until no single run is at work, and sees that nobody has written since this process last did.
    pub(super) async fn make_sure_alone(&mut self) -> Result<(), Interruption> {
        while let Some(owner) = single_run(&self.memory.scans, self.now()) {
            info!(source = self.source.org(), instance = owner.instance, "a single run is at work, waiting");
            self.source.part.paused(format!("a single run of instance `{}` is at work on this source", owner.instance));
            let clock = Arc::clone(&self.source.clock);
            self.waiting(async move { clock.sleep(HEARTBEAT).await }).await?;
        }
        self.show_work().await?;
        let look = self.ledger.look_around(self.source.org());
        let seen = self.waiting(look).await??;
        self.ledger.is_alone(seen)?;
        self.moved();
        Ok(())
    }

    /// Shows in `abm.scans` that this process is at work, unless it has done so lately and no scan has ended since.
    pub(super) async fn show_work(&mut self) -> Result<(), Interruption> {
        if self.has_shown_work() { Ok(()) } else { self.sign().await }
    }

    pub(super) fn has_shown_work(&self) -> bool {
        let ended_at = self.memory.scans.devices.as_ref().and_then(|header| header.finished_at);
        self.shown_at > ended_at.unwrap_or(i64::MIN) && (0..millis(HEARTBEAT)).contains(&(self.now() - self.shown_at))
    }

    /// Writes that this process owns the source and is at work; fails when another has taken over.
    pub(super) async fn sign(&mut self) -> Result<(), Interruption> {
        self.shown_at = self.now();
        self.commit_sign(&Step { parts: vec![self.source.claim()], ..Step::default() }).await
    }

    /// Tells whether there is anything to do for a process that serves.
    pub(super) fn work_is_due(&self) -> bool {
        let now = self.now();
        let Scans { suspects, .. } = &self.memory.scans;
        self.next_scan_in().is_zero() || suspects.values().any(|suspect| suspect.wait(now).is_zero())
    }
}
