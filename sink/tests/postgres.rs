//! What only a real PostgreSQL can show.

use windfall_services::{Postgres, PostgresOptions};
use windfall_sink::asset::{AssetChange, Content, FieldValue};
use windfall_sink::config::SchemaMode;
use windfall_sink::store::postgres::{Address, PostgresStore};
use windfall_sink::store::{Applied, AssetStore, Cause, Refusal, Span, StoreError};
use windfall_sink::table::{FieldType, Table, TableName};

use crate::conformance::{deleted, record, span, tombstone};
use crate::subjects::{PostgresSubject, Subject, connect, fields, identity};
use windfall_runtime::diagnose::Diagnose as _;

fn cause(error: &StoreError) -> Option<Cause> {
    match error {
        StoreError::Environment { cause, .. } => Some(*cause),
        _ => None,
    }
}

async fn claimed(subject: &PostgresSubject) -> PostgresStore {
    let mut store = subject.open("assets");
    store.claim(&[0]).await.unwrap();
    store
}

#[tokio::test]
async fn every_type_arrives_as_it_was_sent() {
    let subject = PostgresSubject::new().await;
    let mut store = claimed(&subject).await;
    let empty = AssetChange {
        asset_id: "empty".to_owned(),
        partition: 0,
        offset: 1,
        content: Content::Record { fields: vec![FieldValue::Null; 5], deleted: false },
    };
    store.apply(&[record("a", 0, 0, "red"), empty], &[span(0, 0, 2)]).await.unwrap();
    let query = format!(
        "select color, cost, supervised, ordered_at, __version, __deleted, __written_at is not null \
         from {}.assets order by asset_id",
        subject.schema
    );
    let rows = subject.client.query(&query, &[]).await.unwrap();
    let row = &rows[0];
    assert_eq!(row.get::<_, &str>(0), "red");
    assert_eq!(row.get::<_, f64>(1), 12.5);
    assert!(row.get::<_, bool>(2));
    assert_eq!(row.get::<_, chrono::DateTime<chrono::Utc>>(3).to_rfc3339(), "2026-11-21T09:14:03.250+00:00");
    assert_eq!((row.get::<_, i64>(4), row.get::<_, &str>(5), row.get::<_, bool>(6)), (7, "false", true));
    assert_eq!(rows[1].get::<_, Option<f64>>(1), None);
    assert_eq!(rows[1].get::<_, Option<chrono::DateTime<chrono::Utc>>>(3), None);
}

#[tokio::test]
async fn what_the_server_cannot_hold_is_the_records_fault() {
    let subject = PostgresSubject::new().await;
    let mut store = claimed(&subject).await;
    let mut far = fields("red");
    far[3] = FieldValue::Timestamp(chrono::DateTime::<chrono::Utc>::MIN_UTC.timestamp_millis());
    let mut mistyped = fields("red");
    mistyped[1] = FieldValue::String("not a number".to_owned());
    let bad = [
        ("nul", Content::Record { fields: fields("a\0b"), deleted: false }),
        ("far", Content::Record { fields: far, deleted: false }),
        ("mistyped", Content::Record { fields: mistyped, deleted: false }),
        ("short", Content::Record { fields: vec![FieldValue::Null], deleted: false }),
        ("index", Content::Record { fields: fields("red"), deleted: false }),
    ];
    for (name, content) in bad {
        // Random enough that compression does not make it fit into the index.
        let asset_id = if name == "index" {
            (0..9_000).map(|n: u32| char::from_u32(0x4e00 + n.wrapping_mul(2_654_435_761) % 20_000).unwrap()).collect()
        } else {
            name.to_owned()
        };
        let change = AssetChange { asset_id, partition: 0, offset: 0, content };
        let error = store.apply(&[change], &[span(0, 0, 1)]).await.unwrap_err();
        assert!(matches!(error, StoreError::Record { .. }), "{name}: {error:?}");
    }
    store.apply(&[record("a", 0, 0, "red")], &[span(0, 0, 1)]).await.unwrap();
}

