//! The reference store: the contract in ordinary maps, and a stand-in for tests that need no database.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};

use super::fold::{Folded, fold};
use super::ownership::{Owned, may_take};
use super::{Applied, AssetStore, Cause, Claimed, Identity, Span, StoreError};
use crate::asset::{AssetChange, FieldValue};

/// Name of the one table that a [`Memory`] is.
const TABLE: &str = "memory";

/// A row of the reference store.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The values, in the order of the table's columns.
    pub fields: Vec<FieldValue>,
    /// Whether the asset is gone.
    pub deleted: bool,
    /// Generation, partition and offset of the record that the row was last written from.
    pub guard: (i64, i32, i64),
}

/// A position of the reference store.
#[derive(Debug, Clone, PartialEq, Eq)]
struct MemoryPosition {
    epoch: i64,
    at: Claimed,
}

/// A fault to happen at the next call that would change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The call fails and changes nothing.
    Refuse(Cause),
    /// The call takes effect and its answer is lost.
    LoseAnswer(Cause),
}

#[derive(Debug, Default)]
struct Contents {
    owner: Option<Owned>,
    rows: BTreeMap<String, Row>,
    positions: BTreeMap<i32, MemoryPosition>,
    poison: Option<FieldValue>,
    faults: VecDeque<Fault>,
    calls: u64,
}

/// What several [`MemoryStore`]s share: the table and its positions.
#[derive(Debug, Clone, Default)]
pub struct Memory(Arc<Mutex<Contents>>);

impl Memory {
    /// Opens the table for a sink that reads `topic`.
    pub fn open(&self, sink: &str, topic: &str) -> MemoryStore {
        let identity = Identity { sink: sink.to_owned(), topic: topic.to_owned() };
        MemoryStore { memory: self.clone(), identity, epochs: BTreeMap::new() }
    }

    /// Returns the rows by asset.
    pub fn rows(&self) -> BTreeMap<String, Row> {
        self.contents().rows.clone()
    }

    /// Returns the position of a partition that was claimed once.
    pub fn next_offset(&self, partition: i32) -> Option<i64> {
        self.contents().positions.get(&partition).map(|position| position.at.next_offset)
    }

    /// Returns up to when every deletion of a partition is known.
    pub fn as_of(&self, partition: i32) -> Option<DateTime<Utc>> {
        self.contents().positions.get(&partition).and_then(|position| position.at.as_of)
    }

    /// Refuses from now on every record that holds `value`.
    pub fn poison(&self, value: FieldValue) {
        self.contents().poison = Some(value);
    }

    /// Queues a fault for the next call that would change something.
    pub fn fault(&self, fault: Fault) {
        self.contents().faults.push_back(fault);
    }

