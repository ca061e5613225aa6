//! Bytes of keys and values: the registry's frame around one Avro datum.
//!
//! [`Codec`] holds the one encode and the one decode function. What comes from a topic is foreign: its schema is
//! refused when it could make a small record cost much ([`guard`]), its size is limited, and a datum that is cut or
//! has bytes left over is an error.

mod codec;
mod error;
mod frame;
pub mod guard;
pub(crate) mod plain;
mod record;

pub use codec::Codec;
pub use error::WireError;
pub use frame::{SchemaReference, frame, unframe};
pub(crate) use record::record;

/// Largest datum that is written. An envelope has about 1 KiB; brokers refuse about 1 MiB by default.
pub const MAX_WRITE_BYTES: usize = 256 * 1024;
/// Largest datum that is read: what a broker with default settings can hold.
pub const MAX_READ_BYTES: usize = 1024 * 1024;
/// Longest text of an error; those of the Avro library can hold whole schemas.
pub const MAX_ERROR_BYTES: usize = 1024;
