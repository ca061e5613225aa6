//! Why a sink ends.

use chrono::{DateTime, Utc};
use windfall_runtime::diagnose::{Diagnose, Diagnosis, Kind};
use windfall_runtime::registry::RegistryError;
use windfall_runtime::retry::Retry;
use windfall_runtime::worker::{Failure, WorkerError};

use crate::lost::Lost;
use crate::store::{Refusal, Source, StoreError};
use crate::table::TableError;

/// Why a sink ends. What passes by itself (store or broker away, locks, full disks) is no reason: the sink pauses.
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
    /// The store does not answer; a running sink waits for it.
    #[error("sink `{sink}` does not reach its store")]
    Store {
        /// The sink.
        sink: String,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// The worker failed: its membership, its position, or a single run.
    #[error(transparent)]
    Worker(Box<WorkerError>),
    /// Dead letters cannot be delivered at present.
    #[error("sink `{sink}` could not deliver dead letters")]
    DeadLetters {
        /// The sink.
        sink: String,
        /// Why.
        #[source]
        source: Source,
    },
    /// The store was set back meanwhile; the sink reads again from where it stands.
    #[error("the store of sink `{sink}` stands at offset {found} of partition {partition}, before {expected}")]
    Behind {
        /// The sink.
        sink: String,
        /// The partition.
        partition: i32,
        /// Where the batch began.
        expected: i64,
        /// Where the store stands.
        found: i64,
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
    /// The table does not hold what its positions say was written.
    #[error(transparent)]
    Lost(Box<Lost>),
    /// The registry does not give the schemas of the records, and only an operator can help.
    #[error("sink `{sink}` cannot read records without their schemas")]
    Registry {
        /// The sink.
        sink: String,
        /// Why.
        #[source]
        source: Box<RegistryError>,
    },
}

impl SinkError {
    /// Says of which sink an error of the store is.
    pub(crate) fn of_store(sink: String, error: StoreError) -> Self {
        match error {
            StoreError::Refused(source) => Self::Refused { sink, source },
            source => Self::Store { sink, source },
        }
    }
}

impl From<WorkerError> for SinkError {
    fn from(error: WorkerError) -> Self {
        Self::Worker(Box::new(error))
    }
}

impl Failure for SinkError {
    fn code(&self) -> &'static str {
        match self {
            Self::Store { source: StoreError::Environment { cause, .. }, .. } => cause.label(),
            Self::Table { .. } | Self::Store { .. } | Self::Refused { .. } | Self::Behind { .. } => "store",
            Self::Worker(error) => error.code(),
            Self::DeadLetters { .. } | Self::TooManyDeadLetters { .. } => "dead_letters",
            Self::AwayTooLong { .. } => "away_too_long",
            Self::Lost(_) => "lost_rows",
            Self::Registry { .. } => "registry",
        }
    }
}

impl Diagnose for SinkError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Table { source, .. } => source.diagnosis(),
            Self::Refused { source, .. } => source.diagnosis(),
            // A running sink waits until the store works again, whatever keeps it.
            Self::Store { source, .. } => source.diagnosis().retry(Retry::Backoff),
            Self::Worker(error) => error.diagnosis(),
            Self::DeadLetters { .. } => {
                Kind::Unavailable.help("see that the topic of dead letters exists and that this client may write it")
            }
            Self::Behind { .. } => Kind::Unavailable.into(),
            Self::TooManyDeadLetters { .. } => Kind::Refused.help(
                "see the dead letters for what the records have in common; mend the table or raise `dlq.nack_threshold`, then start again",
            ),
            Self::AwayTooLong { .. } => Kind::Refused
                .help("fill a new table under a new sink name; this one cannot be brought up to date from the topic"),
            Self::Lost(lost) => lost.diagnosis(),
            Self::Registry { source, .. } => source.diagnosis().or_help("see the registry's log"),
        }
    }
}
