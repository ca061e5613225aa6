//! From a record of `assets.<collection>` to what a store takes.

use chrono::DateTime;
use windfall_runtime::kafka::Record;
use windfall_runtime::kafka::dead_letters::RefusedAt;
use windfall_runtime::reader::{Decoder, Unreadable};
use windfall_runtime::registry::{RegistryClient, RegistryError};
use windfall_schemas::asset::{AssetKey, Collection};
use windfall_schemas::topic::value_subject;

use crate::asset::{AssetChange, Content, FieldValue};

/// Why a record was refused: what its dead letter says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) stage: RefusedAt,
    /// A name that can be counted by.
    pub(crate) kind: String,
    pub(crate) message: String,
}

/// A record whose change is known.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Read {
    pub(crate) change: AssetChange,
    /// When the source was observed.
    pub(crate) observed_ms: Option<i64>,
}

/// Reads the records of one collection.
pub(crate) struct AssetReader {
    collection: Collection,
    decoder: Decoder,
    /// Place of the source's time among the columns.
    observed: Option<usize>,
}

impl AssetReader {
    /// `topic` is the topic of the collection's records.
    pub(crate) fn new(collection: Collection, registry: RegistryClient, topic: &str) -> Self {
        let observed = collection.columns().position(|(name, _)| name == "__source_ts_ms");
        Self { collection, decoder: Decoder::new(registry, value_subject(topic)), observed }
    }

    /// Asks for the schemas of the records, as [`Decoder::learn`]; to be called before they are read.
    pub(crate) async fn learn(&self, records: &[Record]) -> Result<(), RegistryError> {
        self.decoder.learn(records).await
    }

    /// Reads one record; what it fails with is the record's own fault.
    pub(crate) fn read(&self, record: &Record) -> Result<Read, Refused> {
        let AssetKey { asset_id } = self.decoder.key(record).map_err(refused(RefusedAt::Key))?;
        let (partition, offset) = (record.partition, record.offset);
        let Some(value) = &record.value else {
            let change = AssetChange { asset_id, partition, offset, content: Content::Tombstone };
            return Ok(Read { change, observed_ms: None });
        };
        let refused = refused(RefusedAt::Value);
        let (codec, _) = self.decoder.codec(value, None).map_err(&refused)?;
        let row = self.collection.decode_row(&codec, value).map_err(|error| refused(error.into()))?;
        if row.asset_id != asset_id {
            let message = "the value names another asset than the key".to_owned();
            return Err(Refused { stage: RefusedAt::Value, kind: "key_mismatch".to_owned(), message });
        }
        row.values.iter().try_for_each(storable)?;
        let observed_ms = match self.observed.and_then(|place| row.values.get(place)) {
            Some(FieldValue::Integer(millis)) => Some(*millis),
            _ => None,
        };
        let content = Content::Record { fields: row.values, deleted: row.deleted };
        Ok(Read { change: AssetChange { asset_id, partition, offset, content }, observed_ms })
    }
}

fn refused(stage: RefusedAt) -> impl Fn(Unreadable) -> Refused {
    move |why| Refused { stage, kind: why.kind().to_owned(), message: why.to_string() }
}

