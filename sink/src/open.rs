//! From a sink's configuration to its store.

use chrono::Utc;
use windfall_runtime::kafka::{Connection, log, topics};
use windfall_schemas::asset::Collection;
use windfall_schemas::topic::Names;

use crate::asset::AssetChange;
use crate::config::{SinkConfig, SinkKind};
use crate::error::SinkError;
use crate::lost;
use crate::store::postgres::{Address, PostgresStore};
use crate::store::sqlite::SqliteStore;
use crate::store::{Applied, AssetStore, Claimed, Identity, Refusal, Span, StoreError, StoreProgress};
use crate::table::{Table, TableName};

/// A store that a configuration names. Whoever has another one gives it to [`Sink::new`](crate::Sink::new) itself.
enum Configured {
    Postgres(Box<PostgresStore>),
    Sqlite(SqliteStore),
}

/// Makes the store that a sink's configuration names; connects to nothing yet.
///
/// # Errors
/// [`SinkError::Table`] and [`SinkError::Refused`].
pub fn open(config: &SinkConfig, collection: &Collection, names: &Names) -> Result<impl AssetStore + use<>, SinkError> {
    configured(config, collection, names)
}

fn configured(config: &SinkConfig, collection: &Collection, names: &Names) -> Result<Configured, SinkError> {
    let sink = || config.name.clone();
    let name = TableName::parse(&config.table).map_err(|source| SinkError::Table { sink: sink(), source })?;
    let table = Table::of_collection(name, collection).map_err(|source| SinkError::Table { sink: sink(), source })?;
    let identity = Identity { sink: sink(), topic: names.assets(collection.name()) };
    let missing = |help: &str| {
        let source = Refusal::Address { reason: "it is missing".to_owned(), help: help.to_owned() };
        SinkError::Refused { sink: sink(), source }
    };
    Ok(match config.kind {
        SinkKind::Postgres => {
            let url = config.url.as_ref().ok_or_else(|| missing("give the sink a `url`"))?;
            let address = Address::parse(url.expose()).map_err(|source| SinkError::Refused { sink: sink(), source })?;
            Configured::Postgres(Box::new(PostgresStore::new(address, identity, table, config.schema)))
        }
        SinkKind::Sqlite => {
            let path = config.path.clone().ok_or_else(|| missing("give the sink a `path`"))?;
            Configured::Sqlite(SqliteStore::new(path, identity, table, config.schema))
        }
    })
}

/// Accepts a topic that was made anew as it is: the sink reads it from its start, and all that was stored counts as older.
///
/// # Errors
/// As [`check`]; nothing has changed then.
pub async fn accept(config: &SinkConfig, collection: &Collection, names: &Names) -> Result<(), SinkError> {
    let accepted = match configured(config, collection, names)? {
        Configured::Postgres(mut store) => store.accept().await,
        Configured::Sqlite(mut store) => store.accept().await,
    };
    accepted.map_err(|error| SinkError::of_store(config.name.clone(), error))
}

/// Probes a sink's store and compares its rows with their positions; returns the statements that a start would run to make its
/// tables fit. Changes nothing.
///
/// # Errors
/// [`SinkError::Store`] when it does not answer, [`SinkError::Refused`] and [`SinkError::Table`] when it must not be
/// written as configured, [`SinkError::Lost`] when rows are missing, [`SinkError::Worker`] when the topic is another one.
pub async fn check(
    config: &SinkConfig,
    collection: &Collection,
    names: &Names,
    connection: &Connection,
) -> Result<Vec<String>, SinkError> {
    let mut store = open(config, collection, names)?;
    let ddl = store.check().await.map_err(|error| SinkError::of_store(config.name.clone(), error))?;
    let held = store.held().await.map_err(|error| SinkError::of_store(config.name.clone(), error))?;
    let topic = names.assets(collection.name());
    // Without brokers, or without the topic, there is nothing to compare with: the check of Kafka tells it.
    if let Ok(Some(_)) = topics::partition_count(connection, &topic).await {
        let positions = held.partitions.iter().map(|at| (at.partition, at.position)).collect();
        log::check(connection, &topic, &positions).await.map_err(lost::unread)?;
        lost::look(connection, names, &config.name, &topic, &held, Utc::now()).await?;
    }
    Ok(ddl)
}

impl AssetStore for Configured {
    async fn claim(&mut self, partitions: &[i32]) -> Result<Vec<Claimed>, StoreError> {
        match self {
            Self::Postgres(store) => store.claim(partitions).await,
            Self::Sqlite(store) => store.claim(partitions).await,
        }
    }

    async fn apply(&mut self, batch: &[AssetChange], spans: &[Span]) -> Result<Applied, StoreError> {
        match self {
            Self::Postgres(store) => store.apply(batch, spans).await,
            Self::Sqlite(store) => store.apply(batch, spans).await,
        }
    }

    async fn check(&mut self) -> Result<Vec<String>, StoreError> {
        match self {
            Self::Postgres(store) => store.check().await,
            Self::Sqlite(store) => store.check().await,
        }
    }

    async fn held(&mut self) -> Result<StoreProgress, StoreError> {
        match self {
            Self::Postgres(store) => store.held().await,
            Self::Sqlite(store) => store.held().await,
        }
    }
}
