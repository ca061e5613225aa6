//! Builds the stages from the configuration, for `run` and for the demo.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use windfall_producer::source::OnceOutcome;
use windfall_runtime::clock::SharedClock;
use windfall_runtime::health::StatusRegistry;
use windfall_runtime::kafka::consumer::BatchLimits;
use windfall_runtime::kafka::{Connection, Membership};
use windfall_runtime::registry::RegistryClient;
use windfall_runtime::worker::SILENCE;
use windfall_sink::store::AssetStore;
use windfall_sink::{Sink, SinkConfig, Surroundings, open};

use crate::context::Context;
use crate::exit::Exit;

/// What all stages of a process share.
#[derive(Clone)]
pub(crate) struct Stages {
    pub(crate) context: Arc<Context>,
    pub(crate) registry: RegistryClient,
    pub(crate) clock: SharedClock,
    pub(crate) status: StatusRegistry,
    /// Whether the consumers are dynamic members, which leave their groups when they end.
    pub(crate) dynamic: bool,
    pub(crate) stop: CancellationToken,
}

impl Stages {
    /// Polls all sources until the stop token is cancelled.
    pub(crate) async fn producer(self) -> crate::Result<Exit> {
        // Only the demo serves with dynamic members, and its producer is the only one.
        let setup = windfall_producer::run::Setup { alone: self.dynamic, ..self.producer_setup() };
        windfall_producer::run::run(&setup, &self.context.config.sources, self.stop.clone()).await?;
        Ok(Exit::Success)
    }

    /// Scans each source once.
    pub(crate) async fn producer_once(self) -> crate::Result<Exit> {
        let (setup, sources) = (self.producer_setup(), &self.context.config.sources);
        let outcome = windfall_producer::run::run_once(&setup, sources, self.stop.clone()).await?;
        Ok(match outcome {
            OnceOutcome::Complete => Exit::Success,
            OnceOutcome::Incomplete => Exit::Incomplete,
            OnceOutcome::Held => Exit::Held,
        })
    }

    fn producer_setup(&self) -> windfall_producer::run::Setup {
        windfall_producer::run::Setup {
            instance: self.context.instance.clone(),
            connection: self.context.connection("producer"),
            registry: self.registry.clone(),
            clock: self.clock.clone(),
            status: self.status.clone(),
            alone: false,
        }
    }

    /// Maps and merges until the stop token is cancelled.
    pub(crate) async fn transformer(self) -> crate::Result<Exit> {
        windfall_transformer::run(&self.transformer_setup(), &self.context.collections, self.stop.clone()).await?;
        Ok(Exit::Success)
    }

    /// Maps and merges up to the present ends of the topics.
    pub(crate) async fn transformer_once(self) -> crate::Result<Exit> {
        let setup = self.transformer_setup();
        let report = windfall_transformer::run_once(&setup, &self.context.collections, self.stop.clone()).await?;
        Ok(if report.dead_letters > 0 { Exit::Incomplete } else { Exit::Success })
    }

    fn transformer_setup(&self) -> windfall_transformer::Setup {
        windfall_transformer::Setup {
            instance: self.context.instance.clone(),
            kafka: self.context.config.kafka.clone(),
            registry: self.registry.clone(),
            clock: self.clock.clone(),
            status: self.status.clone(),
            dynamic: self.dynamic,
            limits: BatchLimits::default(),
        }
    }

    /// Writes the asset topic into a store until the stop token is cancelled.
    pub(crate) async fn sink(self, config: SinkConfig) -> crate::Result<Exit> {
        self.opened(&config, self.dynamic)?.run(self.stop.clone()).await?;
        Ok(Exit::Success)
    }

    /// Writes the asset topic up to its present end into a store.
    pub(crate) async fn sink_once(self, config: SinkConfig) -> crate::Result<Exit> {
        let report = self.opened(&config, true)?.run_once(self.stop.clone()).await?;
        Ok(if report.dead_letters > 0 { Exit::Incomplete } else { Exit::Success })
    }

    fn opened(&self, config: &SinkConfig, dynamic: bool) -> crate::Result<Sink<impl AssetStore + use<>>> {
        let instance = self.context.instance.clone();
        let surroundings = Surroundings {
            connection: self.sink_connection(config),
            collection: self.context.collection(&config.collection)?.schema.clone(),
            registry: self.registry.clone(),
            clock: self.clock.clone(),
            part: self.status.part(format!("sink {}", config.name), SILENCE),
            membership: if dynamic { Membership::Dynamic } else { Membership::Static { instance: instance.clone() } },
            instance,
        };
        let store = open(config, &surroundings.collection, &self.context.names)?;
        Ok(Sink::new(config.clone(), store, surroundings))
    }

    fn sink_connection(&self, config: &SinkConfig) -> Connection {
        self.context.connection(&format!("sink-{}", config.name))
    }
}
