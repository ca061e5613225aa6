//! The board on which every part of the process writes how it is, and what readiness makes of it.
//!
//! A part is ready when it made progress lately, not when its task exists: a poll that answered, a batch that
//! committed, an idle partition that was found idle. Each part brings the limit after which silence means trouble.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use metrics::gauge;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock::SharedClock;
use crate::metrics::{PART_STATE, label};

/// What a part is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It reads what it must know before it may begin.
    Starting,
    /// It works, or waits for work.
    Running,
    /// Another process does this work; this one takes over when that one is gone.
    Standby,
    /// It waits for something to heal; the detail `reason` says for what.
    Paused,
    /// It holds back until somebody has looked; the detail `reason` says why.
    Held,
    /// It did what it was asked to do once.
    Finished,
    /// It gave up; the detail `error` says why.
    Failed,
}

impl State {
    /// Its name in `status` and in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Standby => "standby",
            Self::Paused => "paused",
            Self::Held => "held",
            Self::Finished => "finished",
            Self::Failed => "failed",
        }
    }
}

/// Long work with a known end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// What is done: `scan`, `fold`.
    pub job: String,
    /// How much of it.
    pub done: u64,
    /// How much there is; none while unknown.
    pub total: Option<u64>,
    /// Seconds since it began.
    pub elapsed_s: u64,
}

impl Progress {
    /// Reckons the seconds that are left from the speed so far; none while nothing is known.
    #[must_use]
    pub fn eta_s(&self) -> Option<u64> {
        let left = self.total?.saturating_sub(self.done);
        if self.done == 0 || self.elapsed_s == 0 {
            return None;
        }
        Some(u64::try_from(u128::from(left) * u128::from(self.elapsed_s) / u128::from(self.done)).unwrap_or(u64::MAX))
    }
}

/// A single run that has not moved for so long waits for somebody to look after it; a restart of brokers or of a store ends
/// sooner.
pub const STALLED_AFTER: Duration = Duration::from_secs(300);

/// One part, as `/status` shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PartStatus {
    /// What it is doing.
    pub state: State,
    /// Whether it made progress within its limit.
    pub ready: bool,
    /// When it last made progress.
    pub progress_at: Option<DateTime<Utc>>,
    /// Seconds since then, or since it began.
    pub silent_s: u64,
    /// Seconds of silence after which it is not ready.
    pub limit_s: u64,
    /// Long work at hand.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub progress: Option<Progress>,
    /// Seconds that work still takes, as far as can be told.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub eta_s: Option<u64>,
    /// What else it says: lag, held plans, the partition and offset behind which a transaction hides records.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub details: BTreeMap<String, Value>,
}

/// The whole process, as `/status` shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Snapshot {
    /// Name of the process among its peers.
    pub instance: String,
    /// Version of the program.
    pub version: String,
    /// When it started.
    pub started_at: DateTime<Utc>,
    /// Whether all parts are ready and it is not draining.
    pub ready: bool,
    /// Whether it is stopping.
    pub draining: bool,
    /// The parts by name.
    pub parts: BTreeMap<String, PartStatus>,
}

struct PartEntry {
    state: State,
    limit: Duration,
    since: Duration,
    /// When the part last moved; see [`Part::stalled`].
    moved: Duration,
    waits_for: Option<String>,
    quiet_until: Duration,
    progress_at: Option<DateTime<Utc>>,
    progress: Option<Progress>,
    details: BTreeMap<String, Value>,
}

struct Board {
    clock: SharedClock,
    instance: String,
    started_at: DateTime<Utc>,
    draining: AtomicBool,
    parts: Mutex<BTreeMap<String, PartEntry>>,
}

/// The board; copies share it.
#[derive(Clone)]
pub struct Status(Arc<Board>);

impl Status {
    /// Makes an empty board, which is not ready until a part is.
    #[must_use]
    pub fn new(instance: impl Into<String>, clock: SharedClock) -> Self {
        let started_at = clock.now();
        Self(Arc::new(Board {
            clock,
            instance: instance.into(),
            started_at,
            draining: AtomicBool::new(false),
            parts: Mutex::new(BTreeMap::new()),
        }))
    }

