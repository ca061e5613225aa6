//! What the map remembers: the links of its partitions, folded from their topic.
//!
//! A link that cannot be read must not count as none: what it names would never be withdrawn. It is made anew from the
//! contributions that stand, each of which names its source record, its asset and its claim, and written again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use tracing::warn;
use windfall_runtime::kafka::Record;
use windfall_runtime::log_identity::Position;
use windfall_schemas::contribution::ContributionKey;
use windfall_schemas::link::{Link, LinkKey, LinkedAsset};
use windfall_schemas::topic::CHANGE_PARTITIONS;

use crate::error::TransformerError;
use crate::fold::TopicState;
use crate::parts::{Parts, contribution};
use crate::remembered::Links;

/// The links of one partition.
#[derive(Debug, Default)]
pub(super) struct PartitionLinks {
    pub(super) known: Links,
    /// Stand in the topic and cannot be read.
    pub(super) unreadable: HashSet<LinkKey>,
    /// By source, the newest source record that a link names, and when that link was written.
    pub(super) newest: HashMap<String, Position>,
}

/// Returns all links that can be read.
pub(super) fn all(links: &TopicState<PartitionLinks>) -> impl Iterator<Item = Link> {
    links.states().flat_map(|links| links.known.iter())
}

/// Reads the links of partitions to their end.
pub(super) async fn fold(
    links: &mut TopicState<PartitionLinks>,
    parts: &Parts,
    numbers: &BTreeSet<i32>,
) -> Result<(), TransformerError> {
    let decoder = parts.decoder.clone();
    let take = move |links: &mut PartitionLinks, key: LinkKey, record: &Record| {
        links.unreadable.remove(&key);
        match decoder.value::<Link>(record) {
            Ok(Some(link)) => {
                let newest = links.newest.entry(link.source.clone()).or_insert(Position::at(0));
                // One without a key names no record: it says from where on offsets are counted.
                if !link.source_key.is_empty() && link.source_offset >= newest.next_offset {
                    newest.pass(link.source_offset, record.timestamp_ms);
                }
                links.known.insert(&link);
            }
            Ok(None) => links.known.remove(&key),
            Err(_) => {
                links.known.remove(&key);
                links.unreadable.insert(key);
            }
        }
    };
    links.fold(parts, numbers, take).await
}

/// Makes the links of partitions anew that cannot be read; they are remembered once they are written.
pub(super) async fn rebuild(
    links: &TopicState<PartitionLinks>,
    parts: &Parts,
    numbers: &BTreeSet<i32>,
) -> Result<Vec<(i32, Link)>, TransformerError> {
    let mut unreadable: HashMap<LinkKey, i32> = HashMap::new();
    for number in numbers {
        let keys = links.get(*number).into_iter().flat_map(|links| &links.unreadable);
        unreadable.extend(keys.map(|key| (key.clone(), *number)));
    }
    if unreadable.is_empty() {
        return Ok(Vec::new());
    }
    warn!(links = unreadable.len(), "links cannot be read, making them anew from the contributions that stand");
    let mut claimed = claimed(parts, unreadable.keys().cloned().collect()).await?;
    let rebuilt = |(key, number): (LinkKey, i32)| {
        let claims = claimed.remove(&key).unwrap_or_default();
        (number, link(key, number, claims))
    };
    Ok(unreadable.into_iter().map(rebuilt).collect())
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
async fn claimed(parts: &Parts, wanted: HashSet<LinkKey>) -> Result<HashMap<LinkKey, Claims>, TransformerError> {
    let (decoder, collection) = (parts.decoder.clone(), Arc::clone(parts.collection()));
    let take = move |state: &mut HashMap<LinkKey, Claims>, key: ContributionKey, record: &Record| {
        let ContributionKey { asset_id, source, source_key } = key;
        let key = LinkKey { source, source_key };
        if !wanted.contains(&key) {
            return;
        }
        let claims = state.entry(key).or_default();
        let Some(value) = &record.value else {
            claims.remove(&asset_id);
            return;
        };
        // A contribution that cannot be read stands all the same, and can be withdrawn by its key.
        let read = contribution(&decoder, &collection, value).unwrap_or_default();
        let (claimed_ms, source_offset) = (read.claimed_ms.unwrap_or(0), read.source_offset.unwrap_or(-1));
        claims.insert(asset_id, Claim { claimed_ms, source_offset });
    };
    let mut contributions = TopicState::new(&parts.own.contributions);
    contributions.fold(parts, &(0..CHANGE_PARTITIONS).collect(), take).await?;
    let mut all: HashMap<LinkKey, Claims> = HashMap::new();
    for (key, claims) in contributions.partitions.into_values().flat_map(|cached| cached.state) {
        all.entry(key).or_default().extend(claims);
    }
    Ok(all)
}

fn link(key: LinkKey, source_partition: i32, claims: Claims) -> Link {
    let LinkKey { source, source_key } = key;
    let source_offset = claims.values().map(|claim| claim.source_offset).max().unwrap_or(-1);
    let asset = |(asset_id, Claim { claimed_ms, .. })| LinkedAsset { asset_id, claimed_ms };
    Link { source, source_key, source_partition, source_offset, assets: claims.into_iter().map(asset).collect() }
}
