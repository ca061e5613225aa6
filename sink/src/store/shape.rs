//! What the tables must look like, and what a start has to change so that they do (pure).

use super::ownership::{Owned, may_take};
use super::{GENERATION, Identity, Refusal};
use crate::config::SchemaMode;
use crate::table::{Column, FieldType, Name, Table};

/// How one kind of store writes names and types.
pub(crate) struct Dialect {
    /// Names a table of a schema in full, quoted.
    pub(crate) qualified: fn(&Name, &str) -> String,
    /// Names a column's type.
    pub(crate) sql_type: fn(FieldType) -> &'static str,
}

/// What a store holds before anything is changed.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Columns of `windfall_sinks`; none when there is no such table.
    pub(crate) sinks: Vec<Existing>,
    /// Columns of `windfall_positions`.
    pub(crate) positions: Vec<Existing>,
    /// Rows of `windfall_sinks` that name the table or the sink.
    pub(crate) owners: Vec<Owned>,
    /// Columns of the collection's table.
    pub(crate) columns: Vec<Existing>,
    /// Whether `asset_id` alone is unique, which the upsert rests on.
    pub(crate) keyed: bool,
}

/// A column as the store's catalogue shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Existing {
    pub(crate) name: String,
    /// The type without length or precision.
    pub(crate) sql_type: String,
    /// Must be given a value with each new row.
    pub(crate) demanding: bool,
}

/// What a start does before it claims partitions.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Statements that make or widen tables, in their order.
    pub(crate) ddl: Vec<String>,
    /// Whether the table has still to be noted as this sink's.
    pub(crate) take: bool,
}

impl Dialect {
    /// Decides what a start has to do, or why there must be none. Types are never changed, and nothing is dropped.
    pub(crate) fn plan(
        &self,
        table: &Table,
        identity: &Identity,
        mode: SchemaMode,
        found: &Found,
    ) -> Result<Plan, Refusal> {
        let shown = self.table(table).replace('"', "");
        let known = may_take(&found.owners, identity, table.name.table.as_str())?;
        let refused = |faults, remedy| Refusal::Shape { table: shown.clone(), faults, remedy };
        let mut changes = self.bookkeeping(table, found);
        if mode != SchemaMode::None {
            let clashes = self.clashes(table, found);
            if !clashes.is_empty() {
                return Err(refused(clashes, String::new()));
            }
            if known && found.columns.is_empty() {
                return Err(Refusal::Vanished { table: shown });
            }
            changes.extend(self.missing(table, found));
        }
        let (faults, ddl): (Vec<String>, Vec<String>) = changes.into_iter().unzip();
        if mode == SchemaMode::Evolve || ddl.is_empty() {
            Ok(Plan { ddl, take: !known })
        } else {
            Err(refused(faults, ddl.join("; ")))
        }
    }

    /// What takes the sink's positions back to the start, for an operator to run.
    pub(crate) fn reread(&self, table: &Table, Identity { sink, topic }: &Identity) -> String {
        let positions = (self.qualified)(&table.name.schema, "windfall_positions");
        format!(
            "update {positions} set generation = {GENERATION}, epoch = epoch + 1, next_offset = 0, as_of = null, \
             log_time = null where sink = '{sink}' and topic = '{topic}'"
        )
    }

    /// Takes the sink's positions back to the start, under the generation that follows.
    pub(crate) fn accept(&self, table: &Table, identity: &Identity) -> String {
        self.reread(table, identity).replace(GENERATION, "generation + 1")
    }

    fn table(&self, table: &Table) -> String {
        (self.qualified)(&table.name.schema, table.name.table.as_str())
    }

    /// Names what is missing of the sink's own two tables, each with the statement that adds it.
    fn bookkeeping(&self, table: &Table, found: &Found) -> Vec<(String, String)> {
        let (long, moment) = ((self.sql_type)(FieldType::Integer), (self.sql_type)(FieldType::Timestamp));
        let [sinks, positions] =
            ["windfall_sinks", "windfall_positions"].map(|name| (self.qualified)(&table.name.schema, name));
        let mut changes = Vec::new();
        if found.sinks.is_empty() {
            let ddl = format!(
                "create table {sinks} (table_name text primary key, sink text not null unique, topic text not null, \
                 claimed_at {moment} not null)"
            );
            changes.push(("the table `windfall_sinks` is missing beside it".to_owned(), ddl));
        }
        if found.positions.is_empty() {
            let ddl = format!(
                "create table {positions} (sink text not null, topic text not null, \"partition\" integer not null, \
                 generation {long} not null, epoch {long} not null, next_offset {long} not null, as_of {moment}, \
                 log_time {long}, primary key (sink, topic, \"partition\"))"
            );
            changes.push(("the table `windfall_positions` is missing beside it".to_owned(), ddl));
        } else if found.positions.iter().all(|column| column.name != "log_time") {
            let ddl = format!("alter table {positions} add column log_time {long}");
            changes.push(("the column `log_time` is missing in `windfall_positions`".to_owned(), ddl));
        }
        changes
    }

