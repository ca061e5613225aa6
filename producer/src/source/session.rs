//! A session: what this process does for a source from its assignment until the assignment or the writer is lost.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::{info, warn};
use windfall_runtime::diagnose::Diagnose;
use windfall_runtime::failpoint;
use windfall_runtime::kafka::table;
use windfall_runtime::telemetry::chain;
use windfall_schemas::signal::ApproveScan;

use super::lookups::Controls;
use super::taking::Lasting;
use super::telling;
use super::{Interruption, OnceOutcome, STALLED_AFTER, STALLED_PERIODS, Source};
use crate::apple::client::AppleDirectory;
use crate::apple::{DirectoryError, Retry};
use crate::checkpoint::{Header, ScanState, Scans};
use crate::error::ProducerError;
use crate::ledger::{Found, Ledger, LedgerError, UnreadableRecords};
use crate::memory::Memory;
use crate::signals::{Received, SignalTail};
use crate::step::{self, Answer, Step, Unwritable};

/// A waiting source reads the clock this often, since the clock may be set, and reports what it waits for.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// A single run reads the signals that were sent before it within this time, else the next run reads them.
const SIGNALS_WITHIN: Duration = Duration::from_secs(5);
/// How long a shutdown waits for an in-flight commit.
const COMMIT_AT_THE_END: Duration = Duration::from_secs(5);
/// A scan that a failure at Apple has interrupted is continued after this time.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// Which answer shows that the trouble that interrupted a scan is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Recovery {
    /// Any answer of Apple's API: no token was to be had, or none was accepted.
    AnyAnswer,
    /// A page of devices: the lists that are read before them could be read during the trouble too.
    DevicePage,
}

/// The time between an assignment and its end, or that of the writer.
pub(crate) struct Session<'a> {
    pub(super) source: &'a Source,
    lasting: &'a Lasting,
    pub(super) directory: &'a AppleDirectory,
    pub(super) ledger: Ledger,
    pub(super) memory: Memory,
    signals: SignalTail,
    signals_from: i64,
    signals_end: i64,
    /// The newest request whose answer was read.
    pub(super) newest_request: u64,
    /// The control reads made so far.
    pub(super) controls: Controls,
    /// When an interrupted scan is continued, by the monotonic clock.
    try_again_at: Option<Duration>,
    /// Which answer ends the interruption of the scan; `None` while nothing interrupts it.
    interrupted: Option<Recovery>,
    /// When the newest commit was begun: at that moment the group had given the source to this process.
    pub(super) confirmed_at: Instant,
    /// Records that could not be read at the take-over and were not published again since.
    pub(super) unreadable: UnreadableRecords,
    /// One moment by the brokers' clock, in epoch milliseconds, and by our monotonic clock; known from the first commit on.
    steady: Option<(i64, Duration)>,
}

impl Drop for Session<'_> {
    /// A session is dropped at any point when the group takes the source away.
    fn drop(&mut self) {
        self.lasting.newest_request.store(self.newest_request, Ordering::Relaxed);
    }
}

impl<'a> Session<'a> {
    pub(super) async fn begin(
        source: &'a Source,
        lasting: &'a Lasting,
        directory: &'a AppleDirectory,
        ledger: Ledger,
        Found { memory, unreadable, records: _ }: Found,
        confirmed_at: Instant,
    ) -> Result<Self, Interruption> {
        let topic = source.cluster.names.signals();
        let ends = table::ends(&source.cluster.connection, &topic, [0]).await;
        let ends = ends.map_err(LedgerError::from)?;
        let signals_end = ends.get(&0).map_or(0, |extent| extent.end);
        // No plan can be older than the first take-over, so neither can a signal for one.
        let signals_from = memory.scans.signals.unwrap_or(signals_end);
        let signals = SignalTail::start(&source.cluster.connection, &topic, signals_from).map_err(|error| {
            Interruption::Fatal(ProducerError::Task { source_name: source.org().to_owned(), source: Box::new(error) })
        })?;
        let session = Self {
            source,
            lasting,
            directory,
            ledger,
            memory,
            signals,
            signals_from,
            signals_end,
            newest_request: lasting.newest_request.load(Ordering::Relaxed),
            controls: Controls::default(),
            try_again_at: None,
            interrupted: None,
            confirmed_at,
            unreadable,
            steady: None,
        };
        telling::unreadable(&source.part, &session.unreadable);
        Ok(session)
    }

