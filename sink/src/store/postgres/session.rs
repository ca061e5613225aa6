//! One connection: its deadlines, its prepared statements, and the one transaction that a batch is.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::future::join;
use tokio::task::JoinHandle;
use tokio_postgres::types::Type;
use tokio_postgres::{CancelToken, Client, Row};
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::debug;

use super::Deadlines;
use super::address::Address;
use super::sqlstate::classify;
use super::statements::{Guarded, Parameter, Statements, UpsertRows, vacate};
use crate::store::fold::{Folded, Upsert};
use crate::store::{Applied, Cause, Claim, Claimed, Identity, Refusal, Span, StoreError, generation};
use crate::table::Table;

/// How long a cancellation may take; it only saves the server work.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// Encodings of a database that hold every text: `SQL_ASCII` keeps bytes as they come.
const ENCODINGS: [&str; 2] = ["UTF8", "SQL_ASCII"];

/// What is written, and by whom.
pub(super) struct Target {
    pub(super) identity: Identity,
    pub(super) table: Table,
    pub(super) statements: Statements,
    pub(super) claims: BTreeMap<i32, Claim>,
}

/// An open connection.
///
/// It leaves nothing behind that outlives a transaction: no setting, no named statement, no lock. Behind a pooler that lends
/// out connections by transaction, such as PgBouncer, the next transaction may run on a connection that other programs share.
pub(super) struct PostgresSession {
    pub(super) client: Client,
    driver: JoinHandle<()>,
    cancel: CancelToken,
    tls: MakeRustlsConnect,
    patience: Duration,
    /// Begins a transaction with the deadlines that hold in it.
    begin: String,
}

