//! What the merge remembers of one asset, and what it publishes when that changes: pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use windfall_schemas::asset::AssetRecord;
use windfall_schemas::conflict::Conflict;
use windfall_schemas::contribution::Contribution;

use crate::collection::CompiledCollection;
use crate::merge::{self, CLOSED, Merged, OPEN};

/// Source and source key.
pub type SourceKey = (String, String);

/// Everything that the merge knows of one asset; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Asset {
    /// Its contributions, by source.
    pub contributions: BTreeMap<SourceKey, Arc<Contribution>>,
    /// Its last record that no tombstone followed.
    pub last: Option<Arc<AssetRecord>>,
    /// Whether merging the contributions gives `last`, so that it need not be kept beside them.
    pub current: bool,
    /// The last version published, also of a record that is gone.
    pub version: i64,
    /// The last record of each conflict, open or closed.
    pub conflicts: Vec<Conflict>,
    /// Sources whose newest contribution cannot be read, with its offset.
    pub unreadable: BTreeMap<SourceKey, i64>,
    /// Whether its record would be larger than the limit, so that it stays as it was last published.
    pub too_large: bool,
}

/// Whether a contribution counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContributionVerdict {
    /// The set of contributions has changed.
    Changed,
    /// The contribution is older than the one known for its key.
    Stale,
}

/// What is to be published of an asset.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Conclusion {
    /// The record, if one is to be written.
    pub record: Option<Arc<AssetRecord>>,
    /// Whether a tombstone follows.
    pub tombstone: bool,
    /// Conflicts that opened, changed or ended.
    pub conflicts: Vec<Conflict>,
}

impl Conclusion {
    /// Says whether nothing is to be published.
    pub fn is_empty(&self) -> bool {
        self.record.is_none() && !self.tombstone && self.conflicts.is_empty()
    }
}

impl Asset {
    /// Applies a record of the topic: [`Asset::apply`] if it can be read, else [`Asset::hide`].
    ///
    /// The loop and the fold use the same rule.
    ///
    /// # Errors
    /// Why the record cannot be read, as it was given.
    pub fn hear<E>(
        &mut self,
        key: SourceKey,
        offset: i64,
        said: Result<Option<Contribution>, E>,
    ) -> Result<ContributionVerdict, E> {
        match said {
            Ok(contribution) => Ok(self.apply(key, contribution)),
            Err(why) => {
                self.hide(key, offset);
                Err(why)
            }
        }
    }

    /// Applies a contribution; `None` withdraws it. One older than the known one is stale; so is one of the same source record,
    /// unless another program made it.
    pub fn apply(&mut self, key: SourceKey, contribution: Option<Contribution>) -> ContributionVerdict {
        self.unreadable.remove(&key);
        let known = self.contributions.get(&key);
        if contribution.as_ref().zip(known).is_some_and(|(contribution, known)| stale(contribution, known)) {
            return ContributionVerdict::Stale;
        }
        self.current = false;
        match contribution {
            Some(contribution) => self.contributions.insert(key, Arc::new(contribution)),
            None => self.contributions.remove(&key),
        };
        ContributionVerdict::Changed
    }

    /// Notes that the newest contribution of a source cannot be read.
    ///
    /// Its earlier contribution is dropped: compaction removes it from the topic, and a later fold must yield the same state. The
    /// asset is held until the source writes again.
    pub fn hide(&mut self, key: SourceKey, offset: i64) {
        self.current = false;
        self.contributions.remove(&key);
        self.unreadable.insert(key, offset);
    }

    /// Returns whether the asset stays as it was last published because a contribution cannot be read.
    pub fn is_held(&self) -> bool {
        !self.unreadable.is_empty()
    }

    /// Merges the contributions; `None` when there are none.
    #[must_use]
    pub fn merge(&self, collection: &CompiledCollection) -> Option<Merged> {
        merge::merge(collection, self.contributions.values().map(Arc::as_ref))
    }