    /// Scans by schedule until it is stopped.
    pub(super) async fn serve(&mut self) -> Result<OnceOutcome, Interruption> {
        self.moved();
        loop {
            if self.next_scan_in().is_zero() {
                match self.scan().await {
                    Ok(_) => {
                        (self.try_again_at, self.interrupted) = (None, None);
                        self.moved();
                    }
                    Err(Interruption::Directory(error)) => self.wait_out(&error),
                    Err(other) => return Err(other),
                }
            }
            self.look_up_due(usize::MAX, Session::scan_is_due).await?;
            self.idle().await?;
        }
    }

    /// Scans once and looks up what is missing.
    pub(super) async fn once(&mut self) -> Result<OnceOutcome, Interruption> {
        self.moved();
        self.obey_waiting().await?;
        let header = match self.scan().await {
            Ok(header) => header,
            // The failure may pass: the next run continues where this one stopped.
            Err(Interruption::Directory(error)) if passes(&error) => {
                self.wait_out(&error);
                return Ok(OnceOutcome::Incomplete);
            }
            Err(other) => return Err(other),
        };
        self.look_up_due(usize::MAX, |_| false).await?;
        Ok(self.outcome(&header))
    }

    fn outcome(&self, header: &Header) -> OnceOutcome {
        let Scans { suspects, plans, .. } = &self.memory.scans;
        if !plans.is_empty() {
            OnceOutcome::Held
        } else if header.state == ScanState::Incomplete || !suspects.is_empty() || header.rejects > 0 {
            OnceOutcome::Incomplete
        } else {
            OnceOutcome::Complete
        }
    }

    fn wait_out(&mut self, error: &DirectoryError) {
        let wait = match error.retry() {
            Retry::Never => self.source.config.scan.interval.get().min(10 * TRY_AGAIN),
            Retry::Backoff => TRY_AGAIN,
            Retry::After(wait) => wait.max(TRY_AGAIN),
        };
        warn!(
            source = self.source.org(),
            error = %chain(error),
            help = error.help().as_deref(),
            wait_s = wait.as_secs(),
            "scan interrupted"
        );
        self.source.part.paused(error.told());
        self.try_again_at = Some(self.source.clock.elapsed() + wait);
        self.interrupted = Some(match error {
            DirectoryError::Token(_) | DirectoryError::Unauthorized(_) => Recovery::AnyAnswer,
            _ => Recovery::DevicePage,
        });
    }

    /// How long until the next scan begins: nothing when one is under way or none was ever made, else by the interval.
    pub(super) fn next_scan_in(&self) -> Duration {
        if let Some(at) = self.try_again_at {
            return at.saturating_sub(self.source.clock.elapsed());
        }
        match &self.memory.scans.devices {
            Some(header) if header.state != ScanState::Running => {
                left_of(self.source.config.scan.interval.get(), header.started_at, self.now())
            }
            _ => Duration::ZERO,
        }
    }

    fn scan_is_due(&self) -> bool {
        self.next_scan_in().is_zero()
    }

    /// Reports that a commit or an answer has come; while a scan is interrupted, only the answer that shows its recovery counts as progress.
    pub(super) fn moved(&self) {
        let slow = self.directory.pace().period.saturating_mul(STALLED_PERIODS);
        self.source.part.moved(slow.saturating_sub(STALLED_AFTER));
        if self.interrupted.is_none() {
            self.source.part.progress();
        }
    }

