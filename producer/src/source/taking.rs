//! Taking a source over, for the first time and again: only from an assignment of its group.

use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tracing::info;
use windfall_runtime::health::PartState;
use windfall_runtime::kafka::publisher::Input;
use windfall_runtime::kafka::table::FoldProgress;

use super::session::Session;
use super::{Interruption, Source};
use crate::apple::client::AppleDirectory;
use crate::error::ProducerError;
use crate::ledger::{Found, Ledger, describe};
use crate::memory::Memory;

/// What stays when a session ends, within one process.
#[derive(Default)]
pub(super) struct Lasting {
    directory: OnceLock<AppleDirectory>,
    /// The newest request whose answer was read: the directory goes on counting, so requests keep their order over sessions.
    pub(super) newest_request: AtomicU64,
    /// Sessions in a row that have failed without a commit.
    pub(super) failures: AtomicU32,
}

impl Source {
    /// Fences the previous writer, reads the state that it has left, and takes the limits of its rate limiter over.
    pub(super) async fn take_over<'a>(
        &'a self,
        input: Option<Input>,
        lasting: &'a Lasting,
    ) -> Result<Session<'a>, Interruption> {
        let assigned_at = Instant::now();
        self.part.state(PartState::Starting);
        info!(source = self.org(), "taking over");
        let part = self.part.clone();
        let report = move |progress: &FoldProgress| {
            if progress.hidden.is_empty() {
                part.moved(Duration::ZERO);
            } else {
                part.waits_for(Some(describe(progress)));
            }
            part.detail("take_over", describe(progress));
        };
        let (ledger, found) = tokio::select! {
            () = self.shutdown.cancelled() => return Err(Interruption::Stopped),
            taken = Ledger::take_over(&self.cluster, self.org(), input, report) => taken?,
        };
        self.part.clear("take_over");
        let Found { memory: Memory { fleet, scans, .. }, unreadable, records } = &found;
        let (devices, live) = (fleet.len(), fleet.live());
        let (unreadable, passed_over) = (unreadable.len(), unreadable.passed_over);
        info!(source = self.org(), records, devices, live, unreadable, passed_over, "taken over");
        let directory = match lasting.directory.get() {
            Some(directory) => {
                directory.merge(scans.limiter.as_ref().unwrap_or(&Default::default()));
                directory
            }
            None => {
                let state = scans.limiter.clone().unwrap_or_default();
                let connected = AppleDirectory::connect(&self.config, state, Arc::clone(&self.clock));
                let connected = connected.map_err(|source| {
                    Interruption::Fatal(ProducerError::Connect { source_name: self.org().to_owned(), source })
                })?;
                lasting.directory.get_or_init(|| connected)
            }
        };
        Session::begin(self, lasting, directory, ledger, found, assigned_at).await
    }
}
