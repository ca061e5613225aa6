//! What can go wrong for a writer.

use rdkafka::error::KafkaError;

use crate::diagnose::{Diagnose, Diagnosis, Kind};
use crate::kafka::client::DELIVERY_HELP;
use crate::kafka::consumer::ConsumerError;
use crate::retry::Retry;

/// What can go wrong for a writer.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The producer cannot be made, or no broker lets it in.
    #[error("producer `{transactional_id}` was not started")]
    Start {
        /// The transactional id.
        transactional_id: String,
        /// What librdkafka says.
        source: KafkaError,
    },
    /// The machine gives no thread.
    #[error("writer thread was not started")]
    Thread {
        /// What the system says.
        source: std::io::Error,
    },
    /// A record is larger than a broker takes; nothing was written and the instance can go on.
    #[error("record {index} for `{topic}` has {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// The record's place among all of the transaction.
        index: usize,
        /// Its topic.
        topic: String,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The input's partitions are no longer this member's; nothing was written and the instance can go on.
    #[error("input of the transaction is no longer assigned")]
    Reassigned(#[source] ConsumerError),
    /// The epoch of this producer is no longer the newest.
    #[error(
        "producer `{transactional_id}` is fenced: another one of that name was started, or a broker has ended its transaction for taking too long"
    )]
    Fenced {
        /// The transactional id.
        transactional_id: String,
    },
    /// A record was not delivered.
    #[error("record for `{topic}` was not delivered")]
    Delivery {
        /// Its topic.
        topic: String,
        /// What librdkafka says.
        source: KafkaError,
    },
    /// The broker refused the input offsets, or the membership ended while the transaction was open.
    #[error("input offsets of `{transactional_id}` were not taken")]
    Offsets {
        /// The transactional id.
        transactional_id: String,
        /// What librdkafka or the membership says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A step of the transaction failed, or nobody knows how it ended.
    #[error("`{step}` of `{transactional_id}` failed")]
    Step {
        /// The transactional id.
        transactional_id: String,
        /// The step: begin or commit.
        step: &'static str,
        /// What librdkafka says.
        source: KafkaError,
    },
    /// The instance was used up earlier.
    #[error("producer `{transactional_id}` is used up: {why}")]
    Dead {
        /// The transactional id.
        transactional_id: String,
        /// What ended it.
        why: String,
    },
}

impl PublishError {
    /// Returns whether the instance is used up by this error.
    pub fn is_deadly(&self) -> bool {
        match self {
            Self::TooLarge { .. } | Self::Reassigned(_) => false,
            Self::Start { .. }
            | Self::Thread { .. }
            | Self::Fenced { .. }
            | Self::Delivery { .. }
            | Self::Offsets { .. }
            | Self::Step { .. }
            | Self::Dead { .. } => true,
        }
    }

    /// Returns whether the epoch is no longer the newest. The brokers do not tell whether another process writes in our stead,
    /// which a new instance would fence in turn, or a transaction timed out: membership of a group decides who goes on.
    pub fn is_fenced(&self) -> bool {
        matches!(self, Self::Fenced { .. })
    }
}

impl Diagnose for PublishError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Start { source, .. } => source.diagnosis().retry(Retry::Backoff).or_help(
                "check that this client may use its transactional id (ACL Write on TransactionalId), and that the brokers can keep \
                 transactions: `transaction.state.log.replication.factor` and `transaction.state.log.min.isr` must not ask for more \
                 brokers than there are",
            ),
            Self::TooLarge { .. } => {
                Kind::Record.help("look at the record in the log of rejects; a broker takes about 1 MB")
            }
            Self::Fenced { .. } => {
                Kind::Superseded.help("look whether another process runs with the same `instance`, and give each its own")
            }
            Self::Delivery { source, .. } => source.diagnosis().retry(Retry::Backoff).or_help(DELIVERY_HELP),
            Self::Step { source, .. } => source.diagnosis().retry(Retry::Backoff),
            Self::Reassigned(_) | Self::Thread { .. } | Self::Offsets { .. } | Self::Dead { .. } => {
                Kind::Unavailable.into()
            }
        }
    }
}
