//! Tables that a user made and filled before the sink came.

use windfall_sink::store::{Applied, AssetStore};

use crate::conformance::{record, span, tombstone};
use crate::subjects::{PostgresSubject, SqliteSubject, Subject};

/// A table as users have them: a key, one of the collection's fields, a column of their own.
const TABLE: &str = "(asset_id text primary key, color text, note text)";
const ROWS: &str = "('a', 'grey', 'mine'), ('b', 'grey', null), ('c', 'grey', null)";

async fn rows_without_a_guard_are_older_than_anything(subject: &impl Subject) {
    let mut store = subject.open("assets");
    store.claim(&[0]).await.unwrap();
    let applied = store.apply(&[record("a", 0, 0, "red"), tombstone("b", 1)], &[span(0, 0, 2)]).await.unwrap();
    assert_eq!(applied, Applied { applied: 1, deleted: 1, ..Applied::default() });
    let again = store.apply(&[record("a", 0, 0, "blue"), tombstone("b", 1)], &[span(0, 2, 3)]).await.unwrap();
    assert_eq!(again, Applied { stale: 1, unchanged: 1, ..Applied::default() }, "from then on the guard holds");
}

#[tokio::test]
async fn a_row_of_an_adopted_postgres_table_is_updated_and_keeps_the_users_own_columns() {
    let subject = PostgresSubject::new().await;
    subject.by_hand(&format!("create table $ {TABLE}; insert into $ values {ROWS}")).await;
    rows_without_a_guard_are_older_than_anything(&subject).await;
    let text = format!(
        "select concat_ws(' ', asset_id, color, coalesce(note, '-'), coalesce(__deleted, '-'), coalesce(__offset::text, '-')) \
         from {}.assets order by asset_id",
        subject.schema
    );
    let rows = subject.client.query(&text, &[]).await.unwrap();
    let seen: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(seen, ["a red mine false 0", "b grey - true 1", "c grey - - -"], "what the topic does not know stays");
}

#[tokio::test]
async fn a_row_of_an_adopted_sqlite_table_is_updated_and_keeps_the_users_own_columns() {
    let subject = SqliteSubject::new().await;
    std::fs::create_dir_all(subject.path.parent().unwrap()).unwrap();
    let by_hand = rusqlite::Connection::open(&subject.path).unwrap();
    by_hand.execute_batch(&format!("create table assets {TABLE}; insert into assets values {ROWS}")).unwrap();
    rows_without_a_guard_are_older_than_anything(&subject).await;
    let row =
        by_hand.query_row("select color, note, __deleted, __offset from assets where asset_id = 'a'", [], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?, row.get::<_, i64>(3)?))
        });
    assert_eq!(row.unwrap(), ("red".to_owned(), "mine".to_owned(), "false".to_owned(), 0));
}
