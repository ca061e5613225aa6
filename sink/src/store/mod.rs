//! The trait that every store implements, and the stores.

mod error;
mod fold;
pub mod memory;
mod ownership;
pub mod postgres;
mod shape;
pub mod sqlite;

use std::collections::BTreeMap;
use std::future::Future;

use chrono::{DateTime, Utc};
use windfall_runtime::log_identity::Position;

use crate::asset::AssetChange;

pub use error::{Cause, Refusal, Source, StoreError};
pub use fold::{Folded, Tombstone, Upsert, fold};
pub use ownership::{Owned, may_take};

/// A store of one collection, written by one sink.
///
/// Rows carry the guard `(generation, partition, offset)` of the record they were last written from, and a record is
/// applied only when its guard is greater: a repeated record, or one from before, changes nothing. A deleted asset
/// keeps its row (`__deleted = 'true'`) and its guard, so that an old record cannot bring it back. The position of
/// each partition is a row in the same store, moved in the transaction of the data; an epoch in it shuts out whoever
/// had the partition before.
///
/// Every call may be dropped half-way: the store then holds all of the batch or nothing, and the next call finds out which.
pub trait AssetStore: Send {
    /// Takes partitions over: raises their epoch, which fences the process that had them, and returns where to go on.
    ///
    /// Answers in the order of `partitions`. A partition never seen before begins at offset 0 of generation 1.
    ///
    /// # Errors
    /// [`StoreError::Environment`] and [`StoreError::Refused`]; then nothing is claimed.
    fn claim(&mut self, partitions: &[i32]) -> impl Future<Output = Result<Vec<Claimed>, StoreError>> + Send;

    /// Applies a batch and moves the positions of its partitions in one transaction: both or neither.
    ///
    /// `batch` is in the order of offsets within each partition and lies inside `spans`, which hold each partition at
    /// most once. A span without records moves the position alone; one with `from == to` renews its `as_of` alone, and one
    /// whose `to` lies before `from` takes the position back, so that its records are read again.
    ///
    /// # Errors
    /// As the table at [`StoreError`] says; nothing is applied then, or, after a lost answer, everything.
    fn apply(
        &mut self,
        batch: &[AssetChange],
        spans: &[Span],
    ) -> impl Future<Output = Result<Applied, StoreError>> + Send;

    /// Probes the store: connects and reads, and tells what the first [`AssetStore::claim`] would change in the store's
    /// structure, one statement each. Changes nothing and claims nothing.
    ///
    /// # Errors
    /// [`StoreError::Environment`] and [`StoreError::Refused`], as that claim would meet them.
    fn check(&mut self) -> impl Future<Output = Result<Vec<String>, StoreError>> + Send;

    /// Returns how far positions and rows of each partition go, both at one moment. Changes nothing and claims nothing.
    ///
    /// A store that leaves this out is never compared with its topic.
    ///
    /// # Errors
    /// As [`AssetStore::check`].
    fn held(&mut self) -> impl Future<Output = Result<StoreProgress, StoreError>> + Send {
        std::future::ready(Ok(StoreProgress::default()))
    }
}

/// Who writes: the sink and the topic it reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The sink's name.
    pub sink: String,
    /// The topic, prefix and all.
    pub topic: String,
}

/// A partition that was taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The partition.
    pub partition: i32,
    /// Its life: 1, raised when the topic is rebuilt or created again.
    pub generation: i64,
    /// The offset to go on from; 0 when nothing was stored yet.
    pub next_offset: i64,
    /// Up to when the store knows every deletion of this partition; `None` before the first batch.
    pub as_of: Option<DateTime<Utc>>,
    /// The greatest `LogAppendTime` stored, in milliseconds since 1970; `None` where no version of the sink noted it.
    pub log_time: Option<i64>,
}

/// What a store holds, as far as it can be compared with the topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreProgress {
    /// Every partition that has a position.
    pub partitions: Vec<PartitionProgress>,
    /// What an operator runs in the store so that the sink reads the topic again from its start, under a generation that takes
    /// the place of [`GENERATION`].
    pub reread: String,
}

/// What [`StoreProgress::reread`] says in place of the generation.
pub const GENERATION: &str = "{generation}";

/// How far a partition's position and its rows go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionProgress {
    /// The partition.
    pub partition: i32,
    /// The generation of its position.
    pub generation: i64,
    /// Its position.
    pub position: Position,
    /// The greatest guard of the rows that were written from it: generation and offset; `None` where there is no such row.
    pub greatest: Option<(i64, i64)>,
}

/// How far a batch moves one partition: the half-open interval `[from, to)` of offsets.
///
/// | store's position | epoch | outcome |
/// | --- | --- | --- |
/// | `from` | ours | applied, position becomes `to` |
/// | anything else | ours | [`StoreError::Advanced`] |
/// | any | another's, or no row | [`StoreError::Fenced`] |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The partition.
    pub partition: i32,
    /// Where the store must stand now.
    pub from: i64,
    /// Where it stands afterwards: the offset of the next record to read.
    pub to: i64,
    /// Up to when every deletion of this partition is known once the batch is stored.
    pub as_of: DateTime<Utc>,
    /// The greatest `LogAppendTime` of its records, in milliseconds since 1970; the store keeps the greatest of all batches.
    pub log_time: Option<i64>,
}

/// What became of a batch; the five numbers add up to its length.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Applied {
    /// Records written to a row that is live.
    pub applied: u64,
    /// Records and tombstones that marked a row as deleted.
    pub deleted: u64,
    /// Records refused by the guard: the row is as new or newer.
    pub stale: u64,
    /// Tombstones that found nothing to delete: the row was deleted before, is newer, or never was.
    pub unchanged: u64,
    /// Records and tombstones overtaken by a later one of the same asset in the same batch.
    pub folded: u64,
}

impl Applied {
    /// Returns how many records this accounts for.
    pub fn total(&self) -> u64 {
        self.applied + self.deleted + self.stale + self.unchanged + self.folded
    }
}

impl std::ops::AddAssign for Applied {
    fn add_assign(&mut self, other: Self) {
        let Self { applied, deleted, stale, unchanged, folded } = other;
        self.applied += applied;
        self.deleted += deleted;
        self.stale += stale;
        self.unchanged += unchanged;
        self.folded += folded;
    }
}

/// What a store remembers of a partition it claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Claim {
    generation: i64,
    epoch: i64,
}

/// The generation under which rows of a partition are written.
fn generation(claims: &BTreeMap<i32, Claim>, partition: i32) -> i64 {
    claims.get(&partition).map_or(1, |claim| claim.generation)
}
