use serde::{Deserialize, Serialize, Serializer};

use super::{Collection, FieldValue};
use crate::{
    row::{RowReader, RowWriter},
    wire::{Codec, WireError},
};

/// Key of `assets.<collection>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename = "Key")]
pub struct AssetKey {
    /// The unique identifier chosen for the collection.
    pub asset_id: String,
}

/// The flat record of one asset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AssetRecord {
    /// The unique identifier chosen for the collection.
    pub asset_id: String,
    /// The collection's fields, in its order.
    pub fields: Vec<FieldValue>,
    /// Written as `__deleted`: no source knows the asset any more. A tombstone follows.
    pub deleted: bool,
    /// Written as `__version`: grows with each record of the asset; 0 when unknown.
    pub version: i64,
    /// Where the record comes from.
    pub meta: AssetMeta,
}

/// The remaining `__` fields of a flat record: of the contribution that is first in rank.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AssetMeta {
    /// `op` of the source event.
    pub op: Option<String>,
    /// `kind` of the source event.
    pub kind: Option<String>,
    /// Organization of the source event.
    pub org: Option<String>,
    /// Id of the source record.
    pub device_id: Option<String>,
    /// `source.ts_ms` of the source event.
    pub source_ts_ms: Option<i64>,
    /// When the transformer made the record.
    pub ts_ms: Option<i64>,
    /// `event_id` of the source event.
    pub event_id: Option<String>,
    /// Fingerprint of the source event.
    pub fingerprint: Option<String>,
    /// Name of the field that the asset's id was taken from.
    pub identifier: Option<String>,
    /// Name and hash of the mapping.
    pub mapping: Option<String>,
    /// Sorted JSON: field to source key, where it is not that of `device_id`.
    pub sources: Option<String>,
}

/// A flat record as a table takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssetRow {
    /// The unique identifier chosen for the collection.
    pub asset_id: String,
    /// Whether no source knows the asset any more.
    pub deleted: bool,
    /// One value for each of [`Collection::columns`].
    pub values: Vec<FieldValue>,
}

/// A flat record with the codec of its schema and the collection that names its fields.
struct FlatRecord<'a>(&'a Codec, &'a Collection, &'a AssetRecord);

impl Serialize for FlatRecord<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(codec, collection, AssetRecord { asset_id, fields, deleted, version, meta }) = self;
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
        let mut row = RowWriter::new(codec, serializer)?;
        row.write("collection", collection.name())?;
        row.write("asset_id", asset_id)?;
        collection.write_fields(&mut row, fields)?;
        row.write("__deleted", if *deleted { "true" } else { "false" })?;
        row.write("__op", op)?;
        row.write("__kind", kind)?;
        row.write("__org", org)?;
        row.write("__device_id", device_id)?;
        row.write("__source_ts_ms", source_ts_ms)?;
        row.write("__ts_ms", ts_ms)?;
        row.write("__event_id", event_id)?;
        row.write("__fingerprint", fingerprint)?;
        row.write("__version", &Some(version))?;
        row.write("__identifier", identifier)?;
        row.write("__mapping", mapping)?;
        row.write("__sources", sources)?;
        row.end()
    }
}

impl Collection {
    /// Writes a flat record, framed. `codec` is that of this collection's value schema.
    ///
    /// A record has one value for each field of the collection, in its order.
    pub fn encode_asset(&self, codec: &Codec, record: &AssetRecord) -> Result<Vec<u8>, WireError> {
        self.fits(&record.fields, codec)?;
        codec.encode(&FlatRecord(codec, self, record))
    }

    /// Reads a framed flat record that was written with the schema of `codec`, of this or another version.
    ///
    /// Fields that the schema lacks are null, fields that the collection lacks are left out.
    pub fn decode_asset(&self, codec: &Codec, bytes: &[u8]) -> Result<AssetRecord, WireError> {
        let mut row = RowReader::new(codec.decode(bytes)?, codec);
        Ok(AssetRecord {
            asset_id: row.required_text("asset_id")?,
            fields: row.fields(self.own())?,
            deleted: row.text("__deleted")?.as_deref() == Some("true"),
            version: row.long("__version")?.unwrap_or(0),
            meta: AssetMeta {
                op: row.text("__op")?,
                kind: row.text("__kind")?,
                org: row.text("__org")?,
                device_id: row.text("__device_id")?,
                source_ts_ms: row.long("__source_ts_ms")?,
                ts_ms: row.long("__ts_ms")?,
                event_id: row.text("__event_id")?,
                fingerprint: row.text("__fingerprint")?,
                identifier: row.text("__identifier")?,
                mapping: row.text("__mapping")?,
                sources: row.text("__sources")?,
            },
        })
    }

    /// Reads a framed flat record as [`Collection::decode_asset`] does, into the values of its columns.
    pub fn decode_row(&self, codec: &Codec, bytes: &[u8]) -> Result<AssetRow, WireError> {
        let mut row = RowReader::new(codec.decode(bytes)?, codec);
        let asset_id = row.required_text("asset_id")?;
        let values = row.fields(self.columns())?;
        let deleted = row.text("__deleted")?.as_deref() == Some("true");
        Ok(AssetRow { asset_id, deleted, values })
    }
}