/// Refuses a value that no store can write.
fn storable(value: &FieldValue) -> Result<(), Refused> {
    match value {
        FieldValue::Timestamp(millis) if DateTime::from_timestamp_millis(*millis).is_none() => Err(Refused {
            stage: RefusedAt::Value,
            kind: "timestamp_range".to_owned(),
            message: format!("{millis} milliseconds is no moment that can be written"),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Table, TableName};
    use windfall_runtime::kafka::Headers;
    use windfall_runtime::registry::embedded::EmbeddedRegistry;
    use windfall_schemas::asset::{AssetMeta, AssetRecord, DEVICES_VALUE_SCHEMA, Field, FieldType};
    use windfall_schemas::wire::Codec;

    fn collection() -> Collection {
        let fields = [("color", FieldType::String), ("bought_at", FieldType::Timestamp)];
        Collection::new("devices", fields.map(|(name, kind)| Field::new(name, kind)).to_vec()).unwrap()
    }

    /// A reader, and the codecs of key and value.
    async fn set_up() -> (AssetReader, Codec, Codec) {
        let registry = RegistryClient::embedded(EmbeddedRegistry::in_memory(), true);
        let key = registry.codec("assets.devices-key", &collection().key_schema()).await.unwrap();
        let value = registry.codec("assets.devices-value", &collection().value_schema()).await.unwrap();
        (AssetReader::new(collection(), registry, "assets.devices"), key, value)
    }

    fn record((_, key, codec): &(AssetReader, Codec, Codec), asset_id: &str, value: Option<AssetRecord>) -> Record {
        Record {
            topic: "assets.devices".into(),
            partition: 3,
            offset: 41,
            timestamp_ms: Some(5),
            key: Some(key.encode(&AssetKey { asset_id: asset_id.to_owned() }).unwrap().into()),
            value: value.map(|value| collection().encode_asset(codec, &value).unwrap().into()),
            headers: Headers::new(),
        }
    }

    async fn read((reader, ..): &(AssetReader, Codec, Codec), record: Record) -> Result<Read, Refused> {
        reader.learn(std::slice::from_ref(&record)).await.unwrap();
        reader.read(&record)
    }

    fn asset(asset_id: &str) -> AssetRecord {
        AssetRecord {
            asset_id: asset_id.to_owned(),
            fields: vec![FieldValue::String("Silver".to_owned()), FieldValue::Timestamp(1_000)],
            deleted: false,
            version: 7,
            meta: AssetMeta { kind: Some("added".to_owned()), source_ts_ms: Some(9), ..AssetMeta::default() },
        }
    }

    #[test]
    fn the_table_has_a_column_for_every_field_of_the_flat_record_but_the_collections_name() {
        let collection = Collection::from_value_schema(DEVICES_VALUE_SCHEMA).unwrap();
        let table = Table::of_collection(TableName::parse("assets").unwrap(), &collection).unwrap();
        let columns: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
        let schema: serde_json::Value = serde_json::from_str(DEVICES_VALUE_SCHEMA).unwrap();
        let fields = schema["fields"].as_array().unwrap().iter().map(|field| field["name"].as_str().unwrap());
        let expected: Vec<&str> =
            fields.filter(|name| !matches!(*name, "collection" | "asset_id" | "__deleted")).collect();
        assert_eq!(columns, expected);
    }

    #[tokio::test]
    async fn every_column_gets_the_value_of_its_field() {
        let text = |text: &str| Some(text.to_owned());
        let mut asset = asset("a");
        asset.meta = AssetMeta {
            op: text("__op"),
            kind: text("__kind"),
            org: text("__org"),
            device_id: text("__device_id"),
            source_ts_ms: Some(101),
            ts_ms: Some(102),
            event_id: text("__event_id"),
            fingerprint: text("__fingerprint"),
            identifier: text("__identifier"),
            mapping: text("__mapping"),
            sources: text("__sources"),
        };
        let bench = set_up().await;
        let read = read(&bench, record(&bench, "a", Some(asset))).await.unwrap();
        assert_eq!((read.change.partition, read.change.offset, read.observed_ms), (3, 41, Some(101)));
        let Content::Record { fields, deleted: false } = read.change.content else { panic!("a live record") };
        let table = Table::of_collection(TableName::parse("assets").unwrap(), &collection()).unwrap();
        assert_eq!(fields.len(), table.columns.len());
        for (column, value) in table.columns.iter().zip(fields) {
            let expected = match column.name.as_str() {
                "color" => FieldValue::String("Silver".to_owned()),
                "bought_at" => FieldValue::Timestamp(1_000),
                "__source_ts_ms" => FieldValue::Integer(101),
                "__ts_ms" => FieldValue::Integer(102),
                "__version" => FieldValue::Integer(7),
                name => FieldValue::String(name.to_owned()),
            };
            assert_eq!(value, expected, "{}", column.name);
        }
    }

    #[tokio::test]
    async fn a_record_without_a_value_is_a_tombstone_of_its_key() {
        let bench = set_up().await;
        let read = read(&bench, record(&bench, "a", None)).await.unwrap();
        assert_eq!((read.change.asset_id.as_str(), read.change.content), ("a", Content::Tombstone));
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_refused_with_the_place_where_it_was_refused() {
        let bench = set_up().await;
        let record = |asset_id: &str, value| record(&bench, asset_id, value);
        let mut unframed = record("a", None);
        unframed.key = Some(vec![1, 2, 3].into());
        let mut keyless = record("a", None);
        keyless.key = None;
        let mut cut = record("a", Some(asset("a")));
        cut.value = cut.value.map(|value| value.slice(..value.len() - 3));
        let mut strange = record("a", Some(asset("a")));
        strange.value = Some(vec![0, 0, 0, 0, 99, 1].into());
        let mismatched = record("b", Some(asset("a")));
        let mut undated = asset("a");
        undated.fields[1] = FieldValue::Timestamp(i64::MAX);
        let expected = [
            (unframed, RefusedAt::Key, "undecodable"),
            (keyless, RefusedAt::Key, "no_key"),
            (cut, RefusedAt::Value, "undecodable"),
            (strange, RefusedAt::Value, "unknown_schema"),
            (mismatched, RefusedAt::Value, "key_mismatch"),
            (record("a", Some(undated)), RefusedAt::Value, "timestamp_range"),
        ];
        for (record, stage, kind) in expected {
            let refused = read(&bench, record).await.unwrap_err();
            assert_eq!((refused.stage, refused.kind.as_str()), (stage, kind));
        }
    }
}
