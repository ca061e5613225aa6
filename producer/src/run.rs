//! The producer as a stage: every configured source as a task of its own, in one process.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::error;
use windfall_runtime::clock::SharedClock;
use windfall_runtime::diagnose::Diagnose;
use windfall_runtime::health::{StatusPart, StatusRegistry};
use windfall_runtime::kafka::config::ManageTopics;
use windfall_runtime::kafka::table::Own;
use windfall_runtime::kafka::topics;
use windfall_runtime::kafka::{Connection, Membership};
use windfall_runtime::patience::until_it_passes;
use windfall_runtime::registry::RegistryClient;
use windfall_runtime::telemetry::chain;
use windfall_schemas::device::DeviceKey;
use windfall_schemas::scan::ScanKey;
use windfall_schemas::server::ServerKey;
use windfall_schemas::topic::{CHANGE_PARTITIONS, Names, SINGLE_PARTITION, source_member};
use windfall_schemas::wire::Codec;

use crate::config::SourceConfig;
use crate::error::ProducerError;
use crate::event::Origin;
use crate::ledger::{Cluster, Codecs, Topics};
use crate::source::{OnceOutcome, Source};

/// How long a source may make no progress and still count as ready: its longest pause between two requests.
const SILENCE: std::time::Duration = std::time::Duration::from_secs(300);

/// What a producer runs with, beside its sources.
#[derive(Clone)]
pub struct Setup {
    /// Name of this process among its peers.
    pub instance: String,
    /// The cluster; its client id is the producer's.
    pub connection: Connection,
    /// The registry.
    pub registry: RegistryClient,
    /// The clock of scheduler, limiter and token cache.
    pub clock: SharedClock,
    /// The status registry, where each source reports its state.
    pub status: StatusRegistry,
    /// Whether this process is the only producer by construction, as the demo's is: it joins no group.
    pub alone: bool,
}

/// Creates or verifies the topics, resolves the schemas, and checks that keys would go where they went before.
///
/// # Errors
/// When a topic differs, a schema is unknown, or the newest key was written with another schema id.
pub async fn prepare(connection: &Connection, registry: RegistryClient) -> Result<Cluster, ProducerError> {
    let config = connection.config();
    let names = Names::new(config.topic_prefix.clone());
    topics::ensure(connection, &names.base_topics(), config.manage_topics).await?;
    let cluster = connect(connection, registry).await?;
    if config.manage_topics != ManageTopics::Simulated {
        let Cluster { names, codecs, .. } = &cluster;
        let (devices, servers, scans) = (names.devices(), names.servers(), names.scans());
        let own = |topic, key: &Codec| Own { topic, key_schema: key.id() };
        let decoder = &codecs.decoder;
        let checked = async {
            own(&devices, &codecs.device_key).guard::<DeviceKey>(connection, decoder, 0..CHANGE_PARTITIONS).await?;
            own(&servers, &codecs.server_key).guard::<ServerKey>(connection, decoder, 0..SINGLE_PARTITION).await?;
            own(&scans, &codecs.scan_key).guard::<ScanKey>(connection, decoder, 0..SINGLE_PARTITION).await
        };
        checked.await.map_err(|error| ProducerError::Schemas(error.into()))?;
    }
    Ok(cluster)
}

/// Resolves the schemas and nothing else: enough to read scans and to approve them.
///
/// # Errors
/// When a schema is unknown to the registry.
pub async fn connect(connection: &Connection, registry: RegistryClient) -> Result<Cluster, ProducerError> {
    let names = Names::new(connection.config().topic_prefix.clone());
    let codecs = Codecs::resolve(registry, &names).await.map_err(ProducerError::Schemas)?;
    let topics = Arc::new(Topics::new(&names));
    Ok(Cluster { connection: connection.clone(), names, codecs: Arc::new(codecs), topics })
}

