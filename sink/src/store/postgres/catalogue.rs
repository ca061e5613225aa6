//! Makes or checks the tables on a new connection, as the sink's `schema` setting says.

use tokio_postgres::types::Type;
use tracing::info;

use super::session::{Session, Target};
use super::shape::{self, Existing};
use super::sqlstate::classify;
use super::statements::{Parameter, qualified, table_name};
use crate::config::SchemaMode;
use crate::store::ownership::{Owned, may_take};
use crate::store::{Cause, Identity, Refusal, StoreError};
use crate::table::Table;

/// Advisory lock under which sinks look at and change tables, one after the other: the bytes of `windfall`.
const DDL_LOCK: i64 = 0x7769_6e64_6661_6c6c;

const COLUMNS: &str = "select a.attname::pg_catalog.text, pg_catalog.format_type(a.atttypid, null), \
    a.attnotnull and not a.atthasdef and a.attidentity operator(pg_catalog.=) '' and a.attgenerated operator(pg_catalog.=) '' \
    from pg_catalog.pg_attribute a where a.attrelid operator(pg_catalog.=) pg_catalog.to_regclass($1) \
    and a.attnum operator(pg_catalog.>) 0 and not a.attisdropped order by a.attnum";

const KEYED: &str = "select exists (select 1 from pg_catalog.pg_index i \
    join pg_catalog.pg_attribute a on a.attrelid operator(pg_catalog.=) i.indrelid \
    and a.attnum operator(pg_catalog.=) i.indkey[0] \
    where i.indrelid operator(pg_catalog.=) pg_catalog.to_regclass($1) and i.indisunique and i.indisvalid \
    and i.indimmediate and i.indpred is null and i.indexprs is null and i.indnkeyatts operator(pg_catalog.=) 1 \
    and a.attname operator(pg_catalog.=) 'asset_id')";

impl Session {
    /// Takes the table for this sink and makes it fit, or refuses; in one transaction, so that nothing half-made stays.
    pub(super) async fn settle(&self, target: &Target, mode: SchemaMode) -> Result<(), StoreError> {
        let lock = format!("select pg_catalog.pg_advisory_xact_lock({DDL_LOCK})");
        let settle = async {
            self.within(self.client.batch_execute(&lock)).await?;
            self.settle_tables(target, mode).await
        };
        self.transaction(settle).await
    }

    async fn settle_tables(&self, target: &Target, mode: SchemaMode) -> Result<(), StoreError> {
        let table = &target.table;
        self.settle_bookkeeping(table, mode).await?;
        let known = self.take_table(&target.identity, table).await?;
        if mode == SchemaMode::None {
            return Ok(());
        }
        let existing = self.columns(&table_name(&table.name)).await?;
        if existing.is_empty() && known {
            return Err(Refusal::Vanished { table: table.name.to_string() }.into());
        }
        if existing.is_empty() {
            return self.change(table, mode, vec!["the table is missing".to_owned()], shape::create(table)).await;
        }
        let keyed = self.is_keyed(table).await?;
        let difference = shape::compare(table, &existing, keyed);
        if !difference.clashes.is_empty() {
            let (table, faults) = (table.name.to_string(), difference.faults());
            return Err(Refusal::Shape { table, faults, remedy: String::new() }.into());
        }
        if difference.missing.is_empty() {
            return Ok(());
        }
        self.change(table, mode, difference.faults(), shape::add(table, &difference.missing)).await
    }

    async fn settle_bookkeeping(&self, table: &Table, mode: SchemaMode) -> Result<(), StoreError> {
        for (name, statement) in
            ["windfall_sinks", "windfall_positions"].iter().zip(shape::create_bookkeeping(&table.name.schema))
        {
            let existing = self.columns(&qualified(&table.name.schema, name)).await?;
            if existing.is_empty() {
                self.change(table, mode, vec![format!("the table `{name}` is missing beside it")], statement).await?;
            } else if *name == "windfall_positions" && existing.iter().all(|column| column.name != "log_time") {
                let faults = vec![format!("column `log_time` is missing in `{name}` beside it")];
                self.change(table, mode, faults, shape::add_log_time(&table.name.schema)).await?;
            }
        }
        Ok(())
    }

    /// Notes that the table is this sink's; answers whether it was before.
    async fn take_table(&self, identity: &Identity, table: &Table) -> Result<bool, StoreError> {
        let sinks = qualified(&table.name.schema, "windfall_sinks");
        let name = table.name.table.as_str();
        let taken = format!(
            "select table_name, sink, topic from {sinks} \
             where table_name operator(pg_catalog.=) $1 or sink operator(pg_catalog.=) $2"
        );
        let rows = self.query(&taken, &[(&name, Type::TEXT), (&identity.sink, Type::TEXT)]).await?;
        let rows: Vec<Owned> = rows
            .iter()
            .map(|row| Ok(Owned { table: row.try_get(0)?, sink: row.try_get(1)?, topic: row.try_get(2)? }))
            .collect::<Result<_, tokio_postgres::Error>>()
            .map_err(classify)?;
        let known = may_take(&rows, identity, name)?;
        if !known {
            let take = format!("insert into {sinks} (table_name, sink, topic) values ($1, $2, $3)");
            let values: [Parameter<'_>; 3] =
                [(&name, Type::TEXT), (&identity.sink, Type::TEXT), (&identity.topic, Type::TEXT)];
            self.execute(&take, &values).await?;
        }
        Ok(known)
    }

    /// Runs a statement that changes tables, shown first, or refuses with it as the remedy.
    async fn change(
        &self,
        table: &Table,
        mode: SchemaMode,
        faults: Vec<String>,
        ddl: String,
    ) -> Result<(), StoreError> {
        if mode != SchemaMode::Evolve {
            return Err(Refusal::Shape { table: table.name.to_string(), faults, remedy: ddl }.into());
        }
        info!(table = %table.name, %ddl, "changing the store's tables");
        self.within(self.client.batch_execute(&ddl)).await
    }

    /// Whether `asset_id` alone is unique, which the upsert rests on.
    async fn is_keyed(&self, table: &Table) -> Result<bool, StoreError> {
        let name = table_name(&table.name);
        let row = self.within(self.client.query_typed_one(KEYED, &[(&name, Type::TEXT)])).await?;
        row.try_get(0).map_err(classify)
    }

    async fn columns(&self, name: &str) -> Result<Vec<Existing>, StoreError> {
        let rows = self.query(COLUMNS, &[(&name, Type::TEXT)]).await?;
        rows.iter()
            .map(|row| Ok(Existing { name: row.try_get(0)?, sql_type: row.try_get(1)?, demanding: row.try_get(2)? }))
            .collect::<Result<_, tokio_postgres::Error>>()
            .map_err(|error| StoreError::environment(Cause::Internal, error))
    }
}
