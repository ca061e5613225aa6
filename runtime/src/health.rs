//! The status registry: each part of the process reports its state here, and readiness is derived from it.
//!
//! A part is ready when it made progress lately, not when its task exists: a poll was answered, a batch was committed, an idle
//! partition was read to its end again. Each part has its own limit, after which silence counts as a fault.

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
pub enum PartState {
    /// It reads what it needs before it can work.
    Starting,
    /// It works, or waits for work.
    Running,
    /// Another process does this work; this one takes over when the other one stops.
    Standby,
    /// It waits for an outage to end; the detail `reason` names it.
    Paused,
    /// It waits for an operator's decision; the detail `reason` says why.
    Held,
    /// It has done the single run that it was started for.
    Finished,
    /// It has ended with an error; the detail `error` shows it.
    Failed,
}

impl PartState {
    /// Returns its name in `status` and in metrics.
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

/// Progress of a long job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The job: `scan`, `fold`.
    pub job: String,
    /// How much of it is done.
    pub done: u64,
    /// How much there is; none while unknown.
    pub total: Option<u64>,
    /// Seconds since it began.
    pub elapsed_s: u64,
}

impl Progress {
    /// Estimates the seconds that are left from the speed so far; none while nothing is known.
    pub fn eta_s(&self) -> Option<u64> {
        let left = self.total?.saturating_sub(self.done);
        if self.done == 0 || self.elapsed_s == 0 {
            return None;
        }
        Some(u64::try_from(u128::from(left) * u128::from(self.elapsed_s) / u128::from(self.done)).unwrap_or(u64::MAX))
    }
}

/// A single run that has not come nearer to its end for this long ends with an error; brokers and stores restart within less.
pub const STALLED_AFTER: Duration = Duration::from_secs(300);

/// One part, as `/status` shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PartStatus {
    /// What it is doing.
    pub state: PartState,
    /// Whether it made progress within its limit.
    pub ready: bool,
    /// When it last made progress.
    pub progress_at: Option<DateTime<Utc>>,
    /// Seconds since then, or since it began.
    pub silent_s: u64,
    /// Seconds of silence after which it is not ready.
    pub limit_s: u64,
    /// Its long job, while it has one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub progress: Option<Progress>,
    /// Estimated seconds until that job ends.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub eta_s: Option<u64>,
    /// What else it reports: lag, held plans, the partition and offset behind which an open transaction hides records.
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
    /// Whether all parts are ready and it is not stopping.
    pub ready: bool,
    /// Whether it is stopping.
    pub draining: bool,
    /// The parts by name.
    pub parts: BTreeMap<String, PartStatus>,
}

struct PartEntry {
    state: PartState,
    limit: Duration,
    /// When it last made progress, by the clock's `elapsed`.
    since: Duration,
    /// When it last came nearer to its end; see [`StatusPart::stalled`].
    moved: Duration,
    waits_for: Option<String>,
    quiet_until: Duration,
    progress_at: Option<DateTime<Utc>>,
    progress: Option<Progress>,
    details: BTreeMap<String, Value>,
}

impl PartEntry {
    fn show(&self, now: Duration) -> PartStatus {
        let silent = now.saturating_sub(self.since.max(self.quiet_until));
        let ready = match self.state {
            PartState::Running => silent <= self.limit,
            PartState::Standby | PartState::Finished => true,
            PartState::Starting | PartState::Paused | PartState::Held | PartState::Failed => false,
        };
        PartStatus {
            state: self.state,
            ready,
            progress_at: self.progress_at,
            silent_s: silent.as_secs(),
            limit_s: self.limit.as_secs(),
            eta_s: self.progress.as_ref().and_then(Progress::eta_s),
            progress: self.progress.clone(),
            details: self.details.clone(),
        }
    }
}

struct Shared {
    clock: SharedClock,
    instance: String,
    started_at: DateTime<Utc>,
    draining: AtomicBool,
    parts: Mutex<BTreeMap<String, PartEntry>>,
}

