//! Device change events to asset records.
//!
//! What the pipeline *means* is read in the pure modules: a mapping makes a contribution out of a source record
//! ([`mapping`], [`identity`]), [`links`] says what must be withdrawn, [`merge`] makes one record of all contributions to an
//! asset, and [`dedup`] says whether it is worth publishing.

pub mod catalog;
pub mod collection;
pub mod config;
pub mod contribution;
pub mod dedup;
pub mod identity;
pub mod links;
pub mod mapping;
pub mod merge;
pub mod problem;
mod value;

pub use catalog::{LoadedCollection, load_collections};
pub use config::CollectionConfig;
pub use value::Value;
