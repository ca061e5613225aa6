//! What can end a loop, and what passes.

use windfall_runtime::diagnose::{Diagnose, Diagnosis, Kind};
use windfall_runtime::kafka::table::TableError;
use windfall_runtime::kafka::topics::TopicError;
use windfall_runtime::registry::RegistryError;
use windfall_runtime::worker::{Failure, WorkerError};
use windfall_schemas::wire::WireError;

use crate::problem::Problems;

/// What can go wrong for the transformer.
#[derive(Debug, thiserror::Error)]
pub enum TransformerError {
    /// Collections or mappings are faulty.
    #[error("collections or mappings are faulty:\n{0}")]
    Files(Problems),
    /// The registry does not answer, or not as it must.
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
    /// Topics could not be asked for.
    #[error(transparent)]
    Topics(#[from] TopicError),
    /// The worker failed: its membership, a transaction, or a single run.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// Own output was not read.
    #[error("own output was not read")]
    Table(#[source] Box<TableError>),
    /// A link speaks of a source record that the source no longer has: the topic was recreated.
    #[error(
        "a link of `{topic}` names offset {offset} of `{source_topic}` in partition {partition}, which ends at {end}"
    )]
    LinkBeyondEnd {
        /// The topic of links.
        topic: String,
        /// The source topic.
        source_topic: String,
        /// The partition of both.
        partition: i32,
        /// What the link names.
        offset: i64,
        /// Where the source's partition ends.
        end: i64,
    },
}

impl Failure for TransformerError {
    fn code(&self) -> &'static str {
        match self {
            Self::Files(_) => "files",
            Self::Registry(_) => "registry",
            Self::Encode { .. } => "encode",
            Self::Topics(_) => "topics",
            Self::Worker(error) => error.code(),
            Self::Table(_) => "table",
            Self::LinkBeyondEnd { .. } => "link_beyond_end",
        }
    }
}

impl Diagnose for TransformerError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Files(_) => {
                Kind::Configuration.help("correct the files; `windfall validate` checks them without touching anything")
            }
            Self::Registry(source) => source.diagnosis(),
            Self::Encode { .. } => Kind::Record.help("look at the record in the log; a value is limited to 256 KiB"),
            Self::Topics(error) => error.diagnosis(),
            Self::Worker(error) => error.diagnosis(),
            Self::Table(error) => error.diagnosis(),
            Self::LinkBeyondEnd { .. } => Kind::Refused.help(
                "the source topic was recreated: recreate the collection's topics too, or restore the source topic",
            ),
        }
    }
}

impl From<TableError> for TransformerError {
    fn from(error: TableError) -> Self {
        Self::Table(Box::new(error))
    }
}
