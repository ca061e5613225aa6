//! What the merge remembers, partition by partition: the folds of three topics of ours.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use windfall_runtime::kafka::groups::CommittedOffset;
use windfall_runtime::kafka::{Record, TopicPartition};
use windfall_schemas::asset::AssetKey;
use windfall_schemas::conflict::{Conflict, ConflictKey};
use windfall_schemas::contribution::ContributionKey;

use super::hold::Missing;
use crate::error::TransformerError;
use crate::fold::TopicState;
use crate::merge::{OPEN, UNREADABLE};
use crate::own::OwnTopics;
use crate::parts::{Parts, asset_record, contribution};
use crate::remembered::{Contributions, Lasts, Unpacked};

/// Conflicts of one partition, by asset.
type Conflicts = HashMap<String, Vec<Conflict>>;

/// The memory of the merge.
pub(super) struct Memory {
    pub(super) contributions: TopicState<Contributions>,
    pub(super) lasts: TopicState<Lasts>,
    pub(super) conflicts: TopicState<Conflicts>,
}

impl Memory {
    pub(super) fn new(own: &OwnTopics) -> Self {
        Self {
            contributions: TopicState::new(&own.contributions),
            lasts: TopicState::new(&own.assets),
            conflicts: TopicState::new(&own.conflicts),
        }
    }

    /// The next contribution that is not taken in yet.
    pub(super) fn next_offset(&self, partition: i32) -> i64 {
        self.contributions.partitions.get(&partition).map_or(0, |cached| cached.next_offset)
    }

    /// Gathers what is known of an asset.
    pub(super) fn asset(&self, parts: &Parts, partition: i32, asset_id: &str) -> Unpacked {
        let (decoder, collection) = (&parts.decoder, parts.collection());
        let read = |encoded: &[u8]| contribution(decoder, collection, encoded);
        let contributions = self.contributions.get(partition);
        let mut unpacked = contributions.map(|known| known.unpack(asset_id, read)).unwrap_or_default();
        let (asset, last) = (&mut unpacked.asset, |encoded: &[u8]| asset_record(decoder, collection, encoded));
        match self.lasts.get(partition) {
            Some(lasts) => lasts.unpack(collection, asset_id, asset, last),
            None => asset.version = -1,
        }
        let conflicts = self.conflicts.get(partition).and_then(|conflicts| conflicts.get(asset_id));
        asset.conflicts = conflicts.cloned().unwrap_or_default();
        unpacked
    }

    /// Folds contributions up to the offsets given, and notes the assets of which contributions lie behind these.
    ///
    /// No dead letter is written here: the loop has written one when it read the record, or will write it.
    pub(super) async fn fold_contributions(
        &mut self,
        parts: &Parts,
        upto: BTreeMap<i32, i64>,
    ) -> Result<(), TransformerError> {
        let (decoder, collection, limits) = (parts.decoder.clone(), Arc::clone(parts.collection()), upto.clone());
        let take = move |state: &mut Contributions, key: ContributionKey, record: &Record| {
            if limits.get(&record.partition).is_some_and(|upto| record.offset >= *upto) {
                state.ahead.insert(key.asset_id);
                return;
            }
            let read = |value: &[u8]| contribution(&decoder, &collection, value);
            state.fold(key, record.offset, record.value.as_deref(), read);
        };
        for (number, upto) in &upto {
            let Some(cached) = self.contributions.partitions.get_mut(number) else { continue };
            cached.state.ahead.clear();
            // Where the committed offset was set back, what was taken in beyond it must not be known yet. And what could not be
            // read is read again, since its schema may have been registered meanwhile.
            if cached.next_offset > *upto || !cached.state.unreadable.is_empty() {
                self.contributions.partitions.remove(number);
            }
        }
        self.contributions.fold(parts, &upto.keys().copied().collect(), take).await?;
        for (number, upto) in upto {
            if let Some(cached) = self.contributions.partitions.get_mut(&number) {
                // What lies ahead was looked at, not taken in.
                cached.next_offset = cached.next_offset.min(upto);
            }
        }
        Ok(())
    }

