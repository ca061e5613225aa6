//! The stores under test, each made empty and looked into by means other than its own.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, NoTls};
use windfall_sink::asset::FieldValue;
use windfall_sink::config::SchemaMode;
use windfall_sink::store::memory::{Memory, MemoryStore};
use windfall_sink::store::postgres::{Address, Deadlines, PostgresStore};
use windfall_sink::store::sqlite::SqliteStore;
use windfall_sink::table::Table;

pub(crate) use windfall_sink::conformance::{Seen, Subject, fields, identity, table};

/// Returns a name that no other test of any run has.
pub(crate) fn unique(prefix: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros();
    format!("{prefix}_{}_{since}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) struct MemorySubject(Memory);

impl MemorySubject {
    pub(crate) async fn new() -> Self {
        Self(Memory::default())
    }
}

impl Subject for MemorySubject {
    type Store = MemoryStore;

    fn open(&self, sink: &str) -> MemoryStore {
        self.0.open(sink, &identity(sink).topic)
    }

    async fn poison(&self, color: &str) -> bool {
        self.0.poison(FieldValue::String(color.to_owned()));
        true
    }

    async fn rows(&self) -> BTreeMap<String, Seen> {
        let color = |fields: &[FieldValue]| match &fields[0] {
            FieldValue::String(color) => Some(color.clone()),
            _ => None,
        };
        self.0.rows().into_iter().map(|(id, row)| (id, (color(&row.fields), row.deleted, row.guard))).collect()
    }
}

pub(crate) struct SqliteSubject {
    _folder: Arc<tempfile::TempDir>,
    pub(crate) path: PathBuf,
}

impl SqliteSubject {
    pub(crate) async fn new() -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let path = folder.path().join("deep").join("assets.db");
        Self { _folder: folder, path }
    }

    pub(crate) fn with(&self, sink: &str, table: Table, mode: SchemaMode) -> SqliteStore {
        SqliteStore::new(self.path.clone(), identity(sink), table, mode).with_busy_timeout(Duration::from_millis(200))
    }
}

impl Subject for SqliteSubject {
    type Store = SqliteStore;

    fn open(&self, sink: &str) -> SqliteStore {
        self.with(sink, table("assets"), SchemaMode::Evolve)
    }

    async fn poison(&self, color: &str) -> bool {
        let connection = rusqlite::Connection::open(&self.path).unwrap();
        connection
            .execute_batch(&format!(
                "create trigger poison before insert on assets when new.color = '{color}' \
                 begin select raise(abort, 'poison'); end"
            ))
            .unwrap();
        true
    }

    async fn rows(&self) -> BTreeMap<String, Seen> {
        let connection = rusqlite::Connection::open(&self.path).unwrap();
        let mut statement = connection
            .prepare("select asset_id, color, __deleted, __generation, __partition, __offset from assets")
            .unwrap();
        let rows = statement.query_map([], |row| {
            let deleted = row.get::<_, String>(2)? == "true";
            Ok((row.get(0)?, (row.get(1)?, deleted, (row.get(3)?, row.get(4)?, row.get(5)?))))
        });
        rows.unwrap().map(Result::unwrap).collect()
    }
}

pub(crate) struct PostgresSubject {
    pub(crate) schema: String,
    pub(crate) url: String,
    pub(crate) client: tokio_postgres::Client,
}

impl PostgresSubject {
    pub(crate) async fn new() -> Self {
        let url = tokio::task::spawn_blocking(windfall_services::postgres).await.unwrap();
        Self::at(url).await
    }

    pub(crate) async fn at(url: &str) -> Self {
        let schema = unique("sink");
        let client = connect(url).await;
        client.batch_execute(&format!("create schema {schema}")).await.unwrap();
        Self { schema, url: url.to_owned(), client }
    }

    pub(crate) fn table(&self) -> Table {
        table(&format!("{}.assets", self.schema))
    }

    pub(crate) fn with(&self, sink: &str, table: Table, mode: SchemaMode) -> PostgresStore {
        let deadlines = Deadlines {
            lock: Duration::from_millis(200),
            statement: Duration::from_secs(5),
            grace: Duration::from_secs(2),
        };
        PostgresStore::new(Address::parse(&self.url).unwrap(), identity(sink), table, mode).with_deadlines(deadlines)
    }

    /// Has the server tell of changes to the table, which exists by now.
    pub(crate) async fn changes(&self) -> Changes {
        self.by_hand(&format!(
            "create or replace function {0}.tell() returns trigger language plpgsql as
             'begin perform pg_notify(''{0}'', null); return null; end';
             create or replace trigger tell after insert or update on $ execute function {0}.tell()",
            self.schema
        ))
        .await;
        let (client, mut connection) = tokio_postgres::connect(&self.url, NoTls).await.unwrap();
        let (tell, told) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
                if matches!(message, AsyncMessage::Notification(_)) && tell.send(()).is_err() {
                    return;
                }
            }
        });
        client.batch_execute(&format!("listen {}", self.schema)).await.unwrap();
        Changes { _client: client, told }
    }

    /// Runs statements by hand, with `$` standing for the table.
    pub(crate) async fn by_hand(&self, statements: &str) {
        let table = format!("{}.assets", self.schema);
        self.client.batch_execute(&statements.replace('$', &table)).await.unwrap();
    }
}

/// Tells of each statement that changes the table of a subject, once it is committed.
pub(crate) struct Changes {
    _client: tokio_postgres::Client,
    told: mpsc::UnboundedReceiver<()>,
}

impl Changes {
    /// Waits for the next change.
    pub(crate) async fn next(&mut self) {
        self.told.recv().await.expect("the server goes on telling");
    }
}

/// Looks again every few milliseconds until something holds: the status registry tells nobody that it has changed.
pub(crate) async fn until(mut holds: impl FnMut() -> bool) {
    let mut look = tokio::time::interval(Duration::from_millis(10));
    while !holds() {
        look.tick().await;
    }
}

pub(crate) async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

impl Subject for PostgresSubject {
    type Store = PostgresStore;

    fn open(&self, sink: &str) -> PostgresStore {
        self.with(sink, self.table(), SchemaMode::Evolve)
    }

    async fn poison(&self, color: &str) -> bool {
        self.by_hand(&format!("alter table $ add constraint no_poison check (color <> '{color}')")).await;
        true
    }

    async fn rows(&self) -> BTreeMap<String, Seen> {
        let text = format!(
            "select asset_id, color, __deleted, __generation, __partition, __offset from {}.assets",
            self.schema
        );
        let rows = self.client.query(&text, &[]).await.unwrap();
        rows.iter()
            .map(|row| {
                let deleted = row.get::<_, &str>(2) == "true";
                (row.get(0), (row.get(1), deleted, (row.get(3), row.get(4), row.get(5))))
            })
            .collect()
    }
}
