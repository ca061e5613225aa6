//! `windfall.notifications`: Debezium's notification, so that its tools read ours.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Text of the key's schema, as registered.
pub const KEY_SCHEMA: &str = include_str!("../windfall/notifications-key.avsc");
/// Text of the value's schema, as registered.
pub const VALUE_SCHEMA: &str = include_str!("../windfall/notifications-value.avsc");

/// Key of `windfall.notifications`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename = "NotificationKey")]
pub struct NotificationKey {
    /// The same as in the value.
    pub id: String,
}

/// A fact about a scan or an answer to a signal.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename = "Notification")]
pub struct Notification {
    /// Id of the notification, or of the signal that it answers.
    pub id: String,
    /// STARTED, IN_PROGRESS, TABLE_SCAN_COMPLETED, COMPLETED, ABORTED, SKIPPED; open set.
    #[serde(rename = "type")]
    pub kind: String,
    /// Initial Snapshot, Incremental Snapshot; open set.
    pub aggregate_type: String,
    /// Facts, by name.
    pub additional_data: Option<BTreeMap<String, String>>,
    /// When it was made, epoch milliseconds.
    pub timestamp: i64,
}

impl Notification {
    /// Returns the key that this notification has in the topic.
    pub fn key(&self) -> NotificationKey {
        NotificationKey { id: self.id.clone() }
    }
}
