//! PostgreSQL: arrays through UNNEST, one guarded upsert, and the positions in the same transaction.

mod address;
mod catalogue;
mod session;
mod sqlstate;
mod statements;

use std::collections::BTreeMap;
use std::time::Duration;

use self::catalogue::DIALECT;
use self::session::{Batch, PostgresSession, Target};
use self::statements::Statements;
use super::fold::fold;
use super::{Applied, AssetStore, Claimed, Identity, Span, StoreError, StoreProgress};
use crate::asset::AssetChange;
use crate::config::SchemaMode;
use crate::table::Table;

pub use address::Address;

/// SQLSTATE of a value that a unique index has already, of the user's own: the key's index is what the upsert turns on.
const UNIQUE_VIOLATION: &str = "23505";

/// How long the server may take, and how long we wait beyond that.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// For a lock that another session holds.
    pub lock: Duration,
    /// For one statement, locks included.
    pub statement: Duration,
    /// For the network, on top of the statement: the driver has no time-outs of its own.
    pub grace: Duration,
}

impl Default for Deadlines {
    /// A batch takes tens of milliseconds: what takes ten seconds waits for someone.
    fn default() -> Self {
        Self { lock: Duration::from_secs(10), statement: Duration::from_secs(30), grace: Duration::from_secs(5) }
    }
}

/// A PostgreSQL table as a store.
///
/// Connects when first asked, and again after each environment error: whatever the old connection may still commit
/// holds the lock on the position's row, so that the new one finds out before it writes.
pub struct PostgresStore {
    address: Address,
    target: Target,
    mode: SchemaMode,
    deadlines: Deadlines,
    session: Option<PostgresSession>,
}

impl PostgresStore {
    /// Makes a store that is not connected yet.
    pub fn new(address: Address, identity: Identity, table: Table, mode: SchemaMode) -> Self {
        let statements = Statements::of(&table);
        let target = Target { identity, table, statements, claims: BTreeMap::new() };
        Self { address, target, mode, deadlines: Deadlines::default(), session: None }
    }

    /// Sets other deadlines.
    #[must_use]
    pub fn with_deadlines(mut self, deadlines: Deadlines) -> Self {
        self.deadlines = deadlines;
        self
    }

    /// Takes every position back to the start under the next generation, so that all rows are older than what is read from then on.
    pub(crate) async fn accept(&mut self) -> Result<(), StoreError> {
        let session = self.session().await?;
        let statement = DIALECT.accept(&self.target.table, &self.target.identity);
        session.transaction(session.within(session.client.batch_execute(&statement))).await
    }

    /// Takes the session out, or opens one: a call that is dropped half-way leaves none behind.
    async fn session(&mut self) -> Result<PostgresSession, StoreError> {
        if let Some(session) = self.session.take().filter(|session| !session.client.is_closed()) {
            return Ok(session);
        }
        let session = PostgresSession::open(&self.address, &self.deadlines).await?;
        session.settle(&self.target, self.mode).await?;
        Ok(session)
    }
}

impl AssetStore for PostgresStore {
    async fn claim(&mut self, partitions: &[i32]) -> Result<Vec<Claimed>, StoreError> {
        let session = self.session().await?;
        let mut rows = session.transaction(session.claim(&self.target, partitions)).await?;
        self.session = Some(session);
        rows.sort_by_key(|(claimed, _)| partitions.iter().position(|partition| *partition == claimed.partition));
        self.target.claims.extend(rows.iter().map(|(claimed, claim)| (claimed.partition, *claim)));
        Ok(rows.into_iter().map(|(claimed, _)| claimed).collect())
    }

    async fn apply(&mut self, batch: &[AssetChange], spans: &[Span]) -> Result<Applied, StoreError> {
        let session = self.session().await?;
        let mut batch = Batch { folded: fold(batch), spans, one_by_one: false };
        let mut outcome = session.transaction(session.write(&self.target, &batch)).await;
        if matches!(&outcome, Err(StoreError::Record { code, .. }) if code == UNIQUE_VIOLATION) {
            batch.one_by_one = true;
            outcome = session.transaction(session.write(&self.target, &batch)).await;
        }
        if let Err(StoreError::Fenced { partition }) = outcome
            && let Some(span) = spans.iter().find(|span| span.partition == partition)
        {
            outcome = session.misfit(&self.target, span).await;
        }
        if !matches!(outcome, Err(StoreError::Environment { .. })) {
            self.session = Some(session);
        }
        if outcome.is_ok() {
            windfall_runtime::failpoint!("sink.commit.after");
        }
        outcome
    }

    async fn check(&mut self) -> Result<Vec<String>, StoreError> {
        // Not the session of the other calls: that one has settled the tables.
        let session = PostgresSession::open(&self.address, &self.deadlines).await?;
        session.preview(&self.target, self.mode).await
    }

    async fn held(&mut self) -> Result<StoreProgress, StoreError> {
        let session = PostgresSession::open(&self.address, &self.deadlines).await?;
        session.held(&self.target, self.mode).await
    }
}
