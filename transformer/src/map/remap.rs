//! Mapping again the records that another program has mapped before.
//!
//! They are read once more, but only the newest record of each key is mapped: an older one would show an older value, and under
//! the new program it may name another asset than the newest one.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use windfall_runtime::health::Progress;
use windfall_runtime::kafka::consumer::Start;
use windfall_runtime::kafka::table::{self, FoldRequest, TableError};
use windfall_runtime::kafka::{Connection, Record, TopicPartition};
use xxhash_rust::xxh3::xxh3_128;

/// The records that were read before and are still to be mapped, by partition and hash of their keys.
#[derive(Debug, Default)]
pub(super) struct Remap {
    newest: BTreeMap<TopicPartition, Newest>,
    total: usize,
    began_at: Option<Instant>,
}

/// The offset of the newest record of each key of a partition.
type Newest = HashMap<u128, i64>;
/// Where each partition of a topic begins to be read, and where it ends.
type Stretches = (BTreeMap<i32, Start>, BTreeMap<i32, i64>);

impl Remap {
    /// Finds the newest record of each key in the stretch of each partition that is to be mapped again: from where it begins up
    /// to, not including, the offset given.
    pub(super) async fn find(
        connection: &Connection,
        stretches: BTreeMap<TopicPartition, (Start, i64)>,
    ) -> Result<Self, TableError> {
        let mut by_topic: BTreeMap<String, Stretches> = BTreeMap::new();
        for (at, (from, up_to)) in stretches {
            let (starts, ends) = by_topic.entry(at.topic.to_string()).or_default();
            starts.insert(at.partition, from);
            ends.insert(at.partition, up_to);
        }
        let mut newest = BTreeMap::new();
        for (topic, (starts, ends)) in by_topic {
            let mut request = FoldRequest::whole(topic, []).up_to(ends);
            request.from = starts;
            let folded = table::fold(connection, request, BTreeMap::new(), |newest, record: Record| {
                note(newest, &record);
                Ok(())
            });
            newest.extend(folded.await?.state);
        }
        let total = newest.values().map(Newest::len).sum();
        Ok(Self { newest, total, began_at: Some(Instant::now()) })
    }

    /// Returns whether a record is left out because a newer one of its key was read before as well.
    pub(super) fn is_overtaken(&self, record: &Record) -> bool {
        let of_key = self.newest.get(&record.topic_partition()).and_then(|newest| newest.get(&hash(record)));
        of_key.is_some_and(|newest| record.offset < *newest)
    }

    /// Returns whether records are still to be mapped again.
    pub(super) fn is_under_way(&self) -> bool {
        self.newest.values().any(|newest| !newest.is_empty())
    }

    /// Notes that these records have been mapped.
    pub(super) fn done(&mut self, records: impl Iterator<Item = (TopicPartition, u128)>) {
        for (at, key) in records {
            if let Some(newest) = self.newest.get_mut(&at) {
                newest.remove(&key);
            }
        }
    }

    /// Returns how many records are mapped again; `None` when none is left.
    pub(super) fn progress(&self) -> Option<Progress> {
        let left: usize = self.newest.values().map(Newest::len).sum();
        let elapsed_s = self.began_at?.elapsed().as_secs();
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        (left > 0).then(|| Progress {
            job: "mapping again by the changed program".to_owned(),
            done: count(self.total - left),
            total: Some(count(self.total)),
            elapsed_s,
        })
    }
}

fn note(newest: &mut BTreeMap<TopicPartition, Newest>, record: &Record) {
    newest.entry(record.topic_partition()).or_default().insert(hash(record), record.offset);
}

/// The hash of a record's key.
pub(super) fn hash(record: &Record) -> u128 {
    xxh3_128(record.key.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use windfall_runtime::kafka::Headers;

    use super::*;

    fn record(offset: i64, key: &str) -> Record {
        Record {
            topic: "abm.devices".into(),
            partition: 0,
            offset,
            timestamp_ms: None,
            key: Some(key.to_owned().into()),
            value: None,
            headers: Headers::new(),
        }
    }

    #[test]
    fn of_what_was_read_before_only_the_newest_of_a_key_is_mapped_and_what_came_later_always_is() {
        let mut remap = Remap { began_at: Some(Instant::now()), ..Remap::default() };
        for record in [record(0, "a"), record(1, "b"), record(2, "a")] {
            note(&mut remap.newest, &record);
        }
        remap.total = 2;
        let mapped: Vec<i64> = [record(0, "a"), record(1, "b"), record(2, "a"), record(3, "a"), record(4, "c")]
            .iter()
            .filter(|record| !remap.is_overtaken(record))
            .map(|record| record.offset)
            .collect();
        assert_eq!(mapped, [1, 2, 3, 4]);
        let key = |record: Record| (record.topic_partition(), hash(&record));
        remap.done([key(record(1, "b"))].into_iter());
        assert_eq!(remap.progress().map(|progress| (progress.done, progress.total)), Some((1, Some(2))));
        remap.done([key(record(2, "a"))].into_iter());
        assert_eq!(remap.progress(), None);
        assert!(!remap.is_overtaken(&record(3, "a")));
    }
}
