use super::{CHANGE_PARTITIONS, SINGLE_PARTITION};

/// A table of Apple's that has a change topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// `abm.devices`.
    Devices,
    /// `abm.servers`.
    Servers,
}

impl Table {
    /// All tables.
    pub const ALL: [Self; 2] = [Self::Devices, Self::Servers];

    /// Name of the table, as in `source.table`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Devices => "devices",
            Self::Servers => "servers",
        }
    }

    /// Name of the table's topic without prefix, as mappings, links and contributions write it.
    pub fn topic(self) -> &'static str {
        match self {
            Self::Devices => "abm.devices",
            Self::Servers => "abm.servers",
        }
    }

    /// Finds the table of a topic name without prefix.
    pub fn from_topic(topic: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.topic() == topic)
    }

    /// Partitions of the table's topic.
    pub fn partitions(self) -> i32 {
        match self {
            Self::Devices => CHANGE_PARTITIONS,
            Self::Servers => SINGLE_PARTITION,
        }
    }

    /// Text of the key's schema.
    pub fn key_schema(self) -> &'static str {
        match self {
            Self::Devices => crate::device::KEY_SCHEMA,
            Self::Servers => crate::server::KEY_SCHEMA,
        }
    }

    /// Text of the value's schema.
    pub fn value_schema(self) -> &'static str {
        match self {
            Self::Devices => crate::device::VALUE_SCHEMA,
            Self::Servers => crate::server::VALUE_SCHEMA,
        }
    }
}
