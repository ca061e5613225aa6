//! The thread that owns a SQLite file.

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, ToSql, Transaction, params};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::SqliteFile;
use super::catalogue::{DIALECT, begin, held, open, preview, unique_columns};
use super::classify::classify;
use super::statements::{self, Bound, moment};
use crate::asset::AssetChange;
use crate::store::fold::{Folded, Tombstone, Upsert, fold};
use crate::store::{Applied, Cause, Claim, Claimed, Identity, Span, StoreError, StoreProgress, generation};
use crate::table::Table;

/// Code of a value that a unique index has already, of the user's own: the key's index is what the upsert turns on.
const UNIQUE_VIOLATION: &str = "sqlite 2067";

/// What the thread is asked to do.
type Job = Box<dyn FnOnce(&mut Owner) + Send>;

/// Makes a job that sends what `work` returns. A job whose answer nobody waits for any more is not begun: whoever asked for it
/// has gone on, and may not own the partitions any more. One that has begun is ended.
fn job<T: Send + 'static>(
    answer: oneshot::Sender<Result<T, StoreError>>,
    work: impl FnOnce(&mut Owner) -> Result<T, StoreError> + Send + 'static,
) -> Job {
    Box::new(move |owner| {
        if !answer.is_closed() {
            drop(answer.send(work(owner)));
        }
    })
}

/// A job on its way to the thread, with the turn that it holds until it has ended.
type Order = (Job, OwnedSemaphorePermit);

/// A handle on the thread; the thread ends when it is dropped.
pub(super) struct Worker {
    jobs: mpsc::SyncSender<Order>,
    /// One: no job waits in the channel while another is under way.
    turns: Arc<Semaphore>,
}

impl Worker {
    /// Starts the thread. The file is opened by the first job.
    pub(super) fn start(file: SqliteFile) -> Result<Self, StoreError> {
        // There is room for the one job that has its turn, so that handing over never blocks.
        let (jobs, inbox) = mpsc::sync_channel(1);
        std::thread::Builder::new()
            .name("windfall-sqlite".to_owned())
            .spawn(move || Owner::new(file).serve(&inbox))
            .map_err(|error| StoreError::environment(Cause::Resources, error))?;
        Ok(Self { jobs, turns: Arc::new(Semaphore::new(1)) })
    }

    /// Waits for the job before to end, and has the thread do this one; `None` when the thread has ended.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Owner) -> Result<T, StoreError> + Send + 'static,
    ) -> Option<Result<T, StoreError>> {
        let turn = Arc::clone(&self.turns).acquire_owned().await.ok()?;
        let (answer, outcome) = oneshot::channel();
        self.jobs.send((job(answer, work), turn)).ok()?;
        outcome.await.ok()
    }
}

/// What the thread owns.
pub(super) struct Owner {
    file: SqliteFile,
    connection: Option<Connection>,
    claims: BTreeMap<i32, Claim>,
}

impl Owner {
    fn new(file: SqliteFile) -> Self {
        Self { file, connection: None, claims: BTreeMap::new() }
    }

    fn serve(mut self, inbox: &mpsc::Receiver<Order>) {
        while let Ok((job, turn)) = inbox.recv() {
            job(&mut self);
            drop(turn);
        }
    }

    pub(super) fn check(&self) -> Result<Vec<String>, StoreError> {
        preview(&self.file)
    }

    pub(super) fn held(&self) -> Result<StoreProgress, StoreError> {
        held(&self.file)
    }

    pub(super) fn claim(&mut self, partitions: &[i32]) -> Result<Vec<Claimed>, StoreError> {
        let rows = self.in_transaction(|transaction, file, _| {
            partitions
                .iter()
                .map(|partition| claim_one(transaction, &file.identity, *partition))
                .collect::<Result<Vec<_>, _>>()
        })?;
        for (claimed, claim) in &rows {
            self.claims.insert(claimed.partition, *claim);
        }
        Ok(rows.into_iter().map(|(claimed, _)| claimed).collect())
    }

    pub(super) fn apply(&mut self, batch: &[AssetChange], spans: &[Span]) -> Result<Applied, StoreError> {
        let folded = fold(batch);
        let mut write_all = |vacated: bool| {
            self.in_transaction(|transaction, file, claims| {
                for span in spans {
                    advance(transaction, &file.identity, claims, span)?;
                }
                if vacated {
                    vacate(transaction, &file.table, claims, &folded.upserts)?;
                }
                write(transaction, &file.table, claims, &folded)
            })
        };
        match write_all(false) {
            Err(StoreError::Record { code, .. }) if code == UNIQUE_VIOLATION => write_all(true),
            outcome => outcome,
        }
    }

    pub(super) fn accept(&mut self) -> Result<(), StoreError> {
        self.in_transaction(|transaction, file, _| {
            transaction.execute_batch(&DIALECT.accept(&file.table, &file.identity)).map_err(classify)
        })
    }

    /// Runs `work` in one transaction, on a file that is opened anew after each environment error.
    fn in_transaction<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>, &SqliteFile, &BTreeMap<i32, Claim>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => open(&self.file)?,
        };
        let outcome = begin(&mut connection).and_then(|transaction| {
            let answer = work(&transaction, &self.file, &self.claims)?;
            windfall_runtime::failpoint!("sink.commit.before");
            transaction.commit().map_err(classify)?;
            windfall_runtime::failpoint!("sink.commit.after");
            Ok(answer)
        });
        if !matches!(outcome, Err(StoreError::Environment { .. })) {
            self.connection = Some(connection);
        }
        outcome
    }
}

