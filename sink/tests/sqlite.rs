//! What only a SQLite file can show.

use windfall_sink::config::SchemaMode;
use windfall_sink::store::sqlite::SqliteStore;
use windfall_sink::store::{AssetStore, Cause, Refusal, StoreError};
use windfall_sink::table::{FieldType, Table, TableName};

use crate::conformance::{record, span};
use crate::subjects::{SqliteSubject, Subject, table};

fn cause(error: &StoreError) -> Option<Cause> {
    match error {
        StoreError::Environment { cause, .. } => Some(*cause),
        _ => None,
    }
}

async fn filled(subject: &SqliteSubject) -> SqliteStore {
    let mut store = subject.open("assets");
    store.claim(&[0]).await.unwrap();
    store.apply(&[record("a", 0, 0, "red")], &[span(0, 0, 1)]).await.unwrap();
    store
}

#[tokio::test]
async fn moments_are_text_in_utc_and_the_file_is_written_ahead() {
    let subject = SqliteSubject::new().await;
    let _store = filled(&subject).await;
    let connection = rusqlite::Connection::open(&subject.path).unwrap();
    let row: (String, f64, bool, i64, String) = connection
        .query_row("select ordered_at, cost, supervised, __version, __deleted from assets", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
        })
        .unwrap();
    assert_eq!(row, ("2026-11-21T09:14:03.250Z".to_owned(), 12.5, true, 7, "false".to_owned()));
    let mode: String = connection.query_row("pragma journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
}

#[tokio::test]
async fn positions_of_an_earlier_version_gain_the_time_of_the_log() {
    let subject = SqliteSubject::new().await;
    drop(filled(&subject).await);
    let connection = rusqlite::Connection::open(&subject.path).unwrap();
    connection.execute_batch("alter table windfall_positions drop column log_time").unwrap();
    let claimed = subject.open("assets").claim(&[0]).await.unwrap();
    assert_eq!((claimed[0].next_offset, claimed[0].log_time), (1, None));
}

#[tokio::test]
async fn a_file_that_another_process_writes_is_locked_and_heals() {
    let subject = SqliteSubject::new().await;
    let mut store = filled(&subject).await;
    let other = rusqlite::Connection::open(&subject.path).unwrap();
    other.execute_batch("begin immediate").unwrap();
    let batch = [record("b", 0, 1, "blue")];
    let error = store.apply(&batch, &[span(0, 1, 2)]).await.unwrap_err();
    assert_eq!(cause(&error), Some(Cause::Locked), "{error:?}");
    other.execute_batch("rollback").unwrap();
    store.apply(&batch, &[span(0, 1, 2)]).await.unwrap();
    assert_eq!(subject.rows().await.len(), 2);
}

#[tokio::test]
async fn what_is_no_database_is_unusable_and_left_alone() {
    let subject = SqliteSubject::new().await;
    std::fs::create_dir_all(subject.path.parent().unwrap()).unwrap();
    std::fs::write(
        &subject.path,
        "these are a user's notes, not a database, and longer than a header of one hundred bytes is",
    )
    .unwrap();
    let error = subject.open("assets").claim(&[0]).await.unwrap_err();
    assert_eq!(cause(&error), Some(Cause::Connection), "{error:?}");
    assert!(std::fs::read_to_string(&subject.path).unwrap().starts_with("these are"));
}

#[tokio::test]
async fn evolve_adds_columns_validate_names_them_and_a_clash_is_refused() {
    let subject = SqliteSubject::new().await;
    drop(filled(&subject).await);
    let with = |kind| {
        let fields = [("color", FieldType::String), ("site", kind)];
        Table::of_fields(TableName::parse("assets").unwrap(), fields).unwrap()
    };
    let error = subject.with("assets", with(FieldType::String), SchemaMode::Validate).claim(&[0]).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Refused(Refusal::Shape { remedy, .. }) if remedy.contains("add column \"site\"")),
        "{error:?}"
    );
    subject.with("assets", with(FieldType::String), SchemaMode::Evolve).claim(&[0]).await.unwrap();
    let error = subject.with("assets", with(FieldType::Integer), SchemaMode::Evolve).claim(&[0]).await.unwrap_err();
    assert!(matches!(&error, StoreError::Refused(Refusal::Shape { remedy, .. }) if remedy.is_empty()), "{error:?}");
    assert_eq!(subject.rows().await.len(), 1);
}

#[tokio::test]
async fn a_table_dropped_by_hand_is_not_made_again_in_silence() {
    let subject = SqliteSubject::new().await;
    drop(filled(&subject).await);
    rusqlite::Connection::open(&subject.path).unwrap().execute_batch("drop table assets").unwrap();
    let error = subject.open("assets").claim(&[0]).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused(Refusal::Vanished { .. })), "{error:?}");
}

#[tokio::test]
async fn a_file_that_was_removed_is_filled_from_the_start_after_a_restart() {
    let subject = SqliteSubject::new().await;
    drop(filled(&subject).await);
    assert_eq!(subject.open("assets").claim(&[0]).await.unwrap()[0].next_offset, 1);
    std::fs::remove_dir_all(subject.path.parent().unwrap()).unwrap();
    let mut store = subject.open("assets");
    assert_eq!(store.claim(&[0]).await.unwrap()[0].next_offset, 0);
    assert!(subject.rows().await.is_empty());
    store.apply(&[record("a", 0, 0, "red")], &[span(0, 0, 1)]).await.unwrap();
    assert_eq!(subject.rows().await.len(), 1);
}

#[tokio::test]
async fn a_check_makes_no_file_and_tells_every_statement_that_a_start_runs() {
    let subject = SqliteSubject::new().await;
    let ddl = subject.open("assets").check().await.unwrap();
    assert!(!subject.path.parent().unwrap().exists());
    assert_eq!(ddl.len(), 3, "{ddl:?}");
    std::fs::create_dir_all(subject.path.parent().unwrap()).unwrap();
    rusqlite::Connection::open(&subject.path).unwrap().execute_batch(&ddl.join("; ")).unwrap();
    let mut store = subject.with("assets", table("assets"), SchemaMode::Validate);
    assert_eq!(store.check().await.unwrap(), [""; 0]);
    store.claim(&[0]).await.unwrap();
}

/// The kernel's own file system takes no files, whoever asks.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_file_in_a_folder_that_takes_none_is_read_only() {
    let mut subject = SqliteSubject::new().await;
    for path in ["/sys/windfall/assets.db", "/sys/assets.db"] {
        subject.path = path.into();
        assert_eq!(cause(&subject.open("assets").claim(&[0]).await.unwrap_err()), Some(Cause::ReadOnly), "{path}");
    }
}
