//! How records are cut into batches (pure).

use std::time::{Duration, Instant};

use crate::kafka::record::{Record, TopicPartition};
use crate::log_identity::Position;

/// When a batch is handed over; whichever comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// This many records.
    pub max_records: usize,
    /// This many bytes of keys, values and headers; a batch exceeds it by less than one record.
    pub max_bytes: usize,
    /// This long after its first record.
    pub linger: Duration,
}

impl Default for BatchLimits {
    /// A backlog moves by the thousand, one change alone waits a few milliseconds.
    fn default() -> Self {
        Self { max_records: 2_000, max_bytes: 4 * 1024 * 1024, linger: Duration::from_millis(4) }
    }
}

/// How far a partition has been read: everything below `next_offset` came in this batch or an earlier one.
///
/// It counts what no record shows, such as the markers of transactions and records of aborted ones: "caught up" is this
/// offset at or past an end that a `read_uncommitted` client gave, never the last record's offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// The partition.
    pub partition: TopicPartition,
    /// The offset that would be read next.
    pub next_offset: i64,
}

/// Records of one epoch, in order within each partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The epoch it was read in.
    pub epoch: u64,
    /// The records; may be empty where only the end of a partition was reached.
    pub records: Vec<Record>,
    /// The partitions whose end was reached on the way, with their positions then.
    pub reached: Vec<Reached>,
}

impl Batch {
    /// Returns how far each partition was read: behind its last record, and up to the greatest time among its records.
    pub fn positions(&self) -> Vec<(TopicPartition, Position)> {
        let mut positions: Vec<(TopicPartition, Position)> = Vec::new();
        for record in &self.records {
            let same = |(known, _): &(TopicPartition, Position)| {
                known.partition == record.partition && known.topic == record.topic
            };
            let place = positions.iter().position(same).unwrap_or_else(|| {
                positions.push((record.topic_partition(), Position::at(record.offset)));
                positions.len() - 1
            });
            positions[place].1.pass(record.offset, record.timestamp_ms);
        }
        positions
    }
}

/// A batch in the making.
#[derive(Debug)]
pub(super) struct Cutter {
    limits: BatchLimits,
    records: Vec<Record>,
    reached: Vec<Reached>,
    bytes: usize,
    opened_at: Option<Instant>,
}

impl Cutter {
    pub(super) fn new(limits: BatchLimits) -> Self {
        Self { limits, records: Vec::new(), reached: Vec::new(), bytes: 0, opened_at: None }
    }

    pub(super) fn push(&mut self, record: Record, now: Instant) {
        self.bytes += record.size();
        self.records.push(record);
        self.opened_at.get_or_insert(now);
    }

    pub(super) fn reach(&mut self, reached: Vec<Reached>, now: Instant) {
        for news in reached {
            match self.reached.iter_mut().find(|known| known.partition == news.partition) {
                Some(known) => *known = news,
                None => self.reached.push(news),
            }
            self.opened_at.get_or_insert(now);
        }
    }

    /// Returns how long the batch may still grow: `None` while there is nothing in it, zero when it is to be cut.
    pub(super) fn open_for(&self, now: Instant) -> Option<Duration> {
        let opened_at = self.opened_at?;
        if self.records.len() >= self.limits.max_records || self.bytes >= self.limits.max_bytes {
            return Some(Duration::ZERO);
        }
        Some(self.limits.linger.saturating_sub(now.saturating_duration_since(opened_at)))
    }

    pub(super) fn cut(&mut self, epoch: u64) -> Batch {
        self.bytes = 0;
        self.opened_at = None;
        Batch { epoch, records: std::mem::take(&mut self.records), reached: std::mem::take(&mut self.reached) }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new(self.limits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::record::Headers;

    fn record(partition: i32, offset: i64, bytes: usize) -> Record {
        Record {
            topic: "t".into(),
            partition,
            offset,
            timestamp_ms: None,
            key: None,
            value: Some(vec![0; bytes].into()),
            headers: Headers::new(),
        }
    }

    fn limits(max_records: usize, max_bytes: usize) -> BatchLimits {
        BatchLimits { max_records, max_bytes, linger: Duration::from_millis(10) }
    }

    #[test]
    fn a_batch_is_cut_by_count_by_bytes_or_by_age() {
        let now = Instant::now();
        let mut by_count = Cutter::new(limits(2, 100));
        assert_eq!(by_count.open_for(now), None);
        by_count.push(record(0, 1, 10), now);
        assert_eq!(by_count.open_for(now), Some(Duration::from_millis(10)));
        assert_eq!(by_count.open_for(now + Duration::from_millis(7)), Some(Duration::from_millis(3)));
        assert_eq!(by_count.open_for(now + Duration::from_millis(11)), Some(Duration::ZERO));
        by_count.push(record(0, 2, 10), now);
        assert_eq!(by_count.open_for(now), Some(Duration::ZERO));
        let mut by_bytes = Cutter::new(limits(9, 100));
        by_bytes.push(record(0, 1, 100), now);
        assert_eq!(by_bytes.open_for(now), Some(Duration::ZERO));
        assert_eq!(by_bytes.cut(7).records.len(), 1);
        assert_eq!(by_bytes.open_for(now), None, "a cut batch leaves nothing behind");
    }

    #[test]
    fn a_position_is_one_past_the_last_record_of_its_partition_with_the_greatest_time() {
        let now = Instant::now();
        let mut cutter = Cutter::new(limits(9, 1_000));
        for (partition, offset, timestamp_ms) in [(0, 4, Some(80)), (1, 9, None), (0, 6, Some(70))] {
            cutter.push(Record { timestamp_ms, ..record(partition, offset, 1) }, now);
        }
        let read = |partition, next_offset, log_time| {
            (TopicPartition::new("t", partition), Position { next_offset, log_time })
        };
        assert_eq!(cutter.cut(1).positions(), vec![read(0, 7, Some(80)), read(1, 10, None)]);
    }

    #[test]
    fn of_two_ends_of_a_partition_the_later_stays() {
        let now = Instant::now();
        let mut cutter = Cutter::new(limits(9, 1_000));
        let end = |next_offset| Reached { partition: TopicPartition::new("t", 0), next_offset };
        cutter.reach(vec![end(3)], now);
        cutter.reach(vec![end(5)], now);
        assert_eq!(cutter.cut(1).reached, vec![end(5)]);
    }
}
