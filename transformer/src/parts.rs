//! What both loops are made of, and how they tell what became of a record.

use tracing::warn;
use windfall_runtime::clock::SharedClock;
use windfall_runtime::health::StatusPart;
use windfall_runtime::kafka::dead_letters::{Refusal, RefusedAt, dead_letter};
use windfall_runtime::kafka::{Connection, Outgoing, Record};
use windfall_runtime::metrics::{self as names, label};
use windfall_runtime::reader::{Decoder, Unreadable};

use crate::catalog::LoadedCollection;
use crate::codecs::CollectionCodecs;
use crate::fold::FoldReport;

/// What a loop of a collection is made of.
pub(crate) struct Parts {
    /// `map` or `merge`.
    pub(crate) stage: &'static str,
    pub(crate) connection: Connection,
    pub(crate) decoder: Decoder,
    pub(crate) own: CollectionCodecs,
    pub(crate) loaded: LoadedCollection,
    pub(crate) clock: SharedClock,
    pub(crate) instance: String,
    pub(crate) part: StatusPart,
    pub(crate) folding: FoldReport,
}

impl Parts {
    /// Counts what became of a record.
    pub(crate) fn count(&self, outcome: &'static str) {
        metrics::counter!(names::RECORDS, label::STAGE => self.stage, label::OUTCOME => outcome).increment(1);
    }

    /// Makes the dead letter of a record that is refused, and counts it.
    pub(crate) fn refused(&self, topic: &str, record: &Record, stage: RefusedAt, why: &Unreadable) -> Outgoing {
        warn!(topic = %record.topic, partition = record.partition, offset = record.offset, error = %why, "record refused");
        self.count("dlq");
        metrics::counter!(names::DLQ_RECORDS, label::STAGE => self.stage).increment(1);
        let refusal = Refusal {
            stage,
            service: format!("windfall-{}-{}", self.stage, self.loaded.collection.name),
            instance: self.instance.clone(),
            component: self.stage.to_owned(),
            kind: why.kind().to_owned(),
            message: why.to_string(),
            attempts: 1,
            first_failed_ms: self.clock.now().timestamp_millis(),
        };
        dead_letter(record, topic, &refusal)
    }
}
