//! Names, partitions and settings of all topics; subjects, groups, transactional ids, client ids.
//!
//! A name is a pure function of the prefix and of what the topic holds. The prefix goes in front of topics, subjects,
//! groups and transactional ids as it is, and never into the schemas' names.

mod names;
mod spec;
mod subject;
mod table;

use xxhash_rust::xxh3::xxh3_64;

pub use names::{CollectionTopics, Names};
pub use spec::{Cleanup, Fit, SIGNALS_RETENTION_MS, TopicSpec, WHOLE_MS, min_insync_replicas};
pub use subject::{SubjectSchema, key_subject, value_subject};
pub use table::Table;

/// Partitions of change topics and of a collection's topics: 12 divides well and cannot be changed without moving keys.
pub const CHANGE_PARTITIONS: i32 = 12;
/// Partitions of rejects and dead letters.
pub const REJECT_PARTITIONS: i32 = 3;
/// Partitions of topics that need one order or one holder: servers, scans, signals, notifications, sources, the registry.
pub const SINGLE_PARTITION: i32 = 1;

/// Client id of a stage's instance.
pub fn client_id(stage: &str, instance: &str) -> String {
    format!("windfall-{stage}-{instance}")
}

/// Transactional id of an instance of one of a collection's loops, of which `group` is the consumer group.
pub fn transactional_id(group: &str, instance: &str) -> String {
    format!("{group}-{instance}")
}

/// `group.instance.id` of a process in the group of a source.
///
/// The first member in the order of these ids holds the source. The hash in front makes that order another one for each
/// source, so that the sources of several processes spread over them.
pub fn source_member(source: &str, instance: &str) -> String {
    let hash = xxh3_64(format!("{instance}\n{source}").as_bytes()) >> 32;
    format!("{hash:08x}-{instance}")
}
