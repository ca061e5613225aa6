//! The embedded registry: a catalogue over a topic that several processes share, or over memory.
//!
//! A schema is registered by writing an entry and reading the topic back up to its end: what stands there first counts, for
//! every process alike, so no leader is needed.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{Mutex, RwLock};
use tracing::warn;
use uuid::Uuid;

use super::catalogue::{Catalogue, Entry, Refusal, Version};
use super::error::RegistryError;
use super::level::Level;
use super::storage::Storage;
use super::{Registered, Verdict};
use crate::kafka::Connection;
use crate::kafka::config::ManageTopics;
use crate::kafka::topics;
use crate::telemetry::chain;
use windfall_schemas::topic::Names;

/// What the registry holds, and how far the topic has been read.
#[derive(Debug, Default)]
struct Known {
    catalogue: Catalogue,
    position: i64,
    /// When the last reading began: what was written before is known.
    read_at: Option<Instant>,
}

/// The embedded registry.
pub struct EmbeddedRegistry {
    storage: Storage,
    known: RwLock<Known>,
    /// Held while an entry is written and read back, so that this process checks against what it wrote.
    writing: Mutex<()>,
}

/// A question that the registry answers with no.
#[derive(Debug, thiserror::Error)]
pub(super) enum Denial {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Failed(#[from] RegistryError),
}

impl EmbeddedRegistry {
    /// Makes a registry that ends with this process, for the demo and tests.
    #[must_use]
    pub fn in_memory() -> Arc<Self> {
        Arc::new(Self::over(Storage::memory()))
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
        let registry = Self::over(Storage::topic(connection, spec.name.clone())?);
        registry.refresh().await?;
        Ok(Arc::new(registry))
    }

    fn over(storage: Storage) -> Self {
        Self { storage, known: RwLock::default(), writing: Mutex::default() }
    }

    /// Reads what has come to the topic, unless somebody has begun to do so after `asked_at`.
    async fn refresh_since(&self, asked_at: Instant) -> Result<(), RegistryError> {
        let mut known = self.known.write().await;
        if known.read_at.is_some_and(|read_at| read_at > asked_at) {
            return Ok(());
        }
        let began_at = Instant::now();
        let (entries, position) = self.storage.read(known.position).await?;
        for entry in &entries {
            if let Err(error) = known.catalogue.apply(entry) {
                warn!(error = %chain(&error), "entry of the schema topic cannot stand, left out");
            }
        }
        known.position = position;
        known.read_at = Some(began_at);
        Ok(())
    }

    async fn refresh(&self) -> Result<(), RegistryError> {
        self.refresh_since(Instant::now()).await
    }

    /// Asks the catalogue; on a miss the topic is read again, for another process may have registered meanwhile.
    async fn ask<T>(&self, question: impl Fn(&Catalogue) -> Option<T>) -> Result<Option<T>, RegistryError> {
        let asked_at = Instant::now();
        if let Some(answer) = question(&self.known.read().await.catalogue) {
            return Ok(Some(answer));
        }
        self.refresh_since(asked_at).await?;
        Ok(question(&self.known.read().await.catalogue))
    }

    /// Asks the catalogue for what changes with other processes' registrations.
    async fn ask_fresh<T>(&self, question: impl Fn(&Catalogue) -> T) -> Result<T, RegistryError> {
        self.refresh().await?;
        Ok(question(&self.known.read().await.catalogue))
    }

    pub(super) async fn find(&self, subject: &str, text: &str) -> Result<Option<Version>, RegistryError> {
        self.ask(|catalogue| catalogue.find(subject, text)).await
    }

    pub(super) async fn add(&self, subject: &str, text: &str) -> Result<Version, Denial> {
        let _writing = self.writing.lock().await;
        self.refresh().await?;
        {
            let known = self.known.read().await;
            if let Some(version) = known.catalogue.find(subject, text) {
                return Ok(version);
            }
            known.catalogue.check(subject, text)?;
        }
        self.storage.append(&Entry::Version { subject: subject.to_owned(), schema: text.to_owned() }).await?;
        self.refresh().await?;
        let found = self.known.read().await.catalogue.find(subject, text);
        found.ok_or_else(|| {
            let reason = "the entry was written and not found again".to_owned();
            Denial::Failed(RegistryError::Malformed { what: format!("registering `{subject}`"), reason })
        })
    }

    pub(super) async fn set_level(&self, subject: Option<&str>, level: Level) -> Result<(), RegistryError> {
        let _writing = self.writing.lock().await;
        let entry = Entry::Config { subject: subject.map(str::to_owned), compatibility: level.to_string() };
        self.storage.append(&entry).await?;
        self.refresh().await
    }

    pub(super) async fn text(&self, id: u32) -> Result<Option<Arc<str>>, RegistryError> {
        self.ask(|catalogue| catalogue.text(id)).await
    }

    pub(super) async fn guid(&self, id: u32) -> Result<Option<Uuid>, RegistryError> {
        self.ask(|catalogue| catalogue.guid(id)).await
    }

    pub(super) async fn text_by_guid(&self, guid: &Uuid) -> Result<Option<(u32, Arc<str>)>, RegistryError> {
        self.ask(|catalogue| {
            let id = catalogue.id_of_guid(guid)?;
            Some((id, catalogue.text(id)?))
        })
        .await
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

    pub(super) async fn objections(&self, version: &Version, text: &str) -> Result<Vec<String>, Refusal> {
        self.known.read().await.catalogue.objections_to(version, text)
    }

    pub(super) async fn latest(&self, subject: &str) -> Result<Option<Registered>, RegistryError> {
        let versions = self.versions(subject).await?;
        Ok(versions.and_then(|versions| versions.last().cloned()).map(Registered::from))
    }

    pub(super) async fn verdict(&self, subject: &str, text: &str) -> Result<Verdict, RegistryError> {
        self.refresh().await?;
        match self.known.read().await.catalogue.check(subject, text) {
            Ok(()) => Ok(Verdict { compatible: true, reasons: Vec::new() }),
            Err(Refusal::Incompatible(reasons)) => Ok(Verdict { compatible: false, reasons }),
            Err(error) => Err(denied(subject, Denial::Refused(error))),
        }
    }

    pub(super) async fn register(&self, subject: &str, text: &str) -> Result<Registered, RegistryError> {
        self.add(subject, text).await.map(Registered::from).map_err(|denial| denied(subject, denial))
    }
}

impl From<Version> for Registered {
    fn from(version: Version) -> Self {
        let Version { subject, version, id, guid: _, text } = version;
        Self { subject, version: Some(version), id, text }
    }
}

fn denied(subject: &str, denial: Denial) -> RegistryError {
    match denial {
        Denial::Failed(error) => error,
        Denial::Refused(Refusal::Invalid(error)) => RegistryError::Schema(error),
        Denial::Refused(Refusal::Incompatible(reasons)) => {
            RegistryError::Incompatible { subject: subject.to_owned(), reason: reasons.join("; ") }
        }
        Denial::Refused(Refusal::Collision(id)) => RegistryError::WrongSchema { subject: subject.to_owned(), id },
        Denial::Refused(error @ Refusal::Json(_)) => {
            RegistryError::Malformed { what: format!("the schema of `{subject}`"), reason: error.to_string() }
        }
    }
}
