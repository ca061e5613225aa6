//! The SQL of one table in SQLite, and the values that go into it.

use chrono::{DateTime, SecondsFormat, Utc};
use rusqlite::types::{ToSqlOutput, Value, ValueRef};

use crate::asset::Field;
use crate::table::{Column, ColumnKind, Table};

/// Columns behind the fields, with their types.
const GUARD_COLUMNS: [(&str, &str); 4] = [
    ("__generation", "integer not null"),
    ("__partition", "integer not null"),
    ("__offset", "integer not null"),
    ("__written_at", "text"),
];

/// The sink's own two tables.
pub(super) const BOOKKEEPING: &str = "create table if not exists windfall_sinks \
    (table_name text primary key, sink text not null unique, topic text not null, claimed_at text not null); \
    create table if not exists windfall_positions \
    (sink text not null, topic text not null, \"partition\" integer not null, generation integer not null, \
    epoch integer not null, next_offset integer not null, as_of text, log_time integer, primary key (sink, topic, \"partition\"))";

/// Adds what earlier versions did not note beside a position.
pub(super) const ADD_LOG_TIME: &str = "alter table windfall_positions add column log_time integer";

/// Raises the epoch of a partition.
pub(super) const CLAIM: &str = "insert into windfall_positions \
    (sink, topic, \"partition\", generation, epoch, next_offset) values (?1, ?2, ?3, 1, 1, 0) \
    on conflict (sink, topic, \"partition\") do update set epoch = epoch + 1 \
    returning generation, epoch, next_offset, as_of, log_time";

/// Moves a position that is where it should be.
pub(super) const ADVANCE: &str = "update windfall_positions set next_offset = ?6, as_of = max(coalesce(as_of, ''), ?7), \
    log_time = coalesce(max(log_time, ?8), log_time, ?8) where sink = ?1 and topic = ?2 and \"partition\" = ?3 and epoch = ?4 and next_offset = ?5";

/// Reads a position again.
pub(super) const POSITION: &str =
    "select epoch, next_offset from windfall_positions where sink = ?1 and topic = ?2 and \"partition\" = ?3";

/// All columns in their order, with their types.
pub(super) fn wanted(table: &Table) -> Vec<(String, &'static str)> {
    let is_note = |column: &&Column| column.name.as_str().starts_with("__");
    let of = |column: &Column| (column.name.as_str().to_owned(), sql_type(column.kind));
    let mut columns = vec![("asset_id".to_owned(), "text primary key not null")];
    columns.extend(table.columns.iter().filter(|column| !is_note(column)).map(of));
    columns.push(("__deleted".to_owned(), "text not null"));
    columns.extend(table.columns.iter().filter(is_note).map(of));
    columns.extend(GUARD_COLUMNS.iter().map(|(name, kind)| ((*name).to_owned(), *kind)));
    columns
}

/// Makes the table.
pub(super) fn create(table: &Table) -> String {
    let columns: Vec<String> = wanted(table).iter().map(|(name, kind)| format!("\"{name}\" {kind}")).collect();
    format!("create table {} ({})", table.name.table.quoted(), columns.join(", "))
}

/// Adds a missing column, which is null in the rows that are there.
pub(super) fn add(table: &Table, name: &str, kind: &str) -> String {
    let kind = kind.trim_end_matches(" not null");
    format!("alter table {} add column \"{name}\" {kind}", table.name.table.quoted())
}

/// Writes one row: key, fields, `__deleted`, guard, time. A row without a guard is older than anything.
pub(super) fn upsert(table: &Table) -> String {
    let mut columns: Vec<String> = table.columns.iter().map(|column| column.name.quoted()).collect();
    let own = ["__deleted", "__generation", "__partition", "__offset", "__written_at"];
    columns.extend(own.iter().map(|name| format!("\"{name}\"")));
    let places: Vec<String> = (1..=columns.len() + 1).map(|index| format!("?{index}")).collect();
    let sets: Vec<String> = columns.iter().map(|column| format!("{column} = excluded.{column}")).collect();
    format!(
        "insert into {table} (\"asset_id\", {columns}) values ({places}) on conflict (\"asset_id\") do update set {sets} \
         where (({table}.\"__generation\", {table}.\"__partition\", {table}.\"__offset\") \
         >= (excluded.\"__generation\", excluded.\"__partition\", excluded.\"__offset\")) is not true",
        table = table.name.table.quoted(),
        columns = columns.join(", "),
        places = places.join(", "),
        sets = sets.join(", "),
    )
}

/// Marks a row as deleted that is live and older than the tombstone.
pub(super) fn delete(table: &Table) -> String {
    format!(
        "update {} set \"__deleted\" = 'true', \"__generation\" = ?2, \"__partition\" = ?3, \"__offset\" = ?4, \
         \"__written_at\" = ?5 where \"asset_id\" = ?1 and \"__deleted\" is not 'true' \
         and ((\"__generation\", \"__partition\", \"__offset\") >= (?2, ?3, ?4)) is not true",
        table.name.table.quoted()
    )
}

/// SQLite's type of a column: moments are text in ISO 8601, which sorts as it should.
pub(super) fn sql_type(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Text | ColumnKind::Timestamp => "text",
        ColumnKind::Long | ColumnKind::Boolean => "integer",
        ColumnKind::Double => "real",
    }
}

/// Writes a moment as ISO 8601 in UTC, always in milliseconds.
pub(super) fn moment(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

impl rusqlite::ToSql for Field {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Null => ToSqlOutput::Borrowed(ValueRef::Null),
            Self::Text(value) => ToSqlOutput::Borrowed(ValueRef::Text(value.as_bytes())),
            Self::Long(value) => ToSqlOutput::Borrowed(ValueRef::Integer(*value)),
            Self::Double(value) => ToSqlOutput::Borrowed(ValueRef::Real(*value)),
            Self::Boolean(value) => ToSqlOutput::Borrowed(ValueRef::Integer(i64::from(*value))),
            Self::Timestamp(value) => ToSqlOutput::Owned(Value::Text(moment(*value))),
        })
    }
}
