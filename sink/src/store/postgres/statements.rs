//! The SQL of one table, and the arrays that fill it. Names come from [`Name`], values travel as parameters alone.

use bytes::BytesMut;
use chrono::DateTime;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use crate::asset::FieldValue;
use crate::store::fold::Upsert;
use crate::store::{Source, StoreError};
use crate::table::{Column, FieldType, Name, Table, TableName};

/// Names a table in full, quoted.
pub(super) fn qualified(schema: &Name, table: &str) -> String {
    format!("{}.\"{table}\"", schema.quoted())
}

/// Names the collection's table in full, quoted.
pub(super) fn table_name(name: &TableName) -> String {
    qualified(&name.schema, name.table.as_str())
}

/// The statements of one table.
///
/// They name every table, function and operator with its schema, because the session keeps the `search_path` of its role:
/// the user's own triggers rest on that. Each is sent as an unnamed statement, because a pooler would show a named one to
/// other programs. `unnest` of several arrays and `greatest` are part of the grammar and never looked up.
pub(super) struct Statements {
    /// Raises the epoch of partitions: `$1` sink, `$2` topic, `$3` partitions.
    pub(super) claim: String,
    /// Moves the positions that are where they should be, and answers which these were.
    pub(super) advance: String,
    /// Reads a position again.
    pub(super) position: String,
    /// Writes rows given as one array per column.
    pub(super) upsert: String,
    /// Writes rows as `upsert` does; answers how many were written and how many of these are deleted.
    pub(super) upsert_and_count: String,
    /// Marks rows as deleted that are live and older than the tombstone.
    pub(super) delete: String,
    /// Reads each position with the greatest guard of the partition's rows: `$1` sink, `$2` topic.
    pub(super) held: String,
}

impl Statements {
    pub(super) fn of(table: &Table) -> Self {
        let positions = qualified(&table.name.schema, "windfall_positions");
        let upsert = upsert(table);
        Self {
            claim: format!(
                "insert into {positions} as kept (sink, topic, partition, generation, epoch, next_offset) \
                 select $1, $2, wanted, 1, 1, 0 from pg_catalog.unnest($3) as wanted order by wanted \
                 on conflict (sink, topic, partition) do update set epoch = kept.epoch operator(pg_catalog.+) 1 \
                 returning partition, generation, epoch, next_offset, as_of, log_time"
            ),
            advance: format!(
                "update {positions} as kept set next_offset = moved.upto, as_of = greatest(kept.as_of, moved.as_of), \
                 log_time = greatest(kept.log_time, moved.log_time) \
                 from unnest($3, $4, $5, $6, $7, $8) as moved(partition, epoch, start, upto, as_of, log_time) \
                 where kept.sink operator(pg_catalog.=) $1 and kept.topic operator(pg_catalog.=) $2 \
                 and kept.partition operator(pg_catalog.=) moved.partition \
                 and kept.epoch operator(pg_catalog.=) moved.epoch \
                 and kept.next_offset operator(pg_catalog.=) moved.start returning kept.partition"
            ),
            position: format!(
                "select epoch, next_offset from {positions} where sink operator(pg_catalog.=) $1 \
                 and topic operator(pg_catalog.=) $2 and partition operator(pg_catalog.=) $3"
            ),
            upsert_and_count: format!(
                "with written as ({upsert} returning \"__deleted\" operator(pg_catalog.=) 'true' as gone) \
                 select pg_catalog.count(*), pg_catalog.count(*) filter (where gone) from written"
            ),
            upsert,
            delete: delete(table),
            held: format!(
                "select distinct on (kept.partition) kept.partition, kept.generation, kept.next_offset, kept.log_time, \
                 written.generation, written.upto from {positions} as kept left join (select \"__generation\" as generation, \
                 \"__partition\" as partition, pg_catalog.max(\"__offset\") as upto from {table} group by 1, 2) as written \
                 on written.partition operator(pg_catalog.=) kept.partition where kept.sink operator(pg_catalog.=) $1 \
                 and kept.topic operator(pg_catalog.=) $2 order by kept.partition, written.generation desc nulls last",
                table = table_name(&table.name),
            ),
        }
    }
}