    /// Adds a part that begins as [`State::Starting`] and may be silent for `limit`; one of that name begins anew.
    #[must_use]
    pub fn part(&self, name: impl Into<String>, limit: Duration) -> Part {
        let name = name.into();
        let entry = PartEntry {
            state: State::Starting,
            limit,
            since: self.0.clock.elapsed(),
            moved: self.0.clock.elapsed(),
            waits_for: None,
            quiet_until: Duration::ZERO,
            progress_at: None,
            progress: None,
            details: BTreeMap::new(),
        };
        self.parts().insert(name.clone(), entry);
        let part = Part { board: self.clone(), name };
        part.measure(State::Starting, 1.0);
        part
    }

    /// Says that a stage gave up: its part, or every part whose name begins with the stage's word, but for those that have ended
    /// by themselves.
    pub fn gave_up(&self, stage: &str, error: &str) {
        let named =
            |name: &&String| name.strip_prefix(stage).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
        let names: Vec<String> = self.parts().keys().filter(named).cloned().collect();
        for part in names.into_iter().map(|name| Part { board: self.clone(), name }) {
            if !matches!(part.current(), Some(State::Failed | State::Finished)) {
                part.failed(error);
            }
        }
    }

    /// Says that the process is stopping: from now on it is not ready.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Release);
    }

    /// Whether the process is stopping.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire)
    }

    /// Returns what the board shows now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let now = self.0.clock.elapsed();
        let parts: BTreeMap<_, _> = self.parts().iter().map(|(name, entry)| (name.clone(), show(entry, now))).collect();
        let draining = self.draining();
        Snapshot {
            instance: self.0.instance.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.0.started_at,
            ready: !draining && !parts.is_empty() && parts.values().all(|part| part.ready),
            draining,
            parts,
        }
    }

    fn parts(&self) -> MutexGuard<'_, BTreeMap<String, PartEntry>> {
        // Every write leaves the map whole, so a panic elsewhere does no harm to it.
        self.0.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn show(entry: &PartEntry, now: Duration) -> PartStatus {
    let silent = now.saturating_sub(entry.since.max(entry.quiet_until));
    let ready = match entry.state {
        State::Running => silent <= entry.limit,
        State::Standby | State::Finished => true,
        State::Starting | State::Paused | State::Held | State::Failed => false,
    };
    PartStatus {
        state: entry.state,
        ready,
        progress_at: entry.progress_at,
        silent_s: silent.as_secs(),
        limit_s: entry.limit.as_secs(),
        eta_s: entry.progress.as_ref().and_then(Progress::eta_s),
        progress: entry.progress.clone(),
        details: entry.details.clone(),
    }
}

/// The line of one part on the board.
#[derive(Clone)]
pub struct Part {
    board: Status,
    name: String,
}

impl Part {
    /// Says that the part works and did something just now.
    pub fn progress(&self) {
        let (elapsed, now) = (self.board.0.clock.elapsed(), self.board.0.clock.now());
        self.change(|entry| {
            entry.state = State::Running;
            (entry.since, entry.moved) = (elapsed, elapsed);
            entry.progress_at = Some(now);
            entry.details.remove("reason");
        });
    }

    /// Says that the part came nearer to its end, which is not yet progress: it keeps a single run from ending as stalled.
    ///
    /// `pause` is added to the limit of [`Part::stalled`]: how long nothing is to be expected.
    pub fn moved(&self, pause: Duration) {
        let moved = self.board.0.clock.elapsed().saturating_add(pause);
        self.change(|entry| entry.moved = moved);
    }

    /// Says what the part waits for, if for anything; `/status` does not show it, [`Part::stalled`] returns it.
    pub fn waits_for(&self, what: Option<String>) {
        self.change(|entry| entry.waits_for = what);
    }

