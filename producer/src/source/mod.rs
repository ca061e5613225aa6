//! One organization's task: take over, scan by schedule, look up what is missing, obey signals; and when a commit is in
//! doubt, throw everything away and take over again, unless another process has done so meanwhile.

mod alone;
mod asking;
mod lookups;
mod scanning;
mod stall;
mod taking;
mod telling;
mod tenure;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{error, warn};
use windfall_runtime::clock::SharedClock;
use windfall_runtime::diagnose::Diagnose;
use windfall_runtime::health::{Part, State};
use windfall_runtime::retry::Backoff;
use windfall_runtime::telemetry::chain;

use crate::apple::{DeviceDirectory, DirectoryError};
use crate::breaker::Limits;
use crate::budget::LimiterState;
use crate::checkpoint::Writer;
use crate::error::ProducerError;
use crate::event::Origin;
use crate::ledger::{self, Cluster, LedgerError};
pub(crate) use stall::Stall;
use taking::{Lasting, TakeOver};

/// What a source needs to know of its configuration.
#[derive(Debug, Clone)]
pub struct SourceSettings {
    /// What its events have in common; the organization's alias is the source's name.
    pub origin: Origin,
    /// Time from the beginning of one scan to that of the next.
    pub interval: Duration,
    /// A scan is resumed when its last page is younger than this.
    pub resume_within: Duration,
    /// How many devices may be released within a day before a person is asked.
    pub breaker: Limits,
    /// Name of this process among its peers.
    pub instance: String,
    /// What tells this process from another one of the same name.
    pub process: String,
    /// Which of the source's writers this is.
    pub writer: Writer,
    /// The id under which its writer is fenced.
    pub transactional_id: String,
}

/// Makes the reader of an organization, with what its limiter remembers.
pub(crate) type Connect<D> = Box<dyn Fn(Option<LimiterState>) -> Result<D, ProducerError> + Send + Sync>;

/// One organization's task.
pub(crate) struct Source<D> {
    pub(crate) settings: SourceSettings,
    pub(crate) cluster: Cluster,
    pub(crate) clock: SharedClock,
    pub(crate) part: Part,
    pub(crate) shutdown: CancellationToken,
    pub(crate) connect: Connect<D>,
    /// What a single run ends by when nothing comes on any more.
    pub(crate) stall: Arc<Stall>,
}

/// How one scan of a source and its look-ups have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OnceOutcome {
    /// Everything was read and settled.
    Complete,
    /// Something was left out: pages, servers, items, or look-ups.
    Incomplete,
    /// Devices wait for a person.
    Held,
}

impl OnceOutcome {
    /// Returns the process's exit code: 0, 7 or 8.
    #[must_use]
    pub fn exit_code(self) -> i32 {
        match self {
            OnceOutcome::Complete => 0,
            OnceOutcome::Incomplete => 7,
            OnceOutcome::Held => 8,
        }
    }
}

/// What is done between a take-over and its end.
#[derive(Debug, Clone, Copy)]
enum Duty {
    Serve,
    Once,
}

/// Why a step was not done.
#[derive(Debug)]
pub(crate) enum Interruption {
    /// We are asked to stop.
    Stopped,
    /// The ledger is dead.
    Ledger(LedgerError),
    /// Apple did not answer, or not as hoped.
    Directory(DirectoryError),
}

impl From<LedgerError> for Interruption {
    fn from(error: LedgerError) -> Self {
        Interruption::Ledger(error)
    }
}

impl<D: DeviceDirectory + 'static> Source<D> {
    /// Serves the organization until the token is cancelled.
    pub(crate) async fn run(self) -> Result<(), ProducerError> {
        self.tenures(Duty::Serve).await.map(|_| ())
    }

    /// Scans once, looks up what is missing, and says how it ended; `None` when it was stopped.
    ///
    /// A run that comes on no more ends, so that a scheduler's next one begins: it is incomplete where the source was taken
    /// over, and failed where it was not.
    pub(crate) async fn run_once(self) -> Result<Option<OnceOutcome>, ProducerError> {
        let work = async {
            let looked = ledger::scans(&self.cluster, self.org()).await;
            let scans =
                looked.map_err(|source| ProducerError::Ledger { source_name: self.org().to_owned(), source })?;
            self.refuse_when_at_work(&scans)?;
            self.tenures(Duty::Once).await
        };
        tokio::select! {
            ended = work => ended,
            stalled = self.stall.watch(&self.clock) => {
                let stall::Stalled { at_work, seconds, why } = stalled;
                self.part.failed(why.clone());
                if !at_work {
                    return Err(ProducerError::Stalled { source_name: self.org().to_owned(), seconds, why });
                }
                error!(source = self.org(), seconds, why, "single run did not come on, ended where it stands");
                Ok(Some(OnceOutcome::Incomplete))
            }
        }
    }

    /// Takes the source over and works, again and again while a commit fails that another try can heal.
    async fn tenures(&self, duty: Duty) -> Result<Option<OnceOutcome>, ProducerError> {
        let backoff = Backoff::default();
        let mut lasting = Lasting::default();
        let mut failures = 0;
        loop {
            if self.shutdown.is_cancelled() {
                return Ok(None);
            }
            let ended = match self.take_over(&mut lasting).await {
                Ok(mut tenure) => {
                    self.stall.at_work(true);
                    let ended = match duty {
                        Duty::Serve => tenure.serve().await,
                        Duty::Once => tenure.once().await,
                    };
                    lasting.newest_request = tenure.newest_request;
                    if tenure.has_committed {
                        failures = 0;
                    }
                    ended
                }
                Err(TakeOver::Fatal(error)) => return Err(error),
                Err(TakeOver::Ledger(error)) => Err(Interruption::Ledger(error)),
                Err(TakeOver::Stopped) => return Ok(None),
            };
            let error = match ended {
                Ok(done) => {
                    self.part.state(State::Finished);
                    return Ok(Some(done));
                }
                Err(Interruption::Stopped) => return Ok(None),
                Err(Interruption::Directory(source)) => return Err(self.refused(source)),
                Err(Interruption::Ledger(error)) => error,
            };
            if !error.may_pass() {
                return Err(self.given_up(error, &lasting).await);
            }
            failures += 1;
            self.stall.at_work(false);
            self.stall.met(chain(&error));
            warn!(source = self.org(), error = %chain(&error), failures, "writer thrown away, taking over again");
            self.part.paused(format!("taking over again: {}", chain(&error)));
            tokio::select! {
                () = self.shutdown.cancelled() => return Ok(None),
                () = tokio::time::sleep(backoff.wait(failures, 0.5)) => {}
            }
        }
    }

    fn refused(&self, source: DirectoryError) -> ProducerError {
        error!(source = self.org(), error = %chain(&source), help = source.help().as_deref(), "source cannot be read");
        ProducerError::Directory { source_name: self.org().to_owned(), source: Box::new(source) }
    }

    async fn given_up(&self, source: LedgerError, lasting: &Lasting<D>) -> ProducerError {
        self.part.failed(chain(&source).to_string());
        if source.is_fenced() {
            return self.fenced_by_somebody(lasting).await;
        }
        ProducerError::Ledger { source_name: self.org().to_owned(), source }
    }
}

impl<D> Source<D> {
    pub(crate) fn org(&self) -> &str {
        &self.settings.origin.org
    }
}
