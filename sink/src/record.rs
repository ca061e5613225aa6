//! From a record of `assets.<collection>` to what a store takes.

use std::collections::HashMap;
use std::future::Future;

use chrono::DateTime;
use windfall_runtime::kafka::Record;
use windfall_runtime::kafka::dead_letters::RefusedAt;
use windfall_runtime::registry::{RegistryClient, RegistryError};
use windfall_schemas::asset::{AssetKey, AssetMeta, AssetRecord, Collection, FieldValue};
use windfall_schemas::wire::{Codec, SchemaReference, WireError, unframe};

use crate::asset::{AssetChange, Content, Field};
use crate::store::Source;
use crate::table::{ColumnKind, Table, TableError, TableName};

impl Table {
    /// Makes the table of a collection: a column for each field that its flat record has, as the record's schema names them.
    ///
    /// # Errors
    /// When a field's name is too long for a column.
    pub fn of_collection(name: TableName, collection: &Collection) -> Result<Self, TableError> {
        let schema: serde_json::Value = serde_json::from_str(&collection.value_schema())
            .map_err(|error| TableError::Schema { why: error.to_string() })?;
        let fields = schema["fields"].as_array().map_or(&[][..], Vec::as_slice);
        let field = |field: &'_ serde_json::Value| -> Result<(String, ColumnKind), TableError> {
            let name = field["name"].as_str().unwrap_or_default();
            let kind = column_kind(&field["type"])
                .ok_or_else(|| TableError::Schema { why: format!("`{name}` has a type that no column has") })?;
            Ok((name.to_owned(), kind))
        };
        let fields = fields.iter().map(field).collect::<Result<Vec<_>, _>>()?;
        Self::of_fields(name, fields.iter().map(|(name, kind)| (name.as_str(), *kind)))
    }
}

/// The column's type for a field's type in Avro.
fn column_kind(schema: &serde_json::Value) -> Option<ColumnKind> {
    match schema {
        serde_json::Value::Array(branches) => column_kind(branches.iter().find(|branch| *branch != "null")?),
        serde_json::Value::Object(schema) if schema.get("logicalType")? == "timestamp-millis" => {
            Some(ColumnKind::Timestamp)
        }
        schema => match schema.as_str()? {
            "string" => Some(ColumnKind::Text),
            "long" => Some(ColumnKind::Long),
            "double" => Some(ColumnKind::Double),
            "boolean" => Some(ColumnKind::Boolean),
            _ => None,
        },
    }
}

/// Where the text of a schema is found by the number in front of a record.
pub trait SchemaSource: Send + Sync {
    /// Looks a text up; `None` when the registry knows no such number.
    fn schema_text(&self, id: u32) -> impl Future<Output = Result<Option<String>, Source>> + Send;
}

