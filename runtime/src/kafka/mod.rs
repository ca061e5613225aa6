//! Access to Kafka: settings, topics, reading as a member of a group, reading topics to their ends, publishing in transactions.
//!
//! A stage instance is one async run loop, one consumer thread ([`consumer::GroupConsumer`]) and one writer thread
//! ([`publisher::Publisher`]). Blocking calls run in these threads or in Tokio's blocking pool, never on the async runtime.
//!
//! A stage takes partitions over in this order: [`publisher::Publisher::start`] fences the previous writer, [`table::fold`] asks for
//! the ends of the topics and reads up to them, and only then the stage computes and publishes.

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
mod cleartext;
mod client;
mod retire;

pub use client::PlainContext;
pub use connection::{Connection, Membership, Reader};
pub use record::{Headers, Outgoing, Record, TopicPartition};
