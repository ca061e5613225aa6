//! `abm.rejects`: an item of the API that never became a record. No key.

use serde::{Deserialize, Serialize};

/// Text of the value's schema, as registered.
pub const VALUE_SCHEMA: &str = include_str!("../abm/rejects-value.avsc");

/// Longest `message`, in characters.
pub const MAX_MESSAGE_CHARS: usize = 1_000;
/// Largest `payload`: with the other fields, of which `message` is the longest, the record stays below the limit of `wire`.
pub const MAX_PAYLOAD_BYTES: usize = 247 * 1024;

/// One rejected item; the fields are those of the `.avsc` file, which documents them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename = "Value")]
#[allow(missing_docs, reason = "the .avsc file documents each field")]
pub struct RejectValue {
    pub reject_id: String,
    pub rejected_at: i64,
    pub stage: String,
    pub reason: String,
    pub message: String,
    #[serde(default)]
    pub retriable: bool,
    pub org: Option<String>,
    pub resource: Option<String>,
    pub resource_id: Option<String>,
    pub scan_id: Option<String>,
    pub page: Option<i32>,
    pub page_index: Option<i32>,
    pub url: Option<String>,
    pub request_id: Option<String>,
    pub http_status: Option<i32>,
    #[serde(default, with = "apache_avro::serde::bytes_opt")]
    pub payload: Option<Vec<u8>>,
    pub content_type: Option<String>,
    pub producer_version: Option<String>,
    pub trace_id: Option<String>,
}

impl RejectValue {
    /// Cuts message and payload to what the schema promises, at a character's border.
    pub fn cut(mut self) -> Self {
        if let Some((at, _)) = self.message.char_indices().nth(MAX_MESSAGE_CHARS) {
            self.message.truncate(at);
        }
        if let Some(payload) = &mut self.payload {
            payload.truncate(MAX_PAYLOAD_BYTES);
        }
        self
    }
}
