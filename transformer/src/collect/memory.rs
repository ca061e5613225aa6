//! What the merge remembers, partition by partition: the folds of three topics of ours.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use windfall_runtime::kafka::groups::CommittedOffset;
use windfall_runtime::kafka::publisher::Committed;
use windfall_runtime::kafka::record::Delivered;
use windfall_runtime::kafka::{Connection, Record, TopicPartition};
use windfall_runtime::reader::{Decoder, Unreadable};
use windfall_schemas::asset::{AssetKey, AssetRecord};
use windfall_schemas::conflict::{Conflict, ConflictKey};
use windfall_schemas::contribution::{Contribution, ContributionKey};
use windfall_schemas::topic::Names;

use super::hold::Missing;
use crate::codecs::CollectionCodecs;
use crate::collection::CompiledCollection;
use crate::error::TransformerError;
use crate::fold::{self, Cached, FoldReport, Folding, Own};
use crate::merge::{OPEN, UNREADABLE};
use crate::parts::Parts;
use crate::remembered::{Contributions, Lasts, Unpacked};

/// Conflicts of one partition, by asset.
type Conflicts = HashMap<String, Vec<Conflict>>;

/// Full names of the topics.
#[derive(Debug, Clone)]
pub(super) struct Topics {
    pub(super) contributions: String,
    pub(super) assets: String,
    pub(super) conflicts: String,
    pub(super) dead_letters: String,
}

/// The memory of the merge, and what it is read with.
pub(super) struct Memory {
    pub(super) connection: Connection,
    pub(super) decoder: Decoder,
    pub(super) own: CollectionCodecs,
    pub(super) collection: Arc<CompiledCollection>,
    pub(super) topics: Topics,
    folding: FoldReport,
    contributions: BTreeMap<i32, Cached<Contributions>>,
    lasts: BTreeMap<i32, Cached<Lasts>>,
    conflicts: BTreeMap<i32, Cached<Conflicts>>,
}

/// Reads a contribution.
pub(super) fn contribution(
    decoder: &Decoder,
    collection: &CompiledCollection,
    value: &[u8],
) -> Result<Contribution, Unreadable> {
    Ok(collection.schema.decode_contribution(&decoder.codec(value, None)?.0, value)?)
}

/// Reads a flat record.
fn last(decoder: &Decoder, collection: &CompiledCollection, value: &[u8]) -> Result<AssetRecord, Unreadable> {
    Ok(collection.schema.decode_asset(&decoder.codec(value, None)?.0, value)?)
}

impl Memory {
    pub(super) fn new(parts: &Parts) -> Self {
        let Parts { connection, decoder, own, loaded, folding, .. } = parts;
        let collection = Arc::clone(&loaded.collection);
        let names = Names::new(connection.config().topic_prefix.clone());
        let name = &collection.name;
        let contributions = names.contributions(name);
        let topics = Topics {
            dead_letters: names.dead_letters(&contributions, &names.merge_group(name)),
            assets: names.assets(name),
            conflicts: names.conflicts(name),
            contributions,
        };
        Self {
            connection: connection.clone(),
            decoder: decoder.clone(),
            own: own.clone(),
            collection,
            topics,
            folding: folding.clone(),
            contributions: BTreeMap::new(),
            lasts: BTreeMap::new(),
            conflicts: BTreeMap::new(),
        }
    }

    /// The next contribution that is not taken in yet.
    pub(super) fn next_offset(&self, partition: i32) -> i64 {
        self.contributions.get(&partition).map_or(0, |cached| cached.next_offset)
    }

    /// Gathers what is known of an asset.
    pub(super) fn asset(&self, partition: i32, asset_id: &str) -> Unpacked {
        let Self { collection, decoder, .. } = self;
        let contributions = self.contributions.get(&partition).map(|cached| &cached.state);
        let read = |encoded: &[u8]| contribution(decoder, collection, encoded);
        let mut unpacked = contributions.map(|known| known.unpack(asset_id, read)).unwrap_or_default();
        let (asset, last) = (&mut unpacked.asset, |encoded: &[u8]| last(decoder, collection, encoded));
        match self.lasts.get(&partition) {
            Some(lasts) => lasts.state.unpack(collection, asset_id, asset, last),
            None => asset.version = -1,
        }
        let conflicts = self.conflicts.get(&partition).and_then(|cached| cached.state.get(asset_id));
        asset.conflicts = conflicts.cloned().unwrap_or_default();
        unpacked
    }

