//! Writes a batch into the store: first dead letters, then data and positions in one transaction, until nothing is left.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;

use chrono::{DateTime, Utc};
use tracing::warn;
use windfall_runtime::kafka::Record;
use windfall_runtime::kafka::dead_letters::RefusedAt;
use windfall_runtime::telemetry::chain;

use crate::config::DlqConfig;
use crate::freshness::as_of;
use crate::record::Refused;
use crate::store::{Applied, AssetStore, Claimed, Source, Span, StoreError, StoreProgress};
use crate::work::{BatchRecord, BatchWork, Fate};

/// Where refused records go.
pub(crate) trait DeadLetters: Send {
    /// Delivers them all, or says that it could not; one that was delivered before may come again.
    fn deliver(&mut self, letters: &[(&Record, &Refused)]) -> impl Future<Output = Result<(), Source>> + Send;
}

/// Why a batch does not go on.
#[derive(Debug)]
pub(crate) enum Halt {
    /// The store cannot work at present: pause, then try the rest again. Or it must not be written: end.
    Store(StoreError),
    /// Dead letters cannot be delivered at present: pause, then try the rest again.
    DeadLetters(Source),
    /// The store stands before what was read: read again from its position.
    Behind { partition: i32, expected: i64, found: i64 },
    /// Too many records are refused: it is not the records.
    TooManyDeadLetters { refused: usize, window: usize, last: Refused },
}

/// What happened in one step.
#[derive(Debug, Default)]
pub(crate) struct Step {
    /// What the store did.
    pub(crate) applied: Applied,
    /// Entries that are done.
    pub(crate) done: Vec<BatchRecord>,
    /// Partitions that were taken over by another.
    pub(crate) fenced: Vec<i32>,
}

/// Writes one sink's batches, one at a time.
pub(crate) struct Writer<S, D> {
    store: S,
    dead_letters: D,
    positions: BTreeMap<i32, i64>,
    window: Window,
}

impl<S: AssetStore, D: DeadLetters> Writer<S, D> {
    pub(crate) fn new(store: S, dead_letters: D, dlq: &DlqConfig) -> Self {
        Self { store, dead_letters, positions: BTreeMap::new(), window: Window::new(dlq) }
    }

    /// Takes partitions over and forgets all others.
    pub(crate) async fn claim(&mut self, partitions: &[i32]) -> Result<Vec<Claimed>, StoreError> {
        self.positions.clear();
        let claimed = self.store.claim(partitions).await?;
        self.positions = claimed.iter().map(|claimed| (claimed.partition, claimed.next_offset)).collect();
        Ok(claimed)
    }

    /// Asks the store how far its positions and rows go.
    pub(crate) async fn held(&mut self) -> Result<StoreProgress, StoreError> {
        self.store.held().await
    }

    /// Forgets all partitions.
    pub(crate) fn release(&mut self) {
        self.positions.clear();
    }

    /// Where each partition stands.
    pub(crate) fn positions(&self) -> &BTreeMap<i32, i64> {
        &self.positions
    }

    /// Tries the next part of `work` once; may be dropped half-way, and the store then tells how far it came.
    pub(crate) async fn step(&mut self, work: &mut BatchWork) -> Result<Step, Halt> {
        work.keep_from(&self.positions);
        if work.is_done() {
            return Ok(Step::default());
        }
        let window = match self.window.after(work.part(&self.positions).entries) {
            Ok(window) => window,
            Err(halt) => {
                self.go_back(work).await;
                return Err(halt);
            }
        };
        let letters: Vec<_> = work.undelivered().collect();
        if !letters.is_empty() {
            self.dead_letters.deliver(&letters).await.map_err(Halt::DeadLetters)?;
            work.delivered();
        }
        let part = work.part(&self.positions);
        windfall_runtime::failpoint!("sink.apply.before");
        let outcome = self.store.apply(part.changes, &part.spans).await;
        windfall_runtime::failpoint!("sink.apply.after");
        match outcome {
            Ok(applied) => {
                self.positions.extend(part.spans.iter().map(|span| (span.partition, span.to)));
                self.window = window;
                Ok(Step { applied, done: work.stored(), fenced: Vec::new() })
            }
            Err(error) => self.judge(error, work),
        }
    }

