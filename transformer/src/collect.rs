//! Loop two: contributions become asset records, and disagreements become conflicts.
//!
//! Its memory is folded from three topics: `contributions` up to the committed input offset, `assets.<collection>` and `conflicts`
//! to their ends. On assignment the loop merges every asset of the partition again and first publishes those that differ from
//! their last record. It leaves out assets with contributions beyond the committed offset: they are merged when these are
//! read, and compaction may already have removed their older contributions.
//!
//! A contribution that cannot be read goes to the dead letters once, in the transaction of its input offset. If its key can be
//! read, the asset stays as it was last published until that source writes again: what the source says now is unknown, and
//! compaction removes what it said before, so that a record made without it would be wrong. The fold applies the same rule to
//! the same records, so it yields the same state; it writes no dead letter.
//!
//! An asset whose record would be larger than the limit stays as it was last published, too, until its sources say less. The
//! contribution that made it too large goes to the dead letters, but is remembered, so that the fold yields the same state.
//!
//! Contributions that are gone although nobody withdrew them were lost by the topic. If too many assets have lost theirs, nothing
//! is published until they are back ([`hold`]).
//!
//! If records exist but no offset was ever committed, the offset was lost: the fold reads to the end, and only differences are
//! published, so that nothing is repeated.

mod hold;
mod memory;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use serde_json::json;
use tracing::{debug, warn};
use windfall_runtime::failpoint;
use windfall_runtime::kafka::consumer::Start;
use windfall_runtime::kafka::dead_letters::RefusedAt;
use windfall_runtime::kafka::groups::CommittedOffset;
use windfall_runtime::kafka::publisher;
use windfall_runtime::kafka::{Outgoing, Record, TopicPartition};
use windfall_runtime::log_identity::ACCEPTED;
use windfall_runtime::metrics::{self as names, label};
use windfall_runtime::worker::{Stage, Starts, Taken, Work};
use windfall_schemas::asset::AssetKey;
use windfall_schemas::contribution::ContributionKey;
use windfall_schemas::wire::WireError;

use crate::asset::{Asset, Conclusion, ContributionVerdict};
use crate::collection::CompiledCollection;
use crate::error::TransformerError;
use crate::own::{OwnTopics, asset_headers};
use crate::parts::{Parts, contribution};
use crate::remembered::Unpacked;
use memory::Memory;

/// The merge of one collection.
pub(crate) struct MergeStage {
    parts: Parts,
    memory: Memory,
    /// Assets that are still to be merged again.
    pending: VecDeque<(i32, String)>,
    /// Input offsets that are committed when all of them are merged.
    moving: Vec<(TopicPartition, i64)>,
}

/// What moves the merge's memory.
#[derive(Debug, Default)]
pub(crate) struct MergeEffects {
    assets: HashMap<(i32, String), Unpacked>,
    /// Contributions read, by partition: one past the last.
    consumed: BTreeMap<i32, i64>,
}

/// The result of merging an asset again.
enum Concluded {
    /// Its record is equal to the last one.
    Same,
    /// Something is to be written.
    Written,
    /// Its record is larger than the limit.
    TooLarge(WireError),
}

/// Assets that are merged again at a time; those that differ are written in one transaction.
const RECONCILED_AT_ONCE: usize = 2_000;

/// How many unreadable records the status names; the dead letters name all of them.
const SHOWN: usize = 20;

impl MergeStage {
    pub(crate) fn new(parts: Parts) -> Self {
        let memory = Memory::new(&parts.own);
        Self { parts, memory, pending: VecDeque::new(), moving: Vec::new() }
    }

    /// Shows what an operator should know.
    fn show(&self) {
        let Memory { contributions, lasts, conflicts } = &self.memory;
        let (mut assets, mut records, mut too_large) = (0, Vec::new(), Vec::new());
        for (partition, cached) in &contributions.partitions {
            assets += cached.state.unreadable.len() + cached.state.too_large.len();
            let offsets = cached.state.unreadable.values().flat_map(BTreeMap::values);
            records.extend(offsets.map(|offset| (*partition, *offset)));
            too_large.extend(&cached.state.too_large);
        }
        records.sort_unstable();
        let records = records.iter().take(SHOWN);
        let records: Vec<_> =
            records.map(|(partition, offset)| json!({ "partition": partition, "offset": offset })).collect();
        let topic = &*self.parts.own.contributions.name;
        let mut held = json!({ "assets": assets, "topic": topic, "unreadable": records });
        if !too_large.is_empty() {
            held["too_large"] = too_large.into_iter().take(SHOWN).map(String::as_str).collect();
        }
        self.parts.part.detail_if("held", (assets > 0).then_some(held));
        self.parts.show_passed_over([contributions.passed_over(), lasts.passed_over(), conflicts.passed_over()]);
    }

