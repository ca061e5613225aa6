//! What can go wrong with a schema registry.

use windfall_schemas::wire::WireError;

use crate::diagnose::{Diagnose, Diagnosis, Kind};
use crate::http::route::{RequestError, RouteError};
use crate::retry::Retry;

/// What can go wrong with a schema registry.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The settings make no client.
    #[error("schema registry client cannot be made: {reason}")]
    Settings {
        /// What is wrong.
        reason: String,
    },
    /// The environment or this machine makes no client.
    #[error("schema registry client cannot be made")]
    Route(#[from] RouteError),
    /// No address answered.
    #[error("schema registry {url} was not reached")]
    Unreachable {
        /// The last address tried.
        url: String,
        /// What the client says, and through which proxy it was asked.
        source: RequestError,
    },
    /// It answered, over and over, that it cannot answer now.
    #[error("schema registry {url} answered {status} to {what}")]
    Unavailable {
        /// The address.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What was asked.
        what: String,
    },
    /// It refuses us.
    #[error("schema registry {url} answers {status} to {what}")]
    Unauthorized {
        /// The address.
        url: String,
        /// The HTTP status: 401, 403 or 405.
        status: u16,
        /// What was asked.
        what: String,
    },
    /// It does not hold what was asked for.
    #[error("{what} is not in the schema registry")]
    NotFound {
        /// What was asked.
        what: String,
    },
    /// It did not give a schema that it may have: a registry that has just started has not read its own topic yet.
    #[error("schema registry did not give a schema; it is asked again until it has answered so for {limit_s}s")]
    Doubtful {
        /// What it answered.
        source: Box<RegistryError>,
        /// For how long it is asked again.
        limit_s: u64,
    },
    /// It has neither a schema that a record names nor what we registered ourselves.
    #[error("schema registry no longer knows our own subject `{subject}`: {what}")]
    Lost {
        /// What it answered about the record's schema.
        what: String,
        /// Our subject.
        subject: String,
    },
    /// The schema is not registered, and we are not to register it.
    #[error("schema of `{subject}` is not registered, and `register` is false")]
    NotRegistered {
        /// The subject.
        subject: String,
    },
    /// The schema may not follow the ones before it.
    #[error("schema of `{subject}` is incompatible with an earlier one: {reason}")]
    Incompatible {
        /// The subject.
        subject: String,
        /// What the registry says, cut.
        reason: String,
    },
    /// It takes the request for a mistake.
    #[error("schema registry refuses {what} ({status}, code {code}): {reason}")]
    Refused {
        /// What was asked.
        what: String,
        /// The HTTP status.
        status: u16,
        /// The registry's own code.
        code: i64,
        /// What it says, cut.
        reason: String,
    },
    /// Its answer makes no sense.
    #[error("answer of the schema registry to {what} makes no sense: {reason}")]
    Malformed {
        /// What was asked.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// The id that it gave belongs to another schema.
    #[error("schema registry gives id {id} for `{subject}`, but holds another schema under it")]
    WrongSchema {
        /// The subject.
        subject: String,
        /// The id.
        id: u32,
    },
    /// The schema's text is none, or breaks a limit.
    #[error("schema is not usable")]
    Schema(#[from] WireError),
    /// The topic of the embedded registry was not read or written.
    #[error("schemas were not kept in `{topic}`")]
    Storage {
        /// The topic.
        topic: String,
        /// What Kafka says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The address to serve on cannot be had.
    #[error("embedded schema registry cannot listen on {listen}")]
    Listen {
        /// The address.
        listen: String,
        /// What the system says.
        source: std::io::Error,
    },
}

impl RegistryError {
    /// Returns whether this is an answer that does not give the schema asked for, which may be true or too early.
    pub fn is_no_schema(&self) -> bool {
        matches!(
            self,
            Self::NotFound { .. } | Self::NotRegistered { .. } | Self::Refused { .. } | Self::Malformed { .. }
        )
    }
}

impl Diagnose for RegistryError {
    fn diagnosis(&self) -> Diagnosis {
        const ADDRESS: &str = "check `kafka.schema_registry.url`; `embedded: {}` needs no registry";
        match self {
            Self::Unreachable { .. } | Self::Unavailable { .. } => Kind::Unavailable.help(ADDRESS),
            Self::Settings { .. } => Kind::Configuration.help(ADDRESS),
            Self::Route(error) => error.diagnosis(),
            Self::Unauthorized { status, .. } => {
                let kind = if *status == 401 { Kind::Authentication } else { Kind::Permission };
                kind.help(
                    "check `kafka.schema_registry.username` and `password`; for an account that may only read, register the schemas \
                     first by `windfall topics create` with one that may write",
                )
            }
            Self::NotRegistered { .. } => Kind::Refused
                .help("register the schema by your own process, or set `kafka.schema_registry.register` to true"),
            Self::Incompatible { .. } => Kind::Refused.help(
                "another version of Windfall, or another program, uses this subject: update the oldest first, or take another `topic_prefix`",
            ),
            Self::Listen { .. } => Kind::Refused
                .help("another program uses the address: choose another `kafka.schema_registry.embedded.listen`"),
            Self::Malformed { .. } => Kind::Refused.help(
                "check that `kafka.schema_registry.url` is the base of a Confluent API (Apicurio: `/apis/ccompat/v7`)",
            ),
            Self::WrongSchema { .. } | Self::Lost { .. } => Kind::Refused.help(
                "the registry was changed, or has lost or reused its ids: restore it before anything is written",
            ),
            Self::Doubtful { source, .. } => {
                Diagnosis { kind: Kind::Unavailable, retry: Retry::Backoff, ..source.diagnosis() }
            }
            Self::NotFound { .. } | Self::Refused { .. } => Kind::Refused.into(),
            Self::Schema(error) => error.diagnosis(),
            Self::Storage { .. } => Kind::Unavailable.into(),
        }
    }
}
