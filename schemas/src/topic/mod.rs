//! Names, partitions and settings of all topics; subjects, groups, transactional ids, client ids.
//!
//! A name is a pure function of the prefix and of what the topic holds. The prefix goes in front of topics, subjects,
//! groups and transactional ids as it is, and never into the schemas' names.

mod names;
mod spec;
mod subject;
mod table;

pub use names::{CollectionTopics, Names};
pub use spec::{Cleanup, Fit, SIGNALS_RETENTION_MS, TopicSpec, WHOLE_MS, min_insync_replicas};
pub use subject::{SubjectSchema, key_subject, value_subject};
pub use table::Table;

/// Partitions of change topics and of a collection's topics: 12 divides well and cannot be changed without moving keys.
pub const CHANGE_PARTITIONS: i32 = 12;
/// Partitions of rejects and dead letters.
pub const REJECT_PARTITIONS: i32 = 3;
/// Partitions of topics that need one order: servers, scans, signals, notifications, the registry.
pub const SINGLE_PARTITION: i32 = 1;
/// Partitions of `windfall.sources`: as many processes can share sources.
pub const SOURCES_PARTITIONS: i32 = 64;

/// Client id of a stage's instance.
pub fn client_id(stage: &str, instance: &str) -> String {
    format!("windfall-{stage}-{instance}")
}
