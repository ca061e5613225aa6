//! The SQL of one table, and the arrays that fill it. Names come from [`Name`], values travel as parameters alone.

use chrono::{DateTime, Utc};
use tokio_postgres::types::ToSql;

use crate::asset::Field;
use crate::store::StoreError;
use crate::store::fold::{Tombstone, Upsert};
use crate::table::{ColumnKind, Name, Table, TableName};

/// The guard of the row that is there is older than the record's.
const NEWER: &str = r#"("kept"."__generation", "kept"."__partition", "kept"."__offset")"#;

/// Names a table in full, quoted.
pub(super) fn qualified(schema: &Name, table: &str) -> String {
    format!("{}.\"{table}\"", schema.quoted())
}

/// Names the collection's table in full, quoted.
pub(super) fn table_name(name: &TableName) -> String {
    qualified(&name.schema, name.table.as_str())
}

/// Writes rows given as one array per column.
pub(super) fn upsert(table: &Table) -> String {
    let mut columns: Vec<String> = table.columns.iter().map(|column| column.name.quoted()).collect();
    let own = ["__deleted", "__generation", "__partition", "__offset"];
    columns.extend(own.iter().map(|name| format!("\"{name}\"")));
    let types = table.columns.iter().map(|column| sql_type(column.kind));
    let types = ["text"].into_iter().chain(types).chain(["text", "bigint", "integer", "bigint"]);
    let arrays: Vec<String> = types.enumerate().map(|(index, kind)| format!("${}::{kind}[]", index + 1)).collect();
    let sets: Vec<String> = columns.iter().map(|column| format!("{column} = excluded.{column}")).collect();
    format!(
        "insert into {table} as \"kept\" (\"asset_id\", {columns}, \"__written_at\") \
         select incoming.*, now() from unnest({arrays}) as incoming \
         on conflict (\"asset_id\") do update set {sets}, \"__written_at\" = excluded.\"__written_at\" \
         where {NEWER} < (excluded.\"__generation\", excluded.\"__partition\", excluded.\"__offset\")",
        table = table_name(&table.name),
        columns = columns.join(", "),
        arrays = arrays.join(", "),
        sets = sets.join(", "),
    )
}

/// Writes rows as [`upsert`] does; answers how many were written and how many of these are deleted.
pub(super) fn upsert_and_count(table: &Table) -> String {
    format!(
        "with written as ({} returning \"__deleted\") \
         select count(*), count(*) filter (where \"__deleted\" = 'true') from written",
        upsert(table),
    )
}

/// Marks rows as deleted that are live and older than the tombstone.
pub(super) fn bury(table: &Table) -> String {
    format!(
        "update {table} as \"kept\" set \"__deleted\" = 'true', \"__generation\" = grave.generation, \
         \"__partition\" = grave.partition, \"__offset\" = grave.offset_, \"__written_at\" = now() \
         from unnest($1::text[], $2::bigint[], $3::integer[], $4::bigint[]) \
         as grave(asset_id, generation, partition, offset_) \
         where \"kept\".\"asset_id\" = grave.asset_id and \"kept\".\"__deleted\" <> 'true' \
         and {NEWER} < (grave.generation, grave.partition, grave.offset_)",
        table = table_name(&table.name),
    )
}

/// Raises the epoch of partitions, `$1` sink, `$2` topic, `$3` partitions.
pub(super) fn claim(schema: &Name) -> String {
    format!(
        "insert into {positions} as kept (sink, topic, partition, generation, epoch, next_offset) \
         select $1, $2, wanted, 1, 1, 0 from unnest($3::integer[]) as wanted order by wanted \
         on conflict (sink, topic, partition) do update set epoch = kept.epoch + 1 \
         returning partition, generation, epoch, next_offset, as_of, log_time",
        positions = qualified(schema, "windfall_positions"),
    )
}

/// Moves the positions that are where they should be, and answers which these were.
pub(super) fn advance(schema: &Name) -> String {
    format!(
        "update {positions} as kept set next_offset = moved.upto, as_of = greatest(kept.as_of, moved.as_of), \
         log_time = greatest(kept.log_time, moved.log_time) \
         from unnest($3::integer[], $4::bigint[], $5::bigint[], $6::bigint[], $7::timestamptz[], $8::bigint[]) \
         as moved(partition, epoch, start, upto, as_of, log_time) \
         where kept.sink = $1 and kept.topic = $2 and kept.partition = moved.partition \
         and kept.epoch = moved.epoch and kept.next_offset = moved.start returning kept.partition",
        positions = qualified(schema, "windfall_positions"),
    )
}

/// Reads positions again.
pub(super) fn positions(schema: &Name) -> String {
    format!(
        "select partition, epoch, next_offset from {positions} \
         where sink = $1 and topic = $2 and partition = any($3::integer[])",
        positions = qualified(schema, "windfall_positions"),
    )
}

/// PostgreSQL's name of a column type.
pub(super) fn sql_type(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Text => "text",
        ColumnKind::Long => "bigint",
        ColumnKind::Double => "double precision",
        ColumnKind::Boolean => "boolean",
        ColumnKind::Timestamp => "timestamp with time zone",
    }
}

/// One column of a batch.
#[derive(Debug)]
enum Array<'a> {
    Text(Vec<Option<&'a str>>),
    Long(Vec<Option<i64>>),
    Double(Vec<Option<f64>>),
    Boolean(Vec<Option<bool>>),
    Timestamp(Vec<Option<DateTime<Utc>>>),
}

