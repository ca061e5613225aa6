//! Taking a source over, for the first time and again: never over another process that has done so meanwhile.

use std::sync::Arc;
use std::time::Duration;

use tracing::info;
use windfall_runtime::health::State;
use windfall_runtime::kafka::table::FoldProgress;

use super::tenure::Tenure;
use super::{Source, SourceSettings};
use crate::apple::DeviceDirectory;
use crate::checkpoint::{Owner, Part, Scans, Writer};
use crate::error::ProducerError;
use crate::ledger::{Found, Ledger, LedgerError, describe};
use crate::memory::Memory;

/// Who has fenced us is worth this long a look: the brokers may be out of reach.
const NAMED_WITHIN: Duration = Duration::from_secs(5);

/// What outlives the tenures of one process.
pub(super) struct Lasting<D> {
    pub(super) directory: Option<Arc<D>>,
    /// The newest request whose answer was read: the directory goes on counting, so requests keep their order over tenures.
    pub(super) newest_request: u64,
    /// Where the take-overs begin that this process has not seen; unknown until a broker has told.
    standpoint: Option<i64>,
}

impl<D> Default for Lasting<D> {
    fn default() -> Self {
        Self { directory: None, newest_request: 0, standpoint: None }
    }
}

/// Why a source was not taken over.
pub(super) enum TakeOver {
    Stopped,
    Ledger(LedgerError),
    Fatal(ProducerError),
}

impl From<LedgerError> for TakeOver {
    fn from(error: LedgerError) -> Self {
        TakeOver::Ledger(error)
    }
}

impl<D: DeviceDirectory + 'static> Source<D> {
    pub(super) async fn take_over(&self, lasting: &mut Lasting<D>) -> Result<Tenure<'_, D>, TakeOver> {
        self.part.state(State::Starting);
        info!(source = self.org(), "taking over");
        let (ledger, found) = tokio::select! {
            () = self.shutdown.cancelled() => return Err(TakeOver::Stopped),
            taken = self.fence_and_read(&mut lasting.standpoint) => taken?,
        };
        self.part.clear("take_over");
        let directory = match &lasting.directory {
            Some(directory) => Arc::clone(directory),
            None => {
                let connected = (self.connect)(found.memory.scans.limiter.clone()).map_err(TakeOver::Fatal)?;
                Arc::clone(lasting.directory.insert(Arc::new(connected)))
            }
        };
        // Both may have begun at once: whoever runs once looks again now that the other can see it.
        if self.settings.writer == Writer::SingleRun {
            self.refuse_when_at_work(&found.memory.scans).map_err(TakeOver::Fatal)?;
        }
        let Found { memory: Memory { fleet, .. }, hidden, .. } = &found;
        let (devices, live, unreadable) = (fleet.len(), fleet.live(), hidden.len());
        info!(source = self.org(), devices, live, unreadable, passed_over = hidden.passed_over, "taken over");
        let mut tenure = Tenure::begin(self, directory, ledger, found).await?;
        tenure.newest_request = lasting.newest_request;
        Ok(tenure)
    }

    /// Fences the writer before us and reads what it has left.
    ///
    /// A process that starts fences whoever is there: somebody wants it so. One that has only lost its writer looks first.
    async fn fence_and_read(&self, standpoint: &mut Option<i64>) -> Result<(Ledger, Found), TakeOver> {
        let settings = &self.settings;
        match *standpoint {
            None => *standpoint = Some(Ledger::standpoint(&self.cluster).await?),
            Some(since) => {
                if let Some(owner) = self.overtaken_by(since).await? {
                    self.part.failed(format!("taken over by another process, of instance `{}`", owner.instance));
                    return Err(TakeOver::Fatal(self.fenced(Some(owner))));
                }
            }
        }
        let part = self.part.clone();
        let (stall, clock) = (Arc::clone(&self.stall), Arc::clone(&self.clock));
        let report = move |progress: &FoldProgress| {
            if progress.hidden.is_empty() {
                stall.moved(&clock, Duration::ZERO);
            } else {
                stall.met(describe(progress));
            }
            part.detail("take_over", describe(progress));
        };
        let claim = self.claim();
        Ok(Ledger::take_over(&self.cluster, &settings.transactional_id, self.org(), claim, report).await?)
    }

    /// Makes the record that says who owns the source, and that it is at work now.
    pub(super) fn claim(&self) -> Part {
        let SourceSettings { instance, process, writer, .. } = &self.settings;
        let shown_at = self.clock.now().timestamp_millis();
        let owner = Owner { instance: instance.clone(), process: process.clone(), shown_at };
        owner.part(self.org(), *writer)
    }

    pub(super) fn refuse_when_at_work(&self, scans: &Scans) -> Result<(), ProducerError> {
        let now = self.clock.now().timestamp_millis();
        ProducerError::when_at_work(scans, self.org(), &self.settings.instance, now)
    }

    async fn overtaken_by(&self, since: i64) -> Result<Option<Owner>, LedgerError> {
        let settings = &self.settings;
        Ledger::overtaken_by(&self.cluster, self.org(), settings.writer, &settings.process, since).await
    }

    /// Says that another process has taken over, and which, where that can be read.
    pub(super) async fn fenced_by_somebody(&self, lasting: &Lasting<D>) -> ProducerError {
        let look = async { self.overtaken_by(lasting.standpoint?).await.ok()? };
        self.fenced(tokio::time::timeout(NAMED_WITHIN, look).await.ok().flatten())
    }

    fn fenced(&self, by: Option<Owner>) -> ProducerError {
        ProducerError::Fenced {
            source_name: self.org().to_owned(),
            instance: self.settings.instance.clone(),
            by: by.map(|owner| owner.instance),
        }
    }
}
