//! What the merge remembers, partition by partition: the folds of three topics of ours.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use tokio::runtime::Handle;
use windfall_runtime::kafka::publisher::Committed;
use windfall_runtime::kafka::record::Delivered;
use windfall_runtime::kafka::table::FoldFailure;
use windfall_runtime::kafka::{Connection, Record, TopicPartition};
use windfall_schemas::asset::{AssetKey, AssetRecord};
use windfall_schemas::conflict::Conflict;
use windfall_schemas::contribution::{Contribution, ContributionKey};
use windfall_schemas::topic::Names;

use crate::asset::{Asset, SourceKey};
use crate::codecs::{Codecs, CollectionCodecs, Unreadable};
use crate::collection::CompiledCollection;
use crate::error::TransformerError;
use crate::fold::{self, Cached, FoldReport, Own};
use crate::merge::OPEN;

/// Contributions of one partition.
#[derive(Debug, Default)]
struct Contributions {
    assets: HashMap<String, BTreeMap<SourceKey, Arc<Contribution>>>,
    /// Assets of which contributions lie beyond the offset that was folded to.
    ahead: HashSet<String>,
    /// Assets of which a contribution cannot be read: what else is known of them is no reason to change them.
    unreadable: HashSet<String>,
}

impl Contributions {
    /// Says whether what is known of an asset is not all that counts.
    fn left_out(&self, asset_id: &str) -> bool {
        self.ahead.contains(asset_id) || self.unreadable.contains(asset_id)
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
    pub(super) codecs: Codecs,
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
    codecs: &Codecs,
    collection: &CompiledCollection,
    record: &Record,
) -> Result<Option<Contribution>, Unreadable> {
    let Some(value) = &record.value else { return Ok(None) };
    Ok(Some(collection.schema.decode_contribution(&codecs.of(value)?, value)?))
}

/// `None` where the record itself is at fault; an error where the registry is, since then nothing is known of an asset.
fn readable<T>(record: &Record, read: Result<T, Unreadable>) -> Result<Option<T>, TransformerError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(why) if why.schema_lost() => Err(TransformerError::SchemaLost {
            partition: record.partition,
            offset: record.offset,
            why: why.to_string(),
        }),
        Err(_) => Ok(None),
    }
}

impl Memory {
    pub(super) fn new(
        connection: Connection,
        codecs: Codecs,
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
            codecs,
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
        let conflicts = self.conflicts.get(&partition).and_then(|cached| cached.state.get(asset_id));
        let (last, version) = last.cloned().unwrap_or((None, -1));
        Asset {
            contributions: contributions.cloned().unwrap_or_default(),
            last,
            version,
            conflicts: conflicts.cloned().unwrap_or_default(),
        }
    }

    /// Folds contributions up to the offsets given, and notes the assets that lie ahead.
    pub(super) async fn fold_contributions(&mut self, upto: BTreeMap<i32, i64>) -> Result<(), TransformerError> {
        let (codecs, runtime, collection) = (self.codecs.clone(), Handle::current(), Arc::clone(&self.collection));
        codecs.forget_unknown();
        let limits = upto.clone();
        let fold_one = move |state: &mut Contributions, record: Record| -> Result<(), FoldFailure> {
            codecs.fetch_blocking(&runtime, &record)?;
            // What cannot be read was put into the dead letters when it was first met, or will be when it is.
            let Some(key) = readable(&record, codecs.key::<ContributionKey>(&record))? else { return Ok(()) };
            if limits.get(&record.partition).is_some_and(|upto| record.offset >= *upto) {
                state.ahead.insert(key.asset_id);
                return Ok(());
            }
            let Some(contribution) = readable(&record, contribution(&codecs, &collection, &record))? else {
                state.unreadable.insert(key.asset_id);
                return Ok(());
            };
            let known = state.assets.remove(&key.asset_id).unwrap_or_default();
            let mut asset = Asset { contributions: known, ..Asset::default() };
            asset.apply((key.source, key.source_key), contribution);
            if !asset.contributions.is_empty() {
                state.assets.insert(key.asset_id, asset.contributions);
            }
            Ok(())
        };
        let topic = self.topics.contributions.clone();
        let own = Own { topic: &topic, key_schema: self.own.contributions.key.id() };
        let numbers: BTreeSet<i32> = upto.keys().copied().collect();
        for (number, upto) in &upto {
            if let Some(cached) = self.contributions.get_mut(number) {
                cached.state.ahead.clear();
                // Somebody set the offset back: what was taken in beyond it must not be known yet.
                if cached.next_offset > *upto {
                    self.contributions.remove(number);
                }
            }
        }
        fold::partitions(&self.connection, own, numbers, &mut self.contributions, &self.folding, fold_one).await?;
        for (number, upto) in upto {
            if let Some(cached) = self.contributions.get_mut(&number) {
                // What lies ahead was looked at, not taken in.
                cached.next_offset = cached.next_offset.min(upto);
            }
        }
        Ok(())
    }

