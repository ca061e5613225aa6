//! Why a producer ends.

use windfall_runtime::diagnose::{Diagnose, Diagnosis, Kind};
use windfall_runtime::kafka::topics::TopicError;
use windfall_runtime::retry::Retry;

use crate::apple::DirectoryError;
use crate::apple::client::ConnectError;
use crate::checkpoint::{Scans, at_work};
use crate::ledger::LedgerError;

/// Why a producer ends.
#[derive(Debug, thiserror::Error)]
pub enum ProducerError {
    /// Another process has taken the source over.
    #[error("source `{source_name}` was taken over by {}", other(instance, by.as_deref()))]
    Fenced {
        /// Name of the source.
        source_name: String,
        /// Name of this instance.
        instance: String,
        /// Name of the other one, where it could be read.
        by: Option<String>,
    },
    /// A process is at work on this source.
    #[error("another instance (`{instance}`) is at work on source `{source_name}`: it moved {seconds}s ago")]
    AtWork {
        /// Name of the source.
        source_name: String,
        /// The other instance.
        instance: String,
        /// How long ago its scan moved.
        seconds: i64,
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
    /// A single run of a source did not come on.
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
    /// No source of that name is configured.
    #[error("there is no source named `{source_name}`")]
    UnknownSource {
        /// The name asked for.
        source_name: String,
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
    /// Refuses a source on which another instance is at work.
    pub(crate) fn when_at_work(scans: &Scans, source_name: &str, instance: &str, now: i64) -> Result<(), Self> {
        let Some((instance, ago)) = at_work(scans, instance, now) else { return Ok(()) };
        Err(ProducerError::AtWork { source_name: source_name.to_owned(), instance, seconds: ago / 1000 })
    }

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
            ProducerError::Fenced { .. } => Kind::Superseded.help(
                "run one process for each source; give each process of a host its own `instance` in the configuration, or by --instance",
            ),
            ProducerError::AtWork { .. } => Kind::Superseded
                .help("wait for its scan to end, or stop it; a scan that does not move is free after 60 s"),
            ProducerError::Stalled { .. } => Kind::Unavailable
                .help("check that the brokers and the schema registry can be reached, then run it again")
                .retry(Retry::Never),
            ProducerError::Topics(error) => error.diagnosis(),
            ProducerError::Ledger { source, .. } | ProducerError::Schemas(source) => source.diagnosis(),
            ProducerError::Directory { source, .. } => source.diagnosis(),
            ProducerError::UnknownSource { .. } => {
                Kind::NotFound.help("see `sources` in the configuration for the names")
            }
            ProducerError::Connect { source, .. } => source.diagnosis(),
            ProducerError::Task { .. } => Kind::Unavailable.into(),
        }
    }
}

/// Names the process that took over from `instance`.
fn other(instance: &str, by: Option<&str>) -> String {
    match by {
        Some(by) if by == instance => format!("another process, which is configured with the same `instance` (`{by}`)"),
        Some(by) => format!("another process, of `instance` `{by}`"),
        None => format!("another process, which is configured with the same `instance` (`{instance}`) or source"),
    }
}
