//! The SQL of one table in SQLite, and the values that go into it.

use chrono::{DateTime, SecondsFormat, Utc};
use rusqlite::types::{ToSqlOutput, Value, ValueRef};

use crate::asset::FieldValue;
use crate::table::{FieldType, Table};

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

/// Reads each position with the greatest guard of the partition's rows: beside a `max` the other columns are those of its row.
pub(super) fn held(table: &Table) -> String {
    format!(
        "select kept.\"partition\", kept.generation, kept.next_offset, kept.log_time, max(written.generation), written.upto \
         from windfall_positions as kept left join (select \"__partition\" as \"partition\", \"__generation\" as generation, \
         max(\"__offset\") as upto from {table} group by 1, 2) as written on written.\"partition\" = kept.\"partition\" \
         where kept.sink = ?1 and kept.topic = ?2 group by kept.\"partition\" order by 1",
        table = table.name.table.quoted(),
    )
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
    let sets =
        "\"__deleted\" = 'true', \"__generation\" = ?2, \"__partition\" = ?3, \"__offset\" = ?4, \"__written_at\" = ?5";
    format!("{} and \"__deleted\" is not 'true'", update(table, sets))
}

/// Empties columns of a row that a batch writes, so that no value stands in the way of the row that it moves to.
pub(super) fn vacate(table: &Table, columns: &[String]) -> String {
    let sets: Vec<String> = columns.iter().map(|column| format!("\"{column}\" = null")).collect();
    update(table, &sets.join(", "))
}

/// Changes a row that is older than what came in: `?1` asset, `?2` to `?4` guard.
fn update(table: &Table, sets: &str) -> String {
    format!(
        "update {} set {sets} where \"asset_id\" = ?1 \
         and ((\"__generation\", \"__partition\", \"__offset\") >= (?2, ?3, ?4)) is not true",
        table.name.table.quoted()
    )
}

/// SQLite's type of a column: moments are text in ISO 8601, which sorts as it should.
pub(super) fn sql_type(kind: FieldType) -> &'static str {
    match kind {
        FieldType::String | FieldType::Timestamp => "text",
        FieldType::Integer | FieldType::Boolean => "integer",
        FieldType::Decimal => "real",
    }
}

/// Writes a moment as ISO 8601 in UTC, always in milliseconds.
pub(super) fn moment(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// A value on its way into a statement.
pub(super) struct Bound<'a>(pub(super) &'a FieldValue);

impl rusqlite::ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self.0 {
            FieldValue::Null => ToSqlOutput::Borrowed(ValueRef::Null),
            FieldValue::String(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            FieldValue::Integer(number) => ToSqlOutput::Borrowed(ValueRef::Integer(*number)),
            FieldValue::Decimal(number) => ToSqlOutput::Borrowed(ValueRef::Real(*number)),
            FieldValue::Boolean(value) => ToSqlOutput::Borrowed(ValueRef::Integer(i64::from(*value))),
            FieldValue::Timestamp(_) => ToSqlOutput::Owned(Value::Text(self.0.to_string())),
        })
    }
}