/// The states of all parts of this process; copies share them.
#[derive(Clone)]
pub struct StatusRegistry(Arc<Shared>);

impl StatusRegistry {
    /// Makes an empty registry, which is not ready until a part is.
    pub fn new(instance: impl Into<String>, clock: SharedClock) -> Self {
        let (instance, started_at) = (instance.into(), clock.now());
        let (draining, parts) = (AtomicBool::new(false), Mutex::default());
        Self(Arc::new(Shared { clock, instance, started_at, draining, parts }))
    }

    /// Adds a part, which is [`PartState::Starting`] and may be silent for `limit`; it replaces a part of the same name.
    pub fn part(&self, name: impl Into<String>, limit: Duration) -> StatusPart {
        let (name, now) = (name.into(), self.0.clock.elapsed());
        let entry = PartEntry {
            state: PartState::Starting,
            limit,
            since: now,
            moved: now,
            waits_for: None,
            quiet_until: Duration::ZERO,
            progress_at: None,
            progress: None,
            details: BTreeMap::new(),
        };
        self.parts().insert(name.clone(), entry);
        let part = StatusPart { registry: self.clone(), name };
        part.measure(PartState::Starting, 1.0);
        part
    }

    /// Marks the parts of a stage as failed: the one named `stage`, and all whose names begin with that word. Parts that have
    /// finished or failed keep their state.
    pub fn gave_up(&self, stage: &str, error: &str) {
        let named =
            |name: &&String| name.strip_prefix(stage).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
        let names: Vec<String> = self.parts().keys().filter(named).cloned().collect();
        for part in names.into_iter().map(|name| StatusPart { registry: self.clone(), name }) {
            if !matches!(part.current(), Some(PartState::Failed | PartState::Finished)) {
                part.failed(error);
            }
        }
    }

