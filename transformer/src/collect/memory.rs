//! What the merge remembers, partition by partition: the folds of three topics of ours.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use windfall_runtime::kafka::consumer;
use windfall_runtime::kafka::publisher::Committed;
use windfall_runtime::kafka::record::Delivered;
use windfall_runtime::kafka::{Connection, Record, TopicPartition};
use windfall_runtime::reader::{Decoder, Unreadable};
use windfall_schemas::asset::{AssetKey, AssetRecord};
use windfall_schemas::conflict::{Conflict, ConflictKey};
use windfall_schemas::contribution::{Contribution, ContributionKey};
use windfall_schemas::topic::Names;

use super::hold::Missing;
use crate::asset::{Asset, SourceKey};
use crate::codecs::CollectionCodecs;
use crate::collection::CompiledCollection;
use crate::error::TransformerError;
use crate::fold::{self, Cached, FoldReport, Folding, Own};
use crate::merge::{OPEN, UNREADABLE};

/// Contributions of one partition.
#[derive(Debug, Default)]
struct Contributions {
    assets: HashMap<String, BTreeMap<SourceKey, Arc<Contribution>>>,
    /// Sources of which the newest contribution cannot be read, by asset, with its offset.
    unreadable: HashMap<String, BTreeMap<SourceKey, i64>>,
    /// Assets of which the record would be larger than a record may be.
    too_large: BTreeSet<String>,
    /// Assets of which contributions lie beyond the offset that was folded to.
    ahead: HashSet<String>,
    /// Assets of which a contribution was withdrawn.
    withdrawn: HashSet<String>,
}

impl Contributions {
    /// Takes out what the sources say of an asset.
    fn take(&mut self, asset_id: &str) -> Asset {
        Asset {
            contributions: self.assets.remove(asset_id).unwrap_or_default(),
            unreadable: self.unreadable.remove(asset_id).unwrap_or_default(),
            ..Asset::default()
        }
    }

    /// Says whether something was said of an asset, even if it was withdrawn later.
    fn knows_of(&self, asset_id: &str) -> bool {
        let Self { assets, unreadable, too_large: _, ahead, withdrawn } = self;
        assets.contains_key(asset_id)
            || unreadable.contains_key(asset_id)
            || ahead.contains(asset_id)
            || withdrawn.contains(asset_id)
    }

    /// Puts back what the sources say of an asset.
    fn put(
        &mut self,
        asset_id: &str,
        contributions: BTreeMap<SourceKey, Arc<Contribution>>,
        unreadable: BTreeMap<SourceKey, i64>,
    ) {
        put(&mut self.assets, asset_id, contributions);
        put(&mut self.unreadable, asset_id, unreadable);
    }
}

fn put<V>(all: &mut HashMap<String, BTreeMap<SourceKey, V>>, asset_id: &str, entries: BTreeMap<SourceKey, V>) {
    if entries.is_empty() {
        all.remove(asset_id);
    } else {
        all.insert(asset_id.to_owned(), entries);
    }
}

/// Last records of one partition with their versions; a record that is gone leaves its version behind.
type Lasts = HashMap<String, (Option<Arc<AssetRecord>>, i64)>;
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

/// Reads a contribution; `None` is a withdrawal.
pub(super) fn contribution(
    decoder: &Decoder,
    collection: &CompiledCollection,
    record: &Record,
) -> Result<Option<Contribution>, Unreadable> {
    let Some(value) = &record.value else { return Ok(None) };
    Ok(Some(collection.schema.decode_contribution(&decoder.codec(value, None)?.0, value)?))
}

