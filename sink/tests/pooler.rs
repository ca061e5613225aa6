//! A sink that shares the server's connections with other programs, behind a real PgBouncer in transaction mode.

use windfall_services::Pooler;
use windfall_sink::config::SchemaMode;
use windfall_sink::store::postgres::{Address, PostgresStore};
use windfall_sink::store::{Applied, AssetStore};

use crate::conformance::{deleted, record, span, tombstone};
use crate::subjects::{PostgresSubject, Subject, connect, identity, unique};

async fn pooler(subject: &PostgresSubject) -> Pooler {
    let port = subject.url.rsplit([':', '/']).nth(1).unwrap().parse().unwrap();
    tokio::task::spawn_blocking(move || Pooler::start(port)).await.unwrap().unwrap()
}

/// What another program can tell of the connection that it is lent.
const TRACES: &str = "select (select string_agg(name || '=' || setting, ' ' order by name) from pg_settings \
    where name in ('search_path', 'lock_timeout', 'statement_timeout', 'idle_in_transaction_session_timeout', 'TimeZone', \
    'default_transaction_isolation')) || ' statements=' || (select count(*) from pg_prepared_statements) \
    || ' locks=' || (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid())";

#[tokio::test]
async fn other_programs_behind_the_same_pooler_notice_nothing_of_the_sink() {
    let subject = PostgresSubject::new().await;
    let pooler = pooler(&subject).await;
    let theirs = unique("theirs");
    // A table that the other program finds by its role's own search_path, as most programs do.
    subject.by_hand(&format!("create table public.{theirs} (id bigint)")).await;
    let other = connect(&pooler.url()).await;
    let traces = async || match &other.simple_query(TRACES).await.unwrap()[1] {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).unwrap().to_owned(),
        message => panic!("{message:?}"),
    };
    let before = traces().await;
    let address = Address::parse(&pooler.url()).unwrap();
    let mut store = PostgresStore::new(address, identity("assets"), subject.table(), SchemaMode::Evolve);
    store.claim(&[0]).await.unwrap();
    assert_eq!(traces().await, before);
    for offset in 0..30 {
        let at = offset * 3;
        let batch = [record("a", 0, at, "red"), deleted("b", at + 1, "red"), tombstone("c", at + 2)];
        let applied = store.apply(&batch, &[span(0, at, at + 3)]).await.unwrap();
        assert_eq!(applied, Applied { applied: 1, deleted: 1, unchanged: 1, ..Applied::default() });
        other.batch_execute(&format!("insert into {theirs} values ({offset})")).await.unwrap();
        assert_eq!(traces().await, before);
    }
    let error = store.apply(&[], &[span(0, 7, 8)]).await.unwrap_err();
    assert!(matches!(error, windfall_sink::store::StoreError::Advanced { found: 90, .. }), "{error:?}");
    assert_eq!(traces().await, before);
    assert_eq!(subject.rows().await.len(), 2);
    subject.by_hand(&format!("drop table public.{theirs}")).await;
}
