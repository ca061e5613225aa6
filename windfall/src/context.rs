//! The loaded and checked configuration that every command starts from, and the names derived from it.

use std::cell::RefCell;
use std::path::Path;

use windfall_runtime::config::{Loaded, Rules, Violations, folder_of, load};
use windfall_runtime::diagnose::Kind;
use windfall_runtime::kafka::Connection;
use windfall_runtime::kafka::topics;
use windfall_runtime::registry::RegistryClient;
use windfall_runtime::registry::embedded::EmbeddedRegistry;
use windfall_schemas::topic::value_subject;
use windfall_schemas::topic::{CollectionTopics, Names, TopicSpec};
use windfall_transformer::collection::CompiledCollection;
use windfall_transformer::{LoadedCollection, load_collections};

use crate::cli::Global;
use crate::config::{Config, instance_name, listen_fault};
use crate::exit::Failure;
use crate::scope::Scope;

/// The checked configuration with its collections and names.
pub(crate) struct Context {
    pub(crate) config: Config,
    pub(crate) instance: String,
    /// The address that serves health, metrics and status; `None` when none is served.
    pub(crate) listen: Option<String>,
    pub(crate) collections: Vec<LoadedCollection>,
    pub(crate) names: Names,
    /// Paths of the values whose secrets were not read.
    pub(crate) withheld: Vec<String>,
    /// Warnings about the configuration, for `check` and the log.
    pub(crate) warnings: Vec<String>,
}

/// Returns the value of an environment variable that the configuration names.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Reads the configuration file with the secrets of `scope`, and refuses a configuration that has violations.
pub(crate) fn load_config(file: &Path, scope: &Scope) -> crate::Result<Loaded<Config>> {
    load_checked(file, scope, &Config::violations)
}

fn load_checked(file: &Path, scope: &Scope, check: &dyn Fn(&Config) -> Violations) -> crate::Result<Loaded<Config>> {
    let secrets = |texts: &_, path: &str| scope.reading(texts, path);
    Ok(load(file, &Rules { env: &variable, secrets: &secrets, check })?)
}

impl Context {
    /// Loads what `global` names, collections and mappings included, and of the secrets those of `scope`.
    pub(crate) fn load(global: &Global, scope: &Scope) -> crate::Result<Self> {
        let file = &global.config;
        let collections = RefCell::new(Vec::new());
        let check = |config: &Config| {
            let mut all = config.violations();
            match load_collections(folder_of(file), &config.collections) {
                Ok(loaded) => *collections.borrow_mut() = loaded,
                Err(problems) => all.extend(problems),
            }
            all
        };
        let Loaded { mut config, withheld, warnings, .. } = load_checked(file, scope, &check)?;
        for sink in &mut config.sinks {
            sink.resolve_paths(folder_of(file));
        }
        let context = Self::of(config, collections.into_inner(), global)?;
        Ok(Self { withheld, warnings, ..context })
    }

    /// Makes a context from values that were not read from a file, as the demo does.
    pub(crate) fn of(config: Config, collections: Vec<LoadedCollection>, global: &Global) -> crate::Result<Self> {
        let instance = instance(global, &config)?;
        let listen = listen(global, &config)?;
        let names = Names::new(config.kafka.topic_prefix.clone());
        let (withheld, warnings) = (Vec::new(), Vec::new());
        Ok(Self { config, instance, listen, collections, names, withheld, warnings })
    }

    /// Returns the connection settings of `stage`.
    pub(crate) fn connection(&self, stage: &str) -> Connection {
        Connection::new(&self.config.kafka, stage, &self.instance)
    }

    /// Returns the connection settings of a command that runs beside the stages: it does not serve the embedded registry.
    pub(crate) fn tool_connection(&self, stage: &str) -> Connection {
        let mut kafka = self.config.kafka.clone();
        if let Some(embedded) = &mut kafka.schema_registry.embedded {
            embedded.listen = None;
        }
        Connection::new(&kafka, stage, &self.instance)
    }

    /// Connects to the schema registry.
    pub(crate) async fn registry(&self, connection: &Connection) -> crate::Result<RegistryClient> {
        Ok(RegistryClient::connect(connection).await?)
    }