impl Memory {
    pub(super) fn new(
        connection: Connection,
        decoder: Decoder,
        own: CollectionCodecs,
        collection: Arc<CompiledCollection>,
        folding: FoldReport,
    ) -> Self {
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
            connection,
            decoder,
            own,
            collection,
            topics,
            folding,
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
    pub(super) fn asset(&self, partition: i32, asset_id: &str) -> Asset {
        let contributions = self.contributions.get(&partition).and_then(|cached| cached.state.assets.get(asset_id));
        let last = self.lasts.get(&partition).and_then(|cached| cached.state.get(asset_id));
        let unreadable = self.contributions.get(&partition).and_then(|cached| cached.state.unreadable.get(asset_id));
        let conflicts = self.conflicts.get(&partition).and_then(|cached| cached.state.get(asset_id));
        let held = self.contributions.get(&partition).is_some_and(|cached| cached.state.too_large.contains(asset_id));
        let (last, version) = last.cloned().unwrap_or((None, -1));
        Asset {
            contributions: contributions.cloned().unwrap_or_default(),
            last,
            version,
            conflicts: conflicts.cloned().unwrap_or_default(),
            unreadable: unreadable.cloned().unwrap_or_default(),
            too_large: held,
        }
    }

    /// Folds contributions up to the offsets given, and notes the assets that lie ahead.
    ///
    /// What cannot be read was put into the dead letters when it was met, or will be when it is; nothing is written for it here.
    pub(super) async fn fold_contributions(&mut self, upto: BTreeMap<i32, i64>) -> Result<(), TransformerError> {
        let (decoder, collection, limits) = (self.decoder.clone(), Arc::clone(&self.collection), upto.clone());
        let take = move |state: &mut Contributions, key: ContributionKey, record: &Record| {
            let ContributionKey { asset_id, source, source_key } = key;
            if limits.get(&record.partition).is_some_and(|upto| record.offset >= *upto) {
                state.ahead.insert(asset_id);
                return;
            }
            let mut asset = state.take(&asset_id);
            if record.value.is_none() {
                state.withdrawn.insert(asset_id.clone());
            }
            // Whether it could be read is kept in the asset.
            let _ = asset.hear((source, source_key), record.offset, contribution(&decoder, &collection, record));
            state.put(&asset_id, asset.contributions, asset.unreadable);
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

    /// Folds the flat records. One that cannot be read is replaced when its asset is merged next: it equals no other, and
    /// without any contribution a tombstone ends it.
    pub(super) async fn fold_assets(&mut self, numbers: BTreeSet<i32>) -> Result<(), TransformerError> {
        let (decoder, collection) = (self.decoder.clone(), Arc::clone(&self.collection));
        let take = move |state: &mut Lasts, key: AssetKey, record: &Record| {
            let entry = state.entry(key.asset_id.clone()).or_insert((None, -1));
            let Some(value) = &record.value else {
                entry.0 = None;
                return;
            };
            let read =
                decoder.codec(value, None).and_then(|(codec, _)| Ok(collection.schema.decode_asset(&codec, value)?));
            let record = read.unwrap_or_else(|_| AssetRecord {
                asset_id: key.asset_id,
                deleted: true,
                version: entry.1,
                ..AssetRecord::default()
            });
            let version = record.version;
            *entry = (Some(Arc::new(record)), version);
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
        committed: &BTreeMap<TopicPartition, Option<consumer::Committed>>,
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
            let mut assets: BTreeSet<&String> = BTreeSet::new();
            let contributions = self.contributions.get(number).map(|cached| &cached.state);
            assets.extend(contributions.into_iter().flat_map(|state| state.assets.keys()));
            let lasts = self.lasts.get(number).into_iter().flat_map(|cached| &cached.state);
            assets.extend(lasts.filter(|(_, (last, _))| last.is_some()).map(|(asset_id, _)| asset_id));
            assets.extend(self.conflicts.get(number).into_iter().flat_map(|cached| cached.state.keys()));
            assets.retain(|asset_id| !contributions.is_some_and(|state| state.ahead.contains(*asset_id)));
            all.extend(assets.into_iter().map(|asset_id| (*number, asset_id.clone())));
        }
        all
    }

    /// Counts the assets that stand, and those among them whose contributions are gone although none was withdrawn.
    pub(super) fn missing(&self, numbers: &BTreeSet<i32>) -> Missing {
        let mut counted = Missing::default();
        for number in numbers {
            let contributions = self.contributions.get(number).map(|cached| &cached.state);
            let lasts = self.lasts.get(number).into_iter().flat_map(|cached| &cached.state);
            for (asset_id, _) in lasts.filter(|(_, (last, _))| last.as_ref().is_some_and(|last| !last.deleted)) {
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
    pub(super) fn remember(&mut self, partition: i32, asset_id: String, asset: Asset) {
        let Asset { contributions, last, version, conflicts, unreadable, too_large } = asset;
        let known = &mut self.contributions.entry(partition).or_default().state;
        known.put(&asset_id, contributions, unreadable);
        if too_large {
            known.too_large.insert(asset_id.clone());
        } else {
            known.too_large.remove(&asset_id);
        }
        if !conflicts.is_empty() {
            self.conflicts.entry(partition).or_default().state.insert(asset_id.clone(), conflicts);
        }
        self.lasts.entry(partition).or_default().state.insert(asset_id, (last, version));
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