    /// Puts the positions back before the refused records of the window, so that a restart steps over no more of them.
    ///
    /// What was stored behind them is read again and is not newer than its row; a dead letter that comes again has the same place.
    async fn go_back(&mut self, work: &BatchWork) {
        let mut first: BTreeMap<i32, (i64, Option<i64>)> = BTreeMap::new();
        for (partition, offset, written_ms) in self.window.refused.iter().flatten().rev() {
            first.insert(*partition, (*offset, *written_ms));
        }
        let span = |(partition, (to, written_ms)): (i32, (i64, Option<i64>))| {
            let from = *self.positions.get(&partition).filter(|position| **position > to)?;
            let written = written_ms.and_then(DateTime::from_timestamp_millis);
            let as_of = as_of(work.received(), written, false);
            Some(Span { partition, from, to, as_of, log_time: None })
        };
        let spans: Vec<Span> = first.into_iter().filter_map(span).collect();
        match self.store.apply(&[], &spans).await {
            Ok(_) => self.positions.extend(spans.iter().map(|span| (span.partition, span.to))),
            Err(failure) => warn!(error = %chain(&failure), "positions not put back before the refused records"),
        }
    }

    fn judge(&mut self, error: StoreError, work: &mut BatchWork) -> Result<Step, Halt> {
        match error {
            StoreError::Fenced { partition } => {
                self.positions.remove(&partition);
                Ok(Step { fenced: vec![partition], ..Step::default() })
            }
            StoreError::Advanced { partition, expected, found } if found > expected => {
                self.positions.insert(partition, found);
                Ok(Step::default())
            }
            StoreError::Advanced { partition, expected, found } => Err(Halt::Behind { partition, expected, found }),
            StoreError::Record { at, code, source } => {
                let message = chain(&*source).to_string();
                work.refused(Refused { stage: RefusedAt::Store, kind: code, message }, at);
                Ok(Step::default())
            }
            StoreError::Environment { .. } | StoreError::Refused(_) => Err(Halt::Store(error)),
        }
    }

    /// Notes for partitions without new records that every deletion up to `now` is known; `reached` is the end of each.
    pub(crate) async fn renew(&mut self, reached: &BTreeMap<i32, i64>, now: DateTime<Utc>) -> Result<Vec<i32>, Halt> {
        let spans: Vec<Span> = reached
            .iter()
            .filter_map(|(partition, to)| {
                let from = *self.positions.get(partition)?;
                // The position stays: it moves behind delivered records only.
                (*to >= from).then_some(Span { partition: *partition, from, to: from, as_of: now, log_time: None })
            })
            .collect();
        if spans.is_empty() {
            return Ok(Vec::new());
        }
        match self.store.apply(&[], &spans).await {
            Ok(_) => Ok(Vec::new()),
            Err(error) => {
                let mut nothing = BatchWork::new(Vec::new(), [], now);
                self.judge(error, &mut nothing).map(|step| step.fenced)
            }
        }
    }
}

/// The last records, and which of them were refused.
#[derive(Debug, Clone)]
struct Window {
    size: usize,
    threshold: usize,
    /// The place of each refused record and the time it was written; nothing for one that was stored.
    refused: VecDeque<Option<(i32, i64, Option<i64>)>>,
}

impl Window {
    fn new(dlq: &DlqConfig) -> Self {
        let DlqConfig { nack_window, nack_threshold } = dlq;
        let size = usize::try_from(nack_window.get()).unwrap_or(usize::MAX);
        Self { size, threshold: usize::try_from(*nack_threshold).unwrap_or(usize::MAX), refused: VecDeque::new() }
    }

