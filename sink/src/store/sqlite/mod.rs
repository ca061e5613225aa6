//! SQLite: one file, one thread that owns it, the same contract as every store.

mod classify;
mod statements;
mod worker;

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::oneshot;

use self::worker::{Job, Worker};
use super::{Applied, AssetStore, Cause, Claimed, Identity, Span, StoreError};
use crate::asset::AssetChange;
use crate::config::SchemaMode;
use crate::table::Table;

/// How long a lock of another process is waited for before the batch counts as failed.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the thread may take for one job: a disk that answers later than this is in trouble.
const PATIENCE: Duration = Duration::from_secs(35);

/// A SQLite file as a store.
///
/// The file is opened by the first call, and again after each environment error. A call that is dropped half-way
/// still ends on the thread; the next one stands behind it.
pub struct SqliteStore {
    file: SqliteFile,
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
    #[must_use]
    pub fn new(path: PathBuf, identity: Identity, table: Table, mode: SchemaMode) -> Self {
        Self { file: SqliteFile { path, identity, table, mode, busy_timeout: BUSY_TIMEOUT }, worker: None }
    }

    /// Sets how long a lock of another process is waited for.
    #[must_use]
    pub fn with_busy_timeout(mut self, busy_timeout: Duration) -> Self {
        self.file.busy_timeout = busy_timeout;
        self
    }

    /// Has the thread do one job.
    async fn ask<T>(
        &mut self,
        job: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Job,
    ) -> Result<T, StoreError> {
        let (answer, outcome) = oneshot::channel();
        let worker = match &self.worker {
            Some(worker) => worker,
            None => self.worker.insert(Worker::start(self.file.clone())?),
        };
        let gone = || StoreError::environment(Cause::Internal, "the thread of the file has ended");
        worker.send(job(answer)).map_err(|()| gone())?;
        match tokio::time::timeout(PATIENCE, outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => {
                self.worker = None;
                Err(gone())
            }
            Err(_) => Err(StoreError::environment(Cause::TimedOut, "the file was not written in time")),
        }
    }
}

impl AssetStore for SqliteStore {
    async fn claim(&mut self, partitions: &[i32]) -> Result<Vec<Claimed>, StoreError> {
        let partitions = partitions.to_vec();
        self.ask(|answer| Job::Claim { partitions, answer }).await
    }

    async fn apply(&mut self, batch: &[AssetChange], spans: &[Span]) -> Result<Applied, StoreError> {
        let (batch, spans) = (batch.to_vec(), spans.to_vec());
        self.ask(|answer| Job::Apply { batch, spans, answer }).await
    }

    async fn check(&mut self) -> Result<(), StoreError> {
        self.ask(|answer| Job::Check { answer }).await
    }
}