    /// Ends when the part has not moved for `limit`, and says what it waited for: why it is paused, or what it said itself.
    ///
    /// A run that is to end by itself must not wait for ever.
    pub async fn stalled(&self, limit: Duration) -> String {
        let clock = &self.board.0.clock;
        loop {
            let moved = self.board.parts().get(&self.name).map_or(Duration::ZERO, |entry| entry.moved);
            let left = moved.saturating_add(limit).saturating_sub(clock.elapsed());
            if left.is_zero() {
                let parts = self.board.parts();
                let entry = parts.get(&self.name);
                let paused = entry.and_then(|entry| Some(entry.details.get("reason")?.as_str()?.to_owned()));
                let waits = || entry.and_then(|entry| entry.waits_for.clone());
                return paused.or_else(waits).unwrap_or_else(|| "an answer".to_owned());
            }
            clock.sleep(left).await;
        }
    }

    /// Says that nothing is to be done for so long: its silence counts from then on.
    pub fn quiet_for(&self, duration: Duration) {
        let until = self.board.0.clock.elapsed().saturating_add(duration);
        self.change(|entry| entry.quiet_until = until);
    }

    /// Says what the part is doing.
    pub fn state(&self, state: State) {
        self.change(|entry| entry.state = state);
    }

    /// Says that the part waits for something to heal.
    pub fn paused(&self, reason: impl Into<String>) {
        self.waits(State::Paused, reason.into());
    }

    /// Says that the part holds back until somebody has looked.
    pub fn held(&self, reason: impl Into<String>) {
        self.waits(State::Held, reason.into());
    }

    fn waits(&self, state: State, reason: String) {
        self.change(|entry| {
            entry.state = state;
            entry.details.insert("reason".to_owned(), Value::String(reason));
        });
    }

