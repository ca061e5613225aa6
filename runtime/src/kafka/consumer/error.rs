//! What can go wrong for a member of a group.

use rdkafka::error::KafkaError;

use crate::diagnose::{Diagnose, Diagnosis, Kind};
use crate::kafka::client::CLIENT_HELP;
use crate::retry::Retry;

/// What can go wrong for a member of a group.
#[derive(Debug, thiserror::Error)]
pub enum ConsumerError {
    /// The settings make no client.
    #[error("consumer of group `{group}` cannot be made")]
    Client {
        /// The group.
        group: String,
        /// What librdkafka says.
        source: KafkaError,
    },
    /// The machine gives no thread.
    #[error("consumer thread was not started")]
    Thread {
        /// What the system says.
        source: std::io::Error,
    },
    /// Another process has taken the same static membership.
    #[error("member of group `{group}` is fenced: another process runs with the same `instance`")]
    Fenced {
        /// The group.
        group: String,
    },
    /// The position is no longer in the topic.
    #[error("group `{group}` is to read from an offset that its topic no longer holds")]
    OutOfRange {
        /// The group.
        group: String,
        /// What librdkafka says.
        source: KafkaError,
    },
    /// A topic is missing or may not be read.
    #[error("group `{group}` cannot read its topics")]
    Refused {
        /// The group.
        group: String,
        /// What the broker says.
        source: KafkaError,
    },
    /// The client is beyond repair.
    #[error("consumer of group `{group}` failed for good")]
    Fatal {
        /// The group.
        group: String,
        /// What librdkafka says.
        source: KafkaError,
    },
    /// The assignment that was meant is no longer there; another event tells more.
    #[error("assignment of group `{group}` has changed meanwhile")]
    Reassigned {
        /// The group.
        group: String,
    },
    /// Positions were not set in time.
    #[error("positions of group `{group}` were not set: {reason}")]
    Seek {
        /// The group.
        group: String,
        /// The last answer.
        reason: String,
    },
    /// The broker was asked and did not answer.
    #[error("{what} of group `{group}` were not read")]
    Ask {
        /// What was asked for.
        what: &'static str,
        /// The group.
        group: String,
        /// What librdkafka says.
        source: KafkaError,
    },
}

impl Diagnose for ConsumerError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Reassigned { .. } | Self::Seek { .. } | Self::Thread { .. } => Kind::Unavailable.into(),
            Self::Ask { source, .. } => source.diagnosis().retry(Retry::Backoff),
            Self::Client { .. } => Kind::Configuration.help(CLIENT_HELP),
            Self::Fenced { .. } => {
                Kind::Superseded.help("give each process on a host its own `instance` (or `--instance NAME`)")
            }
            Self::OutOfRange { .. } => Kind::Refused.help(
                "the topic was recreated or its records have expired: rebuild this stage's output, or reset the group's offsets",
            ),
            Self::Refused { source, .. } => source
                .diagnosis()
                .retry(Retry::Never)
                .or_help("create the topics with `windfall topics create` and grant this client to read them"),
            Self::Fatal { source, .. } => source.diagnosis().retry(Retry::Never),
        }
    }
}
