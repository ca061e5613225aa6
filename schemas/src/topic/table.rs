use super::{CHANGE_PARTITIONS, SINGLE_PARTITION};
use crate::{device, server};

/// A table of Apple's that has a change topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// Name of the table's topic without prefix, as mappings, links and contributions write it.
    pub topic: &'static str,
    /// Partitions of the topic.
    pub partitions: i32,
    /// Text of the key's schema.
    pub key_schema: &'static str,
    /// Text of the value's schema.
    pub value_schema: &'static str,
}

impl Table {
    /// All tables.
    pub const ALL: [Self; 2] = [
        Self {
            topic: "abm.devices",
            partitions: CHANGE_PARTITIONS,
            key_schema: device::KEY_SCHEMA,
            value_schema: device::VALUE_SCHEMA,
        },
        Self {
            topic: "abm.servers",
            partitions: SINGLE_PARTITION,
            key_schema: server::KEY_SCHEMA,
            value_schema: server::VALUE_SCHEMA,
        },
    ];

    /// Finds the table of a topic name without prefix.
    pub fn from_topic(topic: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.topic == topic)
    }
}