    /// Decides what is to be published, and remembers it as published; nothing of an asset that is held.
    ///
    /// | last record | what the contributions amount to | published |
    /// | --- | --- | --- |
    /// | equal | a record | nothing |
    /// | any other, or none | a record | the record |
    /// | live | nothing | its fields once more with `__deleted`, then a tombstone |
    /// | deleted: its tombstone is missing | nothing | a tombstone |
    /// | none | nothing | nothing |
    ///
    /// Records are equal when fields, `__deleted` and chosen sources are; times, offsets and the event's names are not compared.
    /// `cause` is the offset of the contribution that made us look. An equal record takes over the newest provenance, so that a
    /// later deletion names the same event, whether the record was kept or merged again.
    pub fn conclude(&mut self, collection: &CompiledCollection, asset_id: &str, cause: i64, now_ms: i64) -> Conclusion {
        if self.is_held() {
            return Conclusion::default();
        }
        let merged = self.merge(collection);
        let conflicts = changed_conflicts(&self.conflicts, merged.as_ref());
        for conflict in &conflicts {
            self.conflicts.retain(|known| known.subject != conflict.subject);
            self.conflicts.push(conflict.clone());
        }
        let version = cause.max(self.version.saturating_add(1));
        let tombstone = merged.is_none() && self.last.is_some();
        let record = match (&merged, self.last.as_deref()) {
            (Some(merged), last) => {
                Some(merged.record(asset_id, version)).filter(|record| !last.is_some_and(|last| same(last, record)))
            }
            (None, Some(last)) if !last.deleted => Some(AssetRecord { deleted: true, version, ..last.clone() }),
            (None, _) => None,
        };
        let record = record.map(|mut record| {
            record.meta.ts_ms = Some(now_ms);
            self.version = version;
            Arc::new(record)
        });
        match (merged, &record, &mut self.last) {
            (None, _, last) => *last = None,
            (Some(_), Some(record), last) => *last = Some(Arc::clone(record)),
            (Some(merged), None, Some(last)) => Arc::make_mut(last).meta = merged.meta,
            (Some(_), None, None) => {}
        }
        self.current = self.last.is_some();
        Conclusion { record, tombstone, conflicts }
    }

    /// Copies what was published of the asset, without its contributions.
    pub fn published(&self) -> Self {
        let Self { last, version, conflicts, contributions: _, current: _, unreadable: _, too_large: _ } = self;
        Self { last: last.clone(), version: *version, conflicts: conflicts.clone(), ..Self::default() }
    }

    /// Takes back a conclusion that cannot be written: what was `published` before stays, and so do the contributions.
    pub fn keep(&mut self, published: Self) {
        let Self { last, version, conflicts, contributions: _, current: _, unreadable: _, too_large: _ } = published;
        (self.last, self.version, self.conflicts, self.too_large) = (last, version, conflicts, true);
        self.current = false;
    }

    /// Counts the conflicts that are open.
    pub fn open_conflicts(&self) -> usize {
        self.conflicts.iter().filter(|conflict| conflict.state == OPEN).count()
    }
}

/// Returns whether `new` is stale beside `known`, by the offsets of one partition.
///
/// | source record of `new` | program of `new` | verdict |
/// | --- | --- | --- |
/// | earlier | any | stale: a newer record was mapped before, maybe by another program |
/// | the same | the same | stale: a repetition |
/// | the same | another | taken: the program was changed and maps again |
/// | later, or in another partition | any | taken |
fn stale(new: &Contribution, known: &Contribution) -> bool {
    let same_program = new.mapping == known.mapping;
    new.source_partition.is_some()
        && new.source_partition == known.source_partition
        && (new.source_offset < known.source_offset || (new.source_offset == known.source_offset && same_program))
}

fn same(a: &AssetRecord, b: &AssetRecord) -> bool {
    fn sources(record: &AssetRecord) -> [&Option<String>; 3] {
        [&record.meta.org, &record.meta.device_id, &record.meta.sources]
    }
    a.deleted == b.deleted && a.fields == b.fields && sources(a) == sources(b)
}

/// Returns the conflict records that are to be published: those that opened or changed, and those that ended.
fn changed_conflicts(known: &[Conflict], merged: Option<&Merged>) -> Vec<Conflict> {
    let now = merged.map_or(&[][..], |merged| &merged.conflicts);
    let told = |conflict: &&Conflict| known.iter().any(|known| same_conflict(known, conflict));
    let mut records: Vec<Conflict> = now.iter().filter(|conflict| !told(conflict)).cloned().collect();
    let seen_at = merged.and_then(|merged| merged.meta.source_ts_ms);
    let stands = |known: &Conflict| now.iter().any(|conflict| conflict.subject == known.subject);
    let ended = known.iter().filter(|known| known.state != CLOSED && !stands(known));
    records.extend(ended.map(|known| Conflict { state: CLOSED.to_owned(), seen_at, ..known.clone() }));
    records
}

fn same_conflict(a: &Conflict, b: &Conflict) -> bool {
    (&a.subject, &a.state, &a.held, &a.candidates) == (&b.subject, &b.state, &b.held, &b.candidates)
}
