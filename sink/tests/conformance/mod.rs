//! What every store promises, as a suite that anybody can put to a store of their own.
//!
//! Implement [`Subject`] for the store, then write in a test `windfall_sink::conformance!(name, Subject::new().await);` with an
//! expression that makes an empty store: each promise is then a test of the module `name`. The caller needs `tokio` with its
//! macros. The suite lies with the sink's tests and is part of the library under the feature `conformance`.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a test ends where it finds what it did not expect")]
#![allow(missing_docs, reason = "the name of a promise says all of it")]

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use crate::asset::{AssetChange, Content, FieldValue};
use crate::store::{Applied, AssetStore, Identity, Refusal, Span, StoreError};
use crate::table::{FieldType, Table, TableName};

/// A row as the suite sees it: the value of `color`, whether it is deleted, and the guard.
pub type Seen = (Option<String>, bool, (i64, i32, i64));

/// A store that was made empty, can be opened several times, and can be looked into by means other than its own.
pub trait Subject {
    /// The store.
    type Store: AssetStore;

    /// Opens the store of [`table`] as [`identity`] of this sink: a new handle on the same data, as another process has it.
    fn open(&self, sink: &str) -> Self::Store;

    /// Makes every record with this colour one that the store refuses; the store was claimed before. Answers whether it
    /// could: a store that takes every record has nothing to show here.
    fn poison(&self, color: &str) -> impl Future<Output = bool>;

    /// Returns all rows by asset.
    fn rows(&self) -> impl Future<Output = BTreeMap<String, Seen>>;
}

/// Returns the table that the suite writes: a colour, a version, and one column of every other type.
#[must_use]
pub fn table(name: &str) -> Table {
    let fields = [
        ("collection", FieldType::String),
        ("asset_id", FieldType::String),
        ("color", FieldType::String),
        ("cost", FieldType::Decimal),
        ("supervised", FieldType::Boolean),
        ("ordered_at", FieldType::Timestamp),
        ("__deleted", FieldType::String),
        ("__version", FieldType::Integer),
    ];
    Table::of_fields(TableName::parse(name).unwrap(), fields).unwrap()
}

/// Returns values for [`table`], all but the colour the same.
#[must_use]
pub fn fields(color: &str) -> Vec<FieldValue> {
    vec![
        FieldValue::String(color.to_owned()),
        FieldValue::Decimal(12.5),
        FieldValue::Boolean(true),
        FieldValue::Timestamp(1_795_252_443_250),
        FieldValue::Integer(7),
    ]
}

/// Returns the identity of a sink that reads `assets.devices`.
#[must_use]
pub fn identity(sink: &str) -> Identity {
    Identity { sink: sink.to_owned(), topic: "assets.devices".to_owned() }
}

#[must_use]
pub fn record(asset_id: &str, partition: i32, offset: i64, color: &str) -> AssetChange {
    let content = Content::Record { fields: fields(color), deleted: false };
    AssetChange { asset_id: asset_id.to_owned(), partition, offset, content }
}

#[must_use]
pub fn deleted(asset_id: &str, offset: i64, color: &str) -> AssetChange {
    let content = Content::Record { fields: fields(color), deleted: true };
    AssetChange { asset_id: asset_id.to_owned(), partition: 0, offset, content }
}

#[must_use]
pub fn tombstone(asset_id: &str, offset: i64) -> AssetChange {
    AssetChange { asset_id: asset_id.to_owned(), partition: 0, offset, content: Content::Tombstone }
}

#[must_use]
pub fn moment() -> DateTime<Utc> {
    "2026-11-21T09:00:00Z".parse().unwrap()
}

#[must_use]
pub fn span(partition: i32, from: i64, to: i64) -> Span {
    Span { partition, from, to, as_of: moment(), log_time: None }
}

fn seen(color: &str, deleted: bool, offset: i64) -> (Option<String>, bool, (i64, i32, i64)) {
    (Some(color.to_owned()), deleted, (1, 0, offset))
}

async fn claimed<S: Subject>(subject: &S) -> S::Store {
    let mut store = subject.open("assets");
    store.claim(&[0]).await.unwrap();
    store
}

