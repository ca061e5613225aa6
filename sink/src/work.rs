//! A batch on its way into the store: what is done, what is left, and where a bad record is being looked for (pure).

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use windfall_runtime::kafka::Record;
use windfall_runtime::log_identity::Position;

use crate::asset::AssetChange;
use crate::freshness::as_of;
use crate::record::{Read, Refused};
use crate::store::Span;

/// One record of a batch.
#[derive(Debug)]
pub(crate) struct BatchRecord {
    pub(crate) record: Record,
    pub(crate) observed_ms: Option<i64>,
    pub(crate) fate: Fate,
}

/// What is to become of a record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is to be stored; its change is the next in the work's list.
    Store,
    /// It goes to the dead letters; `delivered` once it stands there.
    Refuse { refused: Refused, delivered: bool },
}

/// A batch with its records in the order they were read.
///
/// A part that fails is halved until the record at fault stands alone:
///
/// ```text
/// whole fails ─▶ first half ─ passes ─▶ the fault lies in the second half: halve that
///                    └─ fails ─▶ halve the first half; what lies behind it waits and goes in one piece
/// ```
///
/// so that one bad record among n costs about log2 n more tries, and what was stored stays stored.
#[derive(Debug)]
pub(crate) struct BatchWork {
    entries: Vec<BatchRecord>,
    changes: Vec<AssetChange>,
    /// Where partitions end behind which nothing was found.
    ends: BTreeMap<i32, i64>,
    received: DateTime<Utc>,
    /// How many changes from the front on are known to hold one that the store refuses.
    suspects: Option<usize>,
}

/// The part that is tried next.
#[derive(Debug)]
pub(crate) struct BatchPart<'a> {
    pub(crate) entries: &'a [BatchRecord],
    pub(crate) changes: &'a [AssetChange],
    pub(crate) spans: Vec<Span>,
}

impl BatchWork {
    /// Takes a batch: records as they were read, and the ends of partitions behind which nothing was found.
    pub(crate) fn new(
        read: Vec<(Record, Result<Read, Refused>)>,
        reached: impl IntoIterator<Item = (i32, i64)>,
        received: DateTime<Utc>,
    ) -> Self {
        let mut work = Self {
            entries: Vec::with_capacity(read.len()),
            changes: Vec::with_capacity(read.len()),
            ends: reached.into_iter().collect(),
            received,
            suspects: None,
        };
        for (record, outcome) in read {
            let (fate, observed_ms) = match outcome {
                Ok(Read { change, observed_ms }) => {
                    work.changes.push(change);
                    (Fate::Store, observed_ms)
                }
                Err(refused) => (Fate::Refuse { refused, delivered: false }, None),
            };
            work.entries.push(BatchRecord { record, observed_ms, fate });
        }
        work
    }

    /// When the batch was received.
    pub(crate) fn received(&self) -> DateTime<Utc> {
        self.received
    }

    /// Whether everything has been stored or refused.
    pub(crate) fn is_done(&self) -> bool {
        self.entries.is_empty()
    }

    /// Drops what is stored already or no longer ours: keeps records of partitions in `positions`, from these on.
    pub(crate) fn keep_from(&mut self, positions: &BTreeMap<i32, i64>) {
        let wanted =
            |partition: i32, offset: i64| positions.get(&partition).is_some_and(|position| offset >= *position);
        let before = self.changes.len();
        self.entries.retain(|entry| wanted(entry.record.partition, entry.record.offset));
        self.changes.retain(|change| wanted(change.partition, change.offset));
        if self.changes.len() != before {
            self.suspects = None;
        }
    }

