//! Asset records to collection stores.
//!
//! A sink reads `assets.<collection>` and keeps one row per asset in a store of its own. Its truth is the store: each
//! row carries the guard of the record it was written from, and the position of each partition is a row beside it,
//! moved in the same transaction. Kafka's committed offsets are for display.

#[doc(hidden)]
pub mod apply_path;
pub mod asset;
pub mod config;
#[cfg(feature = "conformance")]
#[path = "../tests/conformance/mod.rs"]
pub mod conformance;
mod error;
mod freshness;
mod letters;
mod lost;
mod open;
pub mod record;
mod run;
pub mod store;
pub mod table;
mod work;
mod writer;

pub use config::{SinkConfig, SinkSettings};
pub use error::SinkError;
pub use lost::Lost;
pub use open::{accept, check, open};
pub use run::{Report, Sink, Surroundings};