    pub(super) async fn fold_assets(&mut self, numbers: BTreeSet<i32>) -> Result<(), TransformerError> {
        let (codecs, runtime, collection) = (self.codecs.clone(), Handle::current(), Arc::clone(&self.collection));
        let fold_one = move |state: &mut Lasts, record: Record| -> Result<(), FoldFailure> {
            codecs.fetch_blocking(&runtime, &record)?;
            let key: AssetKey = codecs.key(&record)?;
            let entry = state.entry(key.asset_id).or_insert((None, -1));
            match &record.value {
                None => entry.0 = None,
                Some(value) => {
                    let record = collection.schema.decode_asset(&codecs.of(value)?, value)?;
                    *entry = (None, record.version);
                    entry.0 = Some(Arc::new(record));
                }
            }
            Ok(())
        };
        let topic = self.topics.assets.clone();
        let own = Own { topic: &topic, key_schema: self.own.assets.key.id() };
        fold::partitions(&self.connection, own, numbers, &mut self.lasts, &self.folding, fold_one).await
    }

    pub(super) async fn fold_conflicts(&mut self, numbers: BTreeSet<i32>) -> Result<(), TransformerError> {
        let (codecs, runtime) = (self.codecs.clone(), Handle::current());
        let fold_one = move |state: &mut Conflicts, record: Record| -> Result<(), FoldFailure> {
            codecs.fetch_blocking(&runtime, &record)?;
            let Some(conflict) = codecs.value::<Conflict>(&record)? else { return Ok(()) };
            let known = state.entry(conflict.asset_id.clone()).or_default();
            known.retain(|known| known.subject != conflict.subject);
            known.push(conflict);
            Ok(())
        };
        let topic = self.topics.conflicts.clone();
        let own = Own { topic: &topic, key_schema: self.own.conflicts.key.id() };
        fold::partitions(&self.connection, own, numbers, &mut self.conflicts, &self.folding, fold_one).await
    }

    /// Up to where contributions are taken in before anything is computed.
    pub(super) fn input_offset(&self, at: &TopicPartition, committed: &BTreeMap<TopicPartition, Option<i64>>) -> i64 {
        let recorded = self.lasts.get(&at.partition).is_some_and(|cached| !cached.state.is_empty());
        match committed.get(at).copied().flatten() {
            Some(offset) => offset,
            None if recorded => i64::MAX,
            None => 0,
        }
    }

    /// Names every asset of the partitions but those of which contributions lie ahead or cannot be read.
    pub(super) fn assets(&self, numbers: &BTreeSet<i32>) -> Vec<(i32, String)> {
        let mut all = Vec::new();
        for number in numbers {
            let mut assets: BTreeSet<&String> = BTreeSet::new();
            let contributions = self.contributions.get(number).map(|cached| &cached.state);
            assets.extend(contributions.into_iter().flat_map(|state| state.assets.keys()));
            let lasts = self.lasts.get(number).into_iter().flat_map(|cached| &cached.state);
            assets.extend(lasts.filter(|(_, (last, _))| last.is_some()).map(|(asset_id, _)| asset_id));
            assets.extend(self.conflicts.get(number).into_iter().flat_map(|cached| cached.state.keys()));
            assets.retain(|asset_id| !contributions.is_some_and(|state| state.left_out(asset_id)));
            all.extend(assets.into_iter().map(|asset_id| (*number, asset_id.clone())));
        }
        all
    }

    /// Counts the conflicts that are open.
    pub(super) fn open_conflicts(&self) -> usize {
        let conflicts = self.conflicts.values().flat_map(|cached| cached.state.values()).flatten();
        conflicts.filter(|conflict| conflict.state == OPEN).count()
    }

    /// Puts an asset back into the memory of its partition.
    pub(super) fn remember(&mut self, partition: i32, asset_id: String, asset: Asset) {
        let Asset { contributions, last, version, conflicts } = asset;
        let known = &mut self.contributions.entry(partition).or_default().state.assets;
        if contributions.is_empty() {
            known.remove(&asset_id);
        } else {
            known.insert(asset_id.clone(), contributions);
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
