//! `assets.<collection>.conflicts`: who disagrees on an asset, and what was kept.

use serde::{Deserialize, Serialize};

/// Key of `conflicts`; the record lies in its asset's partition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename = "Key")]
pub struct ConflictKey {
    /// The asset.
    pub asset_id: String,
    /// What is disagreed on: the name of a field.
    pub subject: String,
}

/// A disagreement on one field of one asset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "Value")]
pub struct Conflict {
    /// The asset.
    pub asset_id: String,
    /// What is disagreed on: the name of a field.
    pub subject: String,
    /// `open` or `closed`; open set.
    pub state: String,
    /// The value that was kept, as JSON.
    pub held: Option<String>,
    /// JSON: who says what.
    pub candidates: Option<String>,
    /// Source time of the claim that made or ended it.
    pub seen_at: Option<i64>,
}

impl Conflict {
    /// Returns the key that this conflict has in the topic.
    pub fn key(&self) -> ConflictKey {
        ConflictKey { asset_id: self.asset_id.clone(), subject: self.subject.clone() }
    }
}
