//! Folds a batch to one change per asset: no statement may hold a key twice.

use std::collections::HashMap;

use crate::asset::{AssetChange, Content, FieldValue};

/// What a batch comes to, each part sorted by asset so that two writers never wait for each other in a circle.
#[derive(Debug, Default, PartialEq)]
pub struct Folded<'a> {
    /// Rows to write.
    pub upserts: Vec<Upsert<'a>>,
    /// Assets whose only news is a tombstone.
    pub tombstones: Vec<Tombstone<'a>>,
    /// How many changes were overtaken by later ones.
    pub overtaken: u64,
}

/// A row to write.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Upsert<'a> {
    /// The asset's key.
    pub asset_id: &'a str,
    /// One value for each of the table's columns.
    pub fields: &'a [FieldValue],
    /// Whether the asset is gone.
    pub deleted: bool,
    /// Partition of the record.
    pub partition: i32,
    /// Offset of the record.
    pub offset: i64,
}

/// A row to mark as deleted, should it be there and live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tombstone<'a> {
    /// The asset's key.
    pub asset_id: &'a str,
    /// Partition of the record.
    pub partition: i32,
    /// Offset of the record.
    pub offset: i64,
}

#[derive(Clone, Copy)]
enum Last<'a> {
    Upsert(Upsert<'a>),
    Tombstone(Tombstone<'a>),
}

/// Folds `batch`, which is in the order of offsets within each partition and newer than the rows: what comes of it is what
/// one record after the other would have come to, however a log is cut into batches.
///
/// | so far | then | comes to |
/// | --- | --- | --- |
/// | anything | record | the record |
/// | nothing | tombstone | the tombstone |
/// | deleted record | tombstone | the deleted record: the tombstone adds nothing |
/// | live record | tombstone | the record's fields, deleted, under the tombstone's guard: its deleted record is missing |
/// | tombstone | tombstone | the earlier one: it deletes, the later finds nothing left to delete |
pub fn fold(batch: &[AssetChange]) -> Folded<'_> {
    let mut last: HashMap<&str, Last<'_>> = HashMap::with_capacity(batch.len());
    let mut overtaken = 0;
    for change in batch {
        let before = last.get(change.asset_id.as_str()).copied();
        overtaken += u64::from(before.is_some());
        last.insert(&change.asset_id, follow(before, change));
    }
    let mut folded = Folded { overtaken, ..Folded::default() };
    for change in last.into_values() {
        match change {
            Last::Upsert(upsert) => folded.upserts.push(upsert),
            Last::Tombstone(tombstone) => folded.tombstones.push(tombstone),
        }
    }
    folded.upserts.sort_unstable_by_key(|upsert| upsert.asset_id);
    folded.tombstones.sort_unstable_by_key(|tombstone| tombstone.asset_id);
    folded
}

fn follow<'a>(before: Option<Last<'a>>, change: &'a AssetChange) -> Last<'a> {
    let AssetChange { asset_id, partition, offset, content } = change;
    let (partition, offset) = (*partition, *offset);
    match (before, content) {
        (_, Content::Record { fields, deleted }) => {
            Last::Upsert(Upsert { asset_id, fields, deleted: *deleted, partition, offset })
        }
        (Some(Last::Upsert(upsert)), Content::Tombstone) if upsert.deleted => Last::Upsert(upsert),
        (Some(Last::Upsert(upsert)), Content::Tombstone) => {
            Last::Upsert(Upsert { deleted: true, partition, offset, ..upsert })
        }
        (Some(Last::Tombstone(earlier)), Content::Tombstone) => Last::Tombstone(earlier),
        (None, Content::Tombstone) => Last::Tombstone(Tombstone { asset_id, partition, offset }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(asset_id: &str, offset: i64, deleted: bool) -> AssetChange {
        let content = Content::Record { fields: vec![FieldValue::Integer(offset)], deleted };
        AssetChange { asset_id: asset_id.to_owned(), partition: 0, offset, content }
    }

    fn tombstone(asset_id: &str, offset: i64) -> AssetChange {
        AssetChange { asset_id: asset_id.to_owned(), partition: 0, offset, content: Content::Tombstone }
    }

    #[test]
    fn every_asset_is_left_once_and_in_order() {
        let batch = [record("b", 1, false), record("a", 2, false), tombstone("c", 3), record("b", 4, false)];
        let folded = fold(&batch);
        let left: Vec<_> = folded.upserts.iter().map(|upsert| (upsert.asset_id, upsert.offset)).collect();
        assert_eq!(left, [("a", 2), ("b", 4)]);
        assert_eq!(folded.tombstones, [Tombstone { asset_id: "c", partition: 0, offset: 3 }]);
        assert_eq!(folded.overtaken, 1);
    }

    #[test]
    fn a_tombstone_after_a_live_record_deletes_under_its_own_guard() {
        let batch = [record("a", 1, false), tombstone("a", 2)];
        let folded = fold(&batch);
        assert_eq!((folded.upserts[0].deleted, folded.upserts[0].offset), (true, 2));
        assert_eq!(folded.upserts[0].fields, [FieldValue::Integer(1)]);
        assert!(folded.tombstones.is_empty());
    }

    #[test]
    fn a_tombstone_after_the_deleted_record_adds_nothing() {
        let batch = [record("a", 1, true), tombstone("a", 2)];
        assert_eq!((fold(&batch).upserts[0].deleted, fold(&batch).upserts[0].offset), (true, 1));
    }

    #[test]
    fn of_two_tombstones_the_first_deletes() {
        let batch = [tombstone("a", 1), tombstone("a", 4)];
        assert_eq!(fold(&batch).tombstones, [Tombstone { asset_id: "a", partition: 0, offset: 1 }]);
    }

    #[test]
    fn a_record_after_a_tombstone_is_alive() {
        let batch = [tombstone("a", 1), record("a", 2, false)];
        let folded = fold(&batch);
        assert_eq!((folded.upserts.len(), folded.tombstones.len()), (1, 0));
        assert!(!folded.upserts[0].deleted);
    }
}