    /// Reports that the process is stopping: from now on it is not ready.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Release);
    }

    /// Returns whether the process is stopping.
    pub fn draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire)
    }

    /// Returns the present state of the process and its parts.
    pub fn snapshot(&self) -> Snapshot {
        let now = self.0.clock.elapsed();
        let parts: BTreeMap<_, _> = self.parts().iter().map(|(name, entry)| (name.clone(), entry.show(now))).collect();
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

/// A handle by which one part reports its state.
#[derive(Clone)]
pub struct StatusPart {
    registry: StatusRegistry,
    name: String,
}

impl StatusPart {
    /// Reports that the part works and has just done something.
    pub fn progress(&self) {
        let (elapsed, now) = (self.registry.0.clock.elapsed(), self.registry.0.clock.now());
        self.change(|entry| {
            entry.state = PartState::Running;
            (entry.since, entry.moved) = (elapsed, elapsed);
            entry.progress_at = Some(now);
            entry.details.remove("reason");
        });
    }

    /// Reports that the part came nearer to its end without having done anything yet: a single run does not end as stalled.
    ///
    /// `pause` is how long nothing is to be expected; it is added to the limit of [`StatusPart::stalled`].
    pub fn moved(&self, pause: Duration) {
        let moved = self.registry.0.clock.elapsed().saturating_add(pause);
        self.change(|entry| entry.moved = moved);
    }

    /// Notes what the part waits for, if for anything; `/status` does not show it, [`StatusPart::stalled`] returns it.
    pub fn waits_for(&self, what: Option<String>) {
        self.change(|entry| entry.waits_for = what);
    }

    /// Ends when the part has not moved for `limit`. Returns what it waited for: why it is paused, or what
    /// [`StatusPart::waits_for`] noted.
    pub async fn stalled(&self, limit: Duration) -> String {
        let clock = &self.registry.0.clock;
        loop {
            let moved = self.registry.parts().get(&self.name).map_or(Duration::ZERO, |entry| entry.moved);
            let left = moved.saturating_add(limit).saturating_sub(clock.elapsed());
            if left.is_zero() {
                let parts = self.registry.parts();
                let entry = parts.get(&self.name);
                let paused = entry.and_then(|entry| Some(entry.details.get("reason")?.as_str()?.to_owned()));
                let waits = || entry.and_then(|entry| entry.waits_for.clone());
                return paused.or_else(waits).unwrap_or_else(|| "an answer".to_owned());
            }
            clock.sleep(left).await;
        }
    }

    /// Reports that there is nothing to do for `duration`: its silence counts from then on.
    pub fn quiet_for(&self, duration: Duration) {
        let until = self.registry.0.clock.elapsed().saturating_add(duration);
        self.change(|entry| entry.quiet_until = until);
    }

    /// Reports what the part is doing.
    pub fn state(&self, state: PartState) {
        self.change(|entry| entry.state = state);
    }

    /// Reports that the part waits for an outage to end.
    pub fn paused(&self, reason: impl Into<String>) {
        self.because(PartState::Paused, "reason", reason.into());
    }

    /// Reports that the part waits for an operator's decision.
    pub fn held(&self, reason: impl Into<String>) {
        self.because(PartState::Held, "reason", reason.into());
    }

    /// Reports that the part has ended with an error.
    pub fn failed(&self, error: impl Into<String>) {
        self.because(PartState::Failed, "error", error.into());
    }

    fn because(&self, state: PartState, detail: &str, text: String) {
        self.change(|entry| {
            entry.state = state;
            entry.details.insert(detail.to_owned(), Value::String(text));
        });
    }

    /// Returns whether the part waits for an outage to end.
    pub fn is_paused(&self) -> bool {
        self.current() == Some(PartState::Paused)
    }

    fn current(&self) -> Option<PartState> {
        self.registry.parts().get(&self.name).map(|entry| entry.state)
    }

    /// Shows how far a long job has come; `None` when it is over.
    pub fn at(&self, progress: Option<Progress>) {
        self.change(|entry| entry.progress = progress);
    }

    /// Shows a detail under `name`.
    pub fn detail(&self, name: &str, value: impl Into<Value>) {
        self.detail_if(name, Some(value.into()));
    }

    /// Removes the detail `name`.
    pub fn clear(&self, name: &str) {
        self.detail_if(name, None);
    }

    /// Shows a detail under `name`, or removes it.
    pub fn detail_if(&self, name: &str, value: Option<Value>) {
        self.change(|entry| {
            match value {
                Some(value) => entry.details.insert(name.to_owned(), value),
                None => entry.details.remove(name),
            };
        });
    }

    fn change(&self, change: impl FnOnce(&mut PartEntry)) {
        if let Some(entry) = self.registry.parts().get_mut(&self.name) {
            let before = entry.state;
            change(entry);
            if before != entry.state {
                self.measure(before, 0.0);
                self.measure(entry.state, 1.0);
            }
        }
    }

    fn measure(&self, state: PartState, value: f64) {
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
        let status = StatusRegistry::new("a", clock.clone());
        assert!(!status.snapshot().ready, "an empty status registry is not ready");
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
        let status = StatusRegistry::new("a", clock.clone());
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
        let status = StatusRegistry::new("a", Arc::new(HandClock::default()));
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
        let status = StatusRegistry::new("a", clock.clone());
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
        let status = StatusRegistry::new("a", Arc::new(HandClock::default()));
        let part = |name: &str| status.part(name, Duration::from_secs(30));
        part("map devices");
        part("map users").failed("its own reason");
        part("sink assets").progress();
        status.gave_up("map", "no topic");
        let parts = status.snapshot().parts;
        assert_eq!(
            (parts["map devices"].state, &parts["map devices"].details["error"]),
            (PartState::Failed, &"no topic".into())
        );
        assert_eq!(parts["map users"].details["error"], "its own reason");
        assert_eq!(parts["sink assets"].state, PartState::Running);
    }

    #[test]
    fn a_draining_process_is_not_ready() {
        let status = StatusRegistry::new("a", Arc::new(HandClock::default()));
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