/// Holds where the row's guard is older than `guard`; a row without one is older than anything.
fn older_than(guard: &str) -> String {
    format!(
        "((\"kept\".\"__generation\", \"kept\".\"__partition\", \"kept\".\"__offset\") \
         operator(pg_catalog.>=) ({guard})) is not true"
    )
}

fn upsert(table: &Table) -> String {
    let mut columns: Vec<String> = table.columns.iter().map(|column| column.name.quoted()).collect();
    let own = ["__deleted", "__generation", "__partition", "__offset"];
    columns.extend(own.iter().map(|name| format!("\"{name}\"")));
    let arrays: Vec<String> = (1..=columns.len() + 1).map(|index| format!("${index}")).collect();
    let sets: Vec<String> = columns.iter().map(|column| format!("{column} = excluded.{column}")).collect();
    format!(
        "insert into {table} as \"kept\" (\"asset_id\", {columns}, \"__written_at\") \
         select incoming.*, pg_catalog.now() from unnest({arrays}) as incoming \
         on conflict (\"asset_id\") do update set {sets}, \"__written_at\" = excluded.\"__written_at\" where {older}",
        table = table_name(&table.name),
        columns = columns.join(", "),
        arrays = arrays.join(", "),
        sets = sets.join(", "),
        older = older_than("excluded.\"__generation\", excluded.\"__partition\", excluded.\"__offset\""),
    )
}

fn delete(table: &Table) -> String {
    let sets = "\"__deleted\" = 'true', \"__generation\" = incoming.generation, \
        \"__partition\" = incoming.partition, \"__offset\" = incoming.offset_, \"__written_at\" = pg_catalog.now()";
    format!("{} and (\"kept\".\"__deleted\" operator(pg_catalog.=) 'true') is not true", update(table, sets))
}

/// Empties columns of the rows that a batch writes, so that no value stands in the way of the row that it moves to.
pub(super) fn vacate(table: &Table, columns: &[String]) -> String {
    let sets: Vec<String> = columns.iter().map(|column| format!("\"{column}\" = null")).collect();
    update(table, &sets.join(", "))
}

/// Changes the rows that are older than what came in: `$1` assets, `$2` to `$4` guards.
fn update(table: &Table, sets: &str) -> String {
    format!(
        "update {table} as \"kept\" set {sets} \
         from unnest($1, $2, $3, $4) as incoming(asset_id, generation, partition, offset_) \
         where \"kept\".\"asset_id\" operator(pg_catalog.=) incoming.asset_id and {older}",
        table = table_name(&table.name),
        older = older_than("incoming.generation, incoming.partition, incoming.offset_"),
    )
}

/// PostgreSQL's name of a column type.
pub(super) fn sql_type(kind: FieldType) -> &'static str {
    match kind {
        FieldType::String => "text",
        FieldType::Integer => "bigint",
        FieldType::Decimal => "double precision",
        FieldType::Boolean => "boolean",
        FieldType::Timestamp => "timestamp with time zone",
    }
}

/// A value of a statement with its type, which is sent along: the server need not be asked for it.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// A value as an item of its column's array.
#[derive(Debug)]
struct Cell<'a>(&'a FieldValue);

impl ToSql for Cell<'_> {
    fn to_sql(&self, item: &Type, out: &mut BytesMut) -> Result<IsNull, Source> {
        match self.0 {
            FieldValue::Null => Ok(IsNull::Yes),
            FieldValue::String(text) => text.to_sql(item, out),
            FieldValue::Integer(number) => number.to_sql(item, out),
            FieldValue::Decimal(number) => number.to_sql(item, out),
            FieldValue::Boolean(value) => value.to_sql(item, out),
            FieldValue::Timestamp(millis) => {
                let moment = DateTime::from_timestamp_millis(*millis);
                moment.ok_or_else(|| format!("{millis} milliseconds is no moment"))?.to_sql(item, out)
            }
        }
    }

    fn accepts(item: &Type) -> bool {
        [Type::TEXT, Type::INT8, Type::FLOAT8, Type::BOOL, Type::TIMESTAMPTZ].contains(item)
    }

    to_sql_checked!();
}

