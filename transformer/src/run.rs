//! The transformer as a stage: for each collection a map and a merge, side by side, or one after the other for `--once`.

use std::sync::Arc;
use std::time::Duration;

use metrics::Label;
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use windfall_runtime::clock::SharedClock;
use windfall_runtime::diagnose::Diagnose;
use windfall_runtime::health::{Progress, StatusPart, StatusRegistry};
use windfall_runtime::kafka::config::KafkaConfig;
use windfall_runtime::kafka::consumer::{BatchLimits, GroupOptions};
use windfall_runtime::kafka::table::{FoldProgress, Hidden};
use windfall_runtime::kafka::topics::{self, TopicSpec};
use windfall_runtime::kafka::{Connection, Membership};
use windfall_runtime::metrics::label;
use windfall_runtime::patience::until_it_passes;
use windfall_runtime::reader::Decoder;
use windfall_runtime::registry::RegistryClient;
use windfall_runtime::telemetry::chain;
use windfall_runtime::worker::{Report, SILENCE, Stage, Transactional, Worker, WorkerOptions};
use windfall_schemas::contribution::ContributionKey;
use windfall_schemas::topic::{CHANGE_PARTITIONS, CollectionTopics, Names, value_subject};

use crate::catalog::LoadedCollection;
use crate::codecs::CollectionCodecs;
use crate::collect::MergeStage;
use crate::error::TransformerError;
use crate::fold::{FoldReport, Own};
use crate::map::MapStage;
use crate::parts::Parts;

/// What the transformer runs with, beside its collections.
#[derive(Clone)]
pub struct Setup {
    /// Name of this process among its peers.
    pub instance: String,
    /// The cluster.
    pub kafka: KafkaConfig,
    /// The registry.
    pub registry: RegistryClient,
    /// The clock of `__ts_ms` and of dead letters.
    pub clock: SharedClock,
    /// The status registry, where each loop reports its state.
    pub status: StatusRegistry,
    /// Whether the loops leave their groups when they end, as the demo's do; `run_once` always does so.
    pub dynamic: bool,
    /// How batches are cut.
    pub limits: BatchLimits,
}

impl Setup {
    fn names(&self) -> Names {
        Names::new(self.kafka.topic_prefix.clone())
    }

    fn connection(&self, stage: &str) -> Connection {
        Connection::new(&self.kafka, stage, &self.instance)
    }
}

/// Runs all loops until the token is cancelled. One that only an operator can help ends alone.
///
/// # Errors
/// When all have ended, the first error of any: see [`TransformerError`].
pub async fn run(
    setup: &Setup,
    collections: &[LoadedCollection],
    shutdown: CancellationToken,
) -> Result<(), TransformerError> {
    let mut loops = JoinSet::new();
    let mut result = Ok(());
    for loaded in collections {
        let (setup, loaded, shutdown) = (setup.clone(), loaded.clone(), shutdown.clone());
        loops.spawn(async move { serve(&setup, &loaded, shutdown).await });
    }
    while let Some(ended) = loops.join_next().await {
        let ended = ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        result = result.and(ended);
    }
    result
}

/// Runs the loops of one collection side by side, as soon as what they need can be had.
async fn serve(setup: &Setup, loaded: &LoadedCollection, shutdown: CancellationToken) -> Result<(), TransformerError> {
    let collection = &loaded.collection.name;
    let (map, merge) = (Loop::new(setup, loaded, false, "map"), Loop::new(setup, loaded, false, "merge"));
    let parts = [map.part.clone(), merge.part.clone()];
    let prepare = || prepare(setup, loaded);
    let prepared = until_it_passes("collection", &parts, &shutdown, Diagnose::diagnosis, prepare).await;
    let Some(own) = prepared.inspect_err(|error| {
        error!(collection, error = %chain(error), help = error.help().as_deref(), "collection not prepared");
        parts.iter().for_each(|part| part.failed(chain(error).to_string()));
    })?
    else {
        return Ok(());
    };
    let (mut map, mut merge) = (map.map(&own, shutdown.clone()), merge.merge(&own, shutdown));
    let (mapped, merged) = tokio::join!(map.run(), merge.run());
    mapped.and(merged).map(drop)
}

