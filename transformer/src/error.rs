//! What can end a loop, and what passes.

use std::time::Duration;

use windfall_runtime::diagnose::{Diagnose, Diagnosis, Kind};
use windfall_runtime::kafka::consumer::ConsumerError;
use windfall_runtime::kafka::publisher::PublishError;
use windfall_runtime::kafka::table::TableError;
use windfall_runtime::kafka::topics::TopicError;
use windfall_runtime::registry::RegistryError;
use windfall_runtime::retry::Retry;
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
    /// The membership failed.
    #[error(transparent)]
    Consumer(#[from] ConsumerError),
    /// A transaction failed.
    #[error("transaction failed")]
    Publish(#[source] Box<PublishError>),
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
    /// `--once` was not let in.
    #[error("group `{group}` assigned nothing in time: another instance is at work")]
    NotAssigned {
        /// The group.
        group: String,
    },
    /// `--once` was let in beside somebody else.
    #[error("group `{group}` assigned {got} of {of} partitions: another instance is at work")]
    Shared {
        /// The group.
        group: String,
        /// How many this process has.
        got: usize,
        /// How many there are.
        of: usize,
    },
    /// A single run did nothing for too long.
    #[error("the single run of group `{group}` was ended after {}s without a commit; it waited for: {reason}", after.as_secs())]
    Stalled {
        /// The group.
        group: String,
        /// How long nothing was done.
        after: Duration,
        /// What it waited for.
        reason: String,
    },
    /// A commit was asked for without a writer.
    #[error("there is no writer")]
    NoWriter,
    /// A commit had not ended in time when the process was to stop.
    #[error("a transaction was given up for the shutdown; what it held is read again at the next start")]
    CutShort,
}

impl TransformerError {
    /// Says whether the assignment is no longer the present one, so that another event tells more.
    pub(crate) fn reassigned(&self) -> bool {
        matches!(self, Self::Consumer(ConsumerError::Reassigned { .. }))
            || matches!(self, Self::Publish(error) if matches!(**error, PublishError::Reassigned(_)))
    }

    /// Says whether the writer's epoch is no longer the newest.
    ///
    /// Either another process of the same name has taken over, which ends this one's membership; or the coordinator ended a
    /// transaction whose commit came too late, and then nobody else goes on.
    pub(crate) fn fenced(&self) -> bool {
        matches!(self, Self::Publish(error) if error.is_fenced())
    }

    /// A short name to count by.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Files(_) => "files",
            Self::Registry(_) => "registry",
            Self::Encode { .. } => "encode",
            Self::Topics(_) => "topics",
            Self::Consumer(_) => "consumer",
            Self::Publish(_) => "publish",
            Self::Table(_) => "table",
            Self::LinkBeyondEnd { .. } => "link_beyond_end",
            Self::NotAssigned { .. } | Self::Shared { .. } => "group",
            Self::Stalled { .. } => "stalled",
            Self::NoWriter => "no_writer",
            Self::CutShort => "cut_short",
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
            Self::Consumer(error) => error.diagnosis(),
            // The group decides who goes on: see `fenced`.
            Self::Publish(error) if error.is_fenced() => error.diagnosis().retry(Retry::Backoff),
            Self::Publish(error) => error.diagnosis(),
            Self::Table(error) => error.diagnosis(),
            Self::LinkBeyondEnd { .. } => Kind::Refused.help(
                "the source topic was recreated: recreate the collection's topics too, or restore the source topic",
            ),
            Self::NotAssigned { .. } | Self::Shared { .. } => {
                Kind::Superseded.help("stop the other instance, or let it do the work")
            }
            Self::Stalled { .. } => Kind::Unavailable
                .help("see to what it waited for, and run it again: it takes up where it was")
                .retry(Retry::Never),
            Self::NoWriter | Self::CutShort => Kind::Unavailable.into(),
        }
    }
}

impl From<PublishError> for TransformerError {
    fn from(error: PublishError) -> Self {
        Self::Publish(Box::new(error))
    }
}

impl From<TableError> for TransformerError {
    fn from(error: TableError) -> Self {
        Self::Table(Box::new(error))
    }
}