/// Serves the configured sources until the token is cancelled; what ends one of them ends no other.
///
/// # Errors
/// The worst error of a source by its exit code, when all have ended: see [`ProducerError`].
pub async fn run(setup: &Setup, sources: &[SourceConfig], shutdown: CancellationToken) -> Result<(), ProducerError> {
    let membership = |instance| Membership::Static { instance };
    let parts: Vec<_> = sources.iter().map(|source| part(setup, &source.name)).collect();
    let prepare = || prepare(&setup.connection, setup.registry.clone());
    match until_it_passes("producer", &parts, &shutdown, Diagnose::diagnosis, prepare).await? {
        Some(cluster) => each(setup, &cluster, sources, membership, shutdown, Source::run).await.map(drop),
        None => Ok(()),
    }
}

/// Scans each source once, one beside the other, and returns the worst outcome; what one of them meets stops no other.
///
/// # Errors
/// The worst error of a source by its exit code: see [`ProducerError`]; another instance at work is one.
pub async fn run_once(
    setup: &Setup,
    sources: &[SourceConfig],
    shutdown: CancellationToken,
) -> Result<OnceOutcome, ProducerError> {
    let cluster = prepare(&setup.connection, setup.registry.clone()).await?;
    let outcomes = each(setup, &cluster, sources, |_| Membership::Dynamic, shutdown, Source::run_once).await?;
    // A source that was stopped before its end has left something out.
    let outcomes = outcomes.into_iter().map(|outcome| outcome.unwrap_or(OnceOutcome::Incomplete));
    Ok(outcomes.max().unwrap_or(OnceOutcome::Complete))
}

/// Runs `work` for each source in a task of its own, and waits for all tasks.
async fn each<T, F>(
    setup: &Setup,
    cluster: &Cluster,
    sources: &[SourceConfig],
    membership: fn(String) -> Membership,
    shutdown: CancellationToken,
    work: fn(Source) -> F,
) -> Result<Vec<T>, ProducerError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, ProducerError>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    sources.iter().for_each(|config| cluster.topics.expect(&config.name));
    for config in sources {
        let member = source_member(&config.name, &setup.instance);
        let membership = (!setup.alone).then(|| membership(member));
        let source = source(setup, cluster, config, membership, shutdown.clone());
        let (org, topics, part) = (source.org().to_owned(), Arc::clone(&cluster.topics), source.part.clone());
        let work = work(source);
        tasks.spawn(async move {
            let ended = work.await.inspect_err(|error| part.failed(chain(error).to_string()));
            topics.forget(&org);
            ended
        });
    }
    let mut done = Vec::new();
    let mut worst: Option<ProducerError> = None;
    while let Some(joined) = tasks.join_next().await {
        let failed = |error| ProducerError::Task { source_name: "producer".to_owned(), source: Box::new(error) };
        match joined.map_err(failed).flatten() {
            Ok(outcome) => done.push(outcome),
            Err(error) => {
                error!(error = %chain(&error), help = error.help().as_deref(), "source ended");
                worst = Some(match worst.take() {
                    Some(worst) => worst.worse(error),
                    None => error,
                });
            }
        }
    }
    worst.map_or(Ok(done), Err)
}

fn part(setup: &Setup, name: &str) -> StatusPart {
    setup.status.part(format!("producer {name}"), SILENCE)
}

fn source(
    setup: &Setup,
    cluster: &Cluster,
    config: &SourceConfig,
    membership: Option<Membership>,
    shutdown: CancellationToken,
) -> Source {
    Source {
        origin: Origin {
            org: config.name.clone(),
            name: cluster.names.source_name().to_owned(),
            api: config.kind.product().api.to_owned(),
        },
        instance: setup.instance.clone(),
        membership,
        breaker: config.breaker.limits(),
        cluster: cluster.clone(),
        clock: Arc::clone(&setup.clock),
        part: part(setup, &config.name),
        shutdown,
        config: config.clone(),
        working: AtomicBool::new(false),
    }
}