    /// Says whether the part waits for something to heal.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.current() == Some(State::Paused)
    }

    fn current(&self) -> Option<State> {
        self.board.parts().get(&self.name).map(|entry| entry.state)
    }

    /// Says that the part gave up.
    pub fn failed(&self, error: impl Into<String>) {
        let error = error.into();
        self.change(|entry| {
            entry.state = State::Failed;
            entry.details.insert("error".to_owned(), Value::String(error));
        });
    }

    /// Shows how far long work has come; `None` when it is over.
    pub fn at(&self, progress: Option<Progress>) {
        self.change(|entry| entry.progress = progress);
    }

    /// Shows a detail under `name`.
    pub fn detail(&self, name: &str, value: impl Into<Value>) {
        let value = value.into();
        self.change(|entry| {
            entry.details.insert(name.to_owned(), value);
        });
    }

    /// Shows a detail under `name`, or takes it away.
    pub fn detail_if(&self, name: &str, value: Option<Value>) {
        match value {
            Some(value) => self.detail(name, value),
            None => self.clear(name),
        }
    }

    /// Takes the detail `name` away.
    pub fn clear(&self, name: &str) {
        self.change(|entry| {
            entry.details.remove(name);
        });
    }

    /// Takes the part off the board, as when its partitions went elsewhere.
    pub fn remove(&self) {
        self.board.parts().remove(&self.name);
    }

    fn change(&self, change: impl FnOnce(&mut PartEntry)) {
        if let Some(entry) = self.board.parts().get_mut(&self.name) {
            let before = entry.state;
            change(entry);
            if before != entry.state {
                self.measure(before, 0.0);
                self.measure(entry.state, 1.0);
            }
        }
    }

    fn measure(&self, state: State, value: f64) {
        gauge!(PART_STATE, label::PART => self.name.clone(), label::STATE => state.name()).set(value);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::clock::Clock;

    #[derive(Default)]
    struct HandClock(AtomicU64);

    impl Clock for HandClock {
        fn now(&self) -> DateTime<Utc> {
            DateTime::UNIX_EPOCH + self.elapsed()
        }

        fn elapsed(&self) -> Duration {
            Duration::from_secs(self.0.load(Ordering::Relaxed))
        }

        fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
            self.0.fetch_add(duration.as_secs(), Ordering::Relaxed);
            Box::pin(std::future::ready(()))
        }
    }

    #[test]
    fn a_part_is_ready_while_its_progress_is_younger_than_its_limit() {
        let clock = Arc::new(HandClock::default());
        let status = Status::new("a", clock.clone());
        assert!(!status.snapshot().ready, "an empty board is not ready");
        let part = status.part("sink assets", Duration::from_secs(30));
        assert!(!status.snapshot().ready, "a part that starts is not ready");
        part.progress();
        clock.0.store(30, Ordering::Relaxed);
        assert!(status.snapshot().ready);
        clock.0.store(31, Ordering::Relaxed);
        assert!(!status.snapshot().ready, "a process that is up but silent is not ready");
        part.progress();
        assert!(status.snapshot().ready);
    }

    #[test]
    fn a_part_with_nothing_to_do_is_ready_until_it_should_have_begun_again() {
        let clock = Arc::new(HandClock::default());
        let status = Status::new("a", clock.clone());
        let part = status.part("producer acme", Duration::from_secs(30));
        part.progress();
        part.quiet_for(Duration::from_secs(100));
        clock.0.store(130, Ordering::Relaxed);
        assert!(status.snapshot().ready);
        assert_eq!(status.snapshot().parts["producer acme"].silent_s, 30);
        clock.0.store(131, Ordering::Relaxed);
        assert!(!status.snapshot().ready);
        part.paused("Apple does not answer");
        part.quiet_for(Duration::from_secs(100));
        assert!(!status.snapshot().ready, "rest heals nothing");
    }

    #[test]
    fn a_paused_part_names_its_reason_and_progress_takes_it_away() {
        let status = Status::new("a", Arc::new(HandClock::default()));
        let part = status.part("sink assets", Duration::from_secs(30));
        part.paused("PostgreSQL does not answer");
        let shown = status.snapshot();
        assert!(!shown.ready);
        assert_eq!(shown.parts["sink assets"].details["reason"], "PostgreSQL does not answer");
        part.progress();
        assert!(status.snapshot().parts["sink assets"].details.is_empty());
    }

    #[tokio::test]
    async fn a_part_stalls_when_it_has_not_moved_for_the_limit_and_says_what_it_waited_for() {
        const LIMIT: Duration = Duration::from_secs(300);
        let clock = Arc::new(HandClock::default());
        let status = Status::new("a", clock.clone());
        let part = status.part("map devices", Duration::from_secs(30));
        clock.0.store(200, Ordering::Relaxed);
        part.moved(Duration::ZERO);
        clock.0.store(300, Ordering::Relaxed);
        assert_eq!(part.stalled(LIMIT).await, "an answer");
        assert_eq!(clock.elapsed().as_secs(), 500, "the limit counts from the last move");
        part.progress();
        part.waits_for(Some("an open transaction".to_owned()));
        assert_eq!(part.stalled(LIMIT).await, "an open transaction");
        assert_eq!(clock.elapsed().as_secs(), 800, "progress is a move, too");
        part.paused("the store is away");
        assert_eq!(part.stalled(LIMIT).await, "the store is away", "why it is paused tells more");
        assert_eq!(status.snapshot().parts["map devices"].details.get("waits_for"), None);
    }

    #[test]
    fn a_stage_that_gave_up_shows_the_reason_on_each_of_its_parts_that_said_none() {
        let status = Status::new("a", Arc::new(HandClock::default()));
        let part = |name: &str| status.part(name, Duration::from_secs(30));
        part("map devices");
        part("map users").failed("its own reason");
        part("sink assets").progress();
        status.gave_up("map", "no topic");
        let parts = status.snapshot().parts;
        assert_eq!(
            (parts["map devices"].state, &parts["map devices"].details["error"]),
            (State::Failed, &"no topic".into())
        );
        assert_eq!(parts["map users"].details["error"], "its own reason");
        assert_eq!(parts["sink assets"].state, State::Running);
    }

    #[test]
    fn a_draining_process_is_not_ready() {
        let status = Status::new("a", Arc::new(HandClock::default()));
        status.part("x", Duration::from_secs(1)).progress();
        assert!(status.snapshot().ready);
        status.drain();
        assert!(!status.snapshot().ready);
    }

    #[test]
    fn what_is_left_is_reckoned_from_the_speed_so_far() {
        let scan = |done| Progress { job: "scan".into(), done, total: Some(100_000), elapsed_s: 123 };
        assert_eq!(scan(41_000).eta_s(), Some(177));
        assert_eq!(scan(0).eta_s(), None);
    }
}
