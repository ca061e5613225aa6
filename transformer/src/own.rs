//! The topics that a collection's loops write, with the schemas that the registry has for them.

use std::sync::Arc;

use serde::Serialize;
use windfall_runtime::kafka::table::Own;
use windfall_runtime::kafka::{Headers, Outgoing};
use windfall_runtime::registry::{RegistryClient, RegistryError};
use windfall_schemas::asset::{AssetRecord, Collection};
use windfall_schemas::topic::{Names, key_subject, value_subject};
use windfall_schemas::wire::{Codec, WireError};

use crate::error::TransformerError;

/// A topic that we write.
#[derive(Debug, Clone)]
pub(crate) struct OwnTopic {
    /// Its full name.
    pub(crate) name: Arc<str>,
    pub(crate) key: Codec,
    pub(crate) value: Codec,
}

impl OwnTopic {
    /// The topic and the schema id of its keys, which a fold checks.
    pub(crate) fn keys(&self) -> Own<'_> {
        Own { topic: &self.name, key_schema: self.key.id() }
    }

    /// Makes a record of an encoded value.
    pub(crate) fn record<K: Serialize>(&self, key: &K, value: Vec<u8>, partition: i32) -> Result<Outgoing, WireError> {
        Ok(Outgoing::new(Arc::clone(&self.name), self.key.encode(key)?, value).to_partition(partition))
    }

    /// Makes a tombstone.
    pub(crate) fn tombstone<K: Serialize>(&self, key: &K, partition: i32) -> Result<Outgoing, WireError> {
        Ok(Outgoing::tombstone(Arc::clone(&self.name), self.key.encode(key)?).to_partition(partition))
    }

    /// Says that a record for this topic could not be made.
    pub(crate) fn failed(&self, source: WireError) -> TransformerError {
        TransformerError::Encode { topic: self.name.to_string(), source }
    }
}

/// All topics that a collection's loops write.
#[derive(Debug, Clone)]
pub(crate) struct OwnTopics {
    pub(crate) assets: OwnTopic,
    pub(crate) links: OwnTopic,
    pub(crate) contributions: OwnTopic,
    pub(crate) conflicts: OwnTopic,
}

impl OwnTopics {
    /// Registers the collection's schemas, or looks them up, as the registry's settings say.
    pub(crate) async fn register(
        registry: &RegistryClient,
        names: &Names,
        collection: &Collection,
    ) -> Result<Self, RegistryError> {
        let name = collection.name();
        let topic = async |topic: String, key: String, value: String| -> Result<OwnTopic, RegistryError> {
            let key = registry.codec(&key_subject(&topic), &key).await?;
            let value = registry.codec(&value_subject(&topic), &value).await?;
            Ok(OwnTopic { name: topic.into(), key, value })
        };
        Ok(Self {
            assets: topic(names.assets(name), collection.key_schema(), collection.value_schema()).await?,
            links: topic(names.links(name), collection.links_key_schema(), collection.links_value_schema()).await?,
            contributions: topic(
                names.contributions(name),
                collection.contributions_key_schema(),
                collection.contributions_value_schema(),
            )
            .await?,
            conflicts: topic(
                names.conflicts(name),
                collection.conflicts_key_schema(),
                collection.conflicts_value_schema(),
            )
            .await?,
        })
    }
}

/// The headers of a flat record, in CloudEvents' binary mode; a tombstone has no content type.
pub(crate) fn asset_headers(collection: &str, record: &AssetRecord, tombstone: bool) -> Headers {
    let kind = if record.deleted { "removed" } else { record.meta.kind.as_deref().unwrap_or("updated") };
    let mut headers = Headers::new()
        .with("ce_specversion", "1.0")
        .with("ce_id", format!("{}:{}", record.asset_id, record.version))
        .with("ce_type", format!("asset.{kind}"))
        .with("ce_source", format!("/assets/{collection}"))
        .with("ce_subject", record.asset_id.clone());
    let time = record.meta.source_ts_ms.and_then(chrono::DateTime::from_timestamp_millis);
    if let Some(time) = time {
        headers.push("ce_time", time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true));
    }
    if !tombstone {
        headers.push("content-type", "application/avro");
    }
    headers
}