    /// Returns how many batches were tried.
    pub fn calls(&self) -> u64 {
        self.contents().calls
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One sink's handle on a [`Memory`].
#[derive(Debug)]
pub struct MemoryStore {
    memory: Memory,
    identity: Identity,
    epochs: BTreeMap<i32, i64>,
}

impl MemoryStore {
    fn take_table(&self, contents: &mut Contents) -> Result<(), StoreError> {
        if !may_take(contents.owner.as_slice(), &self.identity, TABLE)? {
            let Identity { sink, topic } = self.identity.clone();
            contents.owner = Some(Owned { table: TABLE.to_owned(), sink, topic });
        }
        Ok(())
    }

    fn claim_now(&mut self, partitions: &[i32]) -> Result<Vec<Claimed>, StoreError> {
        let memory = self.memory.clone();
        let mut contents = memory.contents();
        let lost = before(&mut contents)?;
        self.take_table(&mut contents)?;
        let mut claimed = Vec::with_capacity(partitions.len());
        for &partition in partitions {
            let at = Claimed { partition, generation: 1, next_offset: 0, as_of: None, log_time: None };
            let position = contents.positions.entry(partition).or_insert(MemoryPosition { epoch: 0, at });
            position.epoch += 1;
            self.epochs.insert(partition, position.epoch);
            claimed.push(position.at.clone());
        }
        after(lost, claimed)
    }

    fn apply_now(&mut self, batch: &[AssetChange], spans: &[Span]) -> Result<Applied, StoreError> {
        let mut contents = self.memory.contents();
        contents.calls += 1;
        let lost = before(&mut contents)?;
        for span in spans {
            self.fits(&contents, span)?;
        }
        let folded = fold(batch);
        if let Some(poison) = &contents.poison
            && folded.upserts.iter().any(|upsert| upsert.fields.contains(poison))
        {
            return Err(StoreError::record("poison", "the record holds the poison"));
        }
        let applied = write(&mut contents, &folded);
        for span in spans {
            if let Some(MemoryPosition { at, .. }) = contents.positions.get_mut(&span.partition) {
                at.next_offset = span.to;
                at.as_of = at.as_of.max(Some(span.as_of));
                at.log_time = at.log_time.max(span.log_time);
            }
        }
        after(lost, applied)
    }

    fn fits(&self, contents: &Contents, span: &Span) -> Result<(), StoreError> {
        let Span { partition, from, .. } = *span;
        let ours = contents
            .positions
            .get(&partition)
            .filter(|position| self.epochs.get(&partition) == Some(&position.epoch))
            .ok_or(StoreError::Fenced { partition })?;
        if ours.at.next_offset == from {
            Ok(())
        } else {
            Err(StoreError::Advanced { partition, expected: from, found: ours.at.next_offset })
        }
    }
}

/// Meets the next fault, if one waits: an error, or the cause with which the answer will be lost.
fn before(contents: &mut Contents) -> Result<Option<Cause>, StoreError> {
    match contents.faults.pop_front() {
        None => Ok(None),
        Some(Fault::LoseAnswer(cause)) => Ok(Some(cause)),
        Some(Fault::Refuse(cause)) => Err(StoreError::environment(cause, "a fault was asked for")),
    }
}

fn after<T>(lost: Option<Cause>, answer: T) -> Result<T, StoreError> {
    lost.map_or(Ok(answer), |cause| Err(StoreError::environment(cause, "the answer was lost")))
}

fn write(contents: &mut Contents, folded: &Folded<'_>) -> Applied {
    let mut applied = Applied { folded: folded.overtaken, ..Applied::default() };
    let generations: BTreeMap<i32, i64> =
        contents.positions.iter().map(|(partition, position)| (*partition, position.at.generation)).collect();
    let guard = |partition: i32, offset: i64| (generations.get(&partition).copied().unwrap_or(1), partition, offset);
    for upsert in &folded.upserts {
        let guard = guard(upsert.partition, upsert.offset);
        if contents.rows.get(upsert.asset_id).is_some_and(|row| row.guard >= guard) {
            applied.stale += 1;
            continue;
        }
        let row = Row { fields: upsert.fields.to_vec(), deleted: upsert.deleted, guard };
        contents.rows.insert(upsert.asset_id.to_owned(), row);
        *(if upsert.deleted { &mut applied.deleted } else { &mut applied.applied }) += 1;
    }
    for tombstone in &folded.tombstones {
        let guard = guard(tombstone.partition, tombstone.offset);
        match contents.rows.get_mut(tombstone.asset_id) {
            Some(row) if !row.deleted && row.guard < guard => {
                (row.deleted, row.guard) = (true, guard);
                applied.deleted += 1;
            }
            Some(_) | None => applied.unchanged += 1,
        }
    }
    applied
}

impl AssetStore for MemoryStore {
    fn claim(&mut self, partitions: &[i32]) -> impl Future<Output = Result<Vec<Claimed>, StoreError>> + Send {
        std::future::ready(self.claim_now(partitions))
    }

    fn apply(
        &mut self,
        batch: &[AssetChange],
        spans: &[Span],
    ) -> impl Future<Output = Result<Applied, StoreError>> + Send {
        std::future::ready(self.apply_now(batch, spans))
    }

    fn check(&mut self) -> impl Future<Output = Result<Vec<String>, StoreError>> + Send {
        let may = may_take(self.memory.contents().owner.as_slice(), &self.identity, TABLE);
        std::future::ready(may.map(|_| Vec::new()).map_err(StoreError::from))
    }
}