    /// Folds the flat records.
    pub(super) async fn fold_assets(&mut self, parts: &Parts, numbers: &BTreeSet<i32>) -> Result<(), TransformerError> {
        let (decoder, collection) = (parts.decoder.clone(), Arc::clone(parts.collection()));
        let take = move |state: &mut Lasts, key: AssetKey, record: &Record| {
            let read = |value: &[u8]| asset_record(&decoder, &collection, value);
            state.fold(&key.asset_id, record.value.as_deref(), read);
        };
        self.lasts.fold(parts, numbers, take).await
    }

    /// Folds the conflicts. One that cannot be read is neither open nor closed, so that it is written again or ended.
    pub(super) async fn fold_conflicts(
        &mut self,
        parts: &Parts,
        numbers: &BTreeSet<i32>,
    ) -> Result<(), TransformerError> {
        let decoder = parts.decoder.clone();
        let take = move |state: &mut Conflicts, key: ConflictKey, record: &Record| {
            let ConflictKey { asset_id, subject } = key;
            let known = state.entry(asset_id.clone()).or_default();
            known.retain(|known| known.subject != subject);
            let unreadable = || Conflict { asset_id, subject, state: UNREADABLE.to_owned(), ..Conflict::default() };
            known.extend(decoder.value::<Conflict>(record).unwrap_or_else(|_| Some(unreadable())));
        };
        self.conflicts.fold(parts, numbers, take).await
    }

    /// Up to where contributions are taken in before anything is computed.
    pub(super) fn input_offset(
        &self,
        at: &TopicPartition,
        committed: &BTreeMap<TopicPartition, Option<CommittedOffset>>,
    ) -> i64 {
        let recorded = self.lasts.get(at.partition).is_some_and(|lasts| !lasts.is_empty());
        match committed.get(at).and_then(Option::as_ref) {
            Some(committed) => committed.position.next_offset,
            None if recorded => i64::MAX,
            None => 0,
        }
    }

    /// Names every asset of the partitions but those of which contributions lie ahead.
    pub(super) fn assets(&self, numbers: &BTreeSet<i32>) -> Vec<(i32, String)> {
        let mut all = Vec::new();
        for number in numbers {
            let mut assets: BTreeSet<&str> = BTreeSet::new();
            let contributions = self.contributions.get(*number);
            assets.extend(contributions.into_iter().flat_map(Contributions::assets));
            let lasts = self.lasts.get(*number).into_iter().flat_map(Lasts::standing);
            assets.extend(lasts.map(|(asset_id, _)| asset_id));
            assets.extend(self.conflicts.get(*number).into_iter().flat_map(HashMap::keys).map(String::as_str));
            assets.retain(|asset_id| !contributions.is_some_and(|state| state.ahead.contains(*asset_id)));
            all.extend(assets.into_iter().map(|asset_id| (*number, asset_id.to_owned())));
        }
        all
    }

    /// Counts the assets that stand, and those among them whose contributions are gone although none was withdrawn.
    pub(super) fn missing(&self, numbers: &BTreeSet<i32>) -> Missing {
        let mut counted = Missing { partitions: numbers.len(), ..Missing::default() };
        for number in numbers {
            let contributions = self.contributions.get(*number);
            let lasts = self.lasts.get(*number).into_iter().flat_map(Lasts::standing);
            for (asset_id, _) in lasts.filter(|(_, deleted)| !deleted) {
                counted.live += 1;
                counted.missing += usize::from(!contributions.is_some_and(|state| state.knows_of(asset_id)));
            }
        }
        counted
    }

    /// Counts the conflicts that are open.
    pub(super) fn open_conflicts(&self) -> usize {
        let conflicts = self.conflicts.states().flat_map(HashMap::values).flatten();
        conflicts.filter(|conflict| conflict.state == OPEN).count()
    }

    /// Puts an asset back into the memory of its partition.
    pub(super) fn remember(&mut self, partition: i32, asset_id: String, unpacked: Unpacked) {
        self.contributions.entry(partition).pack(&asset_id, &unpacked);
        self.lasts.entry(partition).pack(&asset_id, &unpacked.asset);
        if !unpacked.asset.conflicts.is_empty() {
            self.conflicts.entry(partition).insert(asset_id, unpacked.asset.conflicts);
        }
    }
}
