//! The schemas that a collection's loops write, with the ids that the registry gave them.

use windfall_runtime::kafka::Headers;
use windfall_runtime::registry::{RegistryClient, RegistryError};
use windfall_schemas::asset::{AssetRecord, Collection};
use windfall_schemas::topic::{Names, key_subject, value_subject};
use windfall_schemas::wire::Codec;

/// Key and value of a topic that we write.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) key: Codec,
    pub(crate) value: Codec,
}

/// The codecs of all topics of a collection.
#[derive(Debug, Clone)]
pub(crate) struct CollectionCodecs {
    pub(crate) assets: Pair,
    pub(crate) links: Pair,
    pub(crate) contributions: Pair,
    pub(crate) conflicts: Pair,
}

impl CollectionCodecs {
    /// Registers the collection's schemas, or looks them up, as the registry's settings say.
    pub(crate) async fn register(
        registry: &RegistryClient,
        names: &Names,
        collection: &Collection,
    ) -> Result<Self, RegistryError> {
        let name = collection.name();
        let pair = async |topic: String, key: String, value: String| -> Result<Pair, RegistryError> {
            let key = registry.codec(&key_subject(&topic), &key).await?;
            let value = registry.codec(&value_subject(&topic), &value).await?;
            Ok(Pair { key, value })
        };
        Ok(Self {
            assets: pair(names.assets(name), collection.key_schema(), collection.value_schema()).await?,
            links: pair(names.links(name), collection.links_key_schema(), collection.links_value_schema()).await?,
            contributions: pair(
                names.contributions(name),
                collection.contributions_key_schema(),
                collection.contributions_value_schema(),
            )
            .await?,
            conflicts: pair(
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
