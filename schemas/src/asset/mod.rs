//! `assets.<collection>`: one flat record an asset, its schema generated from the collection.

mod collection;
mod record;
mod schema;
mod value;

pub use collection::{Collection, CollectionError, Field, FieldType};
pub use record::{AssetKey, AssetMeta, AssetRecord, AssetRow};
pub use value::FieldValue;

/// Text of the default collection's key schema, as registered; equal to what the generator makes of it.
pub const DEVICES_KEY_SCHEMA: &str = include_str!("../../assets/devices-key.avsc");
/// Text of the default collection's value schema, as registered; equal to what the generator makes of it.
pub const DEVICES_VALUE_SCHEMA: &str = include_str!("../../assets/devices-value.avsc");
