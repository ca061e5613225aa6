//! Why a sink ends.

use std::time::Duration;

use chrono::{DateTime, Utc};
use windfall_runtime::diagnose::{Diagnose, Diagnosis, Kind};
use windfall_runtime::kafka::consumer::ConsumerError;
use windfall_runtime::registry::RegistryError;
use windfall_runtime::retry::Retry;

use crate::store::{Refusal, Source, StoreError};
use crate::table::TableError;

/// Why a sink ends. What heals by itself (store or broker away, locks, full disks) is no reason: the sink pauses.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The collection makes no table.
    #[error("sink `{sink}` cannot have its table")]
    Table {
        /// The sink.
        sink: String,
        /// Why.
        #[source]
        source: TableError,
    },
    /// The store must not be written as configured.
    #[error("sink `{sink}` must not write its store")]
    Refused {
        /// The sink.
        sink: String,
        /// Why.
        #[source]
        source: Refusal,
    },
    /// The store does not answer; only `check` ends with it.
    #[error("sink `{sink}` does not reach its store")]
    Store {
        /// The sink.
        sink: String,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// The group cannot be read.
    #[error("sink `{sink}` cannot read its topic")]
    Consumer {
        /// The sink.
        sink: String,
        /// Why.
        #[source]
        source: Box<ConsumerError>,
    },
    /// Too many records were refused in a row.
    #[error(
        "sink `{sink}` stops: {refused} of the last {window} records were refused, the last one ({kind}): {message}"
    )]
    TooManyDeadLetters {
        /// The sink.
        sink: String,
        /// How many were refused.
        refused: usize,
        /// Of how many.
        window: usize,
        /// Kind of the last refusal.
        kind: String,
        /// What the last refusal said.
        message: String,
    },
    /// Deletions may have been missed.
    #[error(
        "sink `{sink}` has not read partition {partition} of `{topic}` since {as_of}: deletions may be missing by now"
    )]
    AwayTooLong {
        /// The sink.
        sink: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Up to when deletions are known.
        as_of: DateTime<Utc>,
    },
    /// The topic is shorter than what was read of it.
    #[error(
        "sink `{sink}` stands at offset {next_offset} of partition {partition} of `{topic}`, which ends at {end}: the topic was created again"
    )]
    Recreated {
        /// The sink.
        sink: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Where the store stands.
        next_offset: i64,
        /// Where the partition ends.
        end: i64,
    },
    /// Records have gone that were never read.
    #[error(
        "sink `{sink}` stands at offset {next_offset} of partition {partition} of `{topic}`, which begins at {first}: records are gone that it has not read"
    )]
    Expired {
        /// The sink.
        sink: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Where the store stands.
        next_offset: i64,
        /// Where the partition begins.
        first: i64,
    },
    /// Another member has some of the partitions, or all of them.
    #[error("another instance is at work on sink `{sink}`: {assigned} of {partitions} partitions were assigned here")]
    AnotherInstance {
        /// The sink.
        sink: String,
        /// How many came here.
        assigned: usize,
        /// How many there are.
        partitions: usize,
    },
    /// The registry will not tell the schemas of the records without anybody's help.
    #[error("sink `{sink}` cannot read records without their schemas")]
    Registry {
        /// The sink.
        sink: String,
        /// Why.
        #[source]
        source: Box<RegistryError>,
    },
    /// The broker could not be asked where the topic ends.
    #[error("sink `{sink}` could not ask where its topic ends")]
    Ends {
        /// The sink.
        sink: String,
        /// Why.
        #[source]
        source: Source,
    },
    /// A single run stored nothing for too long.
    #[error("the single run of sink `{sink}` was ended after {}s without a batch stored; it waited for: {reason}", after.as_secs())]
    Stalled {
        /// The sink.
        sink: String,
        /// How long nothing was stored.
        after: Duration,
        /// What it waited for.
        reason: String,
    },
    /// There is no such topic.
    #[error("the topic `{topic}` of sink `{sink}` does not exist")]
    NoTopic {
        /// The sink.
        sink: String,
        /// The topic.
        topic: String,
    },
}

impl Diagnose for SinkError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Table { source, .. } => source.diagnosis(),
            Self::Refused { source, .. } => source.diagnosis(),
            Self::Store { source, .. } => source.diagnosis(),
            Self::Consumer { source, .. } => source.diagnosis().or_help("see the broker's log"),
            Self::TooManyDeadLetters { .. } => Kind::Refused.help(
                "see the dead letters for what the records have in common; mend the table or raise `dlq.nack_threshold`, then start again",
            ),
            Self::AwayTooLong { .. } | Self::Recreated { .. } | Self::Expired { .. } => Kind::Refused
                .help("fill a new table under a new sink name; this one cannot be brought up to date from the topic"),
            Self::AnotherInstance { .. } => Kind::Superseded.help("stop the other one, or leave the work to it"),
            Self::Ends { .. } => {
                Kind::Unavailable.help("see that the broker runs and that `kafka.bootstrap_servers` is right")
            }
            Self::Registry { source, .. } => source.diagnosis().or_help("see the registry's log"),
            Self::Stalled { .. } => Kind::Unavailable
                .help("see to what it waited for, and run it again: it takes up where it was")
                .retry(Retry::Never),
            Self::NoTopic { .. } => Kind::NotFound.help("create the topics with `windfall topics create`"),
        }
    }
}
