//! What the map remembers: the links of its partitions, folded from their topic.
//!
//! A link that cannot be read must not count as none: what it names would never be withdrawn. It is made anew from the
//! contributions that stand, each of which names its source record, its asset and its claim, and written again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use tracing::warn;
use windfall_runtime::kafka::Record;
use windfall_runtime::log_identity::Position;
use windfall_runtime::reader::Decoder;
use windfall_schemas::contribution::ContributionKey;
use windfall_schemas::link::{Link, LinkKey, LinkedAsset};
use windfall_schemas::topic::CHANGE_PARTITIONS;

use crate::collection::CompiledCollection;
use crate::error::TransformerError;
use crate::fold::{self, Cached, Folding, Own};
use crate::remembered::Links;

/// Links by partition; a partition that went elsewhere stays as a cache.
#[derive(Debug, Default)]
pub(super) struct Memory(BTreeMap<i32, Cached<State>>);

/// Links of one partition.
#[derive(Debug, Default)]
struct State {
    known: Links,
    /// Stand in the topic and cannot be read.
    lost: HashSet<LinkKey>,
    /// By source, the newest source record that a link speaks of, and when that link was written.
    newest: HashMap<String, Position>,
}

impl Memory {
    /// Returns the link of a source record.
    pub(super) fn get(&self, partition: i32, key: &LinkKey) -> Option<Link> {
        self.0.get(&partition)?.state.known.get(key)
    }

    /// Returns how far a source was read, as far as the links can tell.
    pub(super) fn newest(&self, partition: i32, source: &str) -> Option<Position> {
        self.0.get(&partition)?.state.newest.get(source).copied()
    }

    /// Returns all links that can be read.
    pub(super) fn all(&self) -> impl Iterator<Item = Link> {
        self.0.values().flat_map(|cached| cached.state.known.iter())
    }

    /// Remembers a link that was written at `offset`.
    pub(super) fn remember(&mut self, partition: i32, link: &Link, offset: i64) {
        let cached = self.0.entry(partition).or_default();
        cached.next_offset = cached.next_offset.max(offset + 1);
        cached.state.lost.remove(&link.key());
        cached.state.known.insert(link);
    }

    /// Reads the links of partitions to their end.
    pub(super) async fn fold(
        &mut self,
        folding: Folding<'_>,
        own: Own<'_>,
        numbers: BTreeSet<i32>,
    ) -> Result<(), TransformerError> {
        let decoder = folding.decoder.clone();
        let take = move |links: &mut State, key: LinkKey, record: &Record| {
            links.lost.remove(&key);
            match decoder.value::<Link>(record) {
                Ok(Some(link)) => {
                    let newest = links.newest.entry(link.source.clone()).or_insert(Position::at(0));
                    // One without a key speaks of no record: it says from where on offsets are counted.
                    if !link.source_key.is_empty() && link.source_offset >= newest.next_offset {
                        newest.pass(link.source_offset, record.timestamp_ms);
                    }
                    links.known.insert(&link);
                }
                Ok(None) => links.known.remove(&key),
                Err(_) => {
                    links.known.remove(&key);
                    links.lost.insert(key);
                }
            }
        };
        fold::partitions(folding, own, numbers, &mut self.0, take).await
    }

    /// Makes the links of partitions anew that cannot be read; they are remembered once they are written.
    pub(super) async fn rebuild(
        &self,
        folding: Folding<'_>,
        contributions: Own<'_>,
        collection: &Arc<CompiledCollection>,
        numbers: &BTreeSet<i32>,
    ) -> Result<Vec<(i32, Link)>, TransformerError> {
        let lost = self.0.iter().filter(|(number, _)| numbers.contains(number));
        let lost = lost.flat_map(|(number, cached)| cached.state.lost.iter().map(|key| (key.clone(), *number)));
        let lost: HashMap<LinkKey, i32> = lost.collect();
        if lost.is_empty() {
            return Ok(Vec::new());
        }
        warn!(links = lost.len(), "links cannot be read, making them anew from the contributions that stand");
        let mut standing = standing(folding, contributions, collection, lost.keys().cloned().collect()).await?;
        let rebuilt = |(key, number): (LinkKey, i32)| {
            let claims = standing.remove(&key).unwrap_or_default();
            (number, link(key, number, claims))
        };
        Ok(lost.into_iter().map(rebuilt).collect())
    }

    /// Counts the records that were passed over because their keys cannot be read.
    pub(super) fn passed_over(&self) -> u64 {
        fold::passed_over(&self.0)
    }
}

/// What a source record contributes to one asset.
#[derive(Debug, Clone, Copy)]
struct Claim {
    claimed_ms: i64,
    /// Where the source record stood; -1 where that cannot be read, which is before all.
    source_offset: i64,
}

/// Claims by asset.
type Claims = BTreeMap<String, Claim>;

/// Reads what source records contribute to now.
async fn standing(
    folding: Folding<'_>,
    own: Own<'_>,
    collection: &Arc<CompiledCollection>,
    wanted: HashSet<LinkKey>,
) -> Result<HashMap<LinkKey, Claims>, TransformerError> {
    let (decoder, collection) = (folding.decoder.clone(), Arc::clone(collection));
    let take = move |state: &mut HashMap<LinkKey, Claims>, key: ContributionKey, record: &Record| {
        let ContributionKey { asset_id, source, source_key } = key;
        let key = LinkKey { source, source_key };
        if !wanted.contains(&key) {
            return;
        }
        let claims = state.entry(key).or_default();
        match &record.value {
            Some(value) => drop(claims.insert(asset_id, claim(&decoder, &collection, value))),
            None => drop(claims.remove(&asset_id)),
        }
    };
    let mut by_partition: BTreeMap<i32, Cached<HashMap<LinkKey, Claims>>> = BTreeMap::new();
    fold::partitions(folding, own, (0..CHANGE_PARTITIONS).collect(), &mut by_partition, take).await?;
    let mut all: HashMap<LinkKey, Claims> = HashMap::new();
    for (key, claims) in by_partition.into_values().flat_map(|cached| cached.state) {
        all.entry(key).or_default().extend(claims);
    }
    Ok(all)
}

/// A contribution that cannot be read stands all the same, and can be withdrawn by its key.
fn claim(decoder: &Decoder, collection: &CompiledCollection, value: &[u8]) -> Claim {
    let read =
        decoder.codec(value, None).and_then(|(codec, _)| Ok(collection.schema.decode_contribution(&codec, value)?));
    let read = read.map(|contribution| (contribution.claimed_ms, contribution.source_offset)).unwrap_or_default();
    Claim { claimed_ms: read.0.unwrap_or(0), source_offset: read.1.unwrap_or(-1) }
}

fn link(key: LinkKey, source_partition: i32, claims: Claims) -> Link {
    let LinkKey { source, source_key } = key;
    let source_offset = claims.values().map(|claim| claim.source_offset).max().unwrap_or(-1);
    let asset = |(asset_id, Claim { claimed_ms, .. })| LinkedAsset { asset_id, claimed_ms };
    Link { source, source_key, source_partition, source_offset, assets: claims.into_iter().map(asset).collect() }
}