    /// Names what no additive change mends.
    fn clashes(&self, table: &Table, found: &Found) -> Vec<String> {
        let wanted = self.wanted(table);
        let mut clashes = Vec::new();
        if !found.columns.is_empty() && !found.keyed {
            clashes.push("`asset_id` is not the primary key, nor unique".to_owned());
        }
        for Existing { name, sql_type, demanding } in &found.columns {
            match wanted.iter().find(|(wanted, _)| wanted == name) {
                Some((_, kind)) if !takes(sql_type, kind) => {
                    clashes.push(format!("column `{name}` is {sql_type}, the collection asks for {kind}"));
                }
                None if *demanding => clashes.push(format!("column `{name}` must not be null and has no default")),
                Some(_) | None => {}
            }
        }
        clashes
    }

    /// Names the table or the columns that are missing, each with the statement that adds it. A column that is added is
    /// null in the rows that are there.
    fn missing(&self, table: &Table, found: &Found) -> Vec<(String, String)> {
        let wanted = self.wanted(table);
        if found.columns.is_empty() {
            let column = |(name, kind): &(String, &str)| match name.as_str() {
                "asset_id" => format!("\"{name}\" {kind} primary key not null"),
                "__deleted" | "__generation" | "__partition" | "__offset" => format!("\"{name}\" {kind} not null"),
                _ => format!("\"{name}\" {kind}"),
            };
            let columns: Vec<String> = wanted.iter().map(column).collect();
            let ddl = format!("create table {} ({})", self.table(table), columns.join(", "));
            return vec![("the table is missing".to_owned(), ddl)];
        }
        let is_missing = |(name, _): &&(String, &str)| found.columns.iter().all(|column| column.name != *name);
        let add = |(name, kind): &(String, &str)| {
            let ddl = format!("alter table {} add column \"{name}\" {kind}", self.table(table));
            (format!("column `{name}` ({kind}) is missing"), ddl)
        };
        wanted.iter().filter(is_missing).map(add).collect()
    }

    /// All columns in their order: key, fields, `__deleted`, the record's own notes, guard.
    fn wanted(&self, table: &Table) -> Vec<(String, &'static str)> {
        let is_note = |column: &&Column| column.name.as_str().starts_with("__");
        let of = |column: &Column| (column.name.as_str().to_owned(), (self.sql_type)(column.kind));
        let own = |name: &str, kind| (name.to_owned(), (self.sql_type)(kind));
        let mut columns = vec![own("asset_id", FieldType::String)];
        columns.extend(table.columns.iter().filter(|column| !is_note(column)).map(of));
        columns.push(own("__deleted", FieldType::String));
        columns.extend(table.columns.iter().filter(is_note).map(of));
        columns.push(own("__generation", FieldType::Integer));
        columns.push(("__partition".to_owned(), "integer"));
        columns.extend([own("__offset", FieldType::Integer), own("__written_at", FieldType::Timestamp)]);
        columns
    }
}