pub async fn a_fresh_partition_begins_at_zero_and_goes_on_where_it_was(subject: impl Subject) {
    let mut store = subject.open("assets");
    let fresh = store.claim(&[1, 0]).await.unwrap();
    let summary: Vec<_> = fresh.iter().map(|c| (c.partition, c.generation, c.next_offset, c.as_of)).collect();
    assert_eq!(summary, [(1, 1, 0, None), (0, 1, 0, None)]);
    store.apply(&[record("a", 0, 4, "red")], &[span(0, 0, 6)]).await.unwrap();
    drop(store);
    let again = subject.open("assets").claim(&[0, 1]).await.unwrap();
    let summary: Vec<_> = again.iter().map(|c| (c.partition, c.next_offset, c.as_of)).collect();
    assert_eq!(summary, [(0, 6, Some(moment())), (1, 0, None)]);
}

pub async fn a_batch_writes_rows_and_moves_every_partition_of_it(subject: impl Subject) {
    let mut store = subject.open("assets");
    store.claim(&[0, 1]).await.unwrap();
    let batch = [record("a", 0, 0, "red"), record("b", 1, 0, "blue"), record("c", 0, 1, "green")];
    let applied = store.apply(&batch, &[span(0, 0, 2), span(1, 0, 1)]).await.unwrap();
    assert_eq!(applied, Applied { applied: 3, ..Applied::default() });
    let rows = subject.rows().await;
    assert_eq!(rows["a"], seen("red", false, 0));
    assert_eq!(rows["b"], (Some("blue".to_owned()), false, (1, 1, 0)));
    assert_eq!(rows["c"], seen("green", false, 1));
    let next: Vec<i64> = store.claim(&[0, 1]).await.unwrap().iter().map(|c| c.next_offset).collect();
    assert_eq!(next, [2, 1]);
}

pub async fn an_older_record_is_refused_by_the_guard(subject: impl Subject) {
    let mut store = claimed(&subject).await;
    store.apply(&[record("a", 0, 9, "new")], &[span(0, 0, 10)]).await.unwrap();
    let late = [record("a", 0, 5, "old"), record("b", 0, 6, "fresh")];
    let applied = store.apply(&late, &[span(0, 10, 11)]).await.unwrap();
    assert_eq!(applied, Applied { applied: 1, stale: 1, ..Applied::default() });
    assert_eq!(subject.rows().await["a"], seen("new", false, 9));
}

pub async fn the_same_record_twice_changes_nothing(subject: impl Subject) {
    let mut store = claimed(&subject).await;
    store.apply(&[record("a", 0, 3, "red")], &[span(0, 0, 4)]).await.unwrap();
    let again = store.apply(&[record("a", 0, 3, "other")], &[span(0, 4, 5)]).await.unwrap();
    assert_eq!(again, Applied { stale: 1, ..Applied::default() });
    assert_eq!(subject.rows().await["a"], seen("red", false, 3));
}

pub async fn a_repeated_batch_is_found_out_and_changes_nothing(subject: impl Subject) {
    let mut store = claimed(&subject).await;
    let batch = [record("a", 0, 0, "red")];
    store.apply(&batch, &[span(0, 0, 1)]).await.unwrap();
    // As after a commit whose answer was lost: the position tells that it came through.
    let again = store.apply(&batch, &[span(0, 0, 1)]).await.unwrap_err();
    assert!(matches!(again, StoreError::Advanced { partition: 0, expected: 0, found: 1 }), "{again:?}");
    store.apply(&[record("b", 0, 1, "blue")], &[span(0, 1, 2)]).await.unwrap();
    assert_eq!(subject.rows().await.len(), 2);
}

pub async fn a_gap_and_an_overlap_are_refused_and_leave_nothing(subject: impl Subject) {
    let mut store = claimed(&subject).await;
    store.apply(&[record("a", 0, 0, "red")], &[span(0, 0, 5)]).await.unwrap();
    for from in [3, 8] {
        let error = store.apply(&[record("a", 0, 9, "blue")], &[span(0, from, 10)]).await.unwrap_err();
        assert!(matches!(error, StoreError::Advanced { found: 5, .. }), "{error:?}");
    }
    assert_eq!(subject.rows().await["a"], seen("red", false, 0));
    assert_eq!(store.claim(&[0]).await.unwrap()[0].next_offset, 5);
}