    /// Connects to the schema registry for a command that only reads. If the embedded registry has no topic yet, the client knows no schema and
    /// the topic is not created.
    pub(crate) async fn registry_to_look(&self, connection: &Connection) -> crate::Result<RegistryClient> {
        let embedded = self.config.kafka.schema_registry.embedded.is_some();
        if embedded && topics::partition_count(connection, &self.names.registry()).await?.is_none() {
            return Ok(RegistryClient::embedded(EmbeddedRegistry::in_memory(), false));
        }
        self.registry(connection).await
    }

    /// Runs the tests of all mappings.
    pub(crate) fn test_mappings(&self) -> crate::Result<()> {
        let failures: Vec<_> = self.collections.iter().flat_map(LoadedCollection::test).collect();
        if failures.is_empty() {
            return Ok(());
        }
        let failure = Failure::new(Kind::Refused, format!("tests of mappings fail: {}", failures.len()));
        Err(failure.faults(failures).help("correct the mapping, or what its test expects").into())
    }

    /// Fails if a field of a collection has another type than in the registered schema.
    pub(crate) async fn compare_types(&self, registry: &RegistryClient) -> crate::Result<()> {
        let mut faults = Vec::new();
        for LoadedCollection { collection, .. } in &self.collections {
            let subject = value_subject(&self.names.assets(&collection.name));
            match registry.latest(&subject).await {
                Ok(found) => faults.extend(found.iter().flat_map(|found| collection.changed_types(&found.text))),
                // No schema is registered, so nothing can differ. A stage that needs the schema waits for it, since the registry may have just started.
                Err(error) if error.is_no_schema() => {}
                Err(error) => return Err(error.into()),
            }
        }
        if faults.is_empty() {
            return Ok(());
        }
        let failure = Failure::new(Kind::Configuration, "a field of a collection has changed its type");
        let help = "give the field its former type, or add a field of another name: readers have the old one's values";
        Err(failure.faults(faults).help(help).into())
    }

    /// Finds a collection by its name.
    pub(crate) fn collection(&self, name: &str) -> crate::Result<&CompiledCollection> {
        let found = self.collections.iter().find(|loaded| loaded.collection.name == name);
        let missing = || Failure::new(Kind::Configuration, format!("no collection is called `{name}`"));
        Ok(found.map(|loaded| loaded.collection.as_ref()).ok_or_else(missing)?)
    }

    /// Returns the declared topics, including the topic of the embedded registry if that is used.
    pub(crate) fn topics(&self) -> Vec<TopicSpec> {
        let collections: Vec<_> = self.collections.iter().map(|loaded| self.collection_topics(loaded)).collect();
        let mut topics = self.names.declared_topics(&collections);
        if self.config.kafka.schema_registry.embedded.is_some() {
            topics.push(self.names.registry_topic());
        }
        topics
    }

    fn collection_topics<'a>(&'a self, loaded: &'a LoadedCollection) -> CollectionTopics<'a> {
        let collection = loaded.collection.name.as_str();
        let sinks = self.config.sinks.iter().filter(|sink| sink.collection == collection);
        CollectionTopics {
            collection,
            sources: loaded.sources(),
            sinks: sinks.map(|sink| sink.name.as_str()).collect(),
        }
    }
}

fn instance(global: &Global, config: &Config) -> crate::Result<String> {
    if let Some(name) = &global.instance
        && !instance_name(name)
    {
        let what = format!("`--instance {name}` may hold letters, digits, `.`, `_` and `-`, at most 64 of them");
        return Err(Failure::new(Kind::Usage, what).into());
    }
    let host = || {
        let host = gethostname::gethostname().to_string_lossy().into_owned();
        if instance_name(&host) { host } else { "windfall".to_owned() }
    };
    Ok(global.instance.clone().or_else(|| config.instance.clone()).unwrap_or_else(host))
}

fn listen(global: &Global, config: &Config) -> crate::Result<Option<String>> {
    let listen = global.http.as_ref().unwrap_or(&config.http.listen);
    if let Some(what) = listen_fault(listen) {
        return Err(Failure::new(Kind::Usage, format!("`--http` {what}")).into());
    }
    Ok((listen != "off").then(|| listen.clone()))
}
