//! The embedded registry: a catalogue over a topic that several processes share, or over memory.
//!
//! A schema is registered by writing an entry and reading the topic back up to its end: what stands there first counts, for
//! every process alike, so no leader is needed.
//!
//! What is known is told at once, also while the topic is being read. One reading is under way at a time, and whoever asked before
//! it began takes what it finds, its failure too. A number that is not known may have been made up by anybody, so misses make one
//! reading a second at most: who misses again waits for the next, for a schema stands in the topic before its first record.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tracing::warn;
use uuid::Uuid;

use super::Registered;
use super::catalogue::{Catalogue, Entry, Version};
use super::error::RegistryError;
use super::level::Level;
use super::storage::Storage;
use crate::kafka::Connection;
use crate::kafka::config::ManageTopics;
use crate::kafka::topics;
use crate::telemetry::chain;
use windfall_schemas::topic::Names;
use windfall_schemas::wire::SchemaReference;

/// A reading makes two clients of Kafka and takes some hundred milliseconds.
const MISS_PERIOD: Duration = Duration::from_secs(1);

/// What the registry holds, and how far the topic has been read.
#[derive(Debug, Default)]
struct ReadSoFar {
    catalogue: Catalogue,
    position: i64,
}

/// The last reading that ended.
#[derive(Debug)]
struct LastReading {
    /// What was written before is known.
    began_at: Instant,
    /// Why it failed.
    failure: Option<String>,
}

/// The embedded registry.
pub struct EmbeddedRegistry {
    storage: Storage,
    /// Never held while anything is waited for.
    known: RwLock<ReadSoFar>,
    /// Held while the topic is being read.
    reading: Mutex<Option<LastReading>>,
    /// When a miss last began a reading; held by the one that is next.
    missed_at: Mutex<Option<Instant>>,
    /// From one reading for a miss to the next.
    miss_period: Duration,
    /// Held while an entry is written and read back, so that this process checks against what it wrote.
    writing: Mutex<()>,
}

impl EmbeddedRegistry {
    /// Makes a registry that ends with this process, for the demo and tests.
    pub fn in_memory() -> Arc<Self> {
        Arc::new(Self::over(Storage::memory(), Duration::ZERO))
    }

    /// Opens the registry that lies in `_windfall_schemas` of a cluster; the topic is created if topics are.
    ///
    /// # Errors
    /// [`RegistryError::Storage`] when the topic is not there or cannot be read.
    pub async fn open(connection: &Connection) -> Result<Arc<Self>, RegistryError> {
        let spec = Names::new(connection.config().topic_prefix.as_str()).registry_topic();
        let failed = |source| RegistryError::Storage { topic: spec.name.clone(), source: Box::new(source) };
        let manage = connection.config().manage_topics;
        if manage == ManageTopics::Create {
            topics::ensure(connection, std::slice::from_ref(&spec), manage).await.map_err(failed)?;
        }
        let registry = Self::over(Storage::topic(connection, spec.name.clone())?, MISS_PERIOD);
        registry.refresh().await?;
        Ok(Arc::new(registry))
    }

    fn over(storage: Storage, miss_period: Duration) -> Self {
        let (known, reading, missed_at) = (RwLock::default(), Mutex::default(), Mutex::default());
        Self { storage, known, reading, missed_at, miss_period, writing: Mutex::default() }
    }

    fn known(&self) -> RwLockReadGuard<'_, ReadSoFar> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what has come to the topic, unless somebody has begun to do so after `asked_at`.
    async fn refresh_since(&self, asked_at: Instant) -> Result<(), RegistryError> {
        let mut reading = self.reading.lock().await;
        if let Some(answer) = self.answered(reading.as_ref(), asked_at) {
            return answer;
        }
        let (began_at, from) = (Instant::now(), self.known().position);
        let read = self.storage.read(from).await;
        *reading = Some(LastReading { began_at, failure: read.as_ref().err().map(cause) });
        let (entries, position) = read?;
        self.apply(&entries, position);
        Ok(())
    }

    /// Returns what came of the last reading, if it began after `asked_at`.
    fn answered(&self, last: Option<&LastReading>, asked_at: Instant) -> Option<Result<(), RegistryError>> {
        let LastReading { began_at: _, failure } = last.filter(|last| last.began_at > asked_at)?;
        Some(match failure {
            Some(failure) => Err(self.storage.failed_before(failure)),
            None => Ok(()),
        })
    }

