//! `assets.<collection>.links`: the assets that one source record contributes to now.

use serde::{Deserialize, Serialize};

/// Key of `links`; the record lies in the partition number of its source record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename = "Key")]
pub struct LinkKey {
    /// Topic of the source record, without prefix, such as `abm.devices`.
    pub source: String,
    /// Key of the source record, such as `org/device_id`.
    pub source_key: String,
}

/// What a source record contributes to. An empty list stays a value: it says that the record was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "Value")]
pub struct Link {
    /// Topic of the source record, without prefix.
    pub source: String,
    /// Key of the source record.
    pub source_key: String,
    /// Partition of the source record.
    pub source_partition: i32,
    /// Offset of the source record that was mapped last; one at or below it is skipped.
    pub source_offset: i64,
    /// The assets, each with the time of its claim.
    pub assets: Vec<LinkedAsset>,
}

/// One asset of a link.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename = "Asset")]
pub struct LinkedAsset {
    /// The asset's id.
    pub asset_id: String,
    /// `source.ts_ms` of the event that added the asset; carried on from link to link.
    pub claimed_ms: i64,
}

impl Link {
    /// Returns the key that this link has in the topic.
    pub fn key(&self) -> LinkKey {
        LinkKey { source: self.source.clone(), source_key: self.source_key.clone() }
    }
}
