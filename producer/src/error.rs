//! Why a producer ends.

use windfall_runtime::diagnose::{Diagnose, Diagnosis, Kind};
use windfall_runtime::kafka::consumer::ConsumerError;
use windfall_runtime::kafka::topics::TopicError;
use windfall_runtime::retry::Retry;

use crate::apple::DirectoryError;
use crate::apple::client::ConnectError;
use crate::ledger::LedgerError;

/// Why a producer ends.
#[derive(Debug, thiserror::Error)]
pub enum ProducerError {
    /// The group that shares the source out does not take this process.
    #[error("source `{source_name}` cannot be shared with other processes")]
    Membership {
        /// Name of the source.
        source_name: String,
        /// What happened.
        #[source]
        source: Box<ConsumerError>,
    },
    /// The group of the source has a living member, so a single run leaves the source to it.
    #[error("another instance is at work on source `{source_name}`: {members}")]
    AtWork {
        /// Name of the source.
        source_name: String,
        /// The members of the group, by client id and host.
        members: String,
    },
    /// A topic is missing or other than declared.
    #[error("topics of the producer are not as declared")]
    Topics(#[from] TopicError),
    /// The topics of a source cannot be read or written.
    #[error("topics of source `{source_name}` cannot be used")]
    Ledger {
        /// Name of the source.
        source_name: String,
        /// What happened.
        #[source]
        source: LedgerError,
    },
    /// A single run of a source made no progress.
    #[error("single run of source `{source_name}` did not take it over within {seconds}s: {why}")]
    Stalled {
        /// Name of the source.
        source_name: String,
        /// How long nothing has moved.
        seconds: u64,
        /// What it met last.
        why: String,
    },
    /// The schemas could not be resolved.
    #[error("schemas of the producer were not resolved")]
    Schemas(#[source] LedgerError),
    /// A source cannot be read with what is configured.
    #[error("source `{source_name}` cannot be read")]
    Directory {
        /// Name of the source.
        source_name: String,
        /// What Apple said.
        #[source]
        source: Box<DirectoryError>,
    },
    /// What a source is configured with cannot be used.
    #[error("source `{source_name}` cannot be used")]
    Connect {
        /// Name of the source.
        source_name: String,
        /// What is wrong with it.
        #[source]
        source: ConnectError,
    },
    /// A thread could not be started, or a task panicked.
    #[error("task of source `{source_name}` ended")]
    Task {
        /// Name of the source.
        source_name: String,
        /// What the system says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl ProducerError {
    /// Returns the worse of two: who does not know us outweighs who does not let us, and both any other.
    #[must_use]
    pub(crate) fn worse(self, other: Self) -> Self {
        let weight = |error: &Self| match error.kind() {
            Kind::Authentication => 2,
            Kind::Permission => 1,
            _ => 0,
        };
        if weight(&other) > weight(&self) { other } else { self }
    }
}

impl Diagnose for ProducerError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            ProducerError::Membership { source, .. } => source.diagnosis(),
            ProducerError::AtWork { .. } => Kind::Superseded
                .help("leave the work to it, or stop it first; one that was killed is out of its group after 10 s"),
            ProducerError::Stalled { .. } => Kind::Unavailable
                .help("check that the brokers and the schema registry can be reached, then run it again")
                .retry(Retry::Never),
            ProducerError::Topics(error) => error.diagnosis(),
            ProducerError::Ledger { source, .. } | ProducerError::Schemas(source) => source.diagnosis(),
            ProducerError::Directory { source, .. } => source.diagnosis(),
            ProducerError::Connect { source, .. } => source.diagnosis(),
            ProducerError::Task { .. } => Kind::Unavailable.into(),
        }
    }
}