#[tokio::test]
async fn a_lock_that_another_session_holds_is_the_environments_fault_and_passes_with_it() {
    let subject = PostgresSubject::new().await;
    let mut store = claimed(&subject).await;
    subject.by_hand("begin; lock table $ in access exclusive mode").await;
    let batch = [record("a", 0, 0, "red")];
    let error = store.apply(&batch, &[span(0, 0, 1)]).await.unwrap_err();
    assert_eq!(cause(&error), Some(Cause::Locked), "{error:?}");
    subject.by_hand("rollback").await;
    store.apply(&batch, &[span(0, 0, 1)]).await.unwrap();
    assert_eq!(subject.rows().await.len(), 1);
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_ended_and_can_be_tried_again() {
    let subject = PostgresSubject::new().await;
    let mut store = claimed(&subject).await;
    subject
        .by_hand(&format!(
            "create function {0}.slow() returns trigger language plpgsql as
             'begin perform pg_catalog.pg_sleep(20); return new; end';
             create trigger slow before insert on $ for each row execute function {0}.slow()",
            subject.schema
        ))
        .await;
    let batch = [record("a", 0, 0, "red")];
    let error = store.apply(&batch, &[span(0, 0, 1)]).await.unwrap_err();
    assert_eq!(cause(&error), Some(Cause::TimedOut), "{error:?}");
    subject.by_hand("drop trigger slow on $").await;
    store.apply(&batch, &[span(0, 0, 1)]).await.unwrap();
}

#[tokio::test]
async fn a_read_only_server_and_a_missing_right_pause_and_heal() {
    let subject = PostgresSubject::new().await;
    claimed(&subject).await;
    let role = format!("{}_writer", subject.schema);
    subject
        .by_hand(&format!(
            "create role {role} login; grant usage on schema {0} to {role};
             grant select, insert, update on all tables in schema {0} to {role}",
            subject.schema
        ))
        .await;
    let url = subject.url.replace("windfall@", &format!("{role}@"));
    let address = Address::parse(&url).unwrap();
    let mut store = PostgresStore::new(address, identity("assets"), subject.table(), SchemaMode::Validate);
    store.claim(&[0]).await.unwrap();
    store.apply(&[record("a", 0, 0, "red"), tombstone("b", 1)], &[span(0, 0, 2)]).await.unwrap();

    subject.by_hand(&format!("revoke insert on $ from {role}")).await;
    let batch = [record("a", 0, 2, "blue")];
    let error = store.apply(&batch, &[span(0, 2, 3)]).await.unwrap_err();
    assert_eq!(cause(&error), Some(Cause::Rights), "{error:?}");
    assert!(error.help().unwrap().contains("grant"));
    subject
        .by_hand(&format!("grant insert on $ to {role}; alter role {role} set default_transaction_read_only = on"))
        .await;
    let mut reader =
        PostgresStore::new(Address::parse(&url).unwrap(), identity("assets"), subject.table(), SchemaMode::Validate);
    let error = reader.claim(&[0]).await.unwrap_err();
    assert_eq!(cause(&error), Some(Cause::ReadOnly), "{error:?}");
    subject.by_hand(&format!("alter role {role} reset default_transaction_read_only")).await;
    store.apply(&batch, &[span(0, 2, 3)]).await.unwrap();
}

#[tokio::test]
async fn a_store_without_a_server_is_unreachable_and_says_so() {
    let port = windfall_services::free_port();
    let address = Address::parse(&format!("postgres://windfall@127.0.0.1:{port}/postgres")).unwrap();
    let table = crate::subjects::table("public.assets");
    let error = PostgresStore::new(address, identity("assets"), table, SchemaMode::Evolve).check().await.unwrap_err();
    assert_eq!(cause(&error), Some(Cause::Connection), "{error:?}");
}

#[tokio::test]
async fn a_server_that_crashed_and_came_back_has_every_batch_once() {
    let options = PostgresOptions::default();
    let server = tokio::task::spawn_blocking(move || Postgres::start(&options)).await.unwrap().unwrap();
    let url = server.url();
    let subject = PostgresSubject::at(&url).await;
    let mut store = claimed(&subject).await;
    store.apply(&[record("a", 0, 0, "red")], &[span(0, 0, 1)]).await.unwrap();
    let server = aside(server, Postgres::stop).await;
    let batch = [record("b", 0, 1, "blue")];
    let error = store.apply(&batch, &[span(0, 1, 2)]).await.unwrap_err();
    assert_eq!(cause(&error), Some(Cause::Connection), "{error:?}");
    let server = aside(server, |server| server.start_again().unwrap()).await;
    heals(&mut store, &batch, &[span(0, 1, 2)]).await;
    let server = aside(server, |server| server.crash_and_restart().unwrap()).await;
    heals(&mut store, &[record("c", 0, 2, "green")], &[span(0, 2, 3)]).await;
    let subject = PostgresSubject { client: connect(&url).await, ..subject };
    assert_eq!(subject.rows().await.len(), 3);
    drop(server);
}

/// Stores a batch: the first try may find its connection broken, the next one has a new one.
async fn heals(store: &mut PostgresStore, batch: &[AssetChange], spans: &[Span]) {
    match store.apply(batch, spans).await {
        Err(error) if cause(&error) == Some(Cause::Connection) => drop(store.apply(batch, spans).await.unwrap()),
        outcome => drop(outcome.unwrap()),
    }
}

/// Does something slow to the server off the async threads.
async fn aside(server: Postgres, act: impl FnOnce(&mut Postgres) + Send + 'static) -> Postgres {
    let acted = tokio::task::spawn_blocking(move || {
        let mut server = server;
        act(&mut server);
        server
    });
    acted.await.unwrap()
}

#[tokio::test]
async fn validate_makes_nothing_and_names_the_statements() {
    let subject = PostgresSubject::new().await;
    let mut store = subject.with("assets", subject.table(), SchemaMode::Validate);
    let error = store.claim(&[0]).await.unwrap_err();
    let StoreError::Refused(Refusal::Shape { remedy, .. }) = &error else { panic!("{error:?}") };
    assert!(remedy.starts_with("create table"), "{remedy}");
    let count = "select count(*) from pg_tables where schemaname = $1";
    assert_eq!(subject.client.query_one(count, &[&subject.schema]).await.unwrap().get::<_, i64>(0), 0);
    claimed(&subject).await;
    store.claim(&[0]).await.unwrap();
}

#[tokio::test]
async fn positions_of_an_earlier_version_gain_the_time_of_the_log() {
    let subject = PostgresSubject::new().await;
    let mut store = claimed(&subject).await;
    store.apply(&[record("a", 0, 0, "red")], &[span(0, 0, 1)]).await.unwrap();
    drop(store);
    let drop_column = format!("alter table {}.windfall_positions drop column log_time", subject.schema);
    subject.client.batch_execute(&drop_column).await.unwrap();
    let error = subject.with("assets", subject.table(), SchemaMode::Validate).claim(&[0]).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Refused(Refusal::Shape { remedy, .. }) if remedy.contains("log_time")),
        "{error:?}"
    );
    let claimed = subject.open("assets").claim(&[0]).await.unwrap();
    assert_eq!((claimed[0].next_offset, claimed[0].log_time), (1, None));
}

