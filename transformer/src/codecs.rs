//! The schemas that a collection's loops write, and those that they meet: by the registry's ids, each asked for once.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;
use windfall_runtime::kafka::{Headers, Record};
use windfall_runtime::registry::{RegistryClient, RegistryError};
use windfall_schemas::asset::{AssetRecord, Collection};
use windfall_schemas::topic::{Names, key_subject, value_subject};
use windfall_schemas::wire::{Codec, SchemaReference, WireError, unframe};

use crate::error::TransformerError;

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
    ) -> Result<Self, TransformerError> {
        let name = collection.name();
        let pair = async |topic: String, key: String, value: String| -> Result<Pair, TransformerError> {
            let key = own(registry, key_subject(&topic), &key).await?;
            let value = own(registry, value_subject(&topic), &value).await?;
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

async fn own(registry: &RegistryClient, subject: String, text: &str) -> Result<Codec, TransformerError> {
    registry.codec(&subject, text).await.map_err(|source| TransformerError::Registry { subject, source })
}

/// Why a record cannot be read: its own fault, in contrast to a registry that is away.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("it has no key")]
    NoKey,
    #[error("its schema {0} is not in the registry")]
    UnknownSchema(String),
    #[error("its schema {reference} cannot be used: {why}")]
    BadSchema { reference: String, why: String },
    #[error("{0}")]
    Wire(String),
}

impl Unreadable {
    /// A name to count by.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::NoKey => "no_key",
            Self::UnknownSchema(_) => "unknown_schema",
            Self::BadSchema { .. } => "bad_schema",
            Self::Wire(_) => "undecodable",
        }
    }
}

impl From<WireError> for Unreadable {
    fn from(error: WireError) -> Self {
        Self::Wire(error.to_string())
    }
}

/// Codecs by the references that writers put into their records. Cheap to clone; clones share what they know.
#[derive(Clone)]
pub(crate) struct Codecs {
    registry: RegistryClient,
    known: Arc<RwLock<HashMap<SchemaReference, Result<Codec, Unreadable>>>>,
}

/// Header that names the schema of a key, where a writer puts no frame in front.
const KEY_HEADER: &str = "__key_schema_id";
/// Header that names the schema of a value.
const VALUE_HEADER: &str = "__value_schema_id";

impl Codecs {
    pub(crate) fn new(registry: RegistryClient) -> Self {
        Self { registry, known: Arc::default() }
    }

    /// Asks for all schemas that the records name, so that they can be read without waiting.
    ///
    /// One that the registry did not know is asked for again with each batch: it may have come meanwhile.
    pub(crate) async fn fetch(&self, records: &[Record]) -> Result<(), TransformerError> {
        let named: HashSet<SchemaReference> = records.iter().flat_map(references).collect();
        for reference in named {
            if !matches!(self.get(&reference), Some(Ok(_) | Err(Unreadable::BadSchema { .. }))) {
                self.ask(reference).await?;
            }
        }
        Ok(())
    }

    /// As [`Codecs::fetch`], for a thread that may block; what the registry did not know is asked for once.
    pub(crate) fn fetch_blocking(&self, runtime: &Handle, record: &Record) -> Result<(), TransformerError> {
        for reference in references(record) {
            if self.get(&reference).is_none() {
                runtime.block_on(self.ask(reference))?;
            }
        }
        Ok(())
    }

