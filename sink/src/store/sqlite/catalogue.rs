//! Opens the file, looks at its tables, and makes them fit as the sink's `schema` setting says.

use std::fs::OpenOptions;
use std::io::ErrorKind;

use chrono::Utc;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior, params};
use tracing::info;
use windfall_runtime::log_identity::Position;

use super::SqliteFile;
use super::classify::classify;
use super::statements::{self, moment, sql_type};
use crate::store::ownership::Owned;
use crate::store::shape::{Dialect, Existing, Found, Plan};
use crate::store::{Cause, PartitionProgress, StoreError, StoreProgress};
use crate::table::Table;

pub(super) const DIALECT: Dialect = Dialect { qualified: |_, table| format!("\"{table}\""), sql_type };

const COLUMNS: &str = "select name, type, \"notnull\" and dflt_value is null and not pk from pragma_table_info(?1)";

const KEYED: &str = "select exists (select 1 from pragma_index_list(?1) as list where list.\"unique\" and not list.partial \
    and (select json_group_array(name) from pragma_index_info(list.name)) = '[\"asset_id\"]')";

const OWNERS: &str = "select table_name, sink, topic from windfall_sinks where table_name = ?1 or sink = ?2";

const TAKE: &str = "insert into windfall_sinks (table_name, sink, topic, claimed_at) values (?1, ?2, ?3, ?4)";

/// Columns that may be empty and that a unique index rests on.
const UNIQUE: &str = "select distinct info.name from pragma_index_list(?1) as list, pragma_index_info(list.name) as info \
    join pragma_table_info(?1) as \"column\" on \"column\".name = info.name \
    where list.\"unique\" and not \"column\".\"notnull\" and not \"column\".pk";

/// Names the collection's columns that unique indexes of the user's own rest on.
pub(super) fn unique_columns(transaction: &Transaction<'_>, table: &Table) -> Result<Vec<String>, StoreError> {
    let mut statement = transaction.prepare(UNIQUE).map_err(classify)?;
    let names = statement.query_map([table.name.table.as_str()], |row| row.get(0));
    let names: Vec<String> = names.and_then(Iterator::collect).map_err(classify)?;
    let ours = |name: &String| table.columns.iter().any(|column| column.name.as_str() == name);
    Ok(names.into_iter().filter(ours).collect())
}

/// Takes the write lock at once, so that nothing read in the transaction can be overtaken.
pub(super) fn begin(connection: &mut Connection) -> Result<Transaction<'_>, StoreError> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(classify)
}

/// Returns what an error of the file system is to a store.
fn cause(kind: ErrorKind) -> Cause {
    match kind {
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => Cause::ReadOnly,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Cause::DiskFull,
        _ => Cause::Connection,
    }
}

/// Opens the file, takes the table for this sink and makes it fit, or refuses.
pub(super) fn open(file: &SqliteFile) -> Result<Connection, StoreError> {
    if let Some(folder) = file.path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|error| StoreError::environment(cause(error.kind()), error))?;
    }
    let mut connection = Connection::open(&file.path).map_err(|error| {
        // SQLite says only that it cannot open a file. The operating system says why.
        let cannot = error.sqlite_error_code() == Some(ErrorCode::CannotOpen);
        match OpenOptions::new().append(true).create(true).open(&file.path) {
            Err(why) if cannot => StoreError::environment(cause(why.kind()), error),
            _ => classify(error),
        }
    })?;
    connection.busy_timeout(file.busy_timeout).map_err(classify)?;
    connection.pragma_update(None, "journal_mode", "wal").map_err(classify)?;
    connection.pragma_update(None, "synchronous", "normal").map_err(classify)?;
    connection.set_prepared_statement_cache_capacity(32);
    let transaction = begin(&mut connection)?;
    let Plan { ddl, take } = plan(&transaction, file)?;
    for statement in ddl {
        info!(table = %file.table.name.table, ddl = statement, "changing the store's tables");
        transaction.execute_batch(&statement).map_err(classify)?;
    }
    if take {
        let values =
            params![file.table.name.table.as_str(), file.identity.sink, file.identity.topic, moment(Utc::now())];
        transaction.execute(TAKE, values).map_err(classify)?;
    }
    transaction.commit().map_err(classify)?;
    Ok(connection)
}

