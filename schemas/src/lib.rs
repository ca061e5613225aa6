//! The contract of Windfall's topics: schemas, keys, envelopes and the wire form.
//!
//! An `.avsc` file is the truth; the Rust type beside it is held to it by the tests of this crate. What is registered
//! is the file's text as it stands, never a printed form of the parsed schema, which loses attributes.
//!
//! # Topics
//!
//! A change topic (`abm.devices`, `abm.servers`) carries Debezium's envelope ([`envelope::Envelope`]):
//! `before`, `after`, `source`, `op`, and what the readers of Debezium ignore: `kind`, `changed`, `evidence`, `event_id`,
//! `fingerprint`. `abm.scans` holds what must survive of a scan, `abm.rejects` what never became a record. A collection
//! (`assets.<collection>`) is flat, one row an asset, and its schema is generated from the collection
//! ([`asset::Collection`]); `links`, `contributions` and `conflicts` beside it are what the transformer remembers.
//! Names, partitions and settings: [`topic`].
//!
//! # Subjects and keys
//!
//! Subjects are `<topic>-key` and `<topic>-value`. A key is an Avro record whose fields stand in the value too. The
//! partition is Java's murmur2 of the *framed* key ([`partition`]), and the frame holds the schema's id: key schemas are
//! frozen, and a new registry that gives other ids would split keys.
//!
//! # Compatibility
//!
//! Values grow only at the end of `Value`, a collection's at the end of its own fields, in front of those with `__` that every
//! row has; always by nullable fields with default null. Every version ever published stays in
//! `history/` and is checked both ways against the current file. There are no enums: sets of values are open and listed
//! in the field's `doc`.
//!
//! # Bytes
//!
//! [`wire::Codec`] is the only place that encodes and decodes: the frame, the limits, leftover bytes and truncation are
//! looked after there. Records that are written often are handed to the Avro library as tuples, in the order of their schema,
//! because it looks up each field of a struct by name; a test holds the two orders to each other.

pub mod asset;
pub mod conflict;
pub mod contribution;
pub mod device;
pub mod envelope;
pub mod fingerprint;
pub mod identifiers;
pub mod link;
pub mod notification;
pub mod partition;
pub mod reject;
pub mod row;
pub mod scan;
pub mod server;
pub mod signal;
pub mod timestamp;
pub mod topic;
pub mod wire;