    /// Folds contributions up to the offsets given, and notes the assets that lie ahead.
    ///
    /// What cannot be read was put into the dead letters when it was met, or will be when it is; nothing is written for it here.
    pub(super) async fn fold_contributions(&mut self, upto: BTreeMap<i32, i64>) -> Result<(), TransformerError> {
        let (decoder, collection, limits) = (self.decoder.clone(), Arc::clone(&self.collection), upto.clone());
        let take = move |state: &mut Contributions, key: ContributionKey, record: &Record| {
            if limits.get(&record.partition).is_some_and(|upto| record.offset >= *upto) {
                state.ahead.insert(key.asset_id);
                return;
            }
            let read = |value: &[u8]| contribution(&decoder, &collection, value);
            state.fold(key, record.offset, record.value.as_deref(), read);
        };
        let numbers: BTreeSet<i32> = upto.keys().copied().collect();
        for (number, upto) in &upto {
            let Some(cached) = self.contributions.get_mut(number) else { continue };
            cached.state.ahead.clear();
            // Somebody set the offset back: what was taken in beyond it must not be known yet. And what could not be read is
            // read again, since its schema may have come meanwhile.
            if cached.next_offset > *upto || !cached.state.unreadable.is_empty() {
                self.contributions.remove(number);
            }
        }
        let folding = Folding { connection: &self.connection, decoder: &self.decoder, report: &self.folding };
        let own = Own { topic: &self.topics.contributions, key_schema: self.own.contributions.key.id() };
        fold::partitions(folding, own, numbers, &mut self.contributions, take).await?;
        for (number, upto) in upto {
            if let Some(cached) = self.contributions.get_mut(&number) {
                // What lies ahead was looked at, not taken in.
                cached.next_offset = cached.next_offset.min(upto);
            }
        }
        Ok(())
    }

    /// Folds the flat records.
    pub(super) async fn fold_assets(&mut self, numbers: BTreeSet<i32>) -> Result<(), TransformerError> {
        let (decoder, collection) = (self.decoder.clone(), Arc::clone(&self.collection));
        let take = move |state: &mut Lasts, key: AssetKey, record: &Record| {
            state.fold(&key.asset_id, record.value.as_deref(), |value| last(&decoder, &collection, value));
        };
        let folding = Folding { connection: &self.connection, decoder: &self.decoder, report: &self.folding };
        let own = Own { topic: &self.topics.assets, key_schema: self.own.assets.key.id() };
        fold::partitions(folding, own, numbers, &mut self.lasts, take).await
    }

    /// Folds the conflicts. One that cannot be read is neither open nor closed, so that it is written again or ended.
    pub(super) async fn fold_conflicts(&mut self, numbers: BTreeSet<i32>) -> Result<(), TransformerError> {
        let decoder = self.decoder.clone();
        let take = move |state: &mut Conflicts, key: ConflictKey, record: &Record| {
            let known = state.entry(key.asset_id.clone()).or_default();
            known.retain(|known| known.subject != key.subject);
            let ConflictKey { asset_id, subject } = key;
            match decoder.value::<Conflict>(record) {
                Ok(conflict) => known.extend(conflict),
                Err(_) => {
                    known.push(Conflict { asset_id, subject, state: UNREADABLE.to_owned(), ..Conflict::default() });
                }
            }
        };
        let folding = Folding { connection: &self.connection, decoder: &self.decoder, report: &self.folding };
        let own = Own { topic: &self.topics.conflicts, key_schema: self.own.conflicts.key.id() };
        fold::partitions(folding, own, numbers, &mut self.conflicts, take).await
    }

