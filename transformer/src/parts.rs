//! What both loops are made of, and how they report what became of a record.

use std::sync::Arc;

use tracing::warn;
use windfall_runtime::clock::SharedClock;
use windfall_runtime::health::StatusPart;
use windfall_runtime::kafka::dead_letters::{Refusal, RefusedAt, dead_letter};
use windfall_runtime::kafka::{Connection, Outgoing, Record};
use windfall_runtime::metrics::{self as names, label};
use windfall_runtime::reader::{Decoder, Unreadable};
use windfall_schemas::asset::AssetRecord;
use windfall_schemas::contribution::Contribution;
use windfall_schemas::topic::Names;

use crate::catalog::LoadedCollection;
use crate::collection::CompiledCollection;
use crate::fold::FoldReport;
use crate::own::OwnTopics;

/// What a loop of a collection is made of.
pub(crate) struct Parts {
    /// `map` or `merge`.
    pub(crate) stage: &'static str,
    /// The loop's consumer group.
    pub(crate) group: String,
    pub(crate) names: Names,
    pub(crate) connection: Connection,
    pub(crate) decoder: Decoder,
    pub(crate) own: OwnTopics,
    pub(crate) loaded: LoadedCollection,
    pub(crate) clock: SharedClock,
    pub(crate) instance: String,
    pub(crate) part: StatusPart,
    pub(crate) folding: FoldReport,
}

impl Parts {
    pub(crate) fn collection(&self) -> &Arc<CompiledCollection> {
        &self.loaded.collection
    }

    /// Counts what became of a record.
    pub(crate) fn count(&self, outcome: &'static str) {
        metrics::counter!(names::RECORDS, label::STAGE => self.stage, label::OUTCOME => outcome).increment(1);
    }

    /// Makes the dead letter of a record that is refused, and counts it.
    pub(crate) fn refused(&self, record: &Record, stage: RefusedAt, why: &Unreadable) -> Outgoing {
        warn!(topic = %record.topic, partition = record.partition, offset = record.offset, error = %why, "record refused");
        self.count("dlq");
        metrics::counter!(names::DLQ_RECORDS, label::STAGE => self.stage).increment(1);
        let refusal = Refusal {
            stage,
            service: format!("windfall-{}-{}", self.stage, self.collection().name),
            instance: self.instance.clone(),
            component: self.stage.to_owned(),
            kind: why.kind().to_owned(),
            message: why.to_string(),
            attempts: 1,
            first_failed_ms: self.clock.now().timestamp_millis(),
        };
        dead_letter(record, &self.names.dead_letters(&record.topic, &self.group), &refusal)
    }

    /// Shows how many records of each topic were passed over because their keys cannot be read.
    pub(crate) fn show_passed_over<'a>(&self, topics: impl IntoIterator<Item = (&'a str, u64)>) {
        let counted = topics.into_iter().filter(|(_, records)| *records > 0);
        let shown: serde_json::Map<_, _> = counted.map(|(topic, records)| (topic.to_owned(), records.into())).collect();
        self.part.detail_if("passed_over", (!shown.is_empty()).then(|| shown.into()));
    }
}

/// Reads the value of a contribution.
pub(crate) fn contribution(
    decoder: &Decoder,
    collection: &CompiledCollection,
    value: &[u8],
) -> Result<Contribution, Unreadable> {
    Ok(collection.schema.decode_contribution(&decoder.codec(value, None)?.0, value)?)
}

/// Reads the value of a flat record.
pub(crate) fn asset_record(
    decoder: &Decoder,
    collection: &CompiledCollection,
    value: &[u8],
) -> Result<AssetRecord, Unreadable> {
    Ok(collection.schema.decode_asset(&decoder.codec(value, None)?.0, value)?)
}
