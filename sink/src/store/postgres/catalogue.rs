//! Looks at the tables on a new connection, and makes them fit as the sink's `schema` setting says.

use tokio_postgres::types::Type;
use tracing::info;
use windfall_runtime::log_identity::Position;

use super::session::{PostgresSession, Target};
use super::sqlstate::classify;
use super::statements::{Parameter, qualified, sql_type, table_name};
use crate::config::SchemaMode;
use crate::store::ownership::Owned;
use crate::store::shape::{Dialect, Existing, Found, Plan};
use crate::store::{PartitionProgress, StoreError, StoreProgress};

pub(super) const DIALECT: Dialect = Dialect { qualified, sql_type };

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

/// Columns that may be empty and that a unique index rests on, by itself or in an expression.
const UNIQUE: &str = "select distinct a.attname::pg_catalog.text from pg_catalog.pg_index i \
    join pg_catalog.pg_attribute a on a.attrelid operator(pg_catalog.=) i.indrelid \
    where i.indrelid operator(pg_catalog.=) pg_catalog.to_regclass($1) and i.indisunique and not a.attnotnull \
    and (a.attnum operator(pg_catalog.=) any (i.indkey) or exists (select 1 from pg_catalog.pg_depend d \
    where d.objid operator(pg_catalog.=) i.indexrelid and d.refobjid operator(pg_catalog.=) i.indrelid \
    and d.refobjsubid operator(pg_catalog.=) a.attnum))";

impl PostgresSession {
    /// Takes the table for this sink and makes it fit, or refuses; in one transaction, so that nothing half-made stays.
    pub(super) async fn settle(&self, target: &Target, mode: SchemaMode) -> Result<(), StoreError> {
        let lock = format!("select pg_catalog.pg_advisory_xact_lock({DDL_LOCK})");
        let settle = async {
            self.within(self.client.batch_execute(&lock)).await?;
            let Plan { ddl, take } = self.plan(target, mode).await?;
            for statement in ddl {
                info!(table = %target.table.name, ddl = statement, "changing the store's tables");
                self.within(self.client.batch_execute(&statement)).await?;
            }
            if take { self.take_table(target).await } else { Ok(()) }
        };
        self.transaction(settle).await
    }

    /// Tells what [`PostgresSession::settle`] would run, in a transaction that can only read.
    pub(super) async fn preview(&self, target: &Target, mode: SchemaMode) -> Result<Vec<String>, StoreError> {
        let preview = async {
            self.within(self.client.batch_execute("set transaction read only")).await?;
            self.plan(target, mode).await
        };
        Ok(self.transaction(preview).await?.ddl)
    }

    /// Reads how far positions and rows go, in one statement; nothing where a start would have to make or change a table.
    pub(super) async fn held(&self, target: &Target, mode: SchemaMode) -> Result<StoreProgress, StoreError> {
        let Target { identity, table, .. } = target;
        let held = async {
            self.within(self.client.batch_execute("set transaction read only")).await?;
            let Plan { ddl, take } = self.plan(target, mode).await?;
            if take || !ddl.is_empty() {
                return Ok(Vec::new());
            }
            let parameters: [Parameter<'_>; 2] = [(&identity.sink, Type::TEXT), (&identity.topic, Type::TEXT)];
            self.query(&target.statements.held, &parameters).await
        };
        let rows = self.transaction(held).await?;
        let partitions = rows.iter().map(|row| {
            let greatest: (Option<i64>, Option<i64>) = (row.try_get(4)?, row.try_get(5)?);
            Ok(PartitionProgress {
                partition: row.try_get(0)?,
                generation: row.try_get(1)?,
                position: Position { next_offset: row.try_get(2)?, log_time: row.try_get(3)? },
                greatest: greatest.0.zip(greatest.1),
            })
        });
        let partitions = partitions.collect::<Result<_, tokio_postgres::Error>>().map_err(classify)?;
        Ok(StoreProgress { partitions, reread: DIALECT.reread(table, identity) })
    }

    async fn plan(&self, target: &Target, mode: SchemaMode) -> Result<Plan, StoreError> {
        let Target { identity, table, .. } = target;
        let beside = |name| qualified(&table.name.schema, name);
        let name = table_name(&table.name);
        let mut found = Found {
            sinks: self.columns(&beside("windfall_sinks")).await?,
            positions: self.columns(&beside("windfall_positions")).await?,
            columns: self.columns(&name).await?,
            ..Found::default()
        };
        if !found.sinks.is_empty() {
            found.owners = self.owners(target).await?;
        }
        let keyed = self.within(self.client.query_typed_one(KEYED, &[(&name, Type::TEXT)])).await?;
        found.keyed = keyed.try_get(0).map_err(classify)?;
        Ok(DIALECT.plan(table, identity, mode, &found)?)
    }

    async fn owners(&self, Target { identity, table, .. }: &Target) -> Result<Vec<Owned>, StoreError> {
        let text = format!(
            "select table_name, sink, topic from {} \
             where table_name operator(pg_catalog.=) $1 or sink operator(pg_catalog.=) $2",
            qualified(&table.name.schema, "windfall_sinks"),
        );
        let name = table.name.table.as_str();
        let rows = self.query(&text, &[(&name, Type::TEXT), (&identity.sink, Type::TEXT)]).await?;
        rows.iter()
            .map(|row| Ok(Owned { table: row.try_get(0)?, sink: row.try_get(1)?, topic: row.try_get(2)? }))
            .collect::<Result<_, tokio_postgres::Error>>()
            .map_err(classify)
    }

    async fn take_table(&self, Target { identity, table, .. }: &Target) -> Result<(), StoreError> {
        let text = format!(
            "insert into {} (table_name, sink, topic, claimed_at) values ($1, $2, $3, pg_catalog.now())",
            qualified(&table.name.schema, "windfall_sinks"),
        );
        let name = table.name.table.as_str();
        let values: [Parameter<'_>; 3] =
            [(&name, Type::TEXT), (&identity.sink, Type::TEXT), (&identity.topic, Type::TEXT)];
        self.execute(&text, &values).await.map(drop)
    }

    /// Names the collection's columns that unique indexes of the user's own rest on.
    pub(super) async fn unique_columns(&self, target: &Target) -> Result<Vec<String>, StoreError> {
        let rows = self.query(UNIQUE, &[(&table_name(&target.table.name), Type::TEXT)]).await?;
        let names: Result<Vec<String>, _> = rows.iter().map(|row| row.try_get(0)).collect();
        let ours = |name: &String| target.table.columns.iter().any(|column| column.name.as_str() == name);
        Ok(names.map_err(classify)?.into_iter().filter(ours).collect())
    }

    async fn columns(&self, name: &str) -> Result<Vec<Existing>, StoreError> {
        let rows = self.query(COLUMNS, &[(&name, Type::TEXT)]).await?;
        rows.iter()
            .map(|row| Ok(Existing { name: row.try_get(0)?, sql_type: row.try_get(1)?, demanding: row.try_get(2)? }))
            .collect::<Result<_, tokio_postgres::Error>>()
            .map_err(classify)
    }
}