    /// Notes an answer of Apple's.
    pub(super) fn answered(&mut self) {
        self.interrupted = self.interrupted.filter(|recovery| *recovery != Recovery::AnyAnswer);
        self.moved();
    }

    /// Notes a page of the devices.
    pub(super) fn page_answered(&mut self) {
        self.interrupted = None;
        self.moved();
    }

    /// Waits for the next thing to do, a signal, or the end.
    async fn idle(&mut self) -> Result<(), Interruption> {
        let now = self.now();
        let next_scan = self.next_scan_in();
        let next_try = self.memory.scans.suspects.values().map(|suspect| suspect.wait(now)).min();
        let wait = next_scan.min(next_try.unwrap_or(Duration::MAX));
        self.source.part.detail("next_scan_at", crate::event::rfc3339(now.saturating_add(millis(next_scan))));
        // Until then nothing is expected of it; a scan that does not begin in time is silence.
        self.source.part.quiet_for(wait);
        let clock = Arc::clone(&self.source.clock);
        tokio::select! {
            biased;
            () = self.source.shutdown.cancelled() => Err(Interruption::Stopped),
            received = self.signals.next() => self.obey(received).await,
            () = clock.sleep(wait.min(LOOK_AGAIN)) => Ok(()),
        }
    }

    /// Waits for a future, and obeys signals meanwhile.
    pub(super) async fn waiting<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Interruption> {
        tokio::pin!(work);
        let clock = Arc::clone(&self.source.clock);
        loop {
            tokio::select! {
                biased;
                () = self.source.shutdown.cancelled() => return Err(Interruption::Stopped),
                done = &mut work => return Ok(done),
                received = self.signals.next() => self.obey(received).await?,
                () = clock.sleep(LOOK_AGAIN) => telling::waiting(&self.source.part, &self.directory.pace()),
            }
        }
    }

