//! `assets.<collection>.contributions`: what one source record says of one asset, after mapping.

use serde::{Deserialize, Serialize, Serializer};

use crate::{
    asset::{Collection, FieldValue},
    row::{RowReader, RowWriter},
    wire::{Codec, WireError},
};

/// Key of `contributions`; a record without value is a withdrawal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename = "Key")]
pub struct ContributionKey {
    /// The asset.
    pub asset_id: String,
    /// Topic of the source record, without prefix, such as `abm.devices`.
    pub source: String,
    /// Key of the source record, such as `org/device_id`.
    pub source_key: String,
}

/// What one source record says of one asset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contribution {
    /// The asset.
    pub asset_id: String,
    /// Topic of the source record, without prefix.
    pub source: String,
    /// Key of the source record.
    pub source_key: String,
    /// The collection's fields, in its order.
    pub fields: Vec<FieldValue>,
    /// Whether the source record is released.
    pub released: bool,
    /// `op` of the source event.
    pub op: Option<String>,
    /// `kind` of the source event.
    pub kind: Option<String>,
    /// Organization of the source event.
    pub org: Option<String>,
    /// `source.ts_ms` of the source event.
    pub source_ts_ms: Option<i64>,
    /// `source.ts_ms` of the event that added the asset.
    pub claimed_ms: Option<i64>,
    /// `event_id` of the source event.
    pub event_id: Option<String>,
    /// Fingerprint of the source event.
    pub fingerprint: Option<String>,
    /// Partition of the source record.
    pub source_partition: Option<i32>,
    /// Offset of the source record.
    pub source_offset: Option<i64>,
    /// Name of the field that the asset's id was taken from.
    pub identifier: Option<String>,
    /// Name and hash of the mapping.
    pub mapping: Option<String>,
}

impl Contribution {
    /// Returns the key that this contribution has in the topic.
    pub fn key(&self) -> ContributionKey {
        ContributionKey {
            asset_id: self.asset_id.clone(),
            source: self.source.clone(),
            source_key: self.source_key.clone(),
        }
    }
}

/// A contribution with the codec of its schema and the collection that names its fields.
struct FlatContribution<'a>(&'a Codec, &'a Collection, &'a Contribution);

impl Serialize for FlatContribution<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(codec, collection, contribution) = self;
        let Contribution {
            asset_id,
            source,
            source_key,
            fields,
            released,
            op,
            kind,
            org,
            source_ts_ms,
            claimed_ms,
            event_id,
            fingerprint,
            source_partition,
            source_offset,
            identifier,
            mapping,
        } = contribution;
        let mut row = RowWriter::new(codec, serializer)?;
        row.write("asset_id", asset_id)?;
        row.write("source", source)?;
        row.write("source_key", source_key)?;
        collection.write_fields(&mut row, fields)?;
        row.write("__released", released)?;
        row.write("__op", op)?;
        row.write("__kind", kind)?;
        row.write("__org", org)?;
        row.write("__source_ts_ms", source_ts_ms)?;
        row.write("__claimed_ms", claimed_ms)?;
        row.write("__event_id", event_id)?;
        row.write("__fingerprint", fingerprint)?;
        row.write("__source_partition", source_partition)?;
        row.write("__source_offset", source_offset)?;
        row.write("__identifier", identifier)?;
        row.write("__mapping", mapping)?;
        row.end()
    }
}

impl Collection {
    /// Writes a contribution, framed. `codec` is that of this collection's contributions.
    pub fn encode_contribution(&self, codec: &Codec, contribution: &Contribution) -> Result<Vec<u8>, WireError> {
        self.fits(&contribution.fields, codec)?;
        codec.encode(&FlatContribution(codec, self, contribution))
    }

    /// Reads a framed contribution that was written with the schema of `codec`, of this or another version.
    pub fn decode_contribution(&self, codec: &Codec, bytes: &[u8]) -> Result<Contribution, WireError> {
        let mut row = RowReader::new(codec.decode(bytes)?, codec);
        Ok(Contribution {
            asset_id: row.required_text("asset_id")?,
            source: row.required_text("source")?,
            source_key: row.required_text("source_key")?,
            fields: row.fields(self.own())?,
            released: row.boolean("__released")?.unwrap_or(false),
            op: row.text("__op")?,
            kind: row.text("__kind")?,
            org: row.text("__org")?,
            source_ts_ms: row.long("__source_ts_ms")?,
            claimed_ms: row.long("__claimed_ms")?,
            event_id: row.text("__event_id")?,
            fingerprint: row.text("__fingerprint")?,
            source_partition: row.int("__source_partition")?,
            source_offset: row.long("__source_offset")?,
            identifier: row.text("__identifier")?,
            mapping: row.text("__mapping")?,
        })
    }
}
