//! A sink before it runs: what it is made of, and the two ways to run it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::error;
use windfall_runtime::clock::SharedClock;
use windfall_runtime::diagnose::Diagnose;
use windfall_runtime::health::{Part, State};
use windfall_runtime::kafka::consumer::{BatchLimits, GroupConsumer, GroupOptions};
use windfall_runtime::kafka::{Connection, Membership, table, topics};
use windfall_runtime::registry::RegistryClient;
use windfall_runtime::stall::Stall;
use windfall_runtime::telemetry::chain;
use windfall_schemas::asset::Collection;
use windfall_schemas::topic::Names;

use super::{Goal, Running};
use crate::config::SinkConfig;
use crate::error::SinkError;
use crate::letters::KafkaDeadLetters;
use crate::open::{AnyStore, open};
use crate::record::AssetReader;
use crate::store::Applied;
use crate::writer::Writer;

/// Bytes of a batch: a few thousand flat records.
const MAX_BATCH_BYTES: usize = 8 * 1024 * 1024;

/// What a sink needs from the process that it runs in.
pub struct Surroundings {
    /// The cluster, as the stage `sink-<name>`.
    pub connection: Connection,
    /// The collection that is written.
    pub collection: Collection,
    /// The schema registry.
    pub registry: RegistryClient,
    /// The machine's clock: the broker's time stamps are compared with it.
    pub clock: SharedClock,
    /// The sink's line on the status board.
    pub part: Part,
    /// Name of the process among its peers.
    pub instance: String,
    /// Whether the sink keeps its partitions over a restart.
    pub membership: Membership,
}

/// What a sink did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// What became of the records that the store took.
    pub applied: Applied,
    /// Records that went to the dead letters.
    pub dead_letters: u64,
}

/// A sink, ready to run.
pub struct Sink {
    config: SinkConfig,
    surroundings: Surroundings,
    names: Names,
    store: AnyStore,
}

impl Sink {
    /// Makes a sink; connects to nothing yet.
    ///
    /// # Errors
    /// As [`open`].
    pub fn new(config: SinkConfig, surroundings: Surroundings) -> Result<Self, SinkError> {
        let names = Names::new(&*surroundings.connection.config().topic_prefix);
        let store = open(&config, &surroundings.collection, &names)?;
        Ok(Self { config, surroundings, names, store })
    }

    /// Writes into another store than the configuration names, such as one in memory.
    #[must_use]
    pub fn with_store(mut self, store: AnyStore) -> Self {
        self.store = store;
        self
    }

    /// Runs until `stop` is cancelled; what is in flight then ends or is thrown away.
    ///
    /// # Errors
    /// When only an operator can help: see [`SinkError`].
    pub async fn run(self, stop: CancellationToken) -> Result<Report, SinkError> {
        self.drive(stop, None).await
    }

    /// Writes all that the topic holds when this is called, and ends.
    ///
    /// Should be a dynamic member of its group. `joining` is how long an assignment is waited for.
    ///
    /// # Errors
    /// As [`Sink::run`], and [`SinkError::AnotherInstance`] when partitions are elsewhere.
    pub async fn run_once(self, stop: CancellationToken, joining: Duration) -> Result<Report, SinkError> {
        let topic = self.names.assets(self.surroundings.collection.name());
        let connection = &self.surroundings.connection;
        let sink = self.config.name.clone();
        let partitions = topics::partition_count(connection, &topic)
            .await
            .map_err(|error| SinkError::Ends { sink: sink.clone(), source: error.into() })?
            .ok_or_else(|| SinkError::NoTopic { sink: sink.clone(), topic: topic.clone() })?;
        let extents = table::ends(connection, &topic, 0..partitions)
            .await
            .map_err(|error| SinkError::Ends { sink, source: error.into() })?;
        let ends = extents.into_iter().map(|(partition, extent)| (partition, extent.end)).collect();
        self.drive(stop, Some(Goal { ends, joining, join_by: Instant::now() + joining, stall: Stall::default() })).await
    }

    async fn drive(self, stop: CancellationToken, goal: Option<Goal>) -> Result<Report, SinkError> {
        let part = self.surroundings.part.clone();
        let (mut running, consumer) = self.start(stop, goal)?;
        let ended = running.join_or_stall(consumer).await;
        match &ended {
            Ok(()) => part.state(State::Finished),
            Err(failure) => {
                error!(sink = %running.sink, error = %chain(failure), help = failure.help().as_deref(), "sink stopped");
                part.failed(chain(failure).to_string());
            }
        }
        ended.map(|()| running.report)
    }

    pub(super) fn start(
        self,
        stop: CancellationToken,
        goal: Option<Goal>,
    ) -> Result<(Running, GroupConsumer), SinkError> {
        let Self { config, surroundings, names, store } = self;
        let Surroundings { connection, collection, registry, clock, part, instance, membership } = surroundings;
        let topic = names.assets(collection.name());
        let group = names.sink_group(&config.name);
        let limits = BatchLimits {
            max_records: usize::try_from(config.batch.count.get()).unwrap_or(usize::MAX),
            max_bytes: MAX_BATCH_BYTES,
            linger: config.batch.period.get(),
        };
        let options = GroupOptions { group: group.clone(), topics: vec![topic.clone()], membership, limits };
        let consumer = GroupConsumer::start(&connection, options.clone())
            .map_err(|source| SinkError::Consumer { sink: config.name.clone(), source: source.into() })?;
        let letters = KafkaDeadLetters {
            connection: connection.clone(),
            topic: names.dead_letters(&topic, &group),
            service: format!("windfall-sink-{}", config.name),
            instance,
            component: config.kind.as_str().to_owned(),
            clock: clock.clone(),
            sender: None,
        };
        let running = Running {
            group: consumer.group(),
            writer: Writer::new(store, letters, &config.dlq),
            reader: AssetReader::new(collection, registry, &topic),
            sink: config.name,
            topic,
            connection,
            options,
            clock,
            part,
            stop,
            goal,
            assignment: None,
            reached: BTreeMap::new(),
            marks: BTreeMap::new(),
            shown_at: None,
            lag: None,
            given_up_at: None,
            report: Report::default(),
        };
        Ok((running, consumer))
    }
}