#[tokio::test]
async fn evolve_adds_a_column_and_keeps_the_rows() {
    let subject = PostgresSubject::new().await;
    let mut store = claimed(&subject).await;
    store.apply(&[record("a", 0, 0, "red")], &[span(0, 0, 1)]).await.unwrap();
    drop(store);
    let wider = || {
        let fields = [("color", FieldType::String), ("cost", FieldType::Decimal), ("site", FieldType::String)];
        Table::of_fields(TableName::parse(&format!("{}.assets", subject.schema)).unwrap(), fields).unwrap()
    };
    let error = subject.with("assets", wider(), SchemaMode::Validate).claim(&[0]).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Refused(Refusal::Shape { remedy, .. }) if remedy.contains("add column \"site\"")),
        "{error:?}"
    );
    let mut store = subject.with("assets", wider(), SchemaMode::Evolve);
    store.claim(&[0]).await.unwrap();
    let content = Content::Record {
        fields: vec![FieldValue::String("blue".to_owned()), FieldValue::Null, FieldValue::String("Ulm".to_owned())],
        deleted: false,
    };
    let change = AssetChange { asset_id: "b".to_owned(), partition: 0, offset: 1, content };
    store.apply(&[change], &[span(0, 1, 2)]).await.unwrap();
    assert_eq!(subject.rows().await.len(), 2);
}

#[tokio::test]
async fn a_column_of_another_type_is_refused_and_never_changed() {
    let subject = PostgresSubject::new().await;
    claimed(&subject).await;
    subject.by_hand("alter table $ alter column cost type text").await;
    let error = subject.open("assets").claim(&[0]).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Refused(Refusal::Shape { faults, .. }) if faults[0].contains("`cost` is text")),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_column_dropped_by_hand_pauses_the_sink_and_comes_back_with_evolve() {
    let subject = PostgresSubject::new().await;
    let mut store = claimed(&subject).await;
    subject.by_hand("alter table $ drop column cost").await;
    let batch = [record("a", 0, 0, "red")];
    let error = store.apply(&batch, &[span(0, 0, 1)]).await.unwrap_err();
    assert_eq!(cause(&error), Some(Cause::Shape), "{error:?}");
    let applied = store.apply(&batch, &[span(0, 0, 1)]).await.unwrap();
    assert_eq!(applied, Applied { applied: 1, ..Applied::default() });
}

