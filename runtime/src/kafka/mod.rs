//! Kafka at the rim: settings, topics, reading with a group, reading to the end, publishing in transactions.
//!
//! A stage instance is one async run loop, one consumer thread ([`consumer::GroupConsumer`]) and one writer thread
//! ([`publisher::Publisher`]). What blocks lives in these threads or in Tokio's blocking pool, never on the async runtime.
//!
//! Taking over always goes in this order: [`publisher::Publisher::start`] fences, [`table::fold`] asks the ends and reads up to
//! them, and only then may anything be computed and published.

pub mod config;
pub mod connection;
pub mod consumer;
pub mod dead_letters;
pub mod groups;
pub mod log;
pub mod mock;
pub mod publisher;
pub mod reach;
pub mod record;
pub mod sender;
pub mod table;
pub mod topics;

mod asking;
mod clear;
mod client;
mod retire;

pub use client::PlainContext;
pub use connection::{Connection, Membership, Reader};
pub use record::{Headers, Outgoing, Record, TopicPartition};