/// Whether a column of type `there` takes values of type `wanted` by assignment, without losing any.
fn takes(there: &str, wanted: &str) -> bool {
    there == wanted
        || match wanted {
            "text" => matches!(there, "character varying" | "varchar"),
            "bigint" | "double precision" => there == "numeric",
            "integer" => matches!(there, "bigint" | "int"),
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::TableName;

    const DIALECT: Dialect = Dialect {
        qualified: |schema, table| format!("{}.\"{table}\"", schema.quoted()),
        sql_type: |kind| match kind {
            FieldType::String => "text",
            FieldType::Integer => "bigint",
            FieldType::Decimal => "double precision",
            FieldType::Boolean => "boolean",
            FieldType::Timestamp => "moment",
        },
    };

    fn table() -> Table {
        let fields = [("asset_id", FieldType::String), ("color", FieldType::String), ("__version", FieldType::Integer)];
        Table::of_fields(TableName::parse("fleet.assets").unwrap(), fields).unwrap()
    }

    fn identity() -> Identity {
        Identity { sink: "assets".to_owned(), topic: "assets.devices".to_owned() }
    }

    fn column(name: &str, sql_type: &str, demanding: bool) -> Existing {
        Existing { name: name.to_owned(), sql_type: sql_type.to_owned(), demanding }
    }

    /// What a store holds once the sink has made its tables.
    fn made() -> Found {
        let Identity { sink, topic } = identity();
        Found {
            sinks: vec![column("sink", "text", true)],
            positions: vec![column("log_time", "bigint", false)],
            owners: vec![Owned { table: "assets".to_owned(), sink, topic }],
            columns: DIALECT
                .wanted(&table())
                .iter()
                .map(|(name, kind)| column(name, kind, name == "asset_id"))
                .collect(),
            keyed: true,
        }
    }

    fn plan(mode: SchemaMode, found: &Found) -> Result<Plan, Refusal> {
        DIALECT.plan(&table(), &identity(), mode, found)
    }

    fn faults(outcome: Result<Plan, Refusal>) -> (Vec<String>, String) {
        match outcome {
            Err(Refusal::Shape { faults, remedy, .. }) => (faults, remedy),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_empty_store_gets_three_tables_the_key_first_and_the_guard_last() {
        let Plan { ddl, take } = plan(SchemaMode::Evolve, &Found::default()).unwrap();
        assert!(take);
        assert_eq!(ddl.len(), 3);
        assert_eq!(
            ddl[2],
            "create table \"fleet\".\"assets\" (\"asset_id\" text primary key not null, \"color\" text, \
             \"__deleted\" text not null, \"__version\" bigint, \"__generation\" bigint not null, \
             \"__partition\" integer not null, \"__offset\" bigint not null, \"__written_at\" moment)"
        );
        assert_eq!(
            faults(plan(SchemaMode::Validate, &Found::default())),
            (
                vec![
                    "the table `windfall_sinks` is missing beside it".to_owned(),
                    "the table `windfall_positions` is missing beside it".to_owned(),
                    "the table is missing".to_owned(),
                ],
                ddl.join("; "),
            )
        );
        assert_eq!(faults(plan(SchemaMode::None, &Found::default())).0.len(), 2, "the table itself is not looked at");
    }

    #[test]
    fn tables_made_by_the_sink_need_nothing() {
        for mode in [SchemaMode::None, SchemaMode::Validate, SchemaMode::Evolve] {
            assert_eq!(plan(mode, &made()), Ok(Plan { ddl: Vec::new(), take: false }));
        }
    }

    #[test]
    fn a_column_that_was_dropped_is_added_and_one_of_another_type_clashes() {
        let mut there = made();
        there.columns.retain(|column| column.name != "color");
        let added = ["alter table \"fleet\".\"assets\" add column \"color\" text"];
        assert_eq!(plan(SchemaMode::Evolve, &there).unwrap().ddl, added);
        there.columns.iter_mut().find(|column| column.name == "__version").unwrap().sql_type = "text".to_owned();
        let (faults, remedy) = faults(plan(SchemaMode::Evolve, &there));
        assert_eq!(faults, ["column `__version` is text, the collection asks for bigint"]);
        assert!(remedy.is_empty());
    }

    #[test]
    fn positions_from_before_the_log_time_was_noted_get_its_column() {
        let there = Found { positions: vec![column("epoch", "bigint", true)], ..made() };
        let ddl = ["alter table \"fleet\".\"windfall_positions\" add column log_time bigint"];
        assert_eq!(plan(SchemaMode::Evolve, &there).unwrap().ddl, ddl);
    }

    #[test]
    fn the_users_own_columns_are_left_alone_unless_they_demand_a_value() {
        let mut there = made();
        there.columns.push(column("note", "jsonb", false));
        assert!(plan(SchemaMode::Validate, &there).is_ok());
        there.columns.push(column("cost", "numeric", true));
        assert_eq!(faults(plan(SchemaMode::Validate, &there)).0.len(), 1);
    }

    #[test]
    fn without_a_unique_key_nothing_can_be_upserted_and_a_table_that_vanished_is_not_made_again() {
        assert_eq!(faults(plan(SchemaMode::Evolve, &Found { keyed: false, ..made() })).0.len(), 1);
        let vanished = Found { columns: Vec::new(), keyed: false, ..made() };
        assert!(matches!(plan(SchemaMode::Evolve, &vanished), Err(Refusal::Vanished { .. })));
    }
}