    /// Returns the part to try next, with the positions that it moves.
    pub(crate) fn part(&self, positions: &BTreeMap<i32, i64>) -> BatchPart<'_> {
        let (entries, changes) = self.lengths();
        let entries = &self.entries[..entries];
        let last = entries.len() == self.entries.len();
        BatchPart { entries, changes: &self.changes[..changes], spans: self.spans(entries, last, positions) }
    }

    /// Refused records of the next part whose dead letters have still to be delivered.
    pub(crate) fn undelivered(&self) -> impl Iterator<Item = (&Record, &Refused)> {
        let (entries, _) = self.lengths();
        self.entries[..entries].iter().filter_map(|entry| match &entry.fate {
            Fate::Refuse { refused, delivered: false } => Some((&entry.record, refused)),
            Fate::Refuse { .. } | Fate::Store => None,
        })
    }

    /// Notes that the dead letters of the next part have been delivered.
    pub(crate) fn delivered(&mut self) {
        let (entries, _) = self.lengths();
        for entry in &mut self.entries[..entries] {
            if let Fate::Refuse { delivered, .. } = &mut entry.fate {
                *delivered = true;
            }
        }
    }

    /// Takes the part out that was stored.
    pub(crate) fn stored(&mut self) -> Vec<BatchRecord> {
        let (entries, changes) = self.lengths();
        self.suspects = self.suspects.and_then(|suspects| suspects.checked_sub(changes)).filter(|left| *left > 0);
        self.changes.drain(..changes);
        self.entries.drain(..entries).collect()
    }

    /// Looks closer at the part that the store refused. A record that the store names by its place, or that stands alone,
    /// goes to the dead letters.
    pub(crate) fn refused(&mut self, refused: Refused, at: Option<(i32, i64)>) {
        let (_, changes) = self.lengths();
        let named = |change: &AssetChange| at == Some((change.partition, change.offset));
        let fault = match self.changes[..changes].iter().position(named) {
            None if changes > 1 => {
                self.suspects = Some(changes);
                return;
            }
            fault => fault.unwrap_or_default(),
        };
        self.suspects = None;
        if let Some(entry) = self.entries.iter_mut().filter(|entry| entry.fate == Fate::Store).nth(fault) {
            entry.fate = Fate::Refuse { refused, delivered: false };
            self.changes.remove(fault);
        }
    }

    /// How many entries and changes the next part has: everything, or half of what is suspected.
    fn lengths(&self) -> (usize, usize) {
        let changes = match self.suspects {
            None => self.changes.len(),
            Some(suspects) => suspects.div_ceil(2),
        };
        if changes == self.changes.len() {
            return (self.entries.len(), changes);
        }
        let mut left = changes;
        let behind = self.entries.iter().position(|entry| {
            let store = entry.fate == Fate::Store;
            left -= usize::from(store && left > 0);
            left == 0 && store
        });
        (behind.map_or(0, |last| last + 1), changes)
    }

    /// A position moves behind the last delivered record only: entries behind it may be younger than all that was read.
    fn spans(&self, entries: &[BatchRecord], last: bool, positions: &BTreeMap<i32, i64>) -> Vec<Span> {
        let mut reach: BTreeMap<i32, (Position, Option<i64>)> = BTreeMap::new();
        for BatchRecord { record, .. } in entries {
            let (position, written) = reach.entry(record.partition).or_insert((Position::at(0), None));
            position.pass(record.offset, record.timestamp_ms);
            *written = record.timestamp_ms;
        }
        let span = |(partition, (position, written)): (i32, (Position, Option<i64>))| {
            let Position { next_offset: to, log_time } = position;
            let from = *positions.get(&partition)?;
            let at_end = last && self.ends.get(&partition).is_some_and(|end| *end >= to);
            let written = written.and_then(DateTime::from_timestamp_millis);
            Some(Span { partition, from, to, as_of: as_of(self.received, written, at_end), log_time })
        };
        reach.into_iter().filter_map(span).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asset::Content;
    use windfall_runtime::kafka::Headers;
    use windfall_runtime::kafka::dead_letters::RefusedAt;

    fn record(offset: i64) -> Record {
        Record {
            topic: "assets.devices".into(),
            partition: 0,
            offset,
            timestamp_ms: Some(0),
            key: None,
            value: None,
            headers: Headers::new(),
        }
    }

    fn refused() -> Refused {
        Refused { stage: RefusedAt::Store, kind: "bad".to_owned(), message: "bad".to_owned() }
    }

    fn readable(offset: i64) -> (Record, Result<Read, Refused>) {
        let change = AssetChange { asset_id: offset.to_string(), partition: 0, offset, content: Content::Tombstone };
        (record(offset), Ok(Read { change, observed_ms: None }))
    }

    /// Stores `work` in a store that refuses the offsets in `bad`; returns what was stored, refused, and the tries.
    fn carry_out(mut work: BatchWork, bad: &[i64]) -> (Vec<i64>, Vec<i64>, usize) {
        let mut positions = BTreeMap::from([(0, 0)]);
        let (mut stored, mut dead, mut tries) = (Vec::new(), Vec::new(), 0);
        while !work.is_done() {
            dead.extend(work.undelivered().map(|(record, _)| record.offset));
            work.delivered();
            let part = work.part(&positions);
            let to = part.spans[0].to;
            assert_eq!(part.spans[0].from, positions[&0]);
            assert!(part.changes.iter().all(|change| (positions[&0]..to).contains(&change.offset)));
            tries += 1;
            if part.changes.iter().any(|change| bad.contains(&change.offset)) {
                work.refused(refused(), None);
                continue;
            }
            stored.extend(part.changes.iter().map(|change| change.offset));
            positions.insert(0, to);
            work.stored();
        }
        (stored, dead, tries)
    }

    fn work(count: i64) -> BatchWork {
        BatchWork::new((0..count).map(readable).collect(), [(0, count + 2)], DateTime::UNIX_EPOCH)
    }

    #[test]
    fn a_good_batch_goes_in_one_piece() {
        let (stored, dead, tries) = carry_out(work(5_000), &[]);
        assert_eq!((stored.len(), dead.len(), tries), (5_000, 0, 1));
    }

    #[test]
    fn one_bad_record_among_5000_costs_thirteen_probes_wherever_it_stands() {
        for bad in [0, 1, 2, 1_249, 2_499, 2_500, 3_333, 4_998, 4_999] {
            let (stored, dead, tries) = carry_out(work(5_000), &[bad]);
            assert_eq!(dead, [bad]);
            assert_eq!(stored.len(), 4_999);
            assert!(stored.is_sorted());
            // The whole, thirteen probes, the record alone, and what waited behind it.
            assert!(tries <= 1 + 13 + 2, "{bad}: {tries}");
        }
    }

    #[test]
    fn a_record_that_the_store_names_is_dead_at_once_and_the_rest_goes_in_one_piece() {
        let mut work = work(5_000);
        work.refused(refused(), Some((0, 3_333)));
        let (stored, dead, tries) = carry_out(work, &[]);
        assert_eq!((stored.len(), dead, tries), (4_999, vec![3_333], 1));
    }

    #[test]
    fn several_bad_records_are_each_found() {
        let bad = [0, 7, 8, 63, 99];
        let (stored, dead, _) = carry_out(work(100), &bad);
        assert_eq!(dead, bad);
        assert_eq!(stored.len(), 95);
        let (stored, dead, _) = carry_out(work(4), &[0, 1, 2, 3]);
        assert_eq!((stored.len(), dead.len()), (0, 4));
    }

    #[test]
    fn what_could_not_be_read_is_dead_and_the_position_steps_over_it() {
        let mut read: Vec<_> = (0..6).map(readable).collect();
        for unreadable in [0, 3, 5] {
            read[unreadable].1 = Err(refused());
        }
        let (stored, dead, tries) = carry_out(BatchWork::new(read, [], DateTime::UNIX_EPOCH), &[]);
        assert_eq!((stored, dead, tries), (vec![1, 2, 4], vec![0, 3, 5], 1));
    }

    #[test]
    fn the_position_stays_before_the_markers_at_the_end_and_only_the_last_part_knows_what_was_deleted_up_to_now() {
        let positions = BTreeMap::from([(0, 0)]);
        let now = DateTime::UNIX_EPOCH + chrono::TimeDelta::days(99);
        let of = |work: &BatchWork| work.part(&positions).spans[0];
        let mut work = BatchWork::new((0..4).map(readable).collect(), [(0, 6)], now);
        assert_eq!((of(&work).to, of(&work).as_of, of(&work).log_time), (4, now, Some(0)));
        work.refused(refused(), None);
        assert!(of(&work).to == 2 && of(&work).as_of < now);
    }

    #[test]
    fn what_is_stored_already_or_no_longer_ours_is_left_out() {
        let mut ours = work(4);
        ours.keep_from(&BTreeMap::from([(0, 3)]));
        assert_eq!(ours.part(&BTreeMap::from([(0, 3)])).changes.len(), 1);
        ours.keep_from(&BTreeMap::new());
        assert!(ours.is_done());
    }
}