/// Tells what [`open`] would run. A file that is missing is not made.
pub(super) fn preview(file: &SqliteFile) -> Result<Vec<String>, StoreError> {
    match look(file)? {
        None => Ok(DIALECT.plan(&file.table, &file.identity, file.mode, &Found::default())?.ddl),
        Some(mut connection) => Ok(plan(&connection.transaction().map_err(classify)?, file)?.ddl),
    }
}

/// Reads how far positions and rows go; nothing where [`open`] would have to make or change a table.
pub(super) fn held(file: &SqliteFile) -> Result<StoreProgress, StoreError> {
    let Some(mut connection) = look(file)? else { return Ok(StoreProgress::default()) };
    let transaction = connection.transaction().map_err(classify)?;
    let Plan { ddl, take } = plan(&transaction, file)?;
    if take || !ddl.is_empty() {
        return Ok(StoreProgress::default());
    }
    let mut statement = transaction.prepare(&statements::held(&file.table)).map_err(classify)?;
    let rows = statement.query_map(params![file.identity.sink, file.identity.topic], |row| {
        let greatest: (Option<i64>, Option<i64>) = (row.get(4)?, row.get(5)?);
        let position = Position { next_offset: row.get(2)?, log_time: row.get(3)? };
        let (partition, generation) = (row.get(0)?, row.get(1)?);
        Ok(PartitionProgress { partition, generation, position, greatest: greatest.0.zip(greatest.1) })
    });
    let partitions = rows.and_then(Iterator::collect).map_err(classify)?;
    Ok(StoreProgress { partitions, reread: DIALECT.reread(&file.table, &file.identity) })
}

/// Opens the file to look at it; nothing where there is none.
fn look(file: &SqliteFile) -> Result<Option<Connection>, StoreError> {
    if !file.path.exists() {
        return Ok(None);
    }
    let connection = Connection::open_with_flags(&file.path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(classify)?;
    connection.busy_timeout(file.busy_timeout).map_err(classify)?;
    // SQLite opens a file that may not be written for reading alone, without an error.
    if connection.is_readonly("main").map_err(classify)? {
        return Err(StoreError::environment(Cause::ReadOnly, "the file can be read, but not written"));
    }
    Ok(Some(connection))
}

fn plan(transaction: &Transaction<'_>, file: &SqliteFile) -> Result<Plan, StoreError> {
    let name = file.table.name.table.as_str();
    let mut found = Found {
        sinks: columns(transaction, "windfall_sinks")?,
        positions: columns(transaction, "windfall_positions")?,
        columns: columns(transaction, name)?,
        keyed: transaction.query_row(KEYED, [name], |row| row.get(0)).map_err(classify)?,
        ..Found::default()
    };
    if !found.sinks.is_empty() {
        let mut statement = transaction.prepare(OWNERS).map_err(classify)?;
        let rows = statement.query_map(params![name, file.identity.sink], |row| {
            Ok(Owned { table: row.get(0)?, sink: row.get(1)?, topic: row.get(2)? })
        });
        found.owners = rows.and_then(Iterator::collect).map_err(classify)?;
    }
    Ok(DIALECT.plan(&file.table, &file.identity, file.mode, &found)?)
}

fn columns(transaction: &Transaction<'_>, table: &str) -> Result<Vec<Existing>, StoreError> {
    let mut statement = transaction.prepare(COLUMNS).map_err(classify)?;
    let rows = statement.query_map([table], |row| {
        let sql_type: String = row.get(1)?;
        let bare = sql_type.split([' ', '(']).next().unwrap_or_default().to_ascii_lowercase();
        Ok(Existing { name: row.get(0)?, sql_type: bare, demanding: row.get(2)? })
    });
    rows.and_then(Iterator::collect).map_err(classify)
}
