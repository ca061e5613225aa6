//! Why a worker ends or tries again.

use std::time::Duration;

use crate::diagnose::{Diagnose, Diagnosis, Kind};
use crate::kafka::connection;
use crate::kafka::consumer::ConsumerError;
use crate::kafka::publisher::PublishError;
use crate::kafka::table::TableError;
use crate::kafka::topics::TopicError;
use crate::log_identity::OtherLog;
use crate::retry::Retry;

/// By then the group has told a member that another process has replaced it: its writer must not fence the other's.
const VERDICT: Duration = connection::SESSION_TIMEOUT;

/// An error of a stage that runs in a worker, which tries again where the error's diagnosis says so.
pub trait Failure: Diagnose + From<WorkerError> + Send + Sync + 'static {
    /// A short name to count by.
    fn code(&self) -> &'static str;
}

/// What can go wrong for every worker.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The membership failed.
    #[error(transparent)]
    Consumer(#[from] ConsumerError),
    /// A transaction failed.
    #[error("transaction failed")]
    Publish(#[source] Box<PublishError>),
    /// The input is not the log that was read before.
    #[error(transparent)]
    OtherLog(Box<OtherLog>),
    /// The extent of the input was not told.
    #[error("the ends of the input were not read")]
    Ends(#[source] TableError),
    /// The input's topics could not be asked for.
    #[error(transparent)]
    Topics(#[from] TopicError),
    /// There is no such topic.
    #[error("group `{group}` cannot read `{topic}`: there is no such topic")]
    NoTopic {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
    },
    /// A single run was not let in.
    #[error("group `{group}` assigned nothing in time: another instance is at work")]
    NotAssigned {
        /// The group.
        group: String,
    },
    /// A single run was let in beside somebody else.
    #[error("group `{group}` assigned {got} of {of} partitions: another instance is at work")]
    Shared {
        /// The group.
        group: String,
        /// How many this process has.
        got: usize,
        /// How many there are.
        of: usize,
    },
    /// A single run cannot go on without somebody's decision.
    #[error("the single run of group `{group}` is held: {reason}")]
    Held {
        /// The group.
        group: String,
        /// Why, and what goes on.
        reason: String,
    },
    /// A single run did nothing for too long.
    #[error("the single run of group `{group}` was ended after {}s without progress; it waited for: {reason}", after.as_secs())]
    Stalled {
        /// The group.
        group: String,
        /// How long nothing was done.
        after: Duration,
        /// What it waited for.
        reason: String,
    },
    /// Records have gone that were never read.
    #[error(
        "group `{group}` has read partition {partition} of `{topic}` to offset {position}, but it begins at {first}: records are gone that were not read"
    )]
    Expired {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The next offset to read.
        position: i64,
        /// Where the partition begins.
        first: i64,
    },
}

impl From<TableError> for WorkerError {
    fn from(error: TableError) -> Self {
        match error {
            TableError::OtherLog(other) => Self::OtherLog(other),
            error => Self::Ends(error),
        }
    }
}

impl From<PublishError> for WorkerError {
    fn from(error: PublishError) -> Self {
        Self::Publish(Box::new(error))
    }
}

impl Failure for WorkerError {
    fn code(&self) -> &'static str {
        match self {
            Self::Consumer(_) => "consumer",
            Self::Publish(_) => "publish",
            Self::OtherLog(_) => "other_log",
            Self::Ends(_) => "ends",
            Self::Topics(_) | Self::NoTopic { .. } => "topics",
            Self::NotAssigned { .. } | Self::Shared { .. } => "group",
            Self::Held { .. } => "held",
            Self::Stalled { .. } => "stalled",
            Self::Expired { .. } => "expired",
        }
    }
}

impl Diagnose for WorkerError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Consumer(error) => error.diagnosis(),
            // Either another process of the same name has taken over, and the group ends this membership; or the coordinator ended
            // a transaction whose commit came too late, and then nobody else goes on.
            Self::Publish(error) if error.is_fenced() => error.diagnosis().retry(Retry::After(VERDICT)),
            Self::Publish(error) => error.diagnosis(),
            Self::OtherLog(error) => error.diagnosis(),
            Self::Ends(error) => error.diagnosis(),
            Self::Topics(error) => error.diagnosis(),
            Self::NoTopic { .. } => Kind::NotFound.help("create the topics with `windfall topics create`"),
            Self::NotAssigned { .. } | Self::Shared { .. } => {
                Kind::Superseded.help("stop the other instance, or leave the work to it")
            }
            Self::Held { .. } => Kind::Held.help("do what the reason names, and run it again: it goes on where it was"),
            Self::Stalled { .. } => Kind::Unavailable
                .help("see to what it waited for, and run it again: it goes on where it was")
                .retry(Retry::Never),
            Self::Expired { .. } => Kind::Refused.help(
                "for a sink, fill a new table under a new name; for a merge, run `windfall remap COLLECTION`; for a map, \
                 `windfall topics accept TOPIC` reads what is still there",
            ),
        }
    }
}