impl Drop for PostgresSession {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl PostgresSession {
    /// Connects, and refuses a database that cannot hold every text.
    pub(super) async fn open(address: &Address, deadlines: &Deadlines) -> Result<Self, StoreError> {
        let patience = deadlines.statement + deadlines.grace;
        let connect = address.config.connect(address.tls.clone());
        let (client, connection) = tokio::time::timeout(patience, connect)
            .await
            .map_err(|_| StoreError::environment(Cause::TimedOut, "connecting took too long"))?
            .map_err(classify)?;
        let encoding = connection.parameter("server_encoding").unwrap_or_default().to_owned();
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "connection to the store ended");
            }
        });
        let begin = format!(
            "begin isolation level read committed; set local lock_timeout = {lock}; \
             set local statement_timeout = {statement}; set local idle_in_transaction_session_timeout = {idle}",
            lock = deadlines.lock.as_millis(),
            statement = deadlines.statement.as_millis(),
            idle = (patience * 2).as_millis(),
        );
        let cancel = client.cancel_token();
        let session = Self { client, driver, cancel, tls: address.tls.clone(), patience, begin };
        if !ENCODINGS.contains(&encoding.as_str()) {
            let database = address.config.get_dbname().or(address.config.get_user()).unwrap_or_default().to_owned();
            return Err(Refusal::Encoding { database, encoding }.into());
        }
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

    /// Asks for rows.
    pub(super) async fn query(&self, text: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, StoreError> {
        self.within(self.client.query_typed(text, parameters)).await
    }

    /// Runs a statement; answers how many rows it touched.
    pub(super) async fn execute(&self, text: &str, parameters: &[Parameter<'_>]) -> Result<u64, StoreError> {
        self.within(self.client.execute_typed(text, parameters)).await
    }

    /// Runs `work` in one transaction: commits it, or takes it back when it fails.
    ///
    /// After [`StoreError::Environment`] the session is in no known state and must be dropped; after every other answer it
    /// can be used again.
    pub(super) async fn transaction<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        self.within(self.client.batch_execute(&self.begin)).await?;
        match work.await {
            Ok(done) => {
                self.within(self.client.batch_execute("commit")).await?;
                Ok(done)
            }
            Err(error @ StoreError::Environment { .. }) => Err(error),
            Err(error) => {
                self.within(self.client.batch_execute("rollback")).await?;
                Err(error)
            }
        }
    }

    /// Raises epochs; answers with what each partition's row says now.
    pub(super) async fn claim(&self, target: &Target, partitions: &[i32]) -> Result<Vec<(Claimed, Claim)>, StoreError> {
        let parameters: [Parameter<'_>; 3] = [
            (&target.identity.sink, Type::TEXT),
            (&target.identity.topic, Type::TEXT),
            (&partitions, Type::INT4_ARRAY),
        ];
        let rows = self.query(&target.statements.claim, &parameters).await?;
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

    /// Moves positions and writes a folded batch.
    pub(super) async fn write(&self, target: &Target, batch: &Batch<'_>) -> Result<Applied, StoreError> {
        // Both are sent at once. What the rows come to counts only once every position has moved.
        let (moved, written) = join(self.advance(target, batch.spans), self.rows(target, batch)).await;
        moved?;
        let applied = written?;
        windfall_runtime::failpoint!("sink.commit.before");
        Ok(applied)
    }

    async fn rows(&self, target: &Target, batch: &Batch<'_>) -> Result<Applied, StoreError> {
        let Folded { upserts, tombstones, overtaken } = &batch.folded;
        let generation = |partition| generation(&target.claims, partition);
        let mut applied = Applied { folded: *overtaken, ..Applied::default() };
        let mut parts: Vec<&[Upsert<'_>]> = vec![upserts];
        if batch.one_by_one {
            self.vacate(target, upserts).await?;
            parts = upserts.chunks(1).collect();
            parts.sort_unstable_by_key(|part| (part[0].partition, part[0].offset));
        }
        for part in parts.into_iter().filter(|part| !part.is_empty()) {
            let rows = UpsertRows::of(&target.table, part, generation)?;
            let some_deleted = part.iter().any(|upsert| upsert.deleted);
            let (written, deleted) = match self.upsert(target, &rows, some_deleted).await {
                Err(error) if batch.one_by_one => return Err(error.at(part[0].partition, part[0].offset)),
                outcome => outcome?,
            };
            applied.deleted += deleted;
            applied.applied += written - deleted;
            applied.stale += part.len() as u64 - written;
        }
        if !tombstones.is_empty() {
            let records =
                tombstones.iter().map(|tombstone| (tombstone.asset_id, tombstone.partition, tombstone.offset));
            let deletes = Guarded::of(records, generation);
            let deleted = self.execute(&target.statements.delete, &deletes.parameters()).await?;
            applied.deleted += deleted;
            applied.unchanged = tombstones.len() as u64 - deleted;
        }
        Ok(applied)
    }

    /// Empties the columns under unique indexes in the rows that `upserts` are about to write.
    async fn vacate(&self, target: &Target, upserts: &[Upsert<'_>]) -> Result<(), StoreError> {
        let columns = self.unique_columns(target).await?;
        if columns.is_empty() {
            return Ok(());
        }
        let records = upserts.iter().map(|upsert| (upsert.asset_id, upsert.partition, upsert.offset));
        let generation = |partition| generation(&target.claims, partition);
        let rows = Guarded::of(records, generation);
        self.execute(&vacate(&target.table, &columns), &rows.parameters()).await.map(drop)
    }

    /// Writes rows; answers how many were written, and how many of these are deleted, which is asked only where some may be.
    async fn upsert(
        &self,
        target: &Target,
        rows: &UpsertRows<'_>,
        some_deleted: bool,
    ) -> Result<(u64, u64), StoreError> {
        if !some_deleted {
            return Ok((self.execute(&target.statements.upsert, &rows.parameters()).await?, 0));
        }
        let counts =
            self.within(self.client.query_typed_one(&target.statements.upsert_and_count, &rows.parameters())).await?;
        Ok((count(counts.try_get(0).map_err(classify)?), count(counts.try_get(1).map_err(classify)?)))
    }

    /// Moves the positions. For one that does not fit the answer is [`StoreError::Fenced`]: [`PostgresSession::misfit`] knows more.
    async fn advance(&self, target: &Target, spans: &[Span]) -> Result<(), StoreError> {
        let partitions: Vec<i32> = spans.iter().map(|span| span.partition).collect();
        let mut epochs = Vec::with_capacity(spans.len());
        for &partition in &partitions {
            epochs.push(target.claims.get(&partition).ok_or(StoreError::Fenced { partition })?.epoch);
        }
        let starts: Vec<i64> = spans.iter().map(|span| span.from).collect();
        let ends: Vec<i64> = spans.iter().map(|span| span.to).collect();
        let as_of: Vec<DateTime<Utc>> = spans.iter().map(|span| span.as_of).collect();
        let log_times: Vec<Option<i64>> = spans.iter().map(|span| span.log_time).collect();
        let parameters: [Parameter<'_>; 8] = [
            (&target.identity.sink, Type::TEXT),
            (&target.identity.topic, Type::TEXT),
            (&partitions, Type::INT4_ARRAY),
            (&epochs, Type::INT8_ARRAY),
            (&starts, Type::INT8_ARRAY),
            (&ends, Type::INT8_ARRAY),
            (&as_of, Type::TIMESTAMPTZ_ARRAY),
            (&log_times, Type::INT8_ARRAY),
        ];
        let moved = self.query(&target.statements.advance, &parameters).await?;
        let moved: Vec<i32> = moved.iter().filter_map(|row| row.try_get(0).ok()).collect();
        match spans.iter().find(|span| !moved.contains(&span.partition)) {
            Some(span) => Err(StoreError::Fenced { partition: span.partition }),
            None => Ok(()),
        }
    }

    /// Reads why a position did not move, after the transaction was taken back: was the partition taken over, or did an
    /// earlier commit of ours come through?
    pub(super) async fn misfit(&self, target: &Target, span: &Span) -> Result<Applied, StoreError> {
        let Span { partition, from, .. } = *span;
        let parameters: [Parameter<'_>; 3] =
            [(&target.identity.sink, Type::TEXT), (&target.identity.topic, Type::TEXT), (&partition, Type::INT4)];
        let row = self.within(self.client.query_typed_opt(&target.statements.position, &parameters)).await?;
        let Some(row) = row else { return Err(StoreError::Fenced { partition }) };
        let (epoch, found): (i64, i64) = (row.try_get(0).map_err(classify)?, row.try_get(1).map_err(classify)?);
        if target.claims.get(&partition).is_some_and(|claim| claim.epoch == epoch) {
            Err(StoreError::Advanced { partition, expected: from, found })
        } else {
            Err(StoreError::Fenced { partition })
        }
    }
}

/// A folded batch with the positions that it moves.
pub(super) struct Batch<'a> {
    pub(super) folded: Folded<'a>,
    pub(super) spans: &'a [Span],
    /// Whether rows are written one by one, after the values under unique indexes have been taken out of all of them: then
    /// values may move among them, and a row that is refused is named.
    pub(super) one_by_one: bool,
}

fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}