    /// Merges an asset again and adds the records to be written; an asset that is too large stays as it was last published.
    fn conclude(
        &self,
        place: &(i32, String),
        asset: &mut Asset,
        cause: i64,
        work: &mut Work<MergeEffects>,
    ) -> Result<Concluded, TransformerError> {
        let published = asset.published();
        let conclusion =
            asset.conclude(self.parts.collection(), &place.1, cause, self.parts.clock.now().timestamp_millis());
        asset.too_large = false;
        let (derived, follow_up) = match self.write(place, &conclusion) {
            Ok(written) => written,
            Err(TransformerError::Encode { source: why @ WireError::TooLarge { .. }, .. }) => {
                asset.keep(published);
                return Ok(Concluded::TooLarge(why));
            }
            Err(error) => return Err(error),
        };
        work.derived.extend(derived);
        work.follow_up.extend(follow_up);
        Ok(if conclusion.is_empty() { Concluded::Same } else { Concluded::Written })
    }

    /// Makes what a conclusion writes: the record and its tombstone, and the conflicts.
    fn write(
        &self,
        (partition, asset_id): &(i32, String),
        Conclusion { record, tombstone, conflicts: ended }: &Conclusion,
    ) -> Result<(Vec<Outgoing>, Vec<Outgoing>), TransformerError> {
        let (mut derived, mut follow_up) = (Vec::new(), Vec::new());
        let OwnTopics { assets, conflicts, .. } = &self.parts.own;
        let CompiledCollection { name, schema, .. } = &**self.parts.collection();
        let key = AssetKey { asset_id: asset_id.clone() };
        if let Some(record) = record {
            let value = schema.encode_asset(&assets.value, record);
            let outgoing = value.and_then(|value| assets.record(&key, value, *partition));
            let outgoing = outgoing.map_err(|source| assets.failed(source))?;
            derived.push(outgoing.with_headers(asset_headers(name, record, false)));
        }
        if *tombstone {
            let outgoing = assets.tombstone(&key, *partition).map_err(|source| assets.failed(source))?;
            let headers = record.as_ref().map(|record| asset_headers(name, record, true));
            derived.push(outgoing.with_headers(headers.unwrap_or_default()));
        }
        for conflict in ended {
            let value = conflicts.value.encode(conflict);
            let outgoing = value.and_then(|value| conflicts.record(&conflict.key(), value, *partition));
            follow_up.push(outgoing.map_err(|source| conflicts.failed(source))?);
        }
        Ok((derived, follow_up))
    }

    fn merge_all(&self, records: &[Record]) -> Result<Work<MergeEffects>, TransformerError> {
        let mut work: Work<MergeEffects> = Work::default();
        for record in records {
            let partition = record.partition;
            let folded = self.memory.next_offset(partition);
            work.effects.consumed.insert(partition, record.offset + 1);
            if record.offset < folded {
                self.parts.count("stale");
                continue;
            }
            let ContributionKey { asset_id, source, source_key } = match self.parts.decoder.key(record) {
                Ok(key) => key,
                Err(why) => {
                    work.refuse(self.parts.refused(record, RefusedAt::Key, &why));
                    continue;
                }
            };
            let place = (partition, asset_id);
            let mut asset = work
                .effects
                .assets
                .remove(&place)
                .unwrap_or_else(|| self.memory.asset(&self.parts, partition, &place.1));
            let (key, value) = ((source, source_key), record.value.as_deref());
            let read = |value| contribution(&self.parts.decoder, self.parts.collection(), value);
            match asset.hear(key, record.offset, value, value.map(read).transpose()) {
                Err(why) => work.refuse(self.parts.refused(record, RefusedAt::Value, &why)),
                Ok(ContributionVerdict::Stale) => self.parts.count("stale"),
                Ok(ContributionVerdict::Changed) => {
                    match self.conclude(&place, &mut asset.asset, record.offset, &mut work)? {
                        Concluded::Same => self.parts.count("noop"),
                        Concluded::Written => self.parts.count("ok"),
                        Concluded::TooLarge(why) => {
                            work.refuse(self.parts.refused(record, RefusedAt::Transformation, &why.into()));
                        }
                    }
                }
            }
            work.effects.assets.insert(place, asset);
        }
        debug!(records = records.len(), derived = work.derived.len(), "batch merged");
        Ok(work)
    }