fn claim_one(
    transaction: &Transaction<'_>,
    identity: &Identity,
    partition: i32,
) -> Result<(Claimed, Claim), StoreError> {
    let mut statement = transaction.prepare_cached(statements::CLAIM).map_err(classify)?;
    let row = statement.query_row(params![identity.sink, identity.topic, partition], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get::<_, Option<String>>(3)?, row.get(4)?))
    });
    let (generation, epoch, next_offset, as_of, log_time) = row.map_err(classify)?;
    let as_of = as_of.and_then(|text| DateTime::parse_from_rfc3339(&text).ok()).map(|at| at.with_timezone(&Utc));
    Ok((Claimed { partition, generation, next_offset, as_of, log_time }, Claim { generation, epoch }))
}

fn advance(
    transaction: &Transaction<'_>,
    identity: &Identity,
    claims: &BTreeMap<i32, Claim>,
    span: &Span,
) -> Result<(), StoreError> {
    let Span { partition, from, to, as_of, log_time } = *span;
    let claim = claims.get(&partition).ok_or(StoreError::Fenced { partition })?;
    let values = params![identity.sink, identity.topic, partition, claim.epoch, from, to, moment(as_of), log_time];
    let moved = transaction.prepare_cached(statements::ADVANCE).and_then(|mut advance| advance.execute(values));
    if moved.map_err(classify)? == 1 {
        return Ok(());
    }
    let row = transaction
        .query_row(statements::POSITION, params![identity.sink, identity.topic, partition], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
        })
        .optional()
        .map_err(classify)?;
    match row {
        Some((epoch, found)) if epoch == claim.epoch => Err(StoreError::Advanced { partition, expected: from, found }),
        Some(_) | None => Err(StoreError::Fenced { partition }),
    }
}

/// Empties the columns under unique indexes in the rows that `upserts` are about to write: values may move among them.
fn vacate(
    transaction: &Transaction<'_>,
    table: &Table,
    claims: &BTreeMap<i32, Claim>,
    upserts: &[Upsert<'_>],
) -> Result<(), StoreError> {
    let columns = unique_columns(transaction, table)?;
    if columns.is_empty() {
        return Ok(());
    }
    let mut vacate = transaction.prepare(&statements::vacate(table, &columns)).map_err(classify)?;
    for Upsert { asset_id, partition, offset, .. } in upserts {
        vacate.execute(params![asset_id, generation(claims, *partition), partition, offset]).map_err(classify)?;
    }
    Ok(())
}

fn write(
    transaction: &Transaction<'_>,
    table: &Table,
    claims: &BTreeMap<i32, Claim>,
    folded: &Folded<'_>,
) -> Result<Applied, StoreError> {
    let now = moment(Utc::now());
    let generation = |partition| generation(claims, partition);
    let mut applied = Applied { folded: folded.overtaken, ..Applied::default() };
    let mut upsert = transaction.prepare_cached(&statements::upsert(table)).map_err(classify)?;
    for row in &folded.upserts {
        let written = write_row(&mut upsert, row, generation(row.partition), &now);
        match written.map_err(|error| error.at(row.partition, row.offset))? {
            0 => applied.stale += 1,
            _ if row.deleted => applied.deleted += 1,
            _ => applied.applied += 1,
        }
    }
    let mut delete = transaction.prepare_cached(&statements::delete(table)).map_err(classify)?;
    for Tombstone { asset_id, partition, offset } in &folded.tombstones {
        let values = params![asset_id, generation(*partition), partition, offset, now];
        let deleted = delete.execute(values).map_err(classify)? as u64;
        applied.deleted += deleted;
        applied.unchanged += 1 - deleted;
    }
    Ok(applied)
}

fn write_row(
    upsert: &mut rusqlite::CachedStatement<'_>,
    row: &Upsert<'_>,
    generation: i64,
    now: &str,
) -> Result<usize, StoreError> {
    let Upsert { asset_id, fields, deleted, partition, offset } = row;
    let deleted = if *deleted { "true" } else { "false" };
    let bound: Vec<Bound<'_>> = fields.iter().map(Bound).collect();
    let mut values: Vec<&dyn ToSql> = Vec::with_capacity(fields.len() + 6);
    values.push(asset_id);
    values.extend(bound.iter().map(|value| value as &dyn ToSql));
    let own: [&dyn ToSql; 5] = [&deleted, &generation, partition, offset, &now];
    values.extend(own);
    upsert.execute(values.as_slice()).map_err(classify)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::SchemaMode;
    use crate::table::{FieldType, TableName};

    #[test]
    fn a_job_that_nobody_waits_for_any_more_is_not_begun() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("assets.db");
        let file = SqliteFile {
            path: path.clone(),
            identity: Identity { sink: "assets".to_owned(), topic: "assets.devices".to_owned() },
            table: Table::of_fields(TableName::parse("assets").unwrap(), [("color", FieldType::String)]).unwrap(),
            mode: SchemaMode::Evolve,
            busy_timeout: Duration::ZERO,
        };
        let serve = |job: Job| {
            let turns = Arc::new(Semaphore::new(1));
            let (jobs, inbox) = mpsc::sync_channel(1);
            jobs.send((job, Arc::clone(&turns).try_acquire_owned().unwrap())).unwrap();
            drop(jobs);
            Owner::new(file.clone()).serve(&inbox);
            assert_eq!(turns.available_permits(), 1, "the next has its turn");
        };
        let (answer, gone) = oneshot::channel();
        drop(gone);
        serve(job(answer, |owner| owner.claim(&[0])));
        assert!(!path.exists());
        let (answer, mut waiting) = oneshot::channel();
        serve(job(answer, |owner| owner.claim(&[0])));
        assert_eq!(waiting.try_recv().unwrap().unwrap().len(), 1);
        assert!(path.exists());
    }
}