    /// Asks anew for what the registry did not give: it may have come meanwhile.
    pub(crate) fn forget_missing(&self) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).retain(|_, answer| answer.is_ok());
    }

    /// Reads a record's key with the schema that was fetched.
    pub(crate) fn key<T: DeserializeOwned>(&self, record: &Record) -> Result<T, Unreadable> {
        let bytes = record.key.as_deref().ok_or(Unreadable::NoKey)?;
        let (codec, datum) = self.find(bytes, record.headers.get(KEY_HEADER))?;
        Ok(codec.decode_datum(datum)?)
    }

    /// Reads a record's value with the schema that was fetched; `None` for a tombstone.
    pub(crate) fn value<T: DeserializeOwned>(&self, record: &Record) -> Result<Option<T>, Unreadable> {
        let Some(bytes) = record.value.as_deref() else { return Ok(None) };
        let (codec, datum) = self.find(bytes, record.headers.get(VALUE_HEADER))?;
        Ok(Some(codec.decode_datum(datum)?))
    }

    /// Finds the codec of a framed value of ours.
    pub(crate) fn of(&self, bytes: &[u8]) -> Result<Codec, Unreadable> {
        self.find(bytes, None).map(|(codec, _)| codec)
    }

    fn find<'a>(&self, bytes: &'a [u8], header: Option<&[u8]>) -> Result<(Codec, &'a [u8]), Unreadable> {
        let (reference, datum) = unframe(bytes, header)?;
        let codec = self.get(&reference).unwrap_or_else(|| Err(Unreadable::UnknownSchema(reference.to_string())))?;
        Ok((codec, datum))
    }

    fn get(&self, reference: &SchemaReference) -> Option<Result<Codec, Unreadable>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(reference).cloned()
    }

    async fn ask(&self, reference: SchemaReference) -> Result<(), TransformerError> {
        let name = || reference.to_string();
        let answer = match self.registry.writer(&reference).await {
            Ok(codec) => Ok(codec),
            Err(RegistryError::NotFound { .. }) => Err(Unreadable::UnknownSchema(name())),
            Err(RegistryError::Schema(error)) => {
                Err(Unreadable::BadSchema { reference: name(), why: error.to_string() })
            }
            Err(error) if not_ours(&reference, &error) => {
                Err(Unreadable::BadSchema { reference: name(), why: error.to_string() })
            }
            Err(source) => return Err(TransformerError::Registry { subject: format!("id {reference}"), source }),
        };
        self.known.write().unwrap_or_else(PoisonError::into_inner).insert(reference, answer);
        Ok(())
    }
}

/// Says whether the registry refuses a reference that no writer of ours makes: older registries have no route for GUIDs.
fn not_ours(reference: &SchemaReference, error: &RegistryError) -> bool {
    match error {
        RegistryError::Refused { .. } => true,
        RegistryError::Malformed { .. } => matches!(reference, SchemaReference::Guid(_)),
        _ => false,
    }
}

/// The schemas that a record names; bytes that name none are found out when they are read.
fn references(record: &Record) -> impl Iterator<Item = SchemaReference> {
    let of = |bytes: &Option<Bytes>, header| {
        let bytes = bytes.as_deref()?;
        unframe(bytes, record.headers.get(header)).ok().map(|(reference, _)| reference)
    };
    [of(&record.key, KEY_HEADER), of(&record.value, VALUE_HEADER)].into_iter().flatten()
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

#[cfg(test)]
mod tests {
    use super::*;
    use windfall_runtime::kafka::config::SchemaRegistryConfig;

    fn record(name: &str, reference: Vec<u8>) -> Record {
        Record {
            topic: "abm.devices".into(),
            partition: 0,
            offset: 0,
            timestamp_ms: None,
            key: Some(Bytes::from_static(&[2])),
            value: None,
            headers: Headers::new().with(name, reference),
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_schema_named_in_a_way_that_the_registry_does_not_know_is_the_records_fault_and_ends_no_loop() {
        let url = tokio::task::spawn_blocking(windfall_services::registry).await.unwrap();
        let config: SchemaRegistryConfig = serde_json::from_value(serde_json::json!({ "url": url })).unwrap();
        let codecs = Codecs::new(RegistryClient::http(&config).unwrap());
        let guid = [vec![1], vec![7; 16]].concat();
        for record in [record(KEY_HEADER, guid), record(KEY_HEADER, vec![0, 0x7f, 0xff, 0xff, 0xff])] {
            codecs.fetch(std::slice::from_ref(&record)).await.unwrap();
            let why = codecs.key::<i32>(&record).unwrap_err();
            assert!(matches!(why, Unreadable::BadSchema { .. } | Unreadable::UnknownSchema(_)), "{why}");
        }
    }
}
