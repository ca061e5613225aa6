//! The store as its users see it: rows, positions and every version that a row ever had, read by plain SQL.

use std::collections::BTreeMap;

use anyhow::Context;
use chrono::DateTime;
use serde_json::{Value as Json, json};
use tokio_postgres::{Client, NoTls};

use crate::checker::StoreSnapshot;
use crate::fold::Rows;

/// Notes each version of each row of `public.assets` from the table's first moment on.
const AUDIT: &str = "
create table public.audit (id bigserial, asset_id text, generation bigint, partition int, offset_ bigint);
create function public.note() returns trigger as $$ begin
  insert into public.audit (asset_id, generation, partition, offset_)
  values (new.asset_id, new.__generation, new.__partition, new.__offset);
  return null;
end $$ language plpgsql;
create function public.watch() returns event_trigger as $$ declare made record; begin
  for made in select * from pg_event_trigger_ddl_commands() where command_tag = 'CREATE TABLE' loop
    if made.object_identity = 'public.assets' then
      create trigger audit after insert or update on public.assets for each row execute function public.note();
    end if;
  end loop;
end $$ language plpgsql;
create event trigger watch on ddl_command_end execute function public.watch();";

/// A database of its own for one test, on the server of this run.
#[derive(Debug)]
pub struct Database {
    url: String,
    client: Client,
}

impl Database {
    /// Makes a database and the audit in it.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn create(server: &str, name: &str) -> anyhow::Result<Self> {
        let admin = connect(server).await?;
        admin.batch_execute(&format!("create database {name}")).await.with_context(|| format!("cannot make {name}"))?;
        let (base, _) = server.rsplit_once('/').context("the server's URL names no database")?;
        let url = format!("{base}/{name}");
        let client = connect(&url).await?;
        client.batch_execute(AUDIT).await.context("cannot make the audit")?;
        Ok(Self { url, client })
    }

    /// Returns the URL for a sink.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Reads all rows of `public.<table>`, times as milliseconds; empty while there is no table.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn rows(&self, table: &str) -> anyhow::Result<Rows> {
        let columns = "select column_name, data_type from information_schema.columns
                       where table_schema = 'public' and table_name = $1";
        let columns = self.client.query(columns, &[&table]).await?;
        if columns.is_empty() {
            return Ok(BTreeMap::new());
        }
        let members: Vec<String> = columns
            .iter()
            .map(|row| {
                let (name, kind): (String, String) = (row.get(0), row.get(1));
                match kind.as_str() {
                    "timestamp with time zone" => format!("'{name}', (extract(epoch from \"{name}\") * 1000)::bigint"),
                    _ => format!("'{name}', \"{name}\""),
                }
            })
            .collect();
        // A function takes 100 arguments at the most, so the object is made in parts.
        let parts: Vec<String> =
            members.chunks(40).map(|part| format!("jsonb_build_object({})", part.join(", "))).collect();
        let rows =
            self.client.query(&format!("select ({})::text from public.{table}", parts.join(" || ")), &[]).await?;
        rows.iter()
            .map(|row| {
                let row: BTreeMap<String, Json> = serde_json::from_str(row.get(0))?;
                Ok((row["asset_id"].as_str().unwrap_or_default().to_owned(), row))
            })
            .collect()
    }

    /// Takes one consistent look at the rows and the positions of the sink `assets`; nothing while there is no table.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn snapshot(&self) -> anyhow::Result<Option<StoreSnapshot>> {
        let found = self.client.query("select 1 where to_regclass('public.assets') is not null", &[]).await?;
        if found.is_empty() {
            return Ok(None);
        }
        let sql = "select p.partition, coalesce(max(a.__offset), -1), p.next_offset from windfall_positions p
                   left join public.assets a on a.__partition = p.partition
                   where p.sink = 'assets' group by p.partition, p.next_offset";
        let rows = self.client.query(sql, &[]).await?;
        let partitions = rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect();
        Ok(Some(StoreSnapshot { partitions }))
    }

    /// Reads every version that any row had, in the order in which they came.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn audit(&self) -> anyhow::Result<Vec<(String, i64, i32, i64)>> {
        let rows = self
            .client
            .query("select asset_id, generation, partition, offset_ from public.audit order by id", &[])
            .await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect())
    }

    /// Returns how often rows were inserted or updated so far.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn writes(&self) -> anyhow::Result<i64> {
        Ok(self.client.query_one("select count(*) from public.audit", &[]).await?.get(0))
    }

    /// Runs statements as they are.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn run(&self, sql: &str) -> anyhow::Result<()> {
        Ok(self.client.batch_execute(sql).await?)
    }
}

async fn connect(url: &str) -> anyhow::Result<Client> {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.with_context(|| format!("cannot reach {url}"))?;
    tokio::spawn(connection);
    Ok(client)
}

/// Reads all rows of the table `assets` of an SQLite file, each value as PostgreSQL would give it: times as milliseconds, booleans as such.
///
/// # Errors
/// When the file is not such a store.
pub fn sqlite_rows(path: &std::path::Path) -> anyhow::Result<Rows> {
    let connection = rusqlite::Connection::open(path)?;
    let mut statement = connection.prepare("select * from assets")?;
    let names: Vec<String> = statement.column_names().map(ToString::to_string).collect();
    let mut rows = statement.query([])?;
    let mut found = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let mut fields = BTreeMap::new();
        for (at, name) in names.iter().enumerate() {
            let value = match row.get::<_, rusqlite::types::Value>(at)? {
                rusqlite::types::Value::Null => Json::Null,
                rusqlite::types::Value::Integer(it) if name.starts_with("is_") || name == "in_organization" => {
                    json!(it != 0)
                }
                rusqlite::types::Value::Integer(it) => json!(it),
                rusqlite::types::Value::Real(it) => json!(it),
                rusqlite::types::Value::Text(it) => millis(name, it),
                rusqlite::types::Value::Blob(it) => json!(it),
            };
            fields.insert(name.clone(), value);
        }
        found.insert(fields["asset_id"].as_str().unwrap_or_default().to_owned(), fields);
    }
    Ok(found)
}

fn millis(column: &str, text: String) -> Json {
    let time = column.ends_with("_date_time").then(|| DateTime::parse_from_rfc3339(&text).ok()).flatten();
    time.map_or(Json::String(text), |time| json!(time.timestamp_millis()))
}
