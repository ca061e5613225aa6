//! The demo's environment: a simulated organization, Kafka and a registry in this process, and one clock for all of them.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Days, NaiveTime, Utc};
use windfall_producer::config::{BreakerConfig, RateLimitConfig, ScanConfig, SourceConfig, SourceKind};
use windfall_runtime::clock::{ScaledClock, SharedClock};
use windfall_runtime::diagnose::Kind;
use windfall_runtime::kafka::config::{KafkaConfig, ManageTopics, SchemaRegistryConfig};
use windfall_runtime::kafka::mock::DemoCluster;
use windfall_runtime::registry::RegistryClient;
use windfall_runtime::registry::embedded::EmbeddedRegistry;
use windfall_runtime::secret::Secret;
use windfall_simulator::{JournalMode, Running, Simulator, TimeSource};
use windfall_sink::config::{BatchConfig, DlqConfig, SchemaMode, SinkConfig, SinkKind};
use windfall_transformer::load_collections;

use crate::cli::{DemoArgs, Global};
use crate::config::{Config, HttpConfig, VERSION};
use crate::context::Context;
use crate::exit::Failure;

/// Seconds of the day that passes while the demo runs.
const DAY_S: f64 = 86_400.0;
/// The faults that the demo survives: one page is answered 429, and one connection breaks.
const FAULTS: &str = "devices @3 429 retry-after=60\ndevices @6 reset";
/// Name of the organization.
const ORG: &str = "acme";
/// The collection, the sink and its table.
const COLLECTION: &str = "devices";
/// Table that is filled.
pub(super) const TABLE: &str = "assets";

/// Everything that the stages talk to; it stops when this value is dropped.
pub(super) struct World {
    pub(super) clock: SharedClock,
    pub(super) simulator: Running,
    pub(super) context: Arc<Context>,
    pub(super) registry: RegistryClient,
    pub(super) paths: Paths,
    _cluster: DemoCluster,
}

/// The files that the demo leaves.
#[derive(Debug, Clone)]
pub(super) struct Paths {
    /// The rows.
    pub(super) rows: PathBuf,
    /// What was true and what was served.
    pub(super) journal: PathBuf,
    /// The logs.
    pub(super) log: PathBuf,
}

impl Paths {
    /// Prepares the folder: deletes the files of an earlier demo, and fails if a file of that name is not a demo's.
    pub(super) fn prepare(folder: &Path) -> crate::Result<Self> {
        let paths = Self {
            rows: folder.join("assets.db"),
            journal: folder.join("journal.jsonl"),
            log: folder.join("windfall.log"),
        };
        if paths.rows.exists() && !paths.journal.exists() {
            let what = format!("`{}` is there, and not from a demo", paths.rows.display());
            return Err(Failure::new(Kind::Refused, what).help("name another folder with `--dir PATH`").into());
        }
        std::fs::create_dir_all(folder).map_err(|error| {
            Failure::new(Kind::Refused, format!("could not make the folder `{}`: {error}", folder.display()))
        })?;
        let rows = paths.rows.display();
        let beside = ["-wal", "-shm", "-journal"].map(|ending| PathBuf::from(format!("{rows}{ending}")));
        for file in beside.iter().chain([&paths.rows, &paths.journal, &paths.log]) {
            match std::fs::remove_file(file) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    let what = format!("could not take away `{}`: {error}", file.display());
                    return Err(Failure::new(Kind::Refused, what).into());
                }
                _ => {}
            }
        }
        Ok(paths)
    }
}

impl World {
    /// Starts everything; one simulated day passes while the demo runs.
    pub(super) async fn make(global: &Global, args: &DemoArgs, paths: Paths) -> crate::Result<Self> {
        let collections = load_collections(Path::new("."), &[]).map_err(Failure::of)?;
        let global = quiet(global);
        let planned = Context::of(config(&paths.rows), collections.clone(), &global)?;
        let cluster = DemoCluster::start(&planned.topics()).map_err(Failure::of)?;
        let registry = RegistryClient::embedded(EmbeddedRegistry::in_memory(), true);
        // The clock starts last, so that the day begins when everything else runs.
        let clock = clock(args);
        let simulator = simulator(args, &clock, &paths.journal).await?;
        let mut config = planned.config;
        config.kafka.bootstrap_servers = vec![cluster.bootstrap_servers().to_owned()];
        config.sources.push(source(&simulator)?);
        let context = Arc::new(Context::of(config, collections, &global)?);
        Ok(Self { clock, simulator, context, registry, paths, _cluster: cluster })
    }
}

/// Turns the HTTP server off unless `--http` is given.
fn quiet(global: &Global) -> Global {
    Global { http: global.http.clone().or_else(|| Some("off".to_owned())), ..global.clone() }
}

/// Starts at yesterday's midnight, so that no time of the demo lies in the machine's future.
fn clock(args: &DemoArgs) -> SharedClock {
    let yesterday = Utc::now().date_naive() - Days::new(1);
    let origin: DateTime<Utc> = yesterday.and_time(NaiveTime::MIN).and_utc();
    Arc::new(ScaledClock::new(origin, DAY_S / args.duration.get().as_secs_f64()))
}

async fn simulator(args: &DemoArgs, clock: &SharedClock, journal: &Path) -> crate::Result<Running> {
    let source: TimeSource = {
        let clock = Arc::clone(clock);
        Arc::new(move || clock.now())
    };
    let mut builder = Simulator::builder()
        .devices(args.devices)
        .servers(args.servers)
        .seed(args.seed)
        .faults(FAULTS.parse().map_err(Failure::of)?)
        .journal(JournalMode::File(journal.to_owned()));
    builder = builder.life_clock(Arc::clone(&source)).wall_clock(source).orgs(vec![ORG.to_owned()]).digests_only(true);
    Ok(builder.start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.map_err(Failure::of)?)
}

fn source(simulator: &Running) -> crate::Result<SourceConfig> {
    let nobody = || Failure::new(Kind::Refused, "the simulator serves no organization");
    let account = simulator.credentials().first().ok_or_else(nobody)?;
    Ok(SourceConfig {
        name: ORG.to_owned(),
        kind: SourceKind::Abm,
        client_id: account.client_id.clone(),
        key_id: Some(account.key_id.clone()),
        private_key: Secret::new(account.private_key_pem.clone()),
        api_url: Some(simulator.url()),
        token_url: simulator.token_url(),
        rate_limit: RateLimitConfig::default(),
        scan: ScanConfig::default(),
        breaker: BreakerConfig::default(),
    })
}

fn config(rows: &Path) -> Config {
    // The address is replaced once the cluster runs.
    let mut kafka = KafkaConfig::new("127.0.0.1:1", SchemaRegistryConfig::embedded(None));
    kafka.replication_factor = 1;
    kafka.manage_topics = ManageTopics::Simulated;
    let sink = SinkConfig {
        name: "assets".to_owned(),
        kind: SinkKind::Sqlite,
        url: None,
        path: Some(rows.to_owned()),
        collection: COLLECTION.to_owned(),
        table: TABLE.to_owned(),
        schema: SchemaMode::Evolve,
        batch: BatchConfig::default(),
        dlq: DlqConfig::default(),
    };
    Config {
        version: VERSION,
        secrets: std::collections::BTreeMap::new(),
        kafka,
        http: HttpConfig::default(),
        instance: Some("demo".to_owned()),
        sources: Vec::new(),
        collections: Vec::new(),
        sinks: vec![sink],
    }
}
