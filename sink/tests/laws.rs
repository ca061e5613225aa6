//! Laws that hold whatever the history: a store is the fold of its log, and reading again changes nothing.

use std::collections::BTreeMap;

use proptest::prelude::*;
use windfall_sink::asset::{AssetChange, Content};
use windfall_sink::store::{AssetStore, StoreError};
use windfall_sink::table::{FieldType, Name, Table, TableName};

use crate::conformance::span;
use crate::subjects::{MemorySubject, Seen, SqliteSubject, Subject, fields};

#[derive(Debug, Clone)]
enum Step {
    /// So many records more, in one batch.
    Apply(usize),
    /// Some record from before once more, under its own guard.
    Redrive(prop::sample::Index),
    /// Another process takes over.
    TakeOver,
    /// The last batch again, as after a lost answer.
    Repeat,
}

fn changes() -> impl Strategy<Value = Vec<AssetChange>> {
    let content = prop_oneof![
        5 => "[a-z]{1,3}".prop_map(|color| Content::Record { fields: fields(&color), deleted: false }),
        2 => "[a-z]{1,3}".prop_map(|color| Content::Record { fields: fields(&color), deleted: true }),
        2 => Just(Content::Tombstone),
    ];
    prop::collection::vec((0..4_u8, 1..4_i64, content), 1..40).prop_map(|steps| {
        let mut offset = -1;
        let change = |(asset, gap, content): (u8, i64, Content)| {
            offset += gap;
            AssetChange { asset_id: format!("a{asset}"), partition: 0, offset, content }
        };
        steps.into_iter().map(change).collect()
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..8_usize).prop_map(Step::Apply),
        1 => any::<prop::sample::Index>().prop_map(Step::Redrive),
        1 => Just(Step::TakeOver),
        1 => Just(Step::Repeat),
    ];
    prop::collection::vec(step, 1..20)
}

/// What the rows must be after `log`, one record after the other.
fn model(log: &[AssetChange]) -> BTreeMap<String, Seen> {
    let mut rows: BTreeMap<String, Seen> = BTreeMap::new();
    for AssetChange { asset_id, partition, offset, content } in log {
        let guard = (1, *partition, *offset);
        match content {
            Content::Record { fields, deleted } => {
                let color = match &fields[0] {
                    windfall_sink::asset::FieldValue::String(color) => Some(color.clone()),
                    _ => None,
                };
                rows.insert(asset_id.clone(), (color, *deleted, guard));
            }
            Content::Tombstone => {
                if let Some(row) = rows.get_mut(asset_id).filter(|row| !row.1) {
                    (row.1, row.2) = (true, guard);
                }
            }
        }
    }
    rows
}

async fn the_store_is_the_fold_of_the_log(subject: impl Subject, log: &[AssetChange], steps: &[Step]) {
    let mut store = subject.open("assets");
    let mut position = store.claim(&[0]).await.unwrap()[0].next_offset;
    let (mut done, mut last) = (0, 0..0);
    let everything = Step::Apply(log.len());
    for step in steps.iter().chain([&everything]) {
        match step {
            Step::Apply(count) => {
                last = done..(done + count).min(log.len());
                let Some(end) = log[last.clone()].last() else { continue };
                let to = end.offset + 1;
                let applied = store.apply(&log[last.clone()], &[span(0, position, to)]).await.unwrap();
                assert_eq!(applied.total(), last.len() as u64);
                assert_eq!(applied.stale, 0);
                (done, position) = (last.end, to);
            }
            Step::Redrive(index) if done > 0 => {
                // A record whose key has a later one is refused; the last one of a key is there already.
                let record = index.get(&log[..done]).clone();
                let applied = store.apply(&[record], &[span(0, position, position)]).await.unwrap();
                assert_eq!(applied.stale + applied.unchanged, 1);
            }
            Step::TakeOver => {
                store = subject.open("assets");
                assert_eq!(store.claim(&[0]).await.unwrap()[0].next_offset, position);
            }
            Step::Repeat if !last.is_empty() => {
                let from = log[last.start].offset;
                let again = store.apply(&log[last.clone()], &[span(0, from, position)]).await;
                assert!(matches!(again, Err(StoreError::Advanced { .. })), "{again:?}");
            }
            Step::Redrive(_) | Step::Repeat => {}
        }
        assert_eq!(subject.rows().await, model(&log[..done]));
    }
}

fn on_a_runtime(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
}

proptest! {
    #[test]
    fn memory_is_the_fold_of_its_log(log in changes(), steps in steps()) {
        on_a_runtime(async { the_store_is_the_fold_of_the_log(MemorySubject::new().await, &log, &steps).await });
    }

    #[test]
    fn a_name_is_taken_only_when_quoting_it_can_never_end_early(name in "\\PC{0,70}|[a-z_][a-z0-9_]{0,70}|[a-z\"'; \\x00]{1,20}") {
        let legal = (1..=63).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
            && !name.starts_with(|first: char| first.is_ascii_digit());
        prop_assert_eq!(Name::parse(&name).is_ok(), legal, "{:?}", name);
        let own = ["asset_id", "collection", "__deleted", "__generation", "__partition", "__offset", "__written_at"];
        if !own.contains(&name.as_str()) {
            let table = Table::of_fields(TableName::parse("assets").unwrap(), [(name.as_str(), FieldType::String)]);
            prop_assert_eq!(table.is_ok(), legal);
        }
    }
}

proptest! {
    // Each case makes a file of its own.
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn sqlite_is_the_fold_of_its_log(log in changes(), steps in steps()) {
        on_a_runtime(async { the_store_is_the_fold_of_the_log(SqliteSubject::new().await, &log, &steps).await });
    }
}
