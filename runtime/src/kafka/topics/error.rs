//! What can go wrong with topics.

use std::fmt;

use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

use crate::diagnose::{Diagnose, Diagnosis, Kind, of_kafka};
use crate::retry::Retry;

/// How a topic differs from its declaration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The topic.
    pub topic: String,
    /// What differs: `partitions`, `existence` or a setting's name.
    pub what: String,
    /// As declared.
    pub declared: String,
    /// As found; `None` when there is no such topic.
    pub found: Option<String>,
}

impl Difference {
    pub(super) fn new(
        topic: impl Into<String>,
        what: &str,
        declared: impl Into<String>,
        found: Option<String>,
    ) -> Self {
        Self { topic: topic.into(), what: what.to_owned(), declared: declared.into(), found }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, what, declared, found } = self;
        match found {
            Some(found) => write!(formatter, "`{topic}`: {what} is {found}, declared {declared}"),
            None => write!(formatter, "`{topic}` does not exist"),
        }
    }
}

/// What can go wrong with topics.
#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    /// No broker could be asked.
    #[error("topics were not read from `{servers}`{}", said(reason.as_deref()))]
    Ask {
        /// The brokers.
        servers: String,
        /// What the client has heard of them, where it has.
        reason: Option<Box<str>>,
        /// What librdkafka says.
        source: KafkaError,
    },
    /// A topic was not created.
    #[error("topic `{topic}` was not created: {reason}")]
    Create {
        /// The topic.
        topic: String,
        /// What the broker says.
        reason: String,
        /// Its code, where it gave one.
        code: Option<RDKafkaErrorCode>,
    },
    /// Another topic's name differs in dots and underscores alone.
    #[error(
        "topic `{topic}` cannot be created beside the topic `{other}`: Kafka takes `.` and `_` for the same in its metrics' names"
    )]
    Collides {
        /// The topic to be created.
        topic: String,
        /// The topic that exists.
        other: String,
    },
    /// Topics are not as they must be.
    #[error("{} topics are not as they must be: {}", count(.0), list(.0))]
    Different(Vec<Difference>),
    /// The brokers cannot keep the state of transactions.
    #[error("brokers cannot keep transactions: `{setting}` is {value}, and there are {most} {of}")]
    Transactions {
        /// The broker's setting.
        setting: &'static str,
        /// Its value.
        value: usize,
        /// What it may be at most.
        most: usize,
        /// What that is the number of.
        of: &'static str,
    },
}

impl Diagnose for TopicError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Ask { source, .. } => source
                .diagnosis()
                .retry(Retry::Backoff)
                .or_help("check `kafka.bootstrap_servers`, and `kafka.properties` for TLS and SASL"),
            Self::Create { code, .. } => code.map_or(Kind::Refused, of_kafka).help(match code {
                Some(RDKafkaErrorCode::InvalidReplicationFactor) => {
                    "set `kafka.replication_factor` to the number of brokers at most"
                }
                Some(RDKafkaErrorCode::InvalidTopic) => {
                    "Kafka refuses the name: set a shorter `kafka.topic_prefix` of letters, digits, `.`, `_` and `-`"
                }
                _ => "see the brokers' log and policy, and that this client may create topics",
            }).retry(Retry::Never),
            Self::Collides { other, .. } => Kind::Refused
                .help(format!("delete or rename `{other}`, or set `kafka.topic_prefix` so that the names differ otherwise")),
            Self::Different(differences) if differences.iter().all(|difference| difference.found.is_none()) => {
                Kind::NotFound.help("make them with `windfall topics create`, or set `kafka.manage_topics: create`")
            }
            Self::Different(_) => Kind::Refused.help(
                "run `windfall topics create` for what is missing, set settings by `kafka-configs.sh --alter`; partitions cannot be changed, take another `topic_prefix`",
            ),
            Self::Transactions { .. } => Kind::Refused
                .help("set it in the brokers' `server.properties` to what the cluster has, and restart the brokers"),
        }
    }
}

fn said(reason: Option<&str>) -> String {
    reason.map(|reason| format!(": {reason}")).unwrap_or_default()
}

fn count(differences: &[Difference]) -> usize {
    let mut topics: Vec<&str> = differences.iter().map(|difference| difference.topic.as_str()).collect();
    topics.dedup();
    topics.len()
}

fn list(differences: &[Difference]) -> String {
    differences.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
