//! The errors of the transformer.

use windfall_runtime::diagnose::{Diagnose, Diagnosis, Kind};
use windfall_runtime::kafka::table::TableError;
use windfall_runtime::kafka::topics::TopicError;
use windfall_runtime::registry::RegistryError;
use windfall_runtime::worker::{Failure, WorkerError};
use windfall_schemas::wire::WireError;

/// What can go wrong for the transformer.
#[derive(Debug, thiserror::Error)]
pub enum TransformerError {
    /// The registry does not answer, or its answer cannot be used.
    #[error("schema was not had from the registry")]
    Registry(#[from] RegistryError),
    /// A record of ours could not be written.
    #[error("record for `{topic}` cannot be encoded")]
    Encode {
        /// The topic.
        topic: String,
        /// What is wrong with it.
        source: WireError,
    },
    /// The topic of links has lost its records: contributions are written together with links.
    #[error("`{links}` is empty, though `{contributions}` holds what was written together with its links")]
    LostLinks {
        /// The topic of links.
        links: String,
        /// The topic of contributions.
        contributions: String,
        /// The collection.
        collection: String,
    },
    /// Topics could not be asked for.
    #[error(transparent)]
    Topics(#[from] TopicError),
    /// The worker failed: its membership, a transaction, or a single run.
    #[error(transparent)]
    Worker(Box<WorkerError>),
    /// A topic of the loop's own output was not read.
    #[error("own output was not read")]
    Table(#[source] Box<TableError>),
}

impl Failure for TransformerError {
    fn code(&self) -> &'static str {
        match self {
            Self::Registry(_) => "registry",
            Self::Encode { .. } => "encode",
            Self::LostLinks { .. } => "other_log",
            Self::Topics(_) => "topics",
            Self::Worker(error) => error.code(),
            Self::Table(_) => "table",
        }
    }
}

impl Diagnose for TransformerError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Registry(source) => source.diagnosis(),
            Self::Encode { .. } => Kind::Record.help("look at the record in the log; a value is limited to 256 KiB"),
            Self::LostLinks { collection, .. } => Kind::Refused.help(format!(
                "see whether `kafka.bootstrap_servers` names the right cluster, or restore the topic; \
                 `windfall remap {collection}` maps the collection again, which writes the links anew"
            )),
            Self::Topics(error) => error.diagnosis(),
            Self::Worker(error) => error.diagnosis(),
            Self::Table(error) => error.diagnosis(),
        }
    }
}

impl From<WorkerError> for TransformerError {
    fn from(error: WorkerError) -> Self {
        Self::Worker(Box::new(error))
    }
}

impl From<TableError> for TransformerError {
    fn from(error: TableError) -> Self {
        match error {
            TableError::OtherLog(other) => WorkerError::OtherLog(other).into(),
            error => Self::Table(Box::new(error)),
        }
    }
}
