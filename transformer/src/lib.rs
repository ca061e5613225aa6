//! Device change events to asset records.
//!
//! What the pipeline *means* is read in the pure modules: a mapping makes a contribution out of a source record
//! ([`mapping`], [`identity`]), [`links`] says what must be withdrawn, [`merge`] makes one record of all contributions to an
//! asset, and [`asset`] says whether it differs from the last one and is to be published.
//!
//! What it *does* is two run loops: [`run`](crate::run::run) starts for each collection the map (source changes →
//! contributions and links) and the merge (contributions → asset records and conflicts). Both consume, compute, produce and
//! commit their input offsets in one transaction, and rebuild their memory from their own output.

pub mod asset;
pub mod catalog;
mod collect;
pub mod collection;
pub mod config;
pub mod contribution;
pub mod error;
pub mod event;
mod fold;
pub mod identity;
pub mod links;
mod map;
pub mod mapping;
pub mod merge;
mod own;
mod packed;
mod parts;
pub mod remembered;
pub mod run;
mod value;

pub use catalog::{LoadedCollection, load_collections};
pub use config::CollectionConfig;
pub use error::TransformerError;
pub use run::{Setup, run, run_once};
pub use value::Value;
pub use windfall_runtime::worker::Report;
