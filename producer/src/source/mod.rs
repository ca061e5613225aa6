//! One organization's task: stand by until its group assigns the source, take it over, scan by schedule, look up what is
//! missing, obey signals.
//!
//! ```text
//! join ──▶ stand by ──assigned──▶ take over ──▶ session ──revoked──▶ stand by
//!   ▲                                              │
//!   └──────── leave ◀── a commit is in doubt ──────┘
//! ```
//!
//! A session ends with its assignment, and with the first commit whose outcome is not certain. Its writer is thrown away, and
//! another one is initialised only from another assignment.

mod asking;
mod lookups;
mod membership;
mod scanning;
mod session;
mod taking;
mod telling;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use windfall_runtime::clock::SharedClock;
use windfall_runtime::diagnose::Diagnose;
use windfall_runtime::health::{PartState, StatusPart};
use windfall_runtime::kafka::Membership;
use windfall_runtime::kafka::consumer::ConsumerError;
use windfall_runtime::kafka::publisher::Input;
use windfall_runtime::retry::Backoff;
use windfall_runtime::telemetry::chain;

use crate::apple::DirectoryError;
use crate::breaker::Limits;
use crate::config::SourceConfig;
use crate::error::ProducerError;
use crate::event::Origin;
use crate::ledger::{Cluster, LedgerError};
use membership::{JOINED_WITHIN, Member};
use taking::Lasting;

/// After a commit in doubt this process waits so long for its group to say that another process has the source; a member
/// hears of it within a second.
const VERDICT_WITHIN: Duration = Duration::from_secs(3);

/// A single run ends after so long without progress: longer than any failure that passes by itself within a scan, shorter
/// than the pause between two runs of a scheduler.
const STALLED_AFTER: Duration = Duration::from_secs(600);
/// With a low rate limit it waits for this many periods of the limit instead, if they are longer.
const STALLED_PERIODS: u32 = 3;

/// One organization's task.
pub(crate) struct Source {
    /// What its events have in common; the organization's alias is the source's name.
    pub(crate) origin: Origin,
    /// Name of this process among its peers.
    pub(crate) instance: String,
    /// How this process belongs to the group of the source; `None` where it is the only one by construction.
    pub(crate) membership: Option<Membership>,
    /// How many devices may be released within a day before a person is asked.
    pub(crate) breaker: Limits,
    pub(crate) cluster: Cluster,
    pub(crate) clock: SharedClock,
    pub(crate) part: StatusPart,
    pub(crate) shutdown: CancellationToken,
    pub(crate) config: SourceConfig,
    /// Whether the source is taken over.
    pub(crate) working: AtomicBool,
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

/// What a session does: serve until it is stopped, or scan once.
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
    /// The membership has failed.
    Membership(ConsumerError),
    /// The source cannot go on.
    Fatal(ProducerError),
    /// Apple did not answer, or not as hoped.
    Directory(DirectoryError),
}

impl From<LedgerError> for Interruption {
    fn from(error: LedgerError) -> Self {
        Interruption::Ledger(error)
    }
}

impl Source {
    /// Serves the organization until the token is cancelled.
    pub(crate) async fn run(self) -> Result<(), ProducerError> {
        self.share(Duty::Serve).await.map(|_| ())
    }

    /// Scans once, looks up what is missing, and says how it ended; `None` when it was stopped.
    ///
    /// A run without progress ends, so that a scheduler can begin the next one: it is incomplete if the source was taken over,
    /// and failed if it was not.
    pub(crate) async fn run_once(self) -> Result<Option<OnceOutcome>, ProducerError> {
        let work = async {
            self.refuse_when_at_work().await?;
            self.share(Duty::Once).await
        };
        tokio::select! {
            ended = work => ended,
            why = self.part.stalled(STALLED_AFTER) => {
                let seconds = STALLED_AFTER.as_secs();
                self.part.failed(why.clone());
                if !self.working.load(Ordering::Relaxed) {
                    return Err(ProducerError::Stalled { source_name: self.org().to_owned(), seconds, why });
                }
                error!(source = self.org(), seconds, why, "single run made no progress, ended with what it has committed");
                Ok(Some(OnceOutcome::Incomplete))
            }
        }
    }