/// Maps, then merges, up to the ends that each input has when its loop begins; what ends one collection ends no other.
///
/// # Errors
/// The first error of a collection, when all are through: see [`TransformerError`].
pub async fn run_once(
    setup: &Setup,
    collections: &[LoadedCollection],
    shutdown: CancellationToken,
) -> Result<Report, TransformerError> {
    let (mut total, mut failed) = (Report::default(), None);
    for loaded in collections {
        match one_once(setup, loaded, &shutdown).await {
            Ok(report) => {
                total.records += report.records;
                total.dead_letters += report.dead_letters;
            }
            // The caller tells the first one.
            Err(error) if failed.is_none() => failed = Some(error),
            Err(error) => {
                let collection = &loaded.collection.name;
                error!(collection, error = %chain(&error), help = error.help().as_deref(), "collection ended");
            }
        }
    }
    failed.map_or(Ok(total), Err)
}

async fn one_once(
    setup: &Setup,
    loaded: &LoadedCollection,
    shutdown: &CancellationToken,
) -> Result<Report, TransformerError> {
    let own = prepare(setup, loaded).await?;
    let mapped = Loop::new(setup, loaded, true, "map").map(&own, shutdown.clone()).run().await?;
    let merged = Loop::new(setup, loaded, true, "merge").merge(&own, shutdown.clone()).run().await?;
    let (records, dead_letters) = (mapped.records + merged.records, mapped.dead_letters + merged.dead_letters);
    Ok(Report { records, dead_letters })
}

/// The topics that a collection's loops read and write, without those of its sinks.
#[must_use]
pub fn topics(names: &Names, loaded: &LoadedCollection) -> Vec<TopicSpec> {
    let sources = loaded.sources();
    let mut specs = names.base_topics();
    specs.retain(|spec| sources.iter().any(|source| names.topic(source) == spec.name));
    let collection = loaded.collection.name.as_str();
    specs.extend(names.collection_topics(&CollectionTopics { collection, sources, sinks: Vec::new() }));
    specs
}

/// Creates or verifies the topics, registers the schemas, and checks that keys go where they went before.
async fn prepare(setup: &Setup, loaded: &LoadedCollection) -> Result<CollectionCodecs, TransformerError> {
    let (names, connection) = (setup.names(), setup.connection("transformer"));
    topics::ensure(&connection, &topics(&names, loaded), setup.kafka.manage_topics).await?;
    let own = CollectionCodecs::register(&setup.registry, &names, &loaded.collection.schema).await?;
    let name = &loaded.collection.name;
    // The map writes contributions without ever folding them; the keys of the other topics are looked at where they are folded.
    let contributions = Own { topic: &names.contributions(name), key_schema: own.contributions.key.id() };
    let decoder = decoder(setup, loaded);
    contributions.guard::<ContributionKey>(&connection, &decoder, 0..CHANGE_PARTITIONS).await?;
    let sources: Vec<&str> = loaded.sources();
    info!(collection = %name, ?sources, fields = loaded.collection.schema.fields().len(), "collection prepared");
    Ok(own)
}

/// Makes a decoder of a collection's loops; the collection's own schemas stand in the registry by then.
fn decoder(setup: &Setup, loaded: &LoadedCollection) -> Decoder {
    Decoder::new(setup.registry.clone(), value_subject(&setup.names().assets(&loaded.collection.name)))
}

/// Makes a worker out of a stage's parts.
struct Loop<'a> {
    setup: &'a Setup,
    loaded: &'a LoadedCollection,
    once: bool,
    /// `map` or `merge`.
    stage: &'static str,
    connection: Connection,
    part: StatusPart,
}

