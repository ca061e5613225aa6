//! What a source record contributed to, and what must be withdrawn.
//!
//! | known link | what the record yields | withdrawn | link |
//! | --- | --- | --- | --- |
//! | past the record's offset | - | - | stays: the record was mapped before |
//! | none, or names nothing | nothing | - | stays |
//! | none, or names nothing | asset A | - | written: A, claimed now |
//! | names A | A | - | stays, with the time of its claim |
//! | names A | B | A | written: B, claimed now |
//! | names A | nothing (gone, filtered out, no identifier) | A | written: an empty list, which says that the record was seen |

use windfall_schemas::link::{Link, LinkKey, LinkedAsset};

/// Where a source record stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourcePosition {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

/// What follows from a source record for its link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Follow {
    /// The link is past the record, which was mapped before and is skipped. A record at the link's offset is mapped again, since
    /// the program may be another one.
    Seen,
    /// The record counts.
    Go {
        /// The assets that the record no longer contributes to, in their order.
        withdrawn: Vec<String>,
        /// When the asset that it contributes to was claimed; zero if there is none.
        claimed_ms: i64,
        /// The link to be written, where its list changes.
        link: Option<Link>,
    },
}

/// Compares what a record yields with what its link names.
///
/// `asset` is the asset that the record contributes to, and the record's `source.ts_ms`.
#[must_use]
pub fn follow(key: &LinkKey, known: Option<&Link>, at: &SourcePosition, asset: Option<(&str, i64)>) -> Follow {
    if known.is_some_and(|link| seen(link, at)) {
        return Follow::Seen;
    }
    let named: &[LinkedAsset] = known.map_or(&[], |link| &link.assets);
    let withdrawn: Vec<String> = named
        .iter()
        .map(|linked| linked.asset_id.clone())
        .filter(|named| asset.is_none_or(|(asset_id, _)| asset_id != named))
        .collect();
    let kept = asset.and_then(|(asset_id, _)| named.iter().find(|linked| linked.asset_id == asset_id));
    let claimed_ms = kept.map_or_else(|| asset.map_or(0, |(_, ts_ms)| ts_ms), |linked| linked.claimed_ms);
    let changed = !withdrawn.is_empty() || (asset.is_some() && kept.is_none());
    let link = changed.then(|| Link {
        source: key.source.clone(),
        source_key: key.source_key.clone(),
        source_partition: at.partition,
        source_offset: at.offset,
        assets: asset
            .iter()
            .map(|(asset_id, _)| LinkedAsset { asset_id: (*asset_id).to_owned(), claimed_ms })
            .collect(),
    });
    Follow::Go { withdrawn, claimed_ms, link }
}

fn seen(link: &Link, at: &SourcePosition) -> bool {
    link.source_partition == at.partition && at.offset < link.source_offset
}
