//! Tables with a unique index of the user's own, whose values move from one asset to another.

use windfall_sink::store::{Applied, AssetStore, StoreError};

use crate::conformance::{record, span};
use crate::subjects::{PostgresSubject, SqliteSubject, Subject};

async fn colors(subject: &impl Subject) -> Vec<(String, String)> {
    subject.rows().await.into_iter().map(|(id, (color, ..))| (id, color.unwrap_or_default())).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(id, color)| ((*id).to_owned(), (*color).to_owned())).collect()
}

async fn values_that_move_among_the_assets_of_a_batch_arrive(subject: &impl Subject) {
    let mut store = subject.open("assets");
    store.claim(&[0]).await.unwrap();
    let swap = [record("a", 0, 10, "blue"), record("b", 0, 11, "red")];
    let applied = store.apply(&swap, &[span(0, 10, 12)]).await.unwrap();
    assert_eq!(applied, Applied { applied: 2, ..Applied::default() });
    assert_eq!(colors(subject).await, pairs(&[("a", "blue"), ("b", "red"), ("c", "grey")]));
    // A chain whose last value is new, and a record from before that must not take anything from its row.
    let chain =
        [record("c", 0, 2, "pink"), record("a", 0, 12, "red"), record("b", 0, 13, "gold"), record("d", 0, 14, "blue")];
    let applied = store.apply(&chain, &[span(0, 12, 15)]).await.unwrap();
    assert_eq!(applied, Applied { applied: 3, stale: 1, ..Applied::default() });
    assert_eq!(colors(subject).await, pairs(&[("a", "red"), ("b", "gold"), ("c", "grey"), ("d", "blue")]));
}

async fn a_value_that_another_asset_keeps_is_refused_by_the_records_place(subject: &impl Subject) -> String {
    let mut store = subject.open("assets");
    store.claim(&[0]).await.unwrap();
    let batch = [record("a", 0, 10, "blue"), record("d", 0, 11, "grey"), record("b", 0, 12, "red")];
    let error = store.apply(&batch, &[span(0, 10, 13)]).await.unwrap_err();
    let StoreError::Record { at, source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*at, Some((0, 11)), "{error:?}");
    assert_eq!(colors(subject).await, pairs(&[("a", "red"), ("b", "blue"), ("c", "grey")]), "nothing of it stays");
    let rest = [batch[0].clone(), batch[2].clone()];
    store.apply(&rest, &[span(0, 10, 13)]).await.unwrap();
    assert_eq!(colors(subject).await, pairs(&[("a", "blue"), ("b", "red"), ("c", "grey")]));
    source.to_string()
}

/// Three assets with a colour each, and an index that lets no two share one.
async fn filled(subject: &impl Subject, make_index: impl AsyncFnOnce()) {
    let mut store = subject.open("assets");
    store.claim(&[0]).await.unwrap();
    let batch = [record("a", 0, 7, "red"), record("b", 0, 8, "blue"), record("c", 0, 9, "grey")];
    store.apply(&batch, &[span(0, 0, 10)]).await.unwrap();
    make_index().await;
}

#[tokio::test]
async fn postgres_takes_values_that_move_and_names_the_index_where_one_is_kept() {
    for index in ["create unique index users_own on $ (color)", "alter table $ add constraint users_own unique (color)"]
    {
        let subject = PostgresSubject::new().await;
        filled(&subject, async || subject.by_hand(index).await).await;
        values_that_move_among_the_assets_of_a_batch_arrive(&subject).await;
        let subject = PostgresSubject::new().await;
        filled(&subject, async || subject.by_hand(index).await).await;
        let said = a_value_that_another_asset_keeps_is_refused_by_the_records_place(&subject).await;
        assert!(said.contains("users_own"), "{said}");
    }
}

#[tokio::test]
async fn postgres_takes_values_that_move_under_an_index_on_an_expression_and_keeps_the_users_own_columns() {
    let subject = PostgresSubject::new().await;
    filled(&subject, async || subject.by_hand("create unique index users_own on $ (lower(color))").await).await;
    subject.by_hand("alter table $ add column site text unique; update $ set site = asset_id").await;
    values_that_move_among_the_assets_of_a_batch_arrive(&subject).await;
    let text = format!("select count(*) from {}.assets where site = asset_id", subject.schema);
    assert_eq!(subject.client.query_one(&text, &[]).await.unwrap().get::<_, i64>(0), 3);
}

#[tokio::test]
async fn sqlite_takes_values_that_move_and_names_the_column_where_one_is_kept() {
    for moving in [true, false] {
        let subject = SqliteSubject::new().await;
        let make_index = async || {
            let by_hand = rusqlite::Connection::open(&subject.path).unwrap();
            by_hand.execute_batch("create unique index users_own on assets (color)").unwrap();
        };
        filled(&subject, make_index).await;
        if moving {
            values_that_move_among_the_assets_of_a_batch_arrive(&subject).await;
        } else {
            let said = a_value_that_another_asset_keeps_is_refused_by_the_records_place(&subject).await;
            assert!(said.contains("assets.color"), "{said}");
        }
    }
}