pub async fn one_partition_that_does_not_fit_holds_the_whole_batch_back(subject: impl Subject) {
    let mut store = subject.open("assets");
    store.claim(&[0, 1]).await.unwrap();
    let batch = [record("a", 0, 0, "red"), record("b", 1, 4, "blue")];
    let error = store.apply(&batch, &[span(0, 0, 1), span(1, 4, 5)]).await.unwrap_err();
    assert!(matches!(error, StoreError::Advanced { partition: 1, expected: 4, found: 0 }), "{error:?}");
    assert!(subject.rows().await.is_empty());
    assert_eq!(store.claim(&[0]).await.unwrap()[0].next_offset, 0);
}

pub async fn a_zombie_is_fenced_and_writes_nothing(subject: impl Subject) {
    let mut zombie = claimed(&subject).await;
    zombie.apply(&[record("a", 0, 0, "red")], &[span(0, 0, 1)]).await.unwrap();
    let mut heir = claimed(&subject).await;
    let error = zombie.apply(&[record("a", 0, 1, "late")], &[span(0, 1, 2)]).await.unwrap_err();
    assert!(matches!(error, StoreError::Fenced { partition: 0 }), "{error:?}");
    heir.apply(&[record("a", 0, 1, "blue")], &[span(0, 1, 2)]).await.unwrap();
    let error = zombie.apply(&[], &[span(0, 2, 2)]).await.unwrap_err();
    assert!(matches!(error, StoreError::Fenced { partition: 0 }), "not even its position moves: {error:?}");
    assert_eq!(subject.rows().await["a"], seen("blue", false, 1));
}

pub async fn a_partition_that_was_never_claimed_is_not_written(subject: impl Subject) {
    let mut store = claimed(&subject).await;
    let error = store.apply(&[record("a", 3, 0, "red")], &[span(3, 0, 1)]).await.unwrap_err();
    assert!(matches!(error, StoreError::Fenced { partition: 3 }), "{error:?}");
    assert!(subject.rows().await.is_empty());
}

pub async fn a_soft_delete_keeps_the_guard_so_that_an_old_record_cannot_bring_the_asset_back(subject: impl Subject) {
    let mut store = claimed(&subject).await;
    store.apply(&[record("a", 0, 0, "red")], &[span(0, 0, 1)]).await.unwrap();
    let gone = store.apply(&[deleted("a", 5, "red")], &[span(0, 1, 6)]).await.unwrap();
    assert_eq!(gone, Applied { deleted: 1, ..Applied::default() });
    let late = store.apply(&[record("a", 0, 3, "late")], &[span(0, 6, 7)]).await.unwrap();
    assert_eq!(late, Applied { stale: 1, ..Applied::default() });
    assert_eq!(subject.rows().await["a"], seen("red", true, 5));
    store.apply(&[record("a", 0, 8, "back")], &[span(0, 7, 9)]).await.unwrap();
    assert_eq!(subject.rows().await["a"], seen("back", false, 8), "a newer record does");
}

pub async fn a_tombstone_after_its_deleted_record_changes_nothing(subject: impl Subject) {
    let mut store = claimed(&subject).await;
    store.apply(&[deleted("a", 0, "red")], &[span(0, 0, 1)]).await.unwrap();
    let applied = store.apply(&[tombstone("a", 1)], &[span(0, 1, 2)]).await.unwrap();
    assert_eq!(applied, Applied { unchanged: 1, ..Applied::default() });
    assert_eq!(subject.rows().await["a"], seen("red", true, 0));
}