#[tokio::test]
async fn a_table_dropped_by_hand_is_not_made_again_in_silence() {
    let subject = PostgresSubject::new().await;
    let mut store = claimed(&subject).await;
    store.apply(&[record("a", 0, 0, "red")], &[span(0, 0, 1)]).await.unwrap();
    subject.by_hand("drop table $").await;
    let batch = [record("a", 0, 1, "blue")];
    assert_eq!(cause(&store.apply(&batch, &[span(0, 1, 2)]).await.unwrap_err()), Some(Cause::Shape));
    let error = store.apply(&batch, &[span(0, 1, 2)]).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused(Refusal::Vanished { .. })), "{error:?}");
}

#[tokio::test]
async fn a_sink_does_not_carry_its_positions_to_another_table() {
    let subject = PostgresSubject::new().await;
    claimed(&subject).await;
    let other = crate::subjects::table(&format!("{}.others", subject.schema));
    let error = subject.with("assets", other, SchemaMode::Evolve).claim(&[0]).await.unwrap_err();
    assert!(matches!(error, StoreError::Refused(Refusal::OtherTable { .. })), "{error:?}");
}

#[tokio::test]
async fn names_are_looked_up_nowhere_but_in_the_schema_that_was_named() {
    let subject = PostgresSubject::new().await;
    let store = claimed(&subject).await;
    let role = format!("{}_walker", subject.schema);
    subject
        .by_hand(&format!(
            "create schema {role}; create table {role}.assets (like $ including all);
             create function {role}.never(text, text) returns boolean language sql as 'select false';
             create function {role}.never(bigint, bigint) returns boolean language sql as 'select false';
             create function {role}.never(integer, integer) returns boolean language sql as 'select false';
             create operator {role}.= (leftarg = text, rightarg = text, function = {role}.never);
             create operator {role}.= (leftarg = bigint, rightarg = bigint, function = {role}.never);
             create operator {role}.= (leftarg = integer, rightarg = integer, function = {role}.never);
             create function {role}.now() returns timestamptz language sql as 'select null::timestamptz';
             create role {role} login superuser; alter role {role} set search_path = {role}, pg_catalog"
        ))
        .await;
    let address = Address::parse(&subject.url.replace("windfall@", &format!("{role}@"))).unwrap();
    drop(store);
    let mut store = PostgresStore::new(address, identity("assets"), subject.table(), SchemaMode::Evolve);
    store.claim(&[0]).await.unwrap();
    store.apply(&[record("a", 0, 0, "red"), tombstone("b", 1)], &[span(0, 0, 2)]).await.unwrap();
    store.apply(&[deleted("b", 2, "red"), tombstone("a", 3)], &[span(0, 2, 4)]).await.unwrap();
    let rows = subject.rows().await;
    assert!(rows["a"].1 && rows["b"].1, "{rows:?}");
    let undated = format!("select count(*) from {}.assets where __written_at is null", subject.schema);
    assert_eq!(subject.client.query_one(&undated, &[]).await.unwrap().get::<_, i64>(0), 0);
    let trapped = format!("select count(*) from {role}.assets");
    assert_eq!(subject.client.query_one(&trapped, &[]).await.unwrap().get::<_, i64>(0), 0);
}

#[tokio::test]
async fn two_sinks_that_write_at_once_never_wait_for_each_other_in_a_circle() {
    let subject = PostgresSubject::new().await;
    let mut first = subject.open("assets");
    first.claim(&[0, 1]).await.unwrap();
    let mut second = subject.open("assets");
    second.claim(&[1]).await.unwrap();
    // The same assets in opposite order of offsets, as when two partitions feed one row.
    let (mut from0, mut from1) = (0, 0);
    for _ in 0..20 {
        let up: Vec<_> = (0..50).map(|n| record(&format!("a{n}"), 0, from0 + n, "red")).collect();
        let down: Vec<_> = (0..50).map(|n| record(&format!("a{}", 49 - n), 1, from1 + n, "blue")).collect();
        let (up_spans, down_spans) = ([span(0, from0, from0 + 50)], [span(1, from1, from1 + 50)]);
        let (one, two) = tokio::join!(first.apply(&up, &up_spans), second.apply(&down, &down_spans));
        one.unwrap();
        two.unwrap();
        (from0, from1) = (from0 + 50, from1 + 50);
    }
    assert!(subject.rows().await.values().all(|(_, _, (_, partition, _))| *partition == 1));
}