impl<'a> Loop<'a> {
    fn new(setup: &'a Setup, loaded: &'a LoadedCollection, once: bool, stage: &'static str) -> Self {
        let name = format!("{stage}-{}", loaded.collection.name);
        let part = setup.status.part(format!("{stage} {}", loaded.collection.name), SILENCE);
        Self { setup, loaded, once, stage, connection: setup.connection(&name), part }
    }

    fn parts(&self, own: &CollectionCodecs) -> Parts {
        Parts {
            stage: self.stage,
            connection: self.connection.clone(),
            decoder: decoder(self.setup, self.loaded),
            own: own.clone(),
            loaded: self.loaded.clone(),
            clock: Arc::clone(&self.setup.clock),
            instance: self.setup.instance.clone(),
            part: self.part.clone(),
            folding: shown(&self.part),
        }
    }

    fn map(self, own: &CollectionCodecs, stop: CancellationToken) -> Worker<Transactional<MapStage>> {
        let stage = MapStage::new(self.parts(own));
        let (names, name) = (self.setup.names(), self.loaded.collection.name.as_str());
        let topics = self.loaded.sources().iter().map(|source| names.topic(source)).collect();
        let transactional_id = names.map_transactional_id(name, &self.setup.instance);
        self.worker(stage, names.map_group(name), topics, transactional_id, stop)
    }

    fn merge(self, own: &CollectionCodecs, stop: CancellationToken) -> Worker<Transactional<MergeStage>> {
        let stage = MergeStage::new(self.parts(own));
        let (names, name) = (self.setup.names(), self.loaded.collection.name.as_str());
        let transactional_id = names.merge_transactional_id(name, &self.setup.instance);
        self.worker(stage, names.merge_group(name), vec![names.contributions(name)], transactional_id, stop)
    }

    fn worker<S: Stage>(
        self,
        stage: S,
        group: String,
        topics: Vec<String>,
        transactional_id: String,
        stop: CancellationToken,
    ) -> Worker<Transactional<S>> {
        let Self { setup, loaded: _, once, stage: label, connection, part } = self;
        let membership = if once || setup.dynamic {
            Membership::Dynamic
        } else {
            Membership::Static { instance: setup.instance.clone() }
        };
        let transactional_id = if once { format!("{transactional_id}-once") } else { transactional_id };
        let group = GroupOptions { group, topics, membership, limits: setup.limits };
        let options = WorkerOptions { group, labels: vec![Label::new(label::STAGE, label)], once };
        Worker::new(Transactional::new(stage, connection.clone(), transactional_id), connection, options, part, stop)
    }
}

/// Reports how far a take-over has read, and which open transaction hides records from it.
fn shown(part: &StatusPart) -> FoldReport {
    let (report, mut changes) = watch::channel(FoldProgress::default());
    let part = part.clone();
    tokio::spawn(async move {
        let mut before = (0, 0);
        while changes.changed().await.is_ok() {
            let FoldProgress { topic, records, remaining, hidden } = changes.borrow_and_update().clone();
            // What is read again after a failure brings nothing nearer.
            if std::mem::replace(&mut before, (records, remaining)) != (records, remaining) && !part.is_paused() {
                part.moved(Duration::ZERO);
            }
            let hides = |at: &Hidden| {
                format!(
                    "the end of another's transaction in partition {} of `{topic}`, from offset {}",
                    at.partition, at.position
                )
            };
            part.waits_for(hidden.first().map(hides));
            let total = Some(records.saturating_add(remaining));
            let job = format!("reading {topic}");
            part.at((remaining > 0).then_some(Progress { job, done: records, total, elapsed_s: 0 }));
            let shown = |at: &Hidden| {
                let Hidden { partition, position, end, waited } = at;
                let waited_s = waited.as_secs();
                json!({ "topic": topic, "partition": partition, "position": position, "end": end, "waited_s": waited_s })
            };
            part.detail_if("hidden", (!hidden.is_empty()).then(|| hidden.iter().map(shown).collect()));
        }
    });
    report
}
