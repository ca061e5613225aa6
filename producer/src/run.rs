//! The producer as a stage: every configured source as a task of its own, in one process.

use std::sync::Arc;

use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::error;
use windfall_runtime::clock::SharedClock;
use windfall_runtime::diagnose::Diagnose;
use windfall_runtime::health::Status;
use windfall_runtime::kafka::Connection;
use windfall_runtime::kafka::config::ManageTopics;
use windfall_runtime::kafka::topics;
use windfall_runtime::registry::RegistryClient;
use windfall_runtime::telemetry::chain;
use windfall_schemas::device::DeviceKey;
use windfall_schemas::scan::ScanKey;
use windfall_schemas::server::ServerKey;
use windfall_schemas::topic::{CHANGE_PARTITIONS, Names, SINGLE_PARTITION};

use crate::apple::DeviceDirectory;
use crate::apple::client::AppleDirectory;
use crate::checkpoint::Writer;
use crate::config::SourceConfig;
use crate::error::ProducerError;
use crate::event::Origin;
use crate::ledger::{Cluster, Codecs, check_keys};
use crate::source::{Connect, OnceOutcome, Source, SourceSettings, Stall};

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
    /// The board on which each source shows how it is.
    pub status: Status,
}

/// A source to be run: its settings, and how its reader is made once it is known what the limiter remembers.
pub struct Job<D> {
    settings: SourceSettings,
    connect: Connect<D>,
}

impl<D> Job<D> {
    /// Describes a source.
    pub fn new(
        settings: SourceSettings,
        connect: impl Fn(Option<crate::budget::LimiterState>) -> Result<D, ProducerError> + Send + Sync + 'static,
    ) -> Self {
        Self { settings, connect: Box::new(connect) }
    }
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
        let decoder = &codecs.decoder;
        let (devices, servers, scans) = (names.devices(), names.servers(), names.scans());
        let (device, server, scan) = (codecs.device_key.id(), codecs.server_key.id(), codecs.scan_key.id());
        let checked = async {
            check_keys::<DeviceKey>(connection, decoder, &devices, CHANGE_PARTITIONS, device).await?;
            check_keys::<ServerKey>(connection, decoder, &servers, SINGLE_PARTITION, server).await?;
            check_keys::<ScanKey>(connection, decoder, &scans, SINGLE_PARTITION, scan).await
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
    Ok(Cluster { connection: connection.clone(), names, codecs: Arc::new(codecs) })
}

/// Serves every source until the token is cancelled; the first that must end ends them all.
///
/// # Errors
/// The first error that no other try can heal: see [`ProducerError`].
pub async fn serve<D: DeviceDirectory + 'static>(
    setup: &Setup,
    jobs: Vec<Job<D>>,
    shutdown: CancellationToken,
) -> Result<(), ProducerError> {
    let cluster = prepare(&setup.connection, setup.registry.clone()).await?;
    let stop = shutdown.child_token();
    let mut tasks = JoinSet::new();
    for job in jobs {
        let source = source(setup, &cluster, job, stop.clone());
        tasks.spawn(source.run());
    }
    let mut first_error = None;
    while let Some(joined) = tasks.join_next().await {
        if let Err(error) = ended(joined) {
            stop.cancel();
            first_error.get_or_insert(error);
        }
    }
    first_error.map_or(Ok(()), Err)
}

