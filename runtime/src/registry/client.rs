//! Looks up and registers schemas: a schema's id, and the schema of an id.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;
use tokio::time::{Duration, Instant, sleep};
use tracing::warn;
use windfall_schemas::wire::{Codec, SchemaReference, guard};

use super::Registered;
use super::embedded::EmbeddedRegistry;
use super::error::RegistryError;
use super::http::HttpRegistry;
use super::server;
use crate::diagnose::Diagnose as _;
use crate::kafka::Connection;
use crate::kafka::config::SchemaRegistryConfig;
use crate::telemetry::chain;

/// A registry that was started just now says "not found" until it has read its own topic, which takes it some seconds.
const DOUBTED_FOR: Duration = Duration::from_secs(60);
/// Between two questions for a schema that must be had before anything is written.
const ASK_AGAIN: Duration = Duration::from_secs(2);

enum Backend {
    Http(HttpRegistry),
    Embedded(Arc<EmbeddedRegistry>),
}

struct Inner {
    backend: Backend,
    register: bool,
    doubted_for: Duration,
    ids: Flights<(String, String), u32>,
    texts: Flights<SchemaReference, Arc<str>>,
}

/// A client of a schema registry; cheap to clone, all clones share what was learned.
///
/// What a registry has said once of an id or of a text it says for ever, so nothing is asked twice; several askers of the same share
/// one request; a failure is not remembered.
#[derive(Clone)]
pub struct RegistryClient(Arc<Inner>);

impl RegistryClient {
    /// Makes a client for the registry that the configuration names, and opens (and serves) the embedded one if it is that.
    ///
    /// # Errors
    /// [`RegistryError::Storage`] and [`RegistryError::Listen`] of an embedded one; another's registry is not asked yet.
    pub async fn connect(connection: &Connection) -> Result<Self, RegistryError> {
        let config = &connection.config().schema_registry;
        let Some(embedded) = &config.embedded else { return Self::http(config) };
        let registry = EmbeddedRegistry::open(connection).await?;
        if let Some(listen) = &embedded.listen {
            server::serve(&registry, listen).await?;
        }
        Ok(Self::embedded(registry, config.register))
    }

    /// Makes a client for a registry over HTTP.
    ///
    /// # Errors
    /// [`RegistryError::Settings`] when the settings make none.
    pub fn http(config: &SchemaRegistryConfig) -> Result<Self, RegistryError> {
        Self::doubted(config, DOUBTED_FOR)
    }

    /// As [`RegistryClient::http`], believing "not found" after another time than a minute; for tests.
    ///
    /// # Errors
    /// As [`RegistryClient::http`].
    pub fn doubted(config: &SchemaRegistryConfig, doubted_for: Duration) -> Result<Self, RegistryError> {
        Ok(Self::over(Backend::Http(HttpRegistry::new(config)?), config.register, doubted_for))
    }

    /// Makes a client for an embedded registry by calls.
    pub fn embedded(registry: Arc<EmbeddedRegistry>, register: bool) -> Self {
        Self::over(Backend::Embedded(registry), register, Duration::ZERO)
    }

    fn over(backend: Backend, register: bool, doubted_for: Duration) -> Self {
        let (ids, texts) = (Flights::default(), Flights::default());
        Self(Arc::new(Inner { backend, register, doubted_for, ids, texts }))
    }

    /// Returns for how long "not found" is asked again before it is believed.
    pub(crate) fn doubted_for(&self) -> Duration {
        self.0.doubted_for
    }

    /// Returns the number of a schema under a subject: looked up, and registered where it is missing and `register` says so.
    ///
    /// # Errors
    /// [`RegistryError::NotRegistered`], [`RegistryError::Incompatible`], and whatever a registry can fail with.
    pub async fn resolve(&self, subject: &str, text: &str, register: bool) -> Result<u32, RegistryError> {
        let key = (subject.to_owned(), text.to_owned());
        self.0.ids.get(key, || self.resolve_anew(subject, text, register)).await
    }

    async fn resolve_anew(&self, subject: &str, text: &str, register: bool) -> Result<u32, RegistryError> {
        guard::parse(text)?;
        let found = match self.find(subject, text).await? {
            Some(found) => found,
            None if register => self.register(subject, text).await?,
            None => return Err(RegistryError::NotRegistered { subject: subject.to_owned() }),
        };
        self.confirm(subject, text, found.id).await?;
        Ok(found.id)
    }

    /// Asks what stands under the id: a registry that has lost or reused ids is found out before anything is written.
    async fn confirm(&self, subject: &str, text: &str, id: u32) -> Result<(), RegistryError> {
        let held = self.text(SchemaReference::Id(id)).await?;
        let same = *held == *text || guard::parse(&held)?.canonical_form() == guard::parse(text)?.canonical_form();
        if same { Ok(()) } else { Err(RegistryError::WrongSchema { subject: subject.to_owned(), id }) }
    }

    /// Returns the codec to write a schema with, registered as the configuration says. A registry that is away, or that does
    /// not know the schema, is asked again for a minute: it may have been started just now.
    ///
    /// # Errors
    /// As [`RegistryClient::resolve`].
    pub async fn codec(&self, subject: &str, text: &str) -> Result<Codec, RegistryError> {
        let began_at = Instant::now();
        loop {
            let error = match self.resolve(subject, text, self.0.register).await {
                Ok(id) => return Ok(Codec::new(id, text)?),
                Err(error) => error,
            };
            let again = error.may_pass() || error.is_no_schema();
            if !again || began_at.elapsed() >= self.0.doubted_for {
                return Err(error);
            }
            warn!(subject, error = %chain(&error), "schema not resolved, asking again");
            sleep(ASK_AGAIN.min(self.0.doubted_for)).await;
        }
    }

