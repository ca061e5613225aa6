//! What the tables must look like, and what is missing from those that are there (pure).

use super::statements::{qualified, sql_type, table_name};
use crate::table::{Column, ColumnKind, Name, Table};

/// Columns of the sink's own that stand behind the collection's fields.
const GUARD_COLUMNS: [(&str, &str); 4] = [
    ("__generation", "bigint"),
    ("__partition", "integer"),
    ("__offset", "bigint"),
    ("__written_at", "timestamp with time zone"),
];

/// A column as the catalogue shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Existing {
    pub(super) name: String,
    /// The type without length or precision.
    pub(super) sql_type: String,
    /// Must be given a value with each new row.
    pub(super) demanding: bool,
}

/// How an existing table differs from the one asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// What no additive change mends.
    pub(super) clashes: Vec<String>,
    /// Columns to add.
    pub(super) missing: Vec<(String, &'static str)>,
}

impl Difference {
    /// Names everything that does not fit.
    pub(super) fn faults(&self) -> Vec<String> {
        let missing = self.missing.iter().map(|(name, kind)| format!("column `{name}` ({kind}) is missing"));
        self.clashes.iter().cloned().chain(missing).collect()
    }
}

/// Compares the table asked for with the columns that are there. `keyed`: `asset_id` alone is unique.
pub(super) fn compare(table: &Table, existing: &[Existing], keyed: bool) -> Difference {
    let mut difference = Difference::default();
    if !keyed {
        difference.clashes.push("`asset_id` is not the primary key, nor unique".to_owned());
    }
    let wanted = wanted(table);
    for (name, kind) in &wanted {
        match existing.iter().find(|column| column.name == *name) {
            None => difference.missing.push((name.clone(), kind)),
            Some(column) if takes(&column.sql_type, kind) => {}
            Some(column) => {
                let there = &column.sql_type;
                difference.clashes.push(format!("column `{name}` is {there}, the collection asks for {kind}"));
            }
        }
    }
    let strangers = existing.iter().filter(|column| wanted.iter().all(|(name, _)| *name != column.name));
    for stranger in strangers.filter(|column| column.demanding) {
        difference.clashes.push(format!("column `{}` must not be null and has no default", stranger.name));
    }
    difference
}

/// Whether a column of type `there` takes values of type `wanted` by assignment, without losing any.
fn takes(there: &str, wanted: &str) -> bool {
    there == wanted
        || match wanted {
            "text" => there == "character varying",
            "bigint" | "double precision" => there == "numeric",
            _ => false,
        }
}

/// All columns in their order: key, fields, `__deleted`, the record's own notes, guard.
fn wanted(table: &Table) -> Vec<(String, &'static str)> {
    let is_note = |column: &&Column| column.name.as_str().starts_with("__");
    let of = |column: &Column| (column.name.as_str().to_owned(), sql_type(column.kind));
    let mut columns = vec![("asset_id".to_owned(), sql_type(ColumnKind::Text))];
    columns.extend(table.columns.iter().filter(|column| !is_note(column)).map(of));
    columns.push(("__deleted".to_owned(), sql_type(ColumnKind::Text)));
    columns.extend(table.columns.iter().filter(is_note).map(of));
    columns.extend(GUARD_COLUMNS.iter().map(|(name, kind)| ((*name).to_owned(), *kind)));
    columns
}

/// Makes the table.
pub(super) fn create(table: &Table) -> String {
    let columns: Vec<String> = wanted(table)
        .iter()
        .map(|(name, kind)| match name.as_str() {
            "asset_id" => format!("\"{name}\" {kind} primary key"),
            "__deleted" | "__generation" | "__partition" | "__offset" => format!("\"{name}\" {kind} not null"),
            _ => format!("\"{name}\" {kind}"),
        })
        .collect();
    format!("create table {} ({})", table_name(&table.name), columns.join(", "))
}

/// Adds the missing columns.
pub(super) fn add(table: &Table, missing: &[(String, &'static str)]) -> String {
    let additions: Vec<String> = missing.iter().map(|(name, kind)| format!("add column \"{name}\" {kind}")).collect();
    format!("alter table {} {}", table_name(&table.name), additions.join(", "))
}

/// Makes the sink's own two tables, with those that are there left alone.
pub(super) fn create_bookkeeping(schema: &Name) -> [String; 2] {
    let sinks = format!(
        "create table if not exists {} (table_name text primary key, sink text not null unique, topic text not null, \
         claimed_at timestamp with time zone not null default now())",
        qualified(schema, "windfall_sinks"),
    );
    let positions = format!(
        "create table if not exists {} (sink text not null, topic text not null, partition integer not null, \
         generation bigint not null, epoch bigint not null, next_offset bigint not null, \
         as_of timestamp with time zone, log_time bigint, primary key (sink, topic, partition))",
        qualified(schema, "windfall_positions"),
    );
    [sinks, positions]
}

/// Adds what earlier versions did not note beside a position.
pub(super) fn add_log_time(schema: &Name) -> String {
    format!("alter table {} add column if not exists log_time bigint", qualified(schema, "windfall_positions"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::TableName;

    fn table() -> Table {
        let fields = [("asset_id", ColumnKind::Text), ("color", ColumnKind::Text), ("__version", ColumnKind::Long)];
        Table::of_fields(TableName::parse("fleet.assets").unwrap(), fields).unwrap()
    }

    fn existing() -> Vec<Existing> {
        wanted(&table())
            .into_iter()
            .map(|(name, kind)| Existing { demanding: name == "asset_id", name, sql_type: kind.to_owned() })
            .collect()
    }

    #[test]
    fn the_table_has_the_key_first_and_the_guard_last() {
        assert_eq!(
            create(&table()),
            "create table \"fleet\".\"assets\" (\"asset_id\" text primary key, \"color\" text, \
             \"__deleted\" text not null, \"__version\" bigint, \"__generation\" bigint not null, \
             \"__partition\" integer not null, \"__offset\" bigint not null, \
             \"__written_at\" timestamp with time zone)"
        );
    }

    #[test]
    fn a_table_made_by_the_sink_fits() {
        assert_eq!(compare(&table(), &existing(), true), Difference::default());
    }

    #[test]
    fn a_column_that_was_dropped_is_missing_and_one_of_another_type_clashes() {
        let mut there = existing();
        there.retain(|column| column.name != "color");
        there.iter_mut().find(|column| column.name == "__version").unwrap().sql_type = "text".to_owned();
        let difference = compare(&table(), &there, true);
        assert_eq!(difference.missing, [("color".to_owned(), "text")]);
        assert_eq!(difference.clashes, ["column `__version` is text, the collection asks for bigint"]);
        assert_eq!(add(&table(), &difference.missing), "alter table \"fleet\".\"assets\" add column \"color\" text");
    }

    #[test]
    fn the_users_own_columns_are_left_alone_unless_they_demand_a_value() {
        let mut there = existing();
        there.push(Existing { name: "note".to_owned(), sql_type: "jsonb".to_owned(), demanding: false });
        assert_eq!(compare(&table(), &there, true), Difference::default());
        there.push(Existing { name: "cost".to_owned(), sql_type: "numeric".to_owned(), demanding: true });
        assert_eq!(compare(&table(), &there, true).clashes.len(), 1);
    }

    #[test]
    fn without_a_unique_key_nothing_can_be_upserted() {
        assert_eq!(compare(&table(), &existing(), false).clashes.len(), 1);
    }
}
