//! `abm.scans`: what must survive of a scan. A small compacted topic; the part named "" is the header.

use serde::{Deserialize, Serialize};

/// Text of the key's schema, as registered.
pub const KEY_SCHEMA: &str = include_str!("../abm/scans-key.avsc");
/// Text of the value's schema, as registered.
pub const VALUE_SCHEMA: &str = include_str!("../abm/scans-value.avsc");

/// Key of `abm.scans`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename = "Key")]
pub struct ScanKey {
    /// Alias of the organization.
    pub org: String,
    /// The table that is scanned: devices, servers.
    pub table: String,
    /// Text form of a [`ScanPart`].
    pub part: String,
}

/// One part of a scan's state; only the fields that the part needs are filled.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename = "Value")]
#[allow(missing_docs, reason = "the .avsc file documents each field")]
pub struct ScanValue {
    pub org: String,
    pub table: String,
    pub part: String,
    pub scan_id: String,
    pub scan_number: Option<i64>,
    pub state: Option<String>,
    pub cursor: Option<String>,
    pub page: Option<i32>,
    pub started_at: Option<i64>,
    pub updated_at: Option<i64>,
    pub finished_at: Option<i64>,
    pub requests: Option<i64>,
    pub devices: Option<i64>,
    /// JSON object: kind to number of events.
    pub counts: Option<String>,
    pub ids: Option<Vec<String>>,
    /// JSON: what only this part knows.
    pub detail: Option<String>,
    pub plan_hash: Option<String>,
}

impl ScanValue {
    /// Returns the key that this part has in the topic.
    pub fn key(&self) -> ScanKey {
        ScanKey { org: self.org.clone(), table: self.table.clone(), part: self.part.clone() }
    }
}

/// Which part of a scan's state a record holds. Open: a part of a later version is `Other` and left alone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScanPart {
    /// State, cursor, page, counts.
    Header,
    /// The ids seen on one page.
    Seen(u32),
    /// A device that complete scans lack.
    Suspect(String),
    /// A piece of a plan that waits for an operator.
    Held {
        /// Name of the plan.
        plan: String,
        /// Number of the piece, from 0.
        chunk: u32,
    },
    /// What the rate limiter must remember over restarts.
    Limiter,
    /// Position in the audit log.
    Audit,
    /// Position in `windfall.signals`.
    Signals,
    /// A part that this version does not know.
    Other(String),
}

impl ScanPart {
    /// Reads the text form that stands in the key.
    pub fn parse(text: &str) -> Self {
        let known = match text.split_once(':') {
            None => match text {
                "" => Some(Self::Header),
                "limiter" => Some(Self::Limiter),
                "audit" => Some(Self::Audit),
                "signals" => Some(Self::Signals),
                _ => None,
            },
            Some(("seen", page)) => page.parse().ok().map(Self::Seen),
            Some(("suspect", device)) => Some(Self::Suspect(device.to_owned())),
            Some(("held", rest)) => rest
                .rsplit_once(':')
                .and_then(|(plan, chunk)| chunk.parse().ok().map(|chunk| Self::Held { plan: plan.to_owned(), chunk })),
            Some(_) => None,
        };
        known.unwrap_or_else(|| Self::Other(text.to_owned()))
    }
}

impl std::fmt::Display for ScanPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Header => Ok(()),
            Self::Seen(page) => write!(f, "seen:{page}"),
            Self::Suspect(device) => write!(f, "suspect:{device}"),
            Self::Held { plan, chunk } => write!(f, "held:{plan}:{chunk}"),
            Self::Limiter => f.write_str("limiter"),
            Self::Audit => f.write_str("audit"),
            Self::Signals => f.write_str("signals"),
            Self::Other(text) => f.write_str(text),
        }
    }
}