    /// Returns the window after these records, unless it holds too many refused ones on the way.
    fn after(&self, entries: &[BatchRecord]) -> Result<Self, Halt> {
        let mut next = self.clone();
        for BatchRecord { record, fate, .. } in entries {
            let place = (record.partition, record.offset, record.timestamp_ms);
            next.refused.push_back(matches!(fate, Fate::Refuse { .. }).then_some(place));
            if next.refused.len() > next.size {
                next.refused.pop_front();
            }
            let Fate::Refuse { refused: last, .. } = fate else { continue };
            let refused = next.refused.iter().flatten().count();
            if refused > next.threshold {
                return Err(Halt::TooManyDeadLetters { refused, window: next.size, last: last.clone() });
            }
        }
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::{Arc, Mutex};

    use windfall_runtime::kafka::Headers;

    use super::*;
    use crate::asset::{AssetChange, Content, FieldValue};
    use crate::record::Read;
    use crate::store::Cause;
    use crate::store::memory::{Fault, Memory, MemoryStore};

    const POISON: &str = "poison";

    /// Dead letters in a list, with the store's position when each was delivered.
    #[derive(Clone)]
    struct Letters {
        memory: Memory,
        sent: Arc<Mutex<Vec<(i64, i64)>>>,
        refuse: Arc<Mutex<u32>>,
    }

    impl DeadLetters for Letters {
        async fn deliver(&mut self, letters: &[(&Record, &Refused)]) -> Result<(), Source> {
            let mut refuse = self.refuse.lock().unwrap();
            if *refuse > 0 {
                *refuse -= 1;
                return Err("no broker".into());
            }
            let position = self.memory.next_offset(0).unwrap();
            self.sent.lock().unwrap().extend(letters.iter().map(|(record, _)| (record.offset, position)));
            Ok(())
        }
    }

    struct Bench {
        memory: Memory,
        letters: Letters,
        writer: Writer<MemoryStore, Letters>,
    }

    async fn bench(window: u32, threshold: u32) -> Bench {
        let memory = Memory::default();
        memory.poison(FieldValue::String(POISON.to_owned()));
        let letters = Letters { memory: memory.clone(), sent: Arc::default(), refuse: Arc::default() };
        let dlq = DlqConfig { nack_window: NonZeroU32::new(window).unwrap(), nack_threshold: threshold };
        let mut writer = Writer::new(memory.open("assets", "assets.devices"), letters.clone(), &dlq);
        writer.claim(&[0]).await.unwrap();
        Bench { memory, letters, writer }
    }

    fn read(offset: i64, color: &str) -> (Record, Result<Read, Refused>) {
        let record = Record {
            topic: "assets.devices".into(),
            partition: 0,
            offset,
            timestamp_ms: Some(0),
            key: None,
            value: None,
            headers: Headers::new(),
        };
        let content = Content::Record { fields: vec![FieldValue::String(color.to_owned())], deleted: false };
        let change = AssetChange { asset_id: format!("a{offset}"), partition: 0, offset, content };
        (record, Ok(Read { change, observed_ms: None }))
    }

    fn work(colors: &[&str]) -> BatchWork {
        BatchWork::new((0..).zip(colors).map(|(offset, color)| read(offset, color)).collect(), [], DateTime::UNIX_EPOCH)
    }

    /// Steps until the work is done; counts how often it had to be tried again.
    async fn carry_out(bench: &mut Bench, work: &mut BatchWork) -> (Applied, u32) {
        let (mut applied, mut halts) = (Applied::default(), 0);
        while !work.is_done() {
            match bench.writer.step(work).await {
                Ok(step) => applied += step.applied,
                Err(Halt::Store(_) | Halt::DeadLetters(_)) => halts += 1,
                Err(halt) => panic!("{halt:?}"),
            }
        }
        (applied, halts)
    }

    #[tokio::test]
    async fn a_bad_record_is_delivered_to_the_dead_letters_before_the_position_passes_it() {
        let mut bench = bench(100, 20).await;
        let mut work = work(&["red", "blue", POISON, "green", "grey"]);
        let (applied, halts) = carry_out(&mut bench, &mut work).await;
        assert_eq!((applied.applied, halts), (4, 0));
        let sent = bench.letters.sent.lock().unwrap().clone();
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].0, 2);
        assert!(sent[0].1 <= 2, "delivered while the store stood at {}", sent[0].1);
        assert_eq!(bench.memory.next_offset(0), Some(5));
        assert_eq!(bench.memory.rows().len(), 4);
    }

    #[tokio::test]
    async fn while_dead_letters_cannot_be_delivered_the_position_stays() {
        let mut bench = bench(100, 20).await;
        *bench.letters.refuse.lock().unwrap() = 1;
        let mut work = work(&[POISON, "red"]);
        while bench.letters.sent.lock().unwrap().is_empty() {
            assert_eq!(bench.memory.next_offset(0), Some(0));
            let _ = bench.writer.step(&mut work).await;
        }
        carry_out(&mut bench, &mut work).await;
        assert_eq!(bench.memory.next_offset(0), Some(2));
        assert_eq!(bench.letters.sent.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn trouble_of_the_environment_makes_no_dead_letter_and_the_batch_goes_on_after_it() {
        let mut bench = bench(100, 0).await;
        for cause in [Cause::Connection, Cause::Locked, Cause::DiskFull] {
            bench.memory.fault(Fault::Refuse(cause));
        }
        let (applied, halts) = carry_out(&mut bench, &mut work(&["red", "blue"])).await;
        assert_eq!((applied.applied, halts), (2, 3));
        assert!(bench.letters.sent.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_commit_whose_answer_was_lost_is_found_out_and_not_repeated() {
        let mut bench = bench(100, 0).await;
        bench.memory.fault(Fault::LoseAnswer(Cause::Connection));
        let mut first = work(&["red", "blue"]);
        let (applied, halts) = carry_out(&mut bench, &mut first).await;
        assert_eq!((applied.total(), halts), (0, 1), "what came through is not applied again");
        assert_eq!((bench.memory.rows().len(), bench.memory.next_offset(0)), (2, Some(2)));
        let mut next = BatchWork::new(vec![read(2, "green")], [], DateTime::UNIX_EPOCH);
        carry_out(&mut bench, &mut next).await;
        assert_eq!(bench.memory.next_offset(0), Some(3));
    }

    #[tokio::test]
    async fn a_partition_that_was_taken_over_is_given_up_with_its_records() {
        let mut bench = bench(100, 0).await;
        bench.memory.open("assets", "assets.devices").claim(&[0]).await.unwrap();
        let mut work = work(&["red"]);
        let step = bench.writer.step(&mut work).await.unwrap();
        assert_eq!(step.fenced, [0]);
        bench.writer.step(&mut work).await.unwrap();
        assert!(work.is_done());
        assert!(bench.memory.rows().is_empty());
    }

    #[tokio::test]
    async fn too_many_bad_records_in_a_row_stop_the_sink_and_put_its_position_back_before_the_first() {
        let mut bench = bench(10, 2).await;
        let mut work = work(&["red", POISON, POISON, "blue", POISON, "green"]);
        let mut halt = None;
        while halt.is_none() && !work.is_done() {
            halt = bench.writer.step(&mut work).await.err();
        }
        assert!(matches!(halt, Some(Halt::TooManyDeadLetters { refused: 3, window: 10, .. })), "{halt:?}");
        assert_eq!(bench.letters.sent.lock().unwrap().len(), 2);
        assert_eq!(bench.memory.next_offset(0), Some(1), "a restart begins with the first that was refused");
    }

    #[tokio::test]
    async fn bad_records_that_lie_far_apart_stop_nothing() {
        let mut bench = bench(2, 1).await;
        let colors = [POISON, "red", "blue", POISON, "red", "blue", POISON];
        carry_out(&mut bench, &mut work(&colors)).await;
        assert_eq!(bench.letters.sent.lock().unwrap().len(), 3);
        assert_eq!(bench.memory.next_offset(0), Some(7));
    }

    #[tokio::test]
    async fn an_idle_partition_renews_its_mark_and_stays_before_markers() {
        let mut bench = bench(10, 0).await;
        let now = DateTime::UNIX_EPOCH + chrono::TimeDelta::days(1);
        bench.writer.renew(&BTreeMap::from([(0, 3), (7, 9)]), now).await.unwrap();
        assert_eq!((bench.memory.next_offset(0), bench.memory.as_of(0)), (Some(0), Some(now)));
        bench.memory.open("assets", "assets.devices").claim(&[0]).await.unwrap();
        let fenced = bench.writer.renew(&BTreeMap::from([(0, 3)]), now).await.unwrap();
        assert_eq!(fenced, [0]);
    }
}
