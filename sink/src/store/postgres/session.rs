//! One connection: its deadlines, its prepared statements, and the one transaction that a batch is.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::task::JoinHandle;
use tokio_postgres::{CancelToken, Client, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::debug;

use super::Deadlines;
use super::address::Address;
use super::sqlstate::classify;
use super::statements::{self, Graves, Rows};
use crate::store::fold::{Folded, fold};
use crate::store::{Applied, Cause, Claim, Claimed, Identity, Span, StoreError};
use crate::table::Table;

/// How long a cancellation may take; it only saves the server work.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// An open connection with its statements prepared.
pub(super) struct Session {
    pub(super) client: Client,
    driver: JoinHandle<()>,
    cancel: CancelToken,
    tls: MakeRustlsConnect,
    patience: Duration,
    statements: Option<Statements>,
}

struct Statements {
    claim: Statement,
    advance: Statement,
    positions: Statement,
    upsert: Statement,
    upsert_and_count: Statement,
    bury: Statement,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Session {
    /// Connects and sets what must hold in the session: names are looked up nowhere but where we say.
    pub(super) async fn open(address: &Address, deadlines: &Deadlines) -> Result<Self, StoreError> {
        let patience = deadlines.statement + deadlines.grace;
        let connect = address.config.connect(address.tls.clone());
        let (client, connection) = tokio::time::timeout(patience, connect)
            .await
            .map_err(|_| StoreError::environment(Cause::TimedOut, "connecting took too long"))?
            .map_err(classify)?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "connection to the store ended");
            }
        });
        let cancel = client.cancel_token();
        let session = Self { client, driver, cancel, tls: address.tls.clone(), patience, statements: None };
        let settings = format!(
            "set search_path = pg_catalog, pg_temp; set timezone = 'UTC'; \
             set default_transaction_isolation = 'read committed'; set standard_conforming_strings = on; \
             set lock_timeout = {lock}; set statement_timeout = {statement}; \
             set idle_in_transaction_session_timeout = {idle}",
            lock = deadlines.lock.as_millis(),
            statement = deadlines.statement.as_millis(),
            idle = (patience * 2).as_millis(),
        );
        session.within(session.client.batch_execute(&settings)).await?;
        Ok(session)
    }

    /// Waits for an answer of the driver, which has no deadlines of its own, and gives up in time.
    pub(super) async fn within<T>(
        &self,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(self.patience, answer).await {
            Ok(outcome) => outcome.map_err(classify),
            Err(_) => {
                let (cancel, tls) = (self.cancel.clone(), self.tls.clone());
                tokio::spawn(async move { tokio::time::timeout(CANCEL_TIMEOUT, cancel.cancel_query(tls)).await });
                Err(StoreError::environment(Cause::TimedOut, "the server did not answer in time"))
            }
        }
    }

    /// Prepares the statements of the table, which exists by now.
    pub(super) async fn prepare(&mut self, table: &Table) -> Result<(), StoreError> {
        let schema = &table.name.schema;
        self.statements = Some(Statements {
            claim: self.statement(statements::claim(schema)).await?,
            advance: self.statement(statements::advance(schema)).await?,
            positions: self.statement(statements::positions(schema)).await?,
            upsert: self.statement(statements::upsert(table)).await?,
            upsert_and_count: self.statement(statements::upsert_and_count(table)).await?,
            bury: self.statement(statements::bury(table)).await?,
        });
        Ok(())
    }

    async fn statement(&self, text: String) -> Result<Statement, StoreError> {
        self.within(self.client.prepare(&text)).await
    }

    fn statements(&self) -> Result<&Statements, StoreError> {
        self.statements.as_ref().ok_or_else(|| StoreError::environment(Cause::Internal, "the session is not prepared"))
    }

    /// Raises epochs; answers with what each partition's row says now.
    pub(super) async fn claim(
        &self,
        identity: &Identity,
        partitions: &[i32],
    ) -> Result<Vec<(Claimed, Claim)>, StoreError> {
        let statement = &self.statements()?.claim;
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
            [&identity.sink, &identity.topic, &partitions];
        let rows = self.within(self.client.query(statement, &parameters)).await?;
        rows.iter()
            .map(|row| {
                let (generation, epoch) = (row.try_get(1)?, row.try_get(2)?);
                let claimed = Claimed {
                    partition: row.try_get(0)?,
                    generation,
                    next_offset: row.try_get(3)?,
                    as_of: row.try_get(4)?,
                    log_time: row.try_get(5)?,
                };
                Ok((claimed, Claim { generation, epoch }))
            })
            .collect::<Result<_, tokio_postgres::Error>>()
            .map_err(classify)
    }

    /// Applies a folded batch and moves positions in one transaction.
    ///
    /// After [`StoreError::Environment`] the session is in no known state and must be dropped; after every other
    /// answer it can be used again.
    pub(super) async fn apply(
        &self,
        identity: &Identity,
        claims: &BTreeMap<i32, Claim>,
        batch: &Batch<'_>,
    ) -> Result<Applied, StoreError> {
        self.within(self.client.batch_execute("begin")).await?;
        match self.write(identity, claims, batch).await {
            Ok(applied) => {
                windfall_runtime::failpoint!("sink.commit.before");
                self.within(self.client.batch_execute("commit")).await?;
                windfall_runtime::failpoint!("sink.commit.after");
                Ok(applied)
            }
            Err(error @ StoreError::Environment { .. }) => Err(error),
            Err(error) => {
                self.within(self.client.batch_execute("rollback")).await?;
                Err(error)
            }
        }
    }

    async fn write(
        &self,
        identity: &Identity,
        claims: &BTreeMap<i32, Claim>,
        batch: &Batch<'_>,
    ) -> Result<Applied, StoreError> {
        self.advance(identity, claims, batch.spans).await?;
        let Folded { upserts, tombstones, overtaken } = &batch.folded;
        let generation = |partition: i32| claims.get(&partition).map_or(1, |claim| claim.generation);
        let mut applied = Applied { folded: *overtaken, ..Applied::default() };
        if !upserts.is_empty() {
            let rows = Rows::of(batch.table, upserts, generation)?;
            let (written, deleted) = self.upsert(&rows, upserts.iter().any(|upsert| upsert.deleted)).await?;
            applied.deleted = deleted;
            applied.applied = written - deleted;
            applied.stale = upserts.len() as u64 - written;
        }
        if !tombstones.is_empty() {
            let graves = Graves::of(tombstones, generation);
            let buried = self.within(self.client.execute(&self.statements()?.bury, &graves.parameters())).await?;
            applied.deleted += buried;
            applied.unchanged = tombstones.len() as u64 - buried;
        }
        Ok(applied)
    }

    /// Writes rows; answers how many were written, and how many of these are deleted, which is asked only where some may be.
    async fn upsert(&self, rows: &Rows<'_>, some_deleted: bool) -> Result<(u64, u64), StoreError> {
        let statements = self.statements()?;
        if !some_deleted {
            let written = self.within(self.client.execute(&statements.upsert, &rows.parameters())).await?;
            return Ok((written, 0));
        }
        let counted = &statements.upsert_and_count;
        let counts = self.within(self.client.query_one(counted, &rows.parameters())).await?;
        Ok((count(counts.try_get(0).map_err(classify)?), count(counts.try_get(1).map_err(classify)?)))
    }

    /// Moves the positions; what does not fit is looked at again and named.
    async fn advance(
        &self,
        identity: &Identity,
        claims: &BTreeMap<i32, Claim>,
        spans: &[Span],
    ) -> Result<(), StoreError> {
        let partitions: Vec<i32> = spans.iter().map(|span| span.partition).collect();
        let mut epochs = Vec::with_capacity(spans.len());
        for &partition in &partitions {
            epochs.push(claims.get(&partition).ok_or(StoreError::Fenced { partition })?.epoch);
        }
        let starts: Vec<i64> = spans.iter().map(|span| span.from).collect();
        let ends: Vec<i64> = spans.iter().map(|span| span.to).collect();
        let as_of: Vec<DateTime<Utc>> = spans.iter().map(|span| span.as_of).collect();
        let log_times: Vec<Option<i64>> = spans.iter().map(|span| span.log_time).collect();
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 8] =
            [&identity.sink, &identity.topic, &partitions, &epochs, &starts, &ends, &as_of, &log_times];
        let statements = self.statements()?;
        let moved = self.within(self.client.query(&statements.advance, &parameters)).await?;
        if moved.len() == spans.len() {
            return Ok(());
        }
        let moved: Vec<i32> = moved.iter().filter_map(|row| row.try_get(0).ok()).collect();
        let Some(span) = spans.iter().find(|span| !moved.contains(&span.partition)) else { return Ok(()) };
        self.misfit(identity, claims, span).await
    }

    /// Reads the row of a position that did not move: taken over, or moved by an earlier commit of ours?
    async fn misfit(&self, identity: &Identity, claims: &BTreeMap<i32, Claim>, span: &Span) -> Result<(), StoreError> {
        let Span { partition, from, .. } = *span;
        let wanted = vec![partition];
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 3] = [&identity.sink, &identity.topic, &wanted];
        let row = self.within(self.client.query_opt(&self.statements()?.positions, &parameters)).await?;
        let Some(row) = row else { return Err(StoreError::Fenced { partition }) };
        let (epoch, found): (i64, i64) = (row.try_get(1).map_err(classify)?, row.try_get(2).map_err(classify)?);
        if claims.get(&partition).is_some_and(|claim| claim.epoch == epoch) {
            Err(StoreError::Advanced { partition, expected: from, found })
        } else {
            Err(StoreError::Fenced { partition })
        }
    }
}

/// A batch on its way into the table.
pub(super) struct Batch<'a> {
    table: &'a Table,
    folded: Folded<'a>,
    spans: &'a [Span],
}

impl<'a> Batch<'a> {
    pub(super) fn of(table: &'a Table, changes: &'a [crate::asset::AssetChange], spans: &'a [Span]) -> Self {
        Self { table, folded: fold(changes), spans }
    }
}

fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}
