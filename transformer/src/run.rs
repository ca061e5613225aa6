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
use windfall_schemas::topic::{CHANGE_PARTITIONS, CollectionTopics, Names, transactional_id, value_subject};

use crate::catalog::LoadedCollection;
use crate::collect::MergeStage;
use crate::error::TransformerError;
use crate::fold::FoldReport;
use crate::map::MapStage;
use crate::own::OwnTopics;
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

    fn part(&self, stage: &str, collection: &str) -> StatusPart {
        self.status.part(format!("{stage} {collection}"), SILENCE)
    }

    /// Makes a decoder for a collection's loops; the collection's own schemas stand in the registry by then.
    fn decoder(&self, own: &OwnTopics) -> Decoder {
        Decoder::new(self.registry.clone(), value_subject(&own.assets.name))
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
    let parts = ["map", "merge"].map(|stage| setup.part(stage, collection));
    let prepare = || prepare(setup, loaded);
    let prepared = until_it_passes("collection", &parts, &shutdown, Diagnose::diagnosis, prepare).await;
    let Some(own) = prepared.inspect_err(|error| {
        error!(collection, error = %chain(error), help = error.help().as_deref(), "collection not prepared");
        parts.iter().for_each(|part| part.failed(chain(error).to_string()));
    })?
    else {
        return Ok(());
    };
    let [map, merge] = parts;
    let running = Running { setup, loaded, own: &own, once: false, stop: &shutdown };
    let (mut map, mut merge) = (running.map(map), running.merge(merge));
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
    let running = Running { setup, loaded, own: &own, once: true, stop: shutdown };
    let mapped = running.map(setup.part("map", &loaded.collection.name)).run().await?;
    let merged = running.merge(setup.part("merge", &loaded.collection.name)).run().await?;
    let (records, dead_letters) = (mapped.records + merged.records, mapped.dead_letters + merged.dead_letters);
    Ok(Report { records, dead_letters })
}

/// The topics that a collection's loops read and write, without those of its sinks.
pub fn topics(names: &Names, loaded: &LoadedCollection) -> Vec<TopicSpec> {
    let sources = loaded.sources();
    let mut specs = names.base_topics();
    specs.retain(|spec| sources.iter().any(|source| names.topic(source) == spec.name));
    let collection = loaded.collection.name.as_str();
    specs.extend(names.collection_topics(&CollectionTopics { collection, sources, sinks: Vec::new() }));
    specs
}

/// Creates or verifies the topics, registers the schemas, and checks that keys go where they went before.
async fn prepare(setup: &Setup, loaded: &LoadedCollection) -> Result<OwnTopics, TransformerError> {
    let (names, connection) = (setup.names(), setup.connection("transformer"));
    topics::ensure(&connection, &topics(&names, loaded), setup.kafka.manage_topics).await?;
    let own = OwnTopics::register(&setup.registry, &names, &loaded.collection.schema).await?;
    // The map writes contributions without ever folding them; the keys of the other topics are looked at where they are folded.
    let decoder = setup.decoder(&own);
    own.contributions.keys().guard::<ContributionKey>(&connection, &decoder, 0..CHANGE_PARTITIONS).await?;
    let (collection, sources) = (&loaded.collection.name, loaded.sources());
    info!(%collection, ?sources, fields = loaded.collection.schema.fields().len(), "collection prepared");
    Ok(own)
}

/// What the loops of one collection are started with.
struct Running<'a> {
    setup: &'a Setup,
    loaded: &'a LoadedCollection,
    own: &'a OwnTopics,
    once: bool,
    stop: &'a CancellationToken,
}

impl Running<'_> {
    fn map(&self, part: StatusPart) -> Worker<Transactional<MapStage>> {
        let names = self.setup.names();
        let topics = self.loaded.sources().iter().map(|source| names.topic(source)).collect();
        self.worker("map", names.map_group(&self.loaded.collection.name), topics, part, MapStage::new)
    }

    fn merge(&self, part: StatusPart) -> Worker<Transactional<MergeStage>> {
        let topics = vec![self.own.contributions.name.to_string()];
        let group = self.setup.names().merge_group(&self.loaded.collection.name);
        self.worker("merge", group, topics, part, MergeStage::new)
    }

    fn worker<S: Stage>(
        &self,
        name: &'static str,
        group: String,
        topics: Vec<String>,
        part: StatusPart,
        stage: impl FnOnce(Parts) -> S,
    ) -> Worker<Transactional<S>> {
        let Self { setup, loaded, own, once, stop } = *self;
        let connection = setup.connection(&format!("{name}-{}", loaded.collection.name));
        let stage = stage(Parts {
            stage: name,
            group: group.clone(),
            names: setup.names(),
            connection: connection.clone(),
            decoder: setup.decoder(own),
            own: own.clone(),
            loaded: loaded.clone(),
            clock: Arc::clone(&setup.clock),
            instance: setup.instance.clone(),
            part: part.clone(),
            folding: shown(&part),
        });
        let membership = if once || setup.dynamic {
            Membership::Dynamic
        } else {
            Membership::Static { instance: setup.instance.clone() }
        };
        let mut transactional_id = transactional_id(&group, &setup.instance);
        if once {
            transactional_id.push_str("-once");
        }
        let group = GroupOptions { group, topics, membership, limits: setup.limits };
        let options = WorkerOptions { group, labels: vec![Label::new(label::STAGE, name)], once };
        let stage = Transactional::new(stage, connection.clone(), transactional_id);
        Worker::new(stage, connection, options, part, stop.clone())
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
