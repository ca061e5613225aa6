//! One change of one asset, as a store takes it.

pub use windfall_schemas::asset::FieldValue;

/// One record of `assets.<collection>`, ready to be stored.
#[derive(Debug, Clone, PartialEq)]
pub struct AssetChange {
    /// The asset's key: the identifier the collection chose for it.
    pub asset_id: String,
    /// Partition of `assets.<collection>` that the record lies in; with the offset, half of the guard.
    pub partition: i32,
    /// Offset of the record in its partition.
    pub offset: i64,
    /// What the record says.
    pub content: Content,
}

/// What a record says of its asset.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// The whole asset. `deleted` is the record's `__deleted`.
    Record {
        /// One value for each of the table's columns, in their order.
        fields: Vec<FieldValue>,
        /// True when the asset is gone and this is its last image.
        deleted: bool,
    },
    /// No value: the asset is gone.
    Tombstone,
}