    /// Obeys the signals that were sent before the take-over: a single run may be the only one to see them.
    async fn obey_waiting(&mut self) -> Result<(), Interruption> {
        let mut reached = self.signals_from;
        while reached < self.signals_end {
            tokio::select! {
                () = self.source.shutdown.cancelled() => return Err(Interruption::Stopped),
                received = self.signals.next() => {
                    reached = received.next_offset;
                    self.obey(received).await?;
                }
                () = tokio::time::sleep(SIGNALS_WITHIN) => {
                    warn!(source = self.source.org(), "signals were not read to their end");
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn obey(&mut self, Received { signal, next_offset }: Received) -> Result<(), Interruption> {
        let approval = match signal.as_approve_scan() {
            Some(Ok(approval)) if approval.source == self.source.org() => approval,
            Some(Ok(_)) | None => return Ok(()),
            Some(Err(error)) => {
                warn!(error = %chain(&error), id = signal.id, "approval is unreadable");
                return Ok(());
            }
        };
        if self.memory.scans.signals.is_some_and(|done| next_offset <= done) {
            return Ok(());
        }
        failpoint!("producer.approval.before");
        let place = (self.newest_request, next_offset);
        let answer = loop {
            if let Some(answer) = self.approve(&signal.id, &approval, place).await? {
                break answer;
            }
            failpoint!("producer.approval_piece.after");
            if self.source.shutdown.is_cancelled() {
                return Err(Interruption::Stopped);
            }
        };
        failpoint!("producer.approval.after");
        match answer {
            Answer::Approved { released } => {
                info!(source = self.source.org(), plan = approval.plan, released, "held plan approved");
            }
            Answer::Stale { .. } | Answer::Unknown => {
                warn!(source = self.source.org(), plan = approval.plan, ?answer, "approval refused");
            }
        }
        Ok(())
    }

    /// Commits the next piece of an approval; says how it was answered when that was the last one.
    async fn approve(
        &mut self,
        signal_id: &str,
        approval: &ApproveScan,
        place: (u64, i64),
    ) -> Result<Option<Answer>, Interruption> {
        let origin = &self.source.origin;
        let (step, answer) = step::approve(origin, &self.memory, signal_id, approval, place, self.now());
        let Err(unwritable) = self.commit_writable(&step).await? else { return Ok(answer) };
        let (origin, at) = (&self.source.origin, self.now());
        let (step, answer) = step::approve_others(origin, (step, answer), signal_id, approval, &unwritable, at);
        self.commit(&step).await?;
        Ok(answer)
    }

    /// Commits a step as [`Session::commit`] does, or returns the records that cannot be written; nothing is written then.
    pub(super) async fn commit_writable(&mut self, step: &Step) -> Result<Result<(), Vec<Unwritable>>, Interruption> {
        match self.commit(step).await {
            Err(Interruption::Ledger(LedgerError::Unwritable(unwritable))) => Ok(Err(unwritable)),
            committed => committed.map(Ok),
        }
    }

    /// Makes a step durable, and only then moves the memory.
    pub(super) async fn commit(&mut self, step: &Step) -> Result<(), Interruption> {
        if step.is_empty() {
            return Ok(());
        }
        self.write(step).await?;
        self.lasting.failures.store(0, Ordering::Relaxed);
        self.moved();
        Ok(())
    }

    /// The same for what brings nothing on: what the limiter waits for, or nothing but the membership.
    pub(super) async fn write(&mut self, step: &Step) -> Result<(), Interruption> {
        let begun = Instant::now();
        let stopped = async {
            self.source.shutdown.cancelled().await;
            tokio::time::sleep(COMMIT_AT_THE_END).await;
        };
        // A commit that is dropped takes its writer with it; the next take-over finds out what became of it.
        let written_at = tokio::select! {
            biased;
            committed = self.ledger.commit(step) => committed?,
            () = stopped => return Err(Interruption::Stopped),
        };
        self.confirmed_at = begun;
        let clock = &self.source.clock;
        self.steady = self.steady.or_else(|| Some((written_at?, clock.elapsed())));
        self.memory.apply(step);
        telling::committed(self.source.org(), step, &self.memory);
        Ok(())
    }

    /// Where signals were first read; goes into the first transaction of a new organization.
    pub(super) fn signals_part(&self) -> Option<crate::checkpoint::ScanRecord> {
        let unknown = self.memory.scans.signals.is_none();
        unknown.then(|| Scans::signals_part(self.source.org(), self.signals_from, self.now()))
    }

    /// Returns a time that no setting of a clock moves: see [`step::Moment`].
    pub(super) fn steady_now(&self) -> i64 {
        let Some((at, elapsed)) = self.steady else { return self.now() };
        at + millis(self.source.clock.elapsed().saturating_sub(elapsed))
    }

    pub(super) fn now(&self) -> i64 {
        self.source.clock.now().timestamp_millis()
    }
}

fn passes(error: &DirectoryError) -> bool {
    !matches!(error, DirectoryError::Token(_) | DirectoryError::Unauthorized(_)) && error.retry() != Retry::Never
}

/// How much of `wait` is left, begun at `since`: nothing where that lies in the future, as a clock that was ahead leaves it.
fn left_of(wait: Duration, since: i64, now: i64) -> Duration {
    match u64::try_from(now.saturating_sub(since)) {
        Ok(passed) => wait.saturating_sub(Duration::from_millis(passed)),
        Err(_) => Duration::ZERO,
    }
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_that_a_clock_ahead_has_begun_keeps_the_next_one_from_nothing() {
        let hour = Duration::from_secs(3_600);
        let now = 1_764_000_000_000;
        assert_eq!(left_of(hour, now, now), hour);
        assert_eq!(left_of(hour, now - 3_599_000, now), Duration::from_secs(1));
        assert_eq!(left_of(hour, now - 3_600_001, now), Duration::ZERO);
        assert_eq!(left_of(hour, now + 24 * 3_600_000, now), Duration::ZERO, "it was set back by a day");
        assert_eq!(left_of(hour, i64::MIN, i64::MAX), Duration::ZERO);
    }
}
