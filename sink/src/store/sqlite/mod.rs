//! SQLite: one file, one thread that owns it, the same contract as every store.

mod catalogue;
mod classify;
mod statements;
mod worker;

use std::path::PathBuf;
use std::time::Duration;

use self::worker::{Owner, Worker};
use super::{Applied, AssetStore, Cause, Claimed, Identity, Span, StoreError, StoreProgress};
use crate::asset::AssetChange;
use crate::config::SchemaMode;
use crate::table::Table;

/// How long a lock of another process is waited for before the batch counts as failed.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the thread may take for one job: a disk that answers later than this is in trouble.
const PATIENCE: Duration = Duration::from_secs(35);

/// A SQLite file as a store.
///
/// The file is opened by the first call, and again after each environment error. A call that is dropped or has timed out
/// half-way still ends on the thread, and until it has, no other is handed over: the next waits for its turn, within its own
/// time. One that is dropped before its turn never begins.
pub struct SqliteStore {
    file: SqliteFile,
    patience: Duration,
    worker: Option<Worker>,
}

/// What the thread has to know of its file.
#[derive(Debug, Clone)]
struct SqliteFile {
    path: PathBuf,
    identity: Identity,
    table: Table,
    mode: SchemaMode,
    busy_timeout: Duration,
}

impl SqliteStore {
    /// Makes a store whose file is not open yet. The table's schema is ignored: SQLite has none.
    pub fn new(path: PathBuf, identity: Identity, table: Table, mode: SchemaMode) -> Self {
        let file = SqliteFile { path, identity, table, mode, busy_timeout: BUSY_TIMEOUT };
        Self { file, patience: PATIENCE, worker: None }
    }

    /// Sets how long a lock of another process is waited for.
    #[must_use]
    pub fn with_busy_timeout(mut self, busy_timeout: Duration) -> Self {
        self.file.busy_timeout = busy_timeout;
        self
    }

    /// Takes every position back to the start under the next generation, so that all rows are older than what is read from then on.
    pub(crate) async fn accept(&mut self) -> Result<(), StoreError> {
        self.ask(Owner::accept).await
    }

    /// Has the thread do one job, when it has ended the one before.
    async fn ask<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Owner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let worker = match &self.worker {
            Some(worker) => worker,
            None => self.worker.insert(Worker::start(self.file.clone())?),
        };
        match tokio::time::timeout(self.patience, worker.ask(work)).await {
            Ok(Some(outcome)) => outcome,
            Ok(None) => {
                self.worker = None;
                Err(StoreError::environment(Cause::Internal, "the thread of the file has ended"))
            }
            Err(_) => Err(StoreError::environment(Cause::TimedOut, "the file was not written in time")),
        }
    }
}

impl AssetStore for SqliteStore {
    async fn claim(&mut self, partitions: &[i32]) -> Result<Vec<Claimed>, StoreError> {
        let partitions = partitions.to_vec();
        self.ask(move |owner| owner.claim(&partitions)).await
    }

    async fn apply(&mut self, batch: &[AssetChange], spans: &[Span]) -> Result<Applied, StoreError> {
        let (batch, spans) = (batch.to_vec(), spans.to_vec());
        self.ask(move |owner| owner.apply(&batch, &spans)).await
    }

    async fn check(&mut self) -> Result<Vec<String>, StoreError> {
        self.ask(|owner| owner.check()).await
    }

    async fn held(&mut self) -> Result<StoreProgress, StoreError> {
        self.ask(|owner| owner.held()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{FieldType, TableName};

    /// Long enough for any job that nothing holds up.
    const LONG: Duration = Duration::from_secs(60);

    fn cause(error: &StoreError) -> Option<Cause> {
        match error {
            StoreError::Environment { cause, .. } => Some(*cause),
            _ => None,
        }
    }

    fn epoch(connection: &rusqlite::Connection) -> i64 {
        connection.query_row("select epoch from windfall_positions", [], |row| row.get(0)).unwrap()
    }

    #[tokio::test]
    async fn while_the_disk_hangs_nothing_is_queued_that_would_run_later() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("assets.db");
        let identity = Identity { sink: "assets".to_owned(), topic: "assets.devices".to_owned() };
        let table = Table::of_fields(TableName::parse("assets").unwrap(), [("color", FieldType::String)]).unwrap();
        let mut store = SqliteStore::new(path.clone(), identity, table, SchemaMode::Evolve).with_busy_timeout(LONG);
        store.claim(&[0]).await.unwrap();
        let disk = rusqlite::Connection::open(path).unwrap();
        assert_eq!(epoch(&disk), 1);
        disk.execute_batch("begin immediate").unwrap();
        store.patience = Duration::from_millis(50);
        for _ in 0..5 {
            let error = store.claim(&[0]).await.unwrap_err();
            assert_eq!(cause(&error), Some(Cause::TimedOut), "{error:?}");
        }
        disk.execute_batch("rollback").unwrap();
        store.patience = LONG;
        store.check().await.unwrap();
        assert_eq!(epoch(&disk), 2, "the claim that was under way has ended, and none came after it");
    }
}
