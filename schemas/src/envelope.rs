//! Debezium's envelope: before, after, where it was seen, and what happened.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::wire::record;

record! {
    /// One change of one record, as it stands in a change topic.
    ///
    /// `before` is filled for `u` and `d`, `after` for `c`, `r` and `u`. Readers of Debezium's format ignore what follows
    /// `transaction`.
    #[derive(Debug, Clone, PartialEq)]
    pub struct Envelope<V> as "Envelope" {
        /// The record before the change.
        pub before: Option<V>,
        /// The record after the change.
        pub after: Option<V>,
        /// Where the change was seen.
        pub source: Source,
        /// What a table engine does with it.
        pub op: Op,
        /// When the producer made the event.
        pub ts_ms: Option<i64>,
        /// `ts_ms` in microseconds.
        pub ts_us: Option<i64>,
        /// Always null: nanoseconds do not fit a double, which is what some readers have.
        pub ts_ns: Option<i64>,
        /// Always null: a scan is not a transaction of the source.
        pub transaction: Option<Block>,
        /// The same if the event is sent again.
        pub event_id: Option<String>,
        /// What happened, in words of the fleet.
        pub kind: Option<Kind>,
        /// Names of the fields that differ; empty for c, d, r.
        #[serde(default)]
        pub changed: Vec<String>,
        /// Hash of `after`, of `before` for `d`.
        pub fingerprint: Option<String>,
        /// What the change rests on, such as `scan 41: absent`.
        #[serde(default)]
        pub evidence: Vec<String>,
    }
}

record! {
    /// Where a change was seen. Word for word the same named type in every change topic.
    #[derive(Debug, Clone, Default, PartialEq)]
    pub struct Source as "Source" {
        /// Version of the producer.
        pub version: String,
        /// Always `abm`.
        pub connector: String,
        /// Topic prefix without its dot, `windfall` when it is empty.
        pub name: String,
        /// `updatedDateTime` of the resource, else the time at which the page was read.
        pub ts_ms: i64,
        /// Whether the record was read as part of a full state.
        #[serde(default)]
        pub snapshot: Snapshot,
        /// Alias of the organization.
        pub db: String,
        /// Text form of the event's number: `fingerprint::sequence`.
        pub sequence: Option<String>,
        /// `ts_ms` in microseconds.
        pub ts_us: Option<i64>,
        /// Always null.
        pub ts_ns: Option<i64>,
        /// devices, servers or coverages.
        pub table: String,
        /// business or school.
        pub api: Option<String>,
        /// Version of Apple's API that the page was asked for.
        pub api_version: Option<String>,
        /// The scan that saw it.
        pub scan_id: Option<String>,
        /// When that scan began.
        pub scan_started_ms: Option<i64>,
        /// Page of the scan, from 1.
        pub page: Option<i32>,
        /// Place on the page, from 0.
        pub page_index: Option<i32>,
        /// Request id that Apple returned with the page.
        pub request_id: Option<String>,
        /// Path of the resource.
        pub url: Option<String>,
        /// Which channel saw it first.
        pub channel: Option<Channel>,
        /// Who did it, by the audit log.
        pub actor_type: Option<String>,
        /// Id of the actor in the audit log.
        pub actor_id: Option<String>,
        /// Name of the actor in the audit log.
        pub actor_name: Option<String>,
        /// Id of the audit event that tells of it.
        pub audit_event_id: Option<String>,
    }
}

/// Debezium's transaction block; we never fill it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "block")]
pub struct Block {
    /// Id of the transaction.
    pub id: String,
    /// Place among all events of the transaction.
    pub total_order: i64,
    /// Place among the table's events of the transaction.
    pub data_collection_order: i64,
}

/// What a table engine does with an event. Closed: readers fail on any other letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// Seen for the first time.
    Create,
    /// Differs from before.
    Update,
    /// Gone for good; a tombstone follows.
    Delete,
    /// Read as part of a full state.
    Read,
}

impl Op {
    /// The letter that stands in the record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "c",
            Self::Update => "u",
            Self::Delete => "d",
            Self::Read => "r",
        }
    }

    /// Reads the letter; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Create, Self::Update, Self::Delete, Self::Read].into_iter().find(|op| op.as_str() == text)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Op {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Op {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("op is none of c, u, d, r"))
    }
}

/// Makes an enum whose text form is an open set: what this version does not know is kept as `Other`.
macro_rules! open_set {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_meta])* $variant,)+
            /// A value that this version does not know.
            Other(String),
        }

        impl $name {
            /// The text that stands in the record.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)+
                    Self::Other(text) => text,
                }
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                match text {
                    $($text => Self::$variant,)+
                    other => Self::Other(other.to_owned()),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer).map(|text| Self::from(text.as_str()))
            }
        }
    };
}

open_set! {
    /// What happened to a record, in words of the fleet. Where several apply the first of this list is taken.
    Kind {
        /// Gone for good: purged, or a server that a complete list lacks.
        Removed = "removed",
        /// Left the organization, by evidence.
        Released = "released",
        /// A released device is listed again.
        Readded = "readded",
        /// Seen for the first time.
        Added = "added",
        /// Another server.
        Reassigned = "reassigned",
        /// A server where none was.
        Assigned = "assigned",
        /// No server where one was.
        Unassigned = "unassigned",
        /// Any other status value.
        StatusChanged = "status-changed",
        /// Only coverage fields differ.
        CoverageChanged = "coverage-changed",
        /// Anything else.
        Updated = "updated",
    }
}

open_set! {
    /// Whether a record was read as part of a full state, in Debezium's words.
    #[derive(Default)]
    Snapshot {
        /// A change: op is c, u or d.
        #[default]
        False = "false",
        /// Part of a full state, neither its first nor its last record.
        True = "true",
        /// The first record of the first scan of the table.
        First = "first",
        /// The last record of the last page.
        Last = "last",
        /// Published again from the known state.
        Incremental = "incremental",
    }
}

open_set! {
    /// Which channel saw a change first.
    Channel {
        /// The full listing.
        Scan = "scan",
        /// The audit log.
        Audit = "audit",
        /// A hint by webhook.
        Webhook = "webhook",
        /// A single read.
        Lookup = "lookup",
        /// An AppleCare read.
        Coverage = "coverage",
        /// An approved plan or a purge.
        Operator = "operator",
    }
}