    /// Takes entries over, up to `position`; to be called while `reading` is held, which keeps them in their order.
    fn apply(&self, entries: &[Entry], position: i64) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        for entry in entries {
            if let Err(error) = known.catalogue.apply(entry) {
                warn!(error = %chain(&error), "entry of the schema topic cannot stand, left out");
            }
        }
        known.position = position;
    }

    async fn refresh(&self) -> Result<(), RegistryError> {
        self.refresh_since(Instant::now()).await
    }

    /// As [`EmbeddedRegistry::refresh_since`], when it is a miss's turn again.
    async fn refresh_for_miss(&self, asked_at: Instant) -> Result<(), RegistryError> {
        let mut missed_at = self.missed_at.lock().await;
        // While we stood in line another may have read for us.
        if let Some(answer) = self.answered(self.reading.lock().await.as_ref(), asked_at) {
            return answer;
        }
        if let Some(last) = *missed_at {
            tokio::time::sleep_until((last + self.miss_period).into()).await;
        }
        *missed_at = Some(Instant::now());
        self.refresh_since(asked_at).await
    }

    /// Asks the catalogue for what is there or not; on a miss the topic is read again, for another process may have registered
    /// meanwhile.
    async fn ask<T>(&self, question: impl Fn(&Catalogue) -> Option<T>) -> Result<Option<T>, RegistryError> {
        let asked_at = Instant::now();
        if let Some(answer) = question(&self.known().catalogue) {
            return Ok(Some(answer));
        }
        self.refresh_for_miss(asked_at).await?;
        Ok(question(&self.known().catalogue))
    }

    /// Asks the catalogue for what changes with other processes' registrations.
    async fn ask_fresh<T>(&self, question: impl Fn(&Catalogue) -> T) -> Result<T, RegistryError> {
        self.refresh().await?;
        Ok(question(&self.known().catalogue))
    }

    /// Looks a text up; one that is missing is about to be registered, so nobody is made to wait for their turn.
    pub(super) async fn find(&self, subject: &str, text: &str) -> Result<Option<Version>, RegistryError> {
        let found = self.known().catalogue.find(subject, text);
        match found {
            Some(version) => Ok(Some(version)),
            None => self.ask_fresh(|catalogue| catalogue.find(subject, text)).await,
        }
    }

    pub(super) async fn add(&self, subject: &str, text: &str) -> Result<Version, RegistryError> {
        let _writing = self.writing.lock().await;
        self.refresh().await?;
        let mut written_after = None;
        loop {
            let versions = {
                let catalogue = &self.known().catalogue;
                if let Some(version) = catalogue.find(subject, text) {
                    return Ok(version);
                }
                catalogue.check(subject, text)?;
                catalogue.count(subject)
            };
            // Another process may have added a version meanwhile, and then ours is checked against that and written again.
            if written_after == Some(versions) {
                let reason = "the entry was written and not found again".to_owned();
                return Err(RegistryError::Malformed { what: format!("registering `{subject}`"), reason });
            }
            let (subject, schema) = (subject.to_owned(), text.to_owned());
            self.storage.append(&Entry::Version { subject, schema, after: Some(versions) }).await?;
            written_after = Some(versions);
            self.refresh().await?;
        }
    }

    /// Sets the level of one subject, or of all that have none of their own.
    ///
    /// # Errors
    /// [`RegistryError::Storage`] when it was not kept.
    pub async fn set_level(&self, subject: Option<&str>, level: Level) -> Result<(), RegistryError> {
        let _writing = self.writing.lock().await;
        let entry = Entry::Config { subject: subject.map(str::to_owned), compatibility: level.to_string() };
        self.storage.append(&entry).await?;
        self.refresh().await
    }

    pub(super) async fn schema(&self, of: SchemaReference) -> Result<Option<(Uuid, Arc<str>)>, RegistryError> {
        self.ask(|catalogue| catalogue.schema(of)).await
    }

    pub(super) async fn uses(&self, id: u32) -> Result<Vec<Version>, RegistryError> {
        self.ask_fresh(|catalogue| catalogue.uses(id)).await
    }

    pub(super) async fn subjects(&self) -> Result<Vec<String>, RegistryError> {
        self.ask_fresh(Catalogue::subjects).await
    }

    pub(super) async fn versions(&self, subject: &str) -> Result<Option<Vec<Version>>, RegistryError> {
        self.ask_fresh(|catalogue| catalogue.versions(subject)).await
    }

    pub(super) async fn level(&self, subject: Option<&str>) -> Result<Option<Level>, RegistryError> {
        self.ask_fresh(|catalogue| match subject {
            Some(subject) => catalogue.own_level(subject),
            None => Some(catalogue.level()),
        })
        .await
    }

    pub(super) fn objections(&self, version: &Version, text: &str) -> Result<Vec<String>, RegistryError> {
        self.known().catalogue.objections(&version.subject, text, &[version.id])
    }

    pub(super) async fn latest(&self, subject: &str) -> Result<Option<Registered>, RegistryError> {
        let versions = self.versions(subject).await?;
        Ok(versions.and_then(|versions| versions.last().cloned()).map(Registered::from))
    }
}