#[tokio::test]
async fn five_thousand_rows_go_in_one_statement() {
    let subject = PostgresSubject::new().await;
    let mut store = claimed(&subject).await;
    let batch: Vec<_> = (0..5_000).map(|n| record(&format!("a{n}"), 0, n, "red")).collect();
    assert_eq!(store.apply(&batch, &[span(0, 0, 5_000)]).await.unwrap().applied, 5_000);
}

#[tokio::test]
async fn a_database_that_cannot_hold_every_text_is_refused_once_and_in_words() {
    let subject = PostgresSubject::new().await;
    let database = format!("{}_latin", subject.schema);
    subject
        .by_hand(&format!(
            "create database {database} encoding 'LATIN1' lc_collate 'C' lc_ctype 'C' template template0"
        ))
        .await;
    let url = subject.url.replace("/postgres", &format!("/{database}"));
    let store = || {
        let (address, table) = (Address::parse(&url).unwrap(), crate::subjects::table("public.assets"));
        PostgresStore::new(address, identity("assets"), table, SchemaMode::Evolve)
    };
    for error in [store().claim(&[0]).await.unwrap_err(), store().check().await.unwrap_err()] {
        assert!(matches!(error, StoreError::Refused(Refusal::Encoding { .. })), "{error:?}");
        assert!(error.to_string().contains("LATIN1"), "{error}");
        assert!(error.help().unwrap().contains("UTF8"), "{error:?}");
    }
    let client = connect(&url).await;
    let tables = client.query_one("select count(*) from pg_tables where schemaname = 'public'", &[]).await.unwrap();
    assert_eq!(tables.get::<_, i64>(0), 0, "nothing was made there");
    drop(client);
    subject.by_hand(&format!("drop database {database} with (force)")).await;
}

#[tokio::test]
async fn what_an_address_gives_as_options_reaches_the_server_as_it_was_written() {
    let subject = PostgresSubject::new().await;
    let owner = format!("{}_owner", subject.schema);
    subject.by_hand(&format!("create role {owner}; grant all on schema {} to {owner}", subject.schema)).await;
    let url = format!("{}?options=-c%20role%3D{owner}", subject.url);
    let mut store =
        PostgresStore::new(Address::parse(&url).unwrap(), identity("assets"), subject.table(), SchemaMode::Evolve);
    store.claim(&[0]).await.unwrap();
    let made = "select tableowner::text from pg_tables where schemaname = $1 and tablename = 'assets'";
    assert_eq!(subject.client.query_one(made, &[&subject.schema]).await.unwrap().get::<_, &str>(0), owner);
}

#[tokio::test]
async fn a_trigger_of_the_user_finds_its_tables_by_the_search_path_of_the_role() {
    let subject = PostgresSubject::new().await;
    let mut store = claimed(&subject).await;
    let seen = format!("{}_seen", subject.schema);
    subject
        .by_hand(&format!(
            "create table public.{seen} (asset_id text);
             create function {0}.note() returns trigger language plpgsql as
             'begin insert into {seen} values (new.asset_id); return new; end';
             create trigger note after insert on $ for each row execute function {0}.note()",
            subject.schema
        ))
        .await;
    store.apply(&[record("a", 0, 0, "red")], &[span(0, 0, 1)]).await.unwrap();
    let noted = subject.client.query_one(&format!("select count(*) from public.{seen}"), &[]).await.unwrap();
    assert_eq!(noted.get::<_, i64>(0), 1);
    subject.by_hand(&format!("drop table public.{seen}")).await;
}

#[tokio::test]
async fn a_check_makes_nothing_and_tells_every_statement_that_a_start_runs() {
    let subject = PostgresSubject::new().await;
    let ddl = subject.open("assets").check().await.unwrap();
    let tables = format!("select count(*) from pg_tables where schemaname = '{}'", subject.schema);
    assert_eq!(subject.client.query_one(&tables, &[]).await.unwrap().get::<_, i64>(0), 0);
    assert_eq!(ddl.len(), 3, "{ddl:?}");
    subject.by_hand(&ddl.join("; ")).await;
    let mut store = subject.with("assets", subject.table(), SchemaMode::Validate);
    assert_eq!(store.check().await.unwrap(), [""; 0]);
    store.claim(&[0]).await.unwrap();
    store.apply(&[record("a", 0, 0, "red")], &[span(0, 0, 1)]).await.unwrap();
    subject.by_hand("alter table $ drop column cost").await;
    let ddl = subject.open("assets").check().await.unwrap();
    assert!(ddl.len() == 1 && ddl[0].contains("add column \"cost\""), "{ddl:?}");
}