impl SchemaSource for RegistryClient {
    async fn schema_text(&self, id: u32) -> Result<Option<String>, Source> {
        match self.text(id).await {
            Ok(text) => Ok(Some(text.as_ref().to_owned())),
            Err(RegistryError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

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
    /// When the source was seen to be so.
    pub(crate) observed_ms: Option<i64>,
}

/// Reads records by the schema each was written with.
pub(crate) struct Decoder<S> {
    collection: Collection,
    schemas: S,
    codecs: HashMap<u32, Codec>,
}

impl<S: SchemaSource> Decoder<S> {
    pub(crate) fn new(collection: Collection, schemas: S) -> Self {
        Self { collection, schemas, codecs: HashMap::new() }
    }

    /// Reads one record; the inner error is the record's own fault.
    ///
    /// # Errors
    /// When the registry cannot be asked, which a later try may mend.
    pub(crate) async fn read(&mut self, record: &Record) -> Result<Result<Read, Refused>, Source> {
        let key = match self.datum(record.key.as_deref(), RefusedAt::Key).await? {
            Ok((codec, bytes)) => codec.decode::<AssetKey>(bytes).map_err(|error| unreadable(RefusedAt::Key, &error)),
            Err(refused) => Err(refused),
        };
        let asset_id = match key {
            Ok(AssetKey { asset_id }) => asset_id,
            Err(refused) => return Ok(Err(refused)),
        };
        let (partition, offset) = (record.partition, record.offset);
        let Some(value) = &record.value else {
            let change = AssetChange { asset_id, partition, offset, content: Content::Tombstone };
            return Ok(Ok(Read { change, observed_ms: None }));
        };
        Ok(match self.datum(Some(value), RefusedAt::Value).await? {
            Err(refused) => Err(refused),
            Ok((codec, bytes)) => match self.collection.decode_asset(&codec, bytes) {
                Err(error) => Err(unreadable(RefusedAt::Value, &error)),
                Ok(found) if found.asset_id != asset_id => {
                    let message = "the value names another asset than the key".to_owned();
                    Err(Refused { stage: RefusedAt::Value, kind: "key_mismatch".to_owned(), message })
                }
                Ok(found) => content(found).map(|(content, observed_ms)| {
                    let change = AssetChange { asset_id, partition, offset, content };
                    Read { change, observed_ms }
                }),
            },
        })
    }

    /// Finds the codec that a key or value was written with.
    async fn datum<'a>(
        &mut self,
        bytes: Option<&'a [u8]>,
        stage: RefusedAt,
    ) -> Result<Result<(Codec, &'a [u8]), Refused>, Source> {
        let bytes = bytes.unwrap_or_default();
        let id = match unframe(bytes, None) {
            Ok((SchemaReference::Id(id), _)) => id,
            Ok((found @ SchemaReference::Guid(_), _)) => {
                let message = format!("schema {found} is named in a way that flat records are not written in");
                return Ok(Err(Refused { stage, kind: "frame".to_owned(), message }));
            }
            Err(error) => return Ok(Err(unreadable(stage, &error))),
        };
        if !self.codecs.contains_key(&id) {
            let Some(text) = self.schemas.schema_text(id).await? else {
                let message = format!("the schema registry knows no schema {id}");
                return Ok(Err(Refused { stage, kind: "unknown_schema".to_owned(), message }));
            };
            match Codec::new(id, &text) {
                Ok(codec) => self.codecs.insert(id, codec),
                Err(error) => return Ok(Err(unreadable(stage, &error))),
            };
        }
        Ok(Ok((self.codecs[&id].clone(), bytes)))
    }
}

fn unreadable(stage: RefusedAt, error: &WireError) -> Refused {
    let kind = match error {
        WireError::Frame { .. } => "frame",
        WireError::OtherSchema { .. } => "other_schema",
        WireError::Schema { .. } | WireError::Hostile { .. } => "schema",
        WireError::Decode { .. } | WireError::LeftOver { .. } => "decode",
        WireError::TooLong { .. } | WireError::TooLarge { .. } => "too_long",
        WireError::Encode { .. } => "encode",
    };
    Refused { stage, kind: kind.to_owned(), message: error.to_string() }
}

/// Puts the values into the order of [`Table::of_collection`]'s columns.
pub(crate) fn content(record: AssetRecord) -> Result<(Content, Option<i64>), Refused> {
    let AssetRecord { asset_id: _, fields: own, deleted, version, meta } = record;
    let AssetMeta {
        op,
        kind,
        org,
        device_id,
        source_ts_ms,
        ts_ms,
        event_id,
        fingerprint,
        identifier,
        mapping,
        sources,
    } = meta;
    let mut fields = own.into_iter().map(field).collect::<Result<Vec<_>, _>>()?;
    let text = |value: Option<String>| value.map_or(Field::Null, Field::Text);
    let long = |value: Option<i64>| value.map_or(Field::Null, Field::Long);
    fields.extend([
        text(op),
        text(kind),
        text(org),
        text(device_id),
        long(source_ts_ms),
        long(ts_ms),
        text(event_id),
        text(fingerprint),
        long(Some(version)),
        text(identifier),
        text(mapping),
        text(sources),
    ]);
    Ok((Content::Record { fields, deleted }, source_ts_ms))
}

fn field(value: FieldValue) -> Result<Field, Refused> {
    Ok(match value {
        FieldValue::Null => Field::Null,
        FieldValue::String(text) => Field::Text(text),
        FieldValue::Integer(number) => Field::Long(number),
        FieldValue::Decimal(number) => Field::Double(number),
        FieldValue::Boolean(value) => Field::Boolean(value),
        FieldValue::Timestamp(millis) => {
            Field::Timestamp(DateTime::from_timestamp_millis(millis).ok_or_else(|| Refused {
                stage: RefusedAt::Value,
                kind: "timestamp_range".to_owned(),
                message: format!("{millis} milliseconds is no moment that can be written"),
            })?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use windfall_runtime::kafka::Headers;
    use windfall_schemas::asset::{DEVICES_VALUE_SCHEMA, Field as CollectionField, FieldType};

    struct Texts(HashMap<u32, String>);

    impl SchemaSource for Texts {
        async fn schema_text(&self, id: u32) -> Result<Option<String>, Source> {
            Ok(self.0.get(&id).cloned())
        }
    }

    fn collection() -> Collection {
        let fields = [("color", FieldType::String), ("bought_at", FieldType::Timestamp)];
        Collection::new("devices", fields.map(|(name, kind)| CollectionField::new(name, kind)).to_vec()).unwrap()
    }

    fn decoder() -> Decoder<Texts> {
        let texts = [(1, collection().key_schema()), (2, collection().value_schema())];
        Decoder::new(collection(), Texts(texts.into()))
    }

    fn record(asset_id: &str, value: Option<AssetRecord>) -> Record {
        let key = Codec::new(1, &collection().key_schema()).unwrap();
        let codec = Codec::new(2, &collection().value_schema()).unwrap();
        Record {
            topic: "assets.devices".into(),
            partition: 3,
            offset: 41,
            timestamp_ms: Some(5),
            key: Some(key.encode(&AssetKey { asset_id: asset_id.to_owned() }).unwrap().into()),
            value: value.map(|value| collection().encode_asset(&codec, &value).unwrap().into()),
            headers: Headers::new(),
        }
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
        let read = decoder().read(&record("a", Some(asset))).await.unwrap().unwrap();
        assert_eq!((read.change.partition, read.change.offset, read.observed_ms), (3, 41, Some(101)));
        let Content::Record { fields, deleted: false } = read.change.content else { panic!("a live record") };
        let table = Table::of_collection(TableName::parse("assets").unwrap(), &collection()).unwrap();
        assert_eq!(fields.len(), table.columns.len());
        for (column, value) in table.columns.iter().zip(fields) {
            let expected = match column.name.as_str() {
                "color" => Field::Text("Silver".to_owned()),
                "bought_at" => Field::Timestamp(DateTime::from_timestamp_millis(1_000).unwrap()),
                "__source_ts_ms" => Field::Long(101),
                "__ts_ms" => Field::Long(102),
                "__version" => Field::Long(7),
                name => Field::Text(name.to_owned()),
            };
            assert_eq!(value, expected, "{}", column.name);
        }
    }

    #[tokio::test]
    async fn a_record_without_a_value_is_a_tombstone_of_its_key() {
        let read = decoder().read(&record("a", None)).await.unwrap().unwrap();
        assert_eq!((read.change.asset_id.as_str(), read.change.content), ("a", Content::Tombstone));
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_refused_with_the_place_where_it_was_refused() {
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
            (unframed, RefusedAt::Key, "frame"),
            (keyless, RefusedAt::Key, "frame"),
            (cut, RefusedAt::Value, "decode"),
            (strange, RefusedAt::Value, "unknown_schema"),
            (mismatched, RefusedAt::Value, "key_mismatch"),
            (record("a", Some(undated)), RefusedAt::Value, "timestamp_range"),
        ];
        for (record, stage, kind) in expected {
            let refused = decoder().read(&record).await.unwrap().unwrap_err();
            assert_eq!((refused.stage, refused.kind.as_str()), (stage, kind));
        }
    }
}
