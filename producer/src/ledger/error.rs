//! What can go wrong with the topics of one organization.

use windfall_runtime::diagnose::{Diagnose, Diagnosis, Kind};
use windfall_runtime::kafka::publisher::PublishError;
use windfall_runtime::kafka::table::TableError;
use windfall_runtime::registry::RegistryError;
use windfall_runtime::retry::Retry;
use windfall_schemas::wire::WireError;

use crate::step::Unwritable;

/// What can go wrong with the topics of one organization.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// A transaction was not committed, or nobody knows.
    #[error("transaction was not committed")]
    Publish(#[source] Box<PublishError>),
    /// A topic was not read to its end.
    #[error("own topic was not read")]
    Fold(#[source] Box<TableError>),
    /// The topic of the devices has lost them: it is not the one that the scans wrote.
    #[error(
        "`{topic}` knows {known} devices of `{org}`, and the last scan has written {seen}: it is not the topic that the scans wrote"
    )]
    Lost {
        /// The topic.
        topic: String,
        /// Alias of the organization.
        org: String,
        /// How many devices it knows.
        known: u64,
        /// How many the last scan has written.
        seen: u64,
    },
    /// The topic of the scans has lost them: each transaction that wrote a device wrote a header, too.
    #[error("`{topic}` knows no scan of `{org}`, and {known} of its devices stand in the topic that scans write")]
    LostScans {
        /// The topic.
        topic: String,
        /// Alias of the organization.
        org: String,
        /// How many devices are known.
        known: u64,
    },
    /// A record does not fit its schema.
    #[error("record cannot be encoded")]
    Encode(#[from] WireError),
    /// Records of devices or servers cannot be encoded; nothing was written, and the ledger goes on.
    #[error("records of {} cannot be encoded", names(.0))]
    Unwritable(Vec<Unwritable>),
    /// The registry did not give a schema.
    #[error("schema `{subject}` was not resolved")]
    Schema {
        /// The subject.
        subject: String,
        /// What the registry says.
        #[source]
        source: Box<RegistryError>,
    },
}

impl From<PublishError> for LedgerError {
    fn from(error: PublishError) -> Self {
        LedgerError::Publish(Box::new(error))
    }
}

impl From<TableError> for LedgerError {
    fn from(error: TableError) -> Self {
        LedgerError::Fold(Box::new(error))
    }
}

impl Diagnose for LedgerError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            // Also when the writer is fenced: the group tells whether another process has taken over.
            LedgerError::Publish(error) => error.diagnosis().retry(Retry::Backoff),
            LedgerError::Fold(error) => match &**error {
                TableError::KeySchema { .. } | TableError::Schema { .. } => error.diagnosis(),
                error => error.diagnosis().retry(Retry::Backoff),
            },
            LedgerError::Lost { topic, .. } | LedgerError::LostScans { topic, .. } => Kind::Refused.help(format!(
                "see whether `kafka.bootstrap_servers` names the right cluster, or restore the topic; if it was deleted and made \
                 anew, `windfall topics accept {topic}` begins with it as it is, without the held plans and suspects of earlier scans"
            )),
            // Nothing was written, and what is written next may fit: no such record ends a source for ever.
            LedgerError::Encode(error) => error.diagnosis().retry(Retry::Backoff),
            LedgerError::Unwritable(found) => {
                let diagnosis = found.first().map_or(Kind::Record.into(), |found| found.error.diagnosis());
                diagnosis.retry(Retry::Backoff)
            }
            LedgerError::Schema { source, .. } => source.diagnosis(),
        }
    }
}

/// Names the first of the records, and how many more there are.
fn names(unwritable: &[Unwritable]) -> String {
    match unwritable {
        [] => "no record".to_owned(),
        [one] => format!("`{}`", one.id),
        [first, others @ ..] => format!("`{}` and {} others", first.id, others.len()),
    }
}

#[cfg(test)]
mod tests {
    use windfall_runtime::registry::RegistryError;

    use super::*;

    fn refused(error: RegistryError) -> LedgerError {
        let source = Box::new(error);
        TableError::Schema { topic: "abm.devices".into(), partition: 3, offset: 7, source }.into()
    }

    #[test]
    fn a_registry_that_does_not_answer_ends_no_source_and_one_that_refuses_us_does() {
        let asked = || "GET /schemas/ids/7".to_owned();
        let url = || "http://registry".to_owned();
        let unavailable = RegistryError::Unavailable { url: url(), status: 503, what: asked() };
        assert!(refused(unavailable).may_pass());
        assert!(!refused(RegistryError::Unauthorized { url: url(), status: 401, what: asked() }).may_pass());
    }

    #[test]
    fn a_record_that_cannot_be_encoded_ends_no_source() {
        let error = WireError::TooLarge { bytes: 300_000 };
        assert!(LedgerError::Encode(error.clone()).may_pass());
        assert!(LedgerError::Unwritable(vec![Unwritable { id: "A".into(), error }]).may_pass());
    }
}