    fn show_conflicts(&self) {
        #[allow(clippy::cast_precision_loss)] // A gauge is a float.
        let open = self.memory.open_conflicts() as f64;
        let collection = self.parts.collection().name.clone();
        metrics::gauge!(names::CONFLICTS_OPEN, label::COLLECTION => collection).set(open);
    }
}

impl Stage for MergeStage {
    type Effects = MergeEffects;
    type Error = TransformerError;

    fn name(&self) -> &'static str {
        "merge"
    }

    async fn take_over(
        &mut self,
        partitions: &[TopicPartition],
        committed: &BTreeMap<TopicPartition, Option<CommittedOffset>>,
        _: &BTreeMap<TopicPartition, i64>,
    ) -> Result<Taken, TransformerError> {
        let numbers: BTreeSet<i32> = partitions.iter().map(|at| at.partition).collect();
        self.memory.fold_assets(&self.parts, &numbers).await?;
        self.memory.fold_conflicts(&self.parts, &numbers).await?;
        let upto = partitions.iter().map(|at| (at.partition, self.memory.input_offset(at, committed))).collect();
        self.memory.fold_contributions(&self.parts, upto).await?;
        let accepted = |at: &TopicPartition| {
            committed.get(at).and_then(Option::as_ref).and_then(|known| known.program.as_deref()) == Some(ACCEPTED)
        };
        let doubted = partitions.iter().filter(|at| !accepted(at)).map(|at| at.partition).collect();
        let missing = self.memory.missing(&doubted);
        if missing.is_too_much() {
            let reason = missing.reason(&self.parts.own.contributions.name, &self.parts.collection().name);
            return Ok(Taken::Held(reason));
        }
        self.pending = self.memory.assets(&numbers).into();
        self.show_conflicts();
        self.moving.clear();
        let mut starts = Starts::new();
        for at in partitions {
            let folded = self.memory.next_offset(at.partition);
            let next = committed.get(at).and_then(Option::as_ref).map_or(0, |known| known.position.next_offset);
            // An operator's acceptance is used up by this take-over: the offset is committed without it.
            if next < folded || accepted(at) {
                self.moving.push((at.clone(), folded));
            }
            starts.insert(at.clone(), if folded == 0 { Start::Beginning } else { Start::At(folded) });
        }
        self.show();
        Ok(Taken::From(starts))
    }

    fn reconcile(&mut self) -> Result<Option<Work<MergeEffects>>, TransformerError> {
        let mut work: Work<MergeEffects> = Work::default();
        let later = self.pending.split_off(self.pending.len().min(RECONCILED_AT_ONCE));
        for place in std::mem::replace(&mut self.pending, later) {
            let mut asset = self.memory.asset(&self.parts, place.0, &place.1);
            // No record caused this; the position that the fold has reached is past all that could have.
            let cause = self.memory.next_offset(place.0) - 1;
            match self.conclude(&place, &mut asset.asset, cause, &mut work)? {
                Concluded::Written => {
                    self.parts.count("reconciled");
                    work.effects.assets.insert(place, asset);
                }
                // Nothing is written, but memory changes: whether the asset is held, and whether its record must be kept.
                Concluded::Same => self.memory.remember(place.0, place.1, asset),
                Concluded::TooLarge(why) => {
                    warn!(partition = place.0, error = %why, "asset held");
                    self.parts.count("held");
                    self.memory.remember(place.0, place.1, asset);
                }
            }
        }
        let merged_all = self.pending.is_empty();
        if merged_all {
            work.next_offsets = std::mem::take(&mut self.moving);
            self.show();
        }
        Ok((!merged_all || !work.is_empty()).then_some(work))
    }

    async fn compute(&mut self, records: Vec<Record>) -> Result<Work<MergeEffects>, TransformerError> {
        self.parts.decoder.learn(&records).await?;
        self.merge_all(&records)
    }

    fn settle(&mut self, effects: MergeEffects, committed: &publisher::Committed) {
        let MergeEffects { assets, consumed } = effects;
        for ((partition, asset_id), asset) in assets {
            self.memory.remember(partition, asset_id, asset);
        }
        for (partition, next_offset) in consumed {
            self.memory.contributions.advance(partition, next_offset);
        }
        self.memory.lasts.delivered(&committed.derived);
        self.memory.conflicts.delivered(&committed.follow_up);
        if !committed.follow_up.is_empty() {
            self.show_conflicts();
        }
        self.show();
    }

    fn before_commit(&self) {
        failpoint!("transformer.merge.commit.before");
    }

    fn after_commit(&self) {
        failpoint!("transformer.merge.commit.after");
    }
}