impl From<Version> for Registered {
    fn from(version: Version) -> Self {
        let Version { subject, version, id, guid: _, text } = version;
        Self { subject, version: Some(version), id, text }
    }
}

/// What a failed reading says of its cause.
fn cause(error: &RegistryError) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), |source| chain(source).to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use futures_util::FutureExt as _;
    use futures_util::future::join_all;

    use super::*;
    use crate::diagnose::Diagnose as _;
    use crate::registry::catalogue::id_of;

    const ONE: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"string"}]}"#;
    const NEVER: Duration = Duration::from_secs(24 * 3600);

    /// A registry that knows [`ONE`] and whose storage answers when the test lets it.
    async fn registry(miss_period: Duration) -> Arc<EmbeddedRegistry> {
        let registry = EmbeddedRegistry::over(Storage::gated(), miss_period);
        registry.storage.gate().open(2);
        registry.add("s", ONE).await.unwrap();
        registry.storage.gate().reads.store(0, Ordering::SeqCst);
        Arc::new(registry)
    }

    fn reads(registry: &EmbeddedRegistry) -> usize {
        registry.storage.gate().reads.load(Ordering::SeqCst)
    }

    #[tokio::test]
    async fn what_is_known_is_told_while_the_topic_is_being_read() {
        let registry = registry(Duration::ZERO).await;
        let miss = registry.schema(SchemaReference::Id(7));
        tokio::pin!(miss);
        assert!(miss.as_mut().now_or_never().is_none(), "the topic is being read");
        assert_eq!(reads(&registry), 1);
        let known = registry.schema(SchemaReference::Id(id_of(ONE))).now_or_never();
        assert_eq!(known.expect("it waits for nobody").unwrap().unwrap().1.as_ref(), ONE);
        registry.storage.gate().open(1);
        assert_eq!(miss.await.unwrap(), None);
    }

    #[tokio::test]
    async fn made_up_numbers_do_not_make_one_reading_after_the_other() {
        let registry = registry(NEVER).await;
        registry.storage.gate().open(100);
        assert_eq!(registry.schema(SchemaReference::Id(7)).await.unwrap(), None);
        for id in 8..20 {
            assert!(registry.schema(SchemaReference::Id(id)).now_or_never().is_none(), "{id} waits for its turn");
            assert!(registry.schema(SchemaReference::Guid([7; 16])).now_or_never().is_none());
        }
        assert_eq!(reads(&registry), 1);
        assert_eq!(registry.find("s", "\"string\"").await.unwrap(), None, "who registers waits for no turn");
        assert_eq!(reads(&registry), 2);
    }

    #[tokio::test]
    async fn misses_of_one_moment_share_a_reading() {
        let registry = registry(Duration::from_millis(1)).await;
        registry.storage.gate().open(100);
        // The first begins at once; the others asked after that and share the next.
        let answers = join_all((100..150).map(|id| registry.schema(SchemaReference::Id(id)))).await;
        assert!(answers.into_iter().all(|answer| answer.unwrap().is_none()));
        assert_eq!(reads(&registry), 2);
    }

    #[tokio::test]
    async fn a_reading_that_fails_fails_for_all_who_waited_for_it() {
        let registry = registry(Duration::ZERO).await;
        registry.storage.gate().fail.store(true, Ordering::SeqCst);
        let asking = join_all((100..150).map(|id| registry.schema(SchemaReference::Id(id))));
        let (answers, ()) = tokio::join!(asking, async { registry.storage.gate().open(100) });
        for answer in answers {
            let error = answer.unwrap_err();
            assert_eq!(chain(&error).to_string(), "schemas were not kept in `gated`: the gate is shut", "{error:?}");
            assert!(error.may_pass());
        }
        assert_eq!(reads(&registry), 2);
    }
}
