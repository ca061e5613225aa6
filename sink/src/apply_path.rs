//! What the run loop does with a batch, without Kafka: bytes in, rows out. For benchmarks.

use windfall_runtime::kafka::Record;
use windfall_runtime::registry::RegistryClient;
use windfall_schemas::asset::Collection;

use crate::config::DlqConfig;
use crate::record::{AssetReader, Refused};
use crate::store::{Applied, AssetStore, Source, StoreError};
use crate::work::BatchWork;
use crate::writer::{DeadLetters, Halt, Writer};

/// Decodes records and writes them as a running sink does.
pub struct ApplyPath<S> {
    writer: Writer<S, NoDeadLetters>,
    reader: AssetReader,
}

struct NoDeadLetters;

impl DeadLetters for NoDeadLetters {
    async fn deliver(&mut self, letters: &[(&Record, &Refused)]) -> Result<(), Source> {
        Err(format!("{} records were refused", letters.len()).into())
    }
}

impl<S: AssetStore> ApplyPath<S> {
    /// Claims `partitions` of `store`.
    ///
    /// # Errors
    /// As [`AssetStore::claim`].
    pub async fn claim(
        store: S,
        partitions: &[i32],
        collection: Collection,
        registry: RegistryClient,
    ) -> Result<Self, StoreError> {
        let reader = AssetReader::new(collection, registry, "assets.devices");
        let mut writer = Writer::new(store, NoDeadLetters, &DlqConfig::default());
        writer.claim(partitions).await?;
        Ok(Self { writer, reader })
    }

    /// Decodes and stores one batch.
    ///
    /// # Errors
    /// With what the run loop would pause or stop for.
    pub async fn store(&mut self, records: Vec<Record>) -> Result<Applied, Source> {
        self.reader.learn(&records).await?;
        let read = |record: Record| {
            let outcome = self.reader.read(&record);
            (record, outcome)
        };
        let read = records.into_iter().map(read).collect();
        let mut work = BatchWork::new(read, [], chrono::Utc::now());
        let mut applied = Applied::default();
        while !work.is_done() {
            applied += self.writer.step(&mut work).await.map_err(said)?.applied;
        }
        Ok(applied)
    }
}

fn said(halt: Halt) -> Source {
    match halt {
        Halt::Store(error) => error.into(),
        Halt::DeadLetters(source) => source,
        halt @ (Halt::Behind { .. } | Halt::TooManyDeadLetters { .. }) => format!("{halt:?}").into(),
    }
}