    /// Shares the source with other processes: joins its group and works whenever the group assigns it, again and again
    /// while it meets failures that may pass.
    async fn share(&self, duty: Duty) -> Result<Option<OnceOutcome>, ProducerError> {
        let lasting = Lasting::default();
        loop {
            let mut member = self.join().map_err(|source| self.no_member(source))?;
            let mut ended = self.as_member(&mut member, duty, &lasting).await.map(Some);
            if let Err(Interruption::Ledger(error)) = &ended
                && error.may_pass()
            {
                ended = self.rest(&mut member, error, &lasting).await.map(|()| None);
            }
            member.close().await;
            match ended {
                Ok(Some(done)) => {
                    self.part.state(PartState::Finished);
                    return Ok(Some(done));
                }
                Ok(None) => {}
                Err(Interruption::Stopped) => return Ok(None),
                Err(Interruption::Membership(error)) if error.may_pass() => {
                    let failures = lasting.failures.fetch_add(1, Ordering::Relaxed) + 1;
                    warn!(source = self.org(), error = %chain(&error), failures, "membership has failed, joining again");
                    self.part.paused(format!("joining its group again: {}", chain(&error)));
                    tokio::select! {
                        () = self.shutdown.cancelled() => return Ok(None),
                        () = tokio::time::sleep(Backoff::default().wait(failures, 0.5)) => {}
                    }
                }
                Err(Interruption::Membership(error)) => return Err(self.no_member(error)),
                Err(Interruption::Fatal(error)) => return Err(error),
                Err(Interruption::Ledger(source)) => {
                    return Err(ProducerError::Ledger { source_name: self.org().to_owned(), source });
                }
                Err(Interruption::Directory(source)) => {
                    let source_name = self.org().to_owned();
                    return Err(ProducerError::Directory { source_name, source: Box::new(source) });
                }
            }
        }
    }

    /// Works in each assignment of one membership.
    async fn as_member(&self, member: &mut Member, duty: Duty, lasting: &Lasting) -> Result<OnceOutcome, Interruption> {
        loop {
            let input = self.stand_by(member, duty).await?;
            let lost = tokio::select! {
                biased;
                lost = member.lost() => lost,
                ended = self.session(input, duty, lasting) => return ended,
            };
            // The session and its writer are dropped already; the rebalance goes on when this is dropped.
            let revoked = lost.map_err(Interruption::Membership)?;
            info!(source = self.org(), lost = revoked.lost, "source given up, standing by");
            self.working.store(false, Ordering::Relaxed);
            self.part.paused("its group has taken the source from this process, which waits for another assignment");
        }
    }

    async fn stand_by(&self, member: &mut Member, duty: Duty) -> Result<Option<Input>, Interruption> {
        let joined_within = match duty {
            Duty::Serve => Duration::MAX,
            Duty::Once => JOINED_WITHIN,
        };
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => Err(Interruption::Stopped),
            assigned = member.assigned(self) => assigned.map_err(Interruption::Membership),
            () = tokio::time::sleep(joined_within) => {
                let members = format!("its group has not given it to this run within {}s", joined_within.as_secs());
                Err(Interruption::Fatal(self.at_work(members)))
            }
        }
    }

    async fn session(&self, input: Option<Input>, duty: Duty, lasting: &Lasting) -> Result<OnceOutcome, Interruption> {
        let mut session = self.take_over(input, lasting).await?;
        self.working.store(true, Ordering::Relaxed);
        match duty {
            Duty::Serve => session.serve().await,
            Duty::Once => session.once().await,
        }
    }

    /// Waits after a commit in doubt before the group is joined again; ends early when another process gets the source.
    async fn rest(&self, member: &mut Member, error: &LedgerError, lasting: &Lasting) -> Result<(), Interruption> {
        let failures = lasting.failures.fetch_add(1, Ordering::Relaxed) + 1;
        self.working.store(false, Ordering::Relaxed);
        warn!(source = self.org(), error = %chain(error), failures, "writer thrown away, taking over again");
        self.part.paused(format!("taking over again: {}", chain(error)));
        self.cluster.topics.expect(self.org());
        let wait = Backoff::default().wait(failures, 0.5).max(VERDICT_WITHIN);
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => Err(Interruption::Stopped),
            lost = member.lost() => lost.map(drop).map_err(Interruption::Membership),
            () = tokio::time::sleep(wait) => Ok(()),
        }
    }
}

impl Source {
    pub(crate) fn org(&self) -> &str {
        &self.origin.org
    }
}