    /// Returns the codec of the schema that a record names, as it was written.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] when the registry does not know it.
    pub async fn writer(&self, reference: SchemaReference) -> Result<Codec, RegistryError> {
        let id = match reference {
            SchemaReference::Id(id) => id,
            SchemaReference::Guid(_) => 0,
        };
        Ok(Codec::new(id, &self.text(reference).await?)?)
    }

    /// Returns the text of a schema.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`] when the registry does not know it.
    pub async fn text(&self, of: SchemaReference) -> Result<Arc<str>, RegistryError> {
        let ask = || async move {
            let what = match of {
                SchemaReference::Id(id) => format!("the schema of id {id}"),
                SchemaReference::Guid(_) => format!("the schema of GUID {of}"),
            };
            let text = match &self.0.backend {
                Backend::Http(http) => http.text(of, &what).await?,
                Backend::Embedded(registry) => registry.schema(of).await?.map(|(_, text)| text),
            };
            text.ok_or(RegistryError::NotFound { what })
        };
        self.0.texts.get(of, ask).await
    }

    /// Looks a text up under a subject.
    ///
    /// # Errors
    /// Whatever a registry can fail with; a text that is not there is `None`.
    pub async fn find(&self, subject: &str, text: &str) -> Result<Option<Registered>, RegistryError> {
        match &self.0.backend {
            Backend::Http(http) => http.find(subject, text).await,
            Backend::Embedded(registry) => Ok(registry.find(subject, text).await?.map(Registered::from)),
        }
    }

    /// Registers a text under a subject; the same one again changes nothing.
    ///
    /// # Errors
    /// [`RegistryError::Incompatible`] when it may not follow the earlier ones.
    pub async fn register(&self, subject: &str, text: &str) -> Result<Registered, RegistryError> {
        match &self.0.backend {
            Backend::Http(http) => http.register(subject, text).await,
            Backend::Embedded(registry) => registry.add(subject, text).await.map(Registered::from),
        }
    }

    /// Returns the latest version of a subject, if there is one.
    ///
    /// # Errors
    /// Whatever a registry can fail with.
    pub async fn latest(&self, subject: &str) -> Result<Option<Registered>, RegistryError> {
        match &self.0.backend {
            Backend::Http(http) => http.latest(subject).await,
            Backend::Embedded(registry) => registry.latest(subject).await,
        }
    }
}

/// Answers that hold for ever, each fetched once however many ask at the same time; failures leave nothing behind.
struct Flights<K, V>(Mutex<HashMap<K, Arc<OnceCell<V>>>>);

impl<K, V> Default for Flights<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash, V: Clone> Flights<K, V> {
    async fn get<F, Asked>(&self, key: K, ask: F) -> Result<V, RegistryError>
    where
        F: FnOnce() -> Asked,
        Asked: Future<Output = Result<V, RegistryError>>,
    {
        let flight = self.join(key);
        flight.cell.get_or_try_init(ask).await.cloned()
    }

    fn join(&self, key: K) -> Flight<'_, K, V> {
        let cell = Arc::clone(self.lock().entry(key.clone()).or_default());
        Flight { flights: self, key, cell }
    }
}

impl<K, V> Flights<K, V> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, Arc<OnceCell<V>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An in-flight request. The last asker to leave one without an answer, after an error or because the future was dropped, removes
/// it from the map: keys may come from records of strangers, and must not fill the memory.
struct Flight<'a, K: Eq + Hash, V> {
    flights: &'a Flights<K, V>,
    key: K,
    cell: Arc<OnceCell<V>>,
}

impl<K: Eq + Hash, V> Drop for Flight<'_, K, V> {
    fn drop(&mut self) {
        let mut cells = self.flights.lock();
        // The map's and ours; more are only made under the lock.
        if !self.cell.initialized() && Arc::strong_count(&self.cell) == 2 {
            cells.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use std::future::{pending, ready};

    use super::*;

    fn missing() -> RegistryError {
        RegistryError::NotFound { what: "it".to_owned() }
    }

    #[tokio::test]
    async fn an_answer_is_kept_and_asked_for_once() {
        let flights = Flights::default();
        assert_eq!(flights.get(7, || ready(Ok("seven"))).await.unwrap(), "seven");
        assert_eq!(flights.get(7, || ready(Err(missing()))).await.unwrap(), "seven");
    }

    #[tokio::test]
    async fn what_was_not_found_or_not_waited_for_takes_no_room() {
        let flights = Flights::<u32, ()>::default();
        for key in 0..100 {
            flights.get(key, || ready(Err(missing()))).await.unwrap_err();
            assert!(flights.get(key, pending).now_or_never().is_none());
        }
        assert_eq!(flights.lock().len(), 0);
    }

    #[tokio::test]
    async fn a_question_stays_one_while_somebody_waits_for_it() {
        let flights = Flights::default();
        let (first, second) = (flights.join(7), flights.join(7));
        drop(first);
        let third = flights.get(7, || ready(Ok("seven")));
        assert_eq!(third.await.unwrap(), "seven");
        assert_eq!(second.cell.get(), Some(&"seven"));
    }
}
