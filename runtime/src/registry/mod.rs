//! The schema registry: a client for any that speaks Confluent's API, and one of our own.
//!
//! The embedded registry ([`embedded::EmbeddedRegistry`]) serves this process by calls, and others by HTTP ([`server`]). Its ids
//! follow from the schemas' texts, so that several processes agree on them without a leader.

mod catalogue;
pub mod client;
pub mod embedded;
mod error;
mod http;
pub mod level;
mod normal;
pub mod server;
mod storage;

use std::sync::Arc;

pub use client::RegistryClient;
pub use error::RegistryError;
pub use level::Level;

/// A version of a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// The subject.
    pub subject: String,
    /// Its version, from 1; unknown where the registry does not tell.
    pub version: Option<u32>,
    /// The schema's number.
    pub id: u32,
    /// The schema's text.
    pub text: Arc<str>,
}