fn array_type(kind: FieldType) -> Type {
    match kind {
        FieldType::String => Type::TEXT_ARRAY,
        FieldType::Integer => Type::INT8_ARRAY,
        FieldType::Decimal => Type::FLOAT8_ARRAY,
        FieldType::Boolean => Type::BOOL_ARRAY,
        FieldType::Timestamp => Type::TIMESTAMPTZ_ARRAY,
    }
}

/// The parameters of [`Statements::upsert`].
#[derive(Debug)]
pub(super) struct UpsertRows<'a> {
    guarded: Guarded<'a>,
    columns: Vec<(Vec<Cell<'a>>, Type)>,
    deleted: Vec<&'static str>,
}

impl<'a> UpsertRows<'a> {
    /// Turns rows into columns; `generation` gives each partition's.
    pub(super) fn of(
        table: &Table,
        upserts: &[Upsert<'a>],
        generation: impl Fn(i32) -> i64,
    ) -> Result<Self, StoreError> {
        let column = |kind| (Vec::with_capacity(upserts.len()), array_type(kind));
        let mut columns: Vec<(Vec<Cell<'a>>, Type)> =
            table.columns.iter().map(|Column { kind, .. }| column(*kind)).collect();
        for upsert in upserts {
            if upsert.fields.len() != columns.len() {
                return Err(StoreError::record("type", "the record has not as many values as the table has columns"));
            }
            for ((Column { kind, .. }, (cells, _)), value) in table.columns.iter().zip(&mut columns).zip(upsert.fields)
            {
                if let Some(other) = value.kind().filter(|other| other != kind) {
                    let message = format!("a value does not have its column's type: {other}");
                    return Err(StoreError::record("type", message));
                }
                cells.push(Cell(value));
            }
        }
        let records = upserts.iter().map(|upsert| (upsert.asset_id, upsert.partition, upsert.offset));
        let deleted = upserts.iter().map(|upsert| if upsert.deleted { "true" } else { "false" }).collect();
        Ok(Self { guarded: Guarded::of(records, generation), columns, deleted })
    }

    pub(super) fn parameters(&self) -> Vec<Parameter<'_>> {
        let [asset_ids, guards @ ..] = self.guarded.parameters();
        let mut parameters = vec![asset_ids];
        parameters.extend(self.columns.iter().map(|(cells, kind)| -> Parameter<'_> { (cells, kind.clone()) }));
        parameters.push((&self.deleted, Type::TEXT_ARRAY));
        parameters.extend(guards);
        parameters
    }
}

/// Assets with the guards of their records: the parameters of [`Statements::delete`] and [`vacate`].
#[derive(Debug, Default)]
pub(super) struct Guarded<'a> {
    asset_ids: Vec<&'a str>,
    generations: Vec<i64>,
    partitions: Vec<i32>,
    offsets: Vec<i64>,
}

impl<'a> Guarded<'a> {
    /// Takes assets with the places of their records.
    pub(super) fn of(records: impl Iterator<Item = (&'a str, i32, i64)>, generation: impl Fn(i32) -> i64) -> Self {
        let mut guarded = Self::default();
        for (asset_id, partition, offset) in records {
            guarded.asset_ids.push(asset_id);
            guarded.generations.push(generation(partition));
            guarded.partitions.push(partition);
            guarded.offsets.push(offset);
        }
        guarded
    }

    pub(super) fn parameters(&self) -> [Parameter<'_>; 4] {
        [
            (&self.asset_ids, Type::TEXT_ARRAY),
            (&self.generations, Type::INT8_ARRAY),
            (&self.partitions, Type::INT4_ARRAY),
            (&self.offsets, Type::INT8_ARRAY),
        ]
    }
}
