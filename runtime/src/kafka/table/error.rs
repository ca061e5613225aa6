//! What can go wrong while a topic is read to its end.

use rdkafka::error::KafkaError;

use crate::diagnose::{Diagnose, Diagnosis, Kind};
use crate::log_identity::OtherLog;
use crate::registry::RegistryError;
use crate::retry::Retry;

/// What can go wrong while a topic is read to its end.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The ends were not told.
    #[error("ends of `{topic}` were not read")]
    Ask {
        /// The topic.
        topic: String,
        /// What librdkafka says.
        source: KafkaError,
    },
    /// The reader cannot be made or has failed.
    #[error("`{topic}` was not read to its end")]
    Read {
        /// The topic.
        topic: String,
        /// What librdkafka says.
        source: KafkaError,
    },
    /// The position to go on from was taken from another log.
    #[error(transparent)]
    OtherLog(#[from] Box<OtherLog>),
    /// The offset to begin at is no longer there.
    #[error("`{topic}` begins at {first} in partition {partition}, after offset {from} where reading was to go on")]
    Truncated {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Where reading was to begin.
        from: i64,
        /// Where the partition begins.
        first: i64,
    },
    /// The registry did not tell whether a record can be read.
    #[error("schema of the record of `{topic}` in partition {partition} at offset {offset} was not had")]
    Schema {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset.
        offset: i64,
        /// What the registry's client says.
        source: Box<RegistryError>,
    },
    /// The newest key was written with another schema id.
    #[error(
        "newest key of `{topic}` (partition {partition}, offset {offset}) has schema id {found:?}, we would write {ours}"
    )]
    KeySchema {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset.
        offset: i64,
        /// The id found; `None` where the key is not framed.
        found: Option<u32>,
        /// Ours.
        ours: u32,
    },
    /// Nobody waits for it any more.
    #[error("reading of `{topic}` was stopped")]
    Stopped {
        /// The topic.
        topic: String,
    },
}

impl Diagnose for TableError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Ask { source, .. } | Self::Read { source, .. } => source
                .diagnosis()
                .retry(Retry::Backoff)
                .or_help("check that the topic exists (`windfall topics create`) and that the brokers can be reached"),
            Self::OtherLog(other) => other.diagnosis(),
            Self::KeySchema { .. } => Kind::Refused.help(
                "the schema registry was changed or has lost its ids: go back to the former one, or start with a new `topic_prefix`",
            ),
            Self::Schema { source, .. } => source.diagnosis(),
            Self::Truncated { .. } | Self::Stopped { .. } => Kind::Refused.into(),
        }
    }
}