/// Scans every source once, one beside the other, and returns the worst outcome; what one of them meets stops no other.
///
/// # Errors
/// The worst error of a source by its exit code: see [`ProducerError`]; another instance at work is one.
pub async fn serve_once<D: DeviceDirectory + 'static>(
    setup: &Setup,
    jobs: Vec<Job<D>>,
    shutdown: CancellationToken,
) -> Result<OnceOutcome, ProducerError> {
    let cluster = prepare(&setup.connection, setup.registry.clone()).await?;
    let mut tasks = JoinSet::new();
    for job in jobs {
        tasks.spawn(source(setup, &cluster, job, shutdown.clone()).run_once());
    }
    let mut outcomes = Vec::new();
    let mut worst: Option<ProducerError> = None;
    while let Some(joined) = tasks.join_next().await {
        match ended(joined) {
            // A source that was stopped before its end has left something out.
            Ok(outcome) => outcomes.push(outcome.unwrap_or(OnceOutcome::Incomplete)),
            Err(error) => {
                worst = Some(match worst.take() {
                    Some(worst) => worst.worse(error),
                    None => error,
                });
            }
        }
    }
    worst.map_or(Ok(outcomes.into_iter().max().unwrap_or(OnceOutcome::Complete)), Err)
}

fn source<D>(setup: &Setup, cluster: &Cluster, job: Job<D>, shutdown: CancellationToken) -> Source<D> {
    let Job { settings, connect } = job;
    let part = setup.status.part(format!("producer {}", settings.origin.org), SILENCE);
    let clock = Arc::clone(&setup.clock);
    let stall = Arc::new(Stall::new(&clock));
    Source { settings, cluster: cluster.clone(), clock, part, shutdown, connect, stall }
}

/// Says what has become of a task, and tells the error of one that has failed.
fn ended<T>(joined: Result<Result<T, ProducerError>, JoinError>) -> Result<T, ProducerError> {
    let failed = |error| ProducerError::Task { source_name: "producer".to_owned(), source: Box::new(error) };
    let ended = joined.map_err(failed).flatten();
    if let Err(error) = &ended {
        error!(error = %chain(error), help = error.help().as_deref(), "source ended");
    }
    ended
}

/// Serves the configured sources until the token is cancelled: [`serve`] with Apple's API.
///
/// # Errors
/// As [`serve`].
pub async fn run(setup: &Setup, sources: &[SourceConfig], shutdown: CancellationToken) -> Result<(), ProducerError> {
    serve(setup, apple_jobs(setup, sources, false), shutdown).await
}

/// Scans the configured sources once: [`serve_once`] with Apple's API.
///
/// # Errors
/// As [`serve_once`].
pub async fn run_once(
    setup: &Setup,
    sources: &[SourceConfig],
    shutdown: CancellationToken,
) -> Result<OnceOutcome, ProducerError> {
    serve_once(setup, apple_jobs(setup, sources, true), shutdown).await
}

fn apple_jobs(setup: &Setup, sources: &[SourceConfig], once: bool) -> Vec<Job<AppleDirectory>> {
    let names = Names::new(setup.connection.config().topic_prefix.clone());
    let job = |config: &SourceConfig| {
        let (settings, config) = (settings(setup, &names, config, once), config.clone());
        let clock = Arc::clone(&setup.clock);
        Job::new(settings, move |state| {
            let connected = AppleDirectory::connect(&config, state.unwrap_or_default(), Arc::clone(&clock));
            let source_name = config.name.clone();
            connected.map_err(|error| ProducerError::Connect { source_name, source: error })
        })
    };
    sources.iter().map(job).collect()
}

fn settings(setup: &Setup, names: &Names, config: &SourceConfig, once: bool) -> SourceSettings {
    let transactional_id = names.producer_transactional_id(&config.name);
    SourceSettings {
        origin: Origin {
            org: config.name.clone(),
            name: names.source_name().to_owned(),
            api: config.kind.api().to_owned(),
        },
        interval: config.scan.interval.get(),
        resume_within: config.scan.resume_within.get(),
        breaker: config.breaker.limits(),
        instance: setup.instance.clone(),
        process: uuid::Uuid::new_v4().to_string(),
        writer: if once { Writer::SingleRun } else { Writer::Serving },
        // A single run must not fence a process that serves: it looks for one and refuses instead.
        transactional_id: if once { format!("{transactional_id}-once") } else { transactional_id },
    }
}