pub async fn a_tombstone_whose_deleted_record_was_never_seen_deletes_as_well(subject: impl Subject) {
    let mut store = claimed(&subject).await;
    store.apply(&[record("a", 0, 0, "red")], &[span(0, 0, 1)]).await.unwrap();
    let applied = store.apply(&[tombstone("a", 4)], &[span(0, 1, 5)]).await.unwrap();
    assert_eq!(applied, Applied { deleted: 1, ..Applied::default() });
    assert_eq!(subject.rows().await["a"], seen("red", true, 4));
    let late = store.apply(&[record("a", 0, 3, "late")], &[span(0, 5, 6)]).await.unwrap();
    assert_eq!(late.stale, 1, "the tombstone's guard holds");
}

pub async fn a_tombstone_of_an_unknown_or_newer_asset_changes_nothing(subject: impl Subject) {
    let mut store = claimed(&subject).await;
    store.apply(&[record("a", 0, 9, "red")], &[span(0, 0, 10)]).await.unwrap();
    let applied = store.apply(&[tombstone("a", 4), tombstone("b", 5)], &[span(0, 10, 11)]).await.unwrap();
    assert_eq!(applied, Applied { unchanged: 2, ..Applied::default() });
    assert_eq!(subject.rows().await.len(), 1);
    assert_eq!(subject.rows().await["a"], seen("red", false, 9));
}

pub async fn a_life_within_one_batch_comes_to_its_last_state(subject: impl Subject) {
    let mut store = claimed(&subject).await;
    let batch = [
        record("a", 0, 0, "red"),
        record("a", 0, 1, "blue"),
        record("b", 0, 2, "green"),
        tombstone("b", 3),
        deleted("c", 4, "grey"),
        tombstone("c", 5),
        tombstone("d", 6),
        record("d", 0, 7, "gold"),
    ];
    let applied = store.apply(&batch, &[span(0, 0, 8)]).await.unwrap();
    assert_eq!(applied, Applied { applied: 2, deleted: 2, folded: 4, ..Applied::default() });
    assert_eq!(applied.total(), batch.len() as u64);
    let rows = subject.rows().await;
    assert_eq!(rows["a"], seen("blue", false, 1));
    assert_eq!(rows["b"], seen("green", true, 3));
    assert_eq!(rows["c"], seen("grey", true, 4));
    assert_eq!(rows["d"], seen("gold", false, 7));
}

pub async fn a_refused_record_is_told_from_trouble_and_nothing_of_its_batch_stays(subject: impl Subject) {
    let mut store = claimed(&subject).await;
    if !subject.poison("poison").await {
        return;
    }
    let batch = [record("a", 0, 0, "red"), record("b", 0, 1, "poison"), record("c", 0, 2, "blue")];
    let error = store.apply(&batch, &[span(0, 0, 3)]).await.unwrap_err();
    assert!(matches!(error, StoreError::Record { .. }), "{error:?}");
    assert!(subject.rows().await.is_empty());
    store.apply(&batch[..1], &[span(0, 0, 1)]).await.unwrap();
    store.apply(&batch[2..], &[span(0, 1, 3)]).await.unwrap();
    assert_eq!(subject.rows().await.len(), 2, "its neighbours are stored, the position steps over it");
}

pub async fn as_of_is_renewed_without_records_and_neither_it_nor_the_time_of_the_log_goes_back(subject: impl Subject) {
    let mut store = claimed(&subject).await;
    assert_eq!(store.claim(&[0]).await.unwrap()[0].log_time, None);
    let timed = |log_time| Span { log_time: Some(log_time), ..span(0, 0, 1) };
    store.apply(&[record("a", 0, 0, "red")], &[timed(80)]).await.unwrap();
    let later = moment() + TimeDelta::hours(1);
    store.apply(&[], &[Span { from: 1, as_of: later, ..timed(70) }]).await.unwrap();
    store.apply(&[], &[span(0, 1, 1)]).await.unwrap();
    let claimed = &store.claim(&[0]).await.unwrap()[0];
    assert_eq!((claimed.as_of, claimed.log_time), (Some(later), Some(80)));
}