    /// Up to where contributions are taken in before anything is computed.
    pub(super) fn input_offset(
        &self,
        at: &TopicPartition,
        committed: &BTreeMap<TopicPartition, Option<CommittedOffset>>,
    ) -> i64 {
        let recorded = self.lasts.get(&at.partition).is_some_and(|cached| !cached.state.is_empty());
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
            let contributions = self.contributions.get(number).map(|cached| &cached.state);
            assets.extend(contributions.into_iter().flat_map(Contributions::assets));
            let lasts = self.lasts.get(number).into_iter().flat_map(|cached| cached.state.standing());
            assets.extend(lasts.map(|(asset_id, _)| asset_id));
            let conflicts = self.conflicts.get(number).into_iter().flat_map(|cached| cached.state.keys());
            assets.extend(conflicts.map(String::as_str));
            assets.retain(|asset_id| !contributions.is_some_and(|state| state.ahead.contains(*asset_id)));
            all.extend(assets.into_iter().map(|asset_id| (*number, asset_id.to_owned())));
        }
        all
    }

    /// Counts the assets that stand, and those among them whose contributions are gone although none was withdrawn.
    pub(super) fn missing(&self, numbers: &BTreeSet<i32>) -> Missing {
        let mut counted = Missing { partitions: numbers.len(), ..Missing::default() };
        for number in numbers {
            let contributions = self.contributions.get(number).map(|cached| &cached.state);
            let lasts = self.lasts.get(number).into_iter().flat_map(|cached| cached.state.standing());
            for (asset_id, _) in lasts.filter(|(_, deleted)| !deleted) {
                counted.live += 1;
                counted.missing += usize::from(!contributions.is_some_and(|state| state.knows_of(asset_id)));
            }
        }
        counted
    }

    /// Counts the conflicts that are open.
    pub(super) fn open_conflicts(&self) -> usize {
        let conflicts = self.conflicts.values().flat_map(|cached| cached.state.values()).flatten();
        conflicts.filter(|conflict| conflict.state == OPEN).count()
    }

    /// Says where the contributions stand that cannot be read and hold their assets, by asset.
    pub(super) fn held(&self) -> impl Iterator<Item = (i32, impl Iterator<Item = i64>)> {
        self.contributions.iter().flat_map(|(partition, cached)| {
            cached.state.unreadable.values().map(|sources| (*partition, sources.values().copied()))
        })
    }

    /// Names the assets that are too large to be written as their sources have them now.
    pub(super) fn too_large(&self) -> impl Iterator<Item = &str> {
        self.contributions.values().flat_map(|cached| &cached.state.too_large).map(String::as_str)
    }

    /// Counts, by topic, the records that were passed over because their keys cannot be read.
    pub(super) fn passed_over(&self) -> [(&str, u64); 3] {
        [
            (&self.topics.contributions, fold::passed_over(&self.contributions)),
            (&self.topics.assets, fold::passed_over(&self.lasts)),
            (&self.topics.conflicts, fold::passed_over(&self.conflicts)),
        ]
    }

    /// Puts an asset back into the memory of its partition.
    pub(super) fn remember(&mut self, partition: i32, asset_id: String, unpacked: Unpacked) {
        self.contributions.entry(partition).or_default().state.pack(&asset_id, &unpacked);
        self.lasts.entry(partition).or_default().state.pack(&asset_id, &unpacked.asset);
        if !unpacked.asset.conflicts.is_empty() {
            self.conflicts.entry(partition).or_default().state.insert(asset_id, unpacked.asset.conflicts);
        }
    }

    /// Notes how far input was taken in, and where own output stands.
    pub(super) fn advance(&mut self, consumed: BTreeMap<i32, i64>, committed: &Committed) {
        for (partition, next_offset) in consumed {
            let cached = self.contributions.entry(partition).or_default();
            cached.next_offset = cached.next_offset.max(next_offset);
        }
        for (partition, next_offset) in written(&self.topics.assets, &committed.derived) {
            let cached = self.lasts.entry(partition).or_default();
            cached.next_offset = cached.next_offset.max(next_offset);
        }
        for (partition, next_offset) in written(&self.topics.conflicts, &committed.follow_up) {
            let cached = self.conflicts.entry(partition).or_default();
            cached.next_offset = cached.next_offset.max(next_offset);
        }
    }
}

fn written<'a>(topic: &'a str, delivered: &'a [Delivered]) -> impl Iterator<Item = (i32, i64)> + 'a {
    let of_topic = delivered.iter().filter(move |delivered| *delivered.topic == *topic);
    of_topic.map(|delivered| (delivered.partition, delivered.offset + 1))
}