impl<'a> Array<'a> {
    fn of(kind: ColumnKind, rows: usize) -> Self {
        match kind {
            ColumnKind::Text => Self::Text(Vec::with_capacity(rows)),
            ColumnKind::Long => Self::Long(Vec::with_capacity(rows)),
            ColumnKind::Double => Self::Double(Vec::with_capacity(rows)),
            ColumnKind::Boolean => Self::Boolean(Vec::with_capacity(rows)),
            ColumnKind::Timestamp => Self::Timestamp(Vec::with_capacity(rows)),
        }
    }

    fn push(&mut self, field: &'a Field) -> Result<(), StoreError> {
        match (self, field) {
            (Self::Text(values), Field::Text(value)) => values.push(Some(value)),
            (Self::Long(values), Field::Long(value)) => values.push(Some(*value)),
            (Self::Double(values), Field::Double(value)) => values.push(Some(*value)),
            (Self::Boolean(values), Field::Boolean(value)) => values.push(Some(*value)),
            (Self::Timestamp(values), Field::Timestamp(value)) => values.push(Some(*value)),
            (Self::Text(values), Field::Null) => values.push(None),
            (Self::Long(values), Field::Null) => values.push(None),
            (Self::Double(values), Field::Null) => values.push(None),
            (Self::Boolean(values), Field::Null) => values.push(None),
            (Self::Timestamp(values), Field::Null) => values.push(None),
            (_, field) => {
                let source = format!("a value does not have its column's type: {}", kind_of(field)).into();
                return Err(StoreError::Record { code: "type".to_owned(), source });
            }
        }
        Ok(())
    }

    fn as_sql(&self) -> &(dyn ToSql + Sync) {
        match self {
            Self::Text(values) => values,
            Self::Long(values) => values,
            Self::Double(values) => values,
            Self::Boolean(values) => values,
            Self::Timestamp(values) => values,
        }
    }
}

fn kind_of(field: &Field) -> &'static str {
    match field {
        Field::Null => "null",
        Field::Text(_) => "text",
        Field::Long(_) => "whole number",
        Field::Double(_) => "decimal",
        Field::Boolean(_) => "boolean",
        Field::Timestamp(_) => "timestamp",
    }
}

/// The parameters of [`upsert`].
#[derive(Debug)]
pub(super) struct Rows<'a> {
    asset_ids: Vec<&'a str>,
    columns: Vec<Array<'a>>,
    deleted: Vec<&'static str>,
    guards: Guards,
}

impl<'a> Rows<'a> {
    /// Turns rows into columns; `generation` gives each partition's.
    pub(super) fn of(
        table: &Table,
        upserts: &[Upsert<'a>],
        generation: impl Fn(i32) -> i64,
    ) -> Result<Self, StoreError> {
        let mut columns: Vec<Array<'a>> =
            table.columns.iter().map(|column| Array::of(column.kind, upserts.len())).collect();
        for upsert in upserts {
            if upsert.fields.len() != columns.len() {
                let source = "the record has not as many values as the table has columns".into();
                return Err(StoreError::Record { code: "type".to_owned(), source });
            }
            for (array, field) in columns.iter_mut().zip(upsert.fields) {
                array.push(field)?;
            }
        }
        Ok(Self {
            asset_ids: upserts.iter().map(|upsert| upsert.asset_id).collect(),
            columns,
            deleted: upserts.iter().map(|upsert| if upsert.deleted { "true" } else { "false" }).collect(),
            guards: Guards::of(upserts.iter().map(|upsert| (upsert.partition, upsert.offset)), generation),
        })
    }

    pub(super) fn parameters(&self) -> Vec<&(dyn ToSql + Sync)> {
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&self.asset_ids];
        parameters.extend(self.columns.iter().map(Array::as_sql));
        parameters.push(&self.deleted);
        parameters.extend(self.guards.parameters());
        parameters
    }
}

/// The parameters of [`bury`].
#[derive(Debug)]
pub(super) struct Graves<'a> {
    asset_ids: Vec<&'a str>,
    guards: Guards,
}

impl<'a> Graves<'a> {
    pub(super) fn of(tombstones: &[Tombstone<'a>], generation: impl Fn(i32) -> i64) -> Self {
        let origins = tombstones.iter().map(|tombstone| (tombstone.partition, tombstone.offset));
        let asset_ids = tombstones.iter().map(|tombstone| tombstone.asset_id).collect();
        Self { asset_ids, guards: Guards::of(origins, generation) }
    }

    pub(super) fn parameters(&self) -> Vec<&(dyn ToSql + Sync)> {
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&self.asset_ids];
        parameters.extend(self.guards.parameters());
        parameters
    }
}

#[derive(Debug, Default)]
struct Guards {
    generations: Vec<i64>,
    partitions: Vec<i32>,
    offsets: Vec<i64>,
}

impl Guards {
    fn of(origins: impl Iterator<Item = (i32, i64)>, generation: impl Fn(i32) -> i64) -> Self {
        let mut guards = Self::default();
        for (partition, offset) in origins {
            guards.generations.push(generation(partition));
            guards.partitions.push(partition);
            guards.offsets.push(offset);
        }
        guards
    }

    fn parameters(&self) -> [&(dyn ToSql + Sync); 3] {
        [&self.generations, &self.partitions, &self.offsets]
    }
}