pub async fn a_position_may_be_taken_back_and_what_is_read_again_changes_nothing(subject: impl Subject) {
    let mut store = claimed(&subject).await;
    let batch = [record("a", 0, 0, "red"), record("b", 0, 1, "blue")];
    store.apply(&batch, &[span(0, 0, 2)]).await.unwrap();
    store.apply(&[], &[span(0, 2, 0)]).await.unwrap();
    drop(store);
    let mut store = subject.open("assets");
    assert_eq!(store.claim(&[0]).await.unwrap()[0].next_offset, 0);
    let again = store.apply(&batch, &[span(0, 0, 2)]).await.unwrap();
    assert_eq!(again, Applied { stale: 2, ..Applied::default() });
}

pub async fn a_table_has_one_sink(subject: impl Subject) {
    claimed(&subject).await;
    let error = subject.open("other").claim(&[0]).await.unwrap_err();
    assert!(matches!(&error, StoreError::Refused(Refusal::TakenTable { owner, .. }) if owner == "assets"), "{error:?}");
    let error = subject.open("other").check().await.unwrap_err();
    assert!(matches!(error, StoreError::Refused(Refusal::TakenTable { .. })), "{error:?}");
}

pub async fn a_check_claims_nothing(subject: impl Subject) {
    let mut store = claimed(&subject).await;
    assert_eq!(subject.open("assets").check().await.unwrap(), [""; 0], "the tables stand already");
    store.apply(&[record("a", 0, 0, "red")], &[span(0, 0, 1)]).await.unwrap();
}

pub async fn a_check_of_an_empty_store_leaves_it_to_whoever_claims_it_first(subject: impl Subject) {
    let told = subject.open("assets").check().await.unwrap();
    assert_eq!(subject.open("assets").check().await.unwrap(), told, "nothing was made");
    subject.open("other").claim(&[0]).await.unwrap();
}

pub async fn an_asset_id_is_a_value_and_never_sql(subject: impl Subject) {
    let mut store = claimed(&subject).await;
    let hostile = ["'; drop table assets; --", "\"", "$1", "{a,b}", "\\", "NULL", "ä\u{1F34E}", " "];
    let batch: Vec<_> = (0..).zip(hostile).map(|(offset, id)| record(id, 0, offset, id)).collect();
    store.apply(&batch, &[span(0, 0, 8)]).await.unwrap();
    let rows = subject.rows().await;
    for id in hostile {
        assert_eq!(rows[id].0.as_deref(), Some(id));
    }
}

/// Makes a module of tests, one for each promise, over a store that the expression makes anew for each.
#[macro_export]
macro_rules! conformance {
    ($name:ident, $subject:expr) => {
        $crate::conformance!(@promises $name, $subject,
            a_fresh_partition_begins_at_zero_and_goes_on_where_it_was,
            a_batch_writes_rows_and_moves_every_partition_of_it,
            an_older_record_is_refused_by_the_guard,
            the_same_record_twice_changes_nothing,
            a_repeated_batch_is_found_out_and_changes_nothing,
            a_gap_and_an_overlap_are_refused_and_leave_nothing,
            one_partition_that_does_not_fit_holds_the_whole_batch_back,
            a_zombie_is_fenced_and_writes_nothing,
            a_partition_that_was_never_claimed_is_not_written,
            a_soft_delete_keeps_the_guard_so_that_an_old_record_cannot_bring_the_asset_back,
            a_tombstone_after_its_deleted_record_changes_nothing,
            a_tombstone_whose_deleted_record_was_never_seen_deletes_as_well,
            a_tombstone_of_an_unknown_or_newer_asset_changes_nothing,
            a_life_within_one_batch_comes_to_its_last_state,
            a_refused_record_is_told_from_trouble_and_nothing_of_its_batch_stays,
            as_of_is_renewed_without_records_and_neither_it_nor_the_time_of_the_log_goes_back,
            a_position_may_be_taken_back_and_what_is_read_again_changes_nothing,
            a_table_has_one_sink,
            a_check_claims_nothing,
            a_check_of_an_empty_store_leaves_it_to_whoever_claims_it_first,
            an_asset_id_is_a_value_and_never_sql
        );
    };
    (@promises $name:ident, $subject:expr, $($promise:ident),* $(,)?) => {
        mod $name {
            use super::*;
            $(
                #[tokio::test]
                async fn $promise() {
                    $crate::conformance::$promise($subject).await;
                }
            )*
        }
    };
}
