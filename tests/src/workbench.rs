//! One organization, one broker's corner, one database, and the product's stages as processes of their own.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use chrono::{DateTime, Utc};
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ConfigEntry, ConfigSource, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::MetadataTopic;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::{Value as Json, json};
use tokio::runtime::Runtime;
use windfall_simulator::journal::{Line, TrueDevice};
use windfall_simulator::{Handle, JournalMode, RateLimit, Running, Simulator};

use crate::checker::{Breach, StoreSnapshot};
use crate::fold::rebuilt_equals;
use crate::image::{columns, served};
use crate::process::{Start, Windfall};
use crate::run::Run;
use crate::store::{Database, sqlite_rows};
use crate::topics::{Entry, Isolation, TopicReader};

/// How long anything may take to heal before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Reads admitted in each [`WINDOW`]: so many that a scan takes a second or two, and fewer than a producer without a limiter makes.
pub const LIMIT: u32 = 60;
/// Length of the sliding window of reads, in seconds: short, so that a run of a minute holds many of them.
pub const WINDOW: u32 = 10;

/// What is judged: changes, servers, scans, the flat record, rejects.
const TOPICS: [&str; 5] = ["abm.devices", "abm.servers", "abm.scans", "assets.devices", "abm.rejects"];
/// Where what cannot be worked on goes.
const DEAD_LETTERS: [&str; 3] = [
    "abm.devices.windfall-map-devices.dlq",
    "assets.devices.contributions.windfall-merge-devices.dlq",
    "assets.devices.windfall-sink-assets.dlq",
];
/// File of the store that is rebuilt in SQLite.
const REBUILT_FILE: &str = "rebuilt.db";

/// What a test runs on; everything ends when this is dropped.
#[derive(Debug)]
pub struct Workbench {
    runtime: Runtime,
    folder: tempfile::TempDir,
    prefix: String,
    bootstrap: String,
    readers: String,
    registry: String,
    simulator: Running,
    database: Database,
    program: PathBuf,
    snapshots: Mutex<Vec<StoreSnapshot>>,
    /// When each process began that may ask for tokens.
    started: Mutex<Vec<DateTime<Utc>>>,
    /// Whether several processes share a stage.
    standbys: AtomicBool,
}

impl Workbench {
    /// Makes the organization that `fleet` describes and a corner of its own on broker and database.
    ///
    /// # Errors
    /// When a service cannot be had.
    pub fn new(name: &str, program: &str, fleet: Simulator) -> anyhow::Result<Self> {
        let kafka = windfall_services::kafka();
        Self::at(name, program, fleet, kafka, kafka)
    }

    /// The same on another broker: the product reaches it at `bootstrap`, the checker at `readers`.
    ///
    /// # Errors
    /// When a service cannot be had.
    pub fn at(name: &str, program: &str, fleet: Simulator, bootstrap: &str, readers: &str) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let folder = tempfile::tempdir()?;
        let unique = format!("{name}_{}", uuid::Uuid::new_v4().simple());
        let limit = RateLimit { requests: LIMIT, seconds: WINDOW };
        let fleet = fleet.still().rate_limit(Some(limit)).journal(JournalMode::Memory);
        let simulator = runtime.block_on(fleet.start(SocketAddr::from(([127, 0, 0, 1], 0))))?;
        let database = runtime.block_on(Database::create(windfall_services::postgres(), &unique))?;
        let bench = Self {
            prefix: format!("{}.", unique.replace('_', "-")),
            bootstrap: bootstrap.to_owned(),
            readers: readers.to_owned(),
            registry: windfall_services::registry().to_owned(),
            program: PathBuf::from(program),
            runtime,
            folder,
            simulator,
            database,
            snapshots: Mutex::default(),
            started: Mutex::default(),
            standbys: AtomicBool::new(false),
        };
        bench.write_configuration()?;
        Ok(bench)
    }

    fn write_configuration(&self) -> anyhow::Result<()> {
        let secrets = self.folder.path().join("secrets");
        std::fs::create_dir(&secrets)?;
        let credentials = self.simulator.credentials().first().context("no organization")?;
        let key = secrets.join("abm.pem");
        std::fs::write(&key, &credentials.private_key_pem)?;
        std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        let text = format!(
            "version: 1
secrets: {{ files: {{ type: directory, path: ./secrets }} }}
kafka:
  bootstrap_servers: [\"{bootstrap}\"]
  schema_registry: {{ url: \"{registry}\" }}
  topic_prefix: \"{prefix}\"
  replication_factor: 1
instance: bench
sources:
  - name: acme
    type: abm
    client_id: \"{client}\"
    key_id: \"{key_id}\"
    private_key: \"SECRET[files.abm.pem]\"
    api_url: \"{url}\"
    token_url: \"{token}\"
    rate_limit: {{ requests: {LIMIT}, per: {WINDOW}s }}
    scan: {{ interval: 1s, page_size: 500 }}
sinks:
  - name: assets
    type: postgres
    url: \"{database}\"
    collection: devices
    table: public.assets
  - name: rebuilt
    type: postgres
    url: \"{database}\"
    collection: devices
    table: public.rebuilt
  - name: rebuilt_file
    type: sqlite
    path: ./{REBUILT_FILE}
    collection: devices
    table: assets
",
            bootstrap = self.bootstrap,
            registry = self.registry,
            prefix = self.prefix,
            client = credentials.client_id,
            key_id = credentials.key_id,
            url = self.simulator.url(),
            token = self.simulator.token_url(),
            database = self.database.url(),
        );
        Ok(std::fs::write(self.configuration(), text)?)
    }

    /// Returns the configuration's path.
    #[must_use]
    pub fn configuration(&self) -> PathBuf {
        self.folder.path().join("windfall.yaml")
    }

    /// Returns the folder that holds configuration, key and logs.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the simulator's handle.
    #[must_use]
    pub fn fleet(&self) -> Handle {
        self.simulator.handle()
    }

    /// Returns the database.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Returns a topic's full name.
    #[must_use]
    pub fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Returns the broker's address for others than the product.
    #[must_use]
    pub fn readers(&self) -> &str {
        &self.readers
    }

    /// Waits for something asynchronous.
    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Starts `windfall VERB...` with this configuration.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, verb: &[&str], failpoints: Option<&str>) -> anyhow::Result<Windfall> {
        self.start_serving(verb, failpoints, "off")
    }

    /// Starts `windfall VERB...` as one of several processes of a stage, told apart by `instance`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_as(&self, verb: &[&str], instance: &str, failpoints: Option<&str>) -> anyhow::Result<Windfall> {
        self.standbys.store(true, Ordering::Relaxed);
        self.launch(verb, &["--instance", instance], failpoints, "off", &format!("{}-{instance}", verb.join("-")))
    }

    /// The same, with health and status at `http`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_serving(&self, verb: &[&str], failpoints: Option<&str>, http: &str) -> anyhow::Result<Windfall> {
        self.launch(verb, &[], failpoints, http, &verb.join("-"))
    }

    fn launch(
        &self,
        verb: &[&str],
        more: &[&str],
        failpoints: Option<&str>,
        http: &str,
        log: &str,
    ) -> anyhow::Result<Windfall> {
        if verb.iter().any(|word| matches!(*word, "producer" | "all")) {
            self.may_ask_for_a_token();
        }
        let mut arguments: Vec<String> = verb.iter().chain(more).map(ToString::to_string).collect();
        arguments.extend(["--config".to_owned(), self.configuration().display().to_string()]);
        arguments.extend(["--http".to_owned(), http.to_owned(), "--log-format".to_owned(), "json".to_owned()]);
        Windfall::start(&Start {
            program: &self.program,
            arguments,
            failpoints: failpoints.map(str::to_owned),
            environment: vec![("WINDFALL_LOG".to_owned(), "info".to_owned())],
            log: self.folder.path().join(format!("{log}.log")),
        })
    }

    /// Notes that from now on one more token may be asked for: a process began, or a standby may take over.
    pub fn may_ask_for_a_token(&self) {
        locked(&self.started).push(Utc::now());
    }

    /// Deletes the topics of this run: a broker that holds those of many runs answers late.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub fn delete_topics(&self) -> anyhow::Result<()> {
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", &self.readers).create()?;
        let metadata = admin.inner().fetch_metadata(None, PATIENCE)?;
        let names = metadata.topics().iter().map(MetadataTopic::name);
        let names: Vec<&str> = names.filter(|name| name.starts_with(&self.prefix)).collect();
        self.block_on(admin.delete_topics(&names, &AdminOptions::new()))?;
        Ok(())
    }

    /// Deletes one topic.
    ///
    /// # Errors
    /// When the broker does not do it.
    pub fn delete_topic(&self, name: &str) -> anyhow::Result<()> {
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", &self.readers).create()?;
        let topic = self.topic(name);
        for deleted in self.block_on(admin.delete_topics(&[&topic], &AdminOptions::new()))? {
            deleted.map_err(|(topic, code)| anyhow::anyhow!("`{topic}` was not deleted: {code}"))?;
        }
        Ok(())
    }

    /// Deletes all records of a compacted topic, as retention does for a while with another cleanup policy.
    ///
    /// # Errors
    /// When the broker does not do it.
    pub fn expire(&self, name: &str) -> anyhow::Result<()> {
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", &self.readers).create()?;
        let (topic, options) = (self.topic(name), AdminOptions::new());
        let resource = ResourceSpecifier::Topic(&topic);
        let mut described = self.block_on(admin.describe_configs([&resource], &options))?;
        let described =
            described.pop().context("no answer")?.map_err(|code| anyhow::anyhow!("not described: {code}"))?;
        let own = |entry: &&ConfigEntry| matches!(entry.source, ConfigSource::DynamicTopic);
        let settings: Vec<(&str, &str)> = described
            .entries
            .iter()
            .filter(own)
            .filter_map(|entry| Some((entry.name.as_str(), entry.value.as_deref()?)))
            .collect();
        // What is not named falls back to the broker's default.
        let set = |policy: &str| -> anyhow::Result<()> {
            let others = settings.iter().filter(|(name, _)| *name != "cleanup.policy");
            let config = others.fold(AlterConfig::new(resource), |config, (name, value)| config.set(name, value));
            for altered in self.block_on(admin.alter_configs([&config.set("cleanup.policy", policy)], &options))? {
                altered.map_err(|(_, code)| anyhow::anyhow!("not altered: {code}"))?;
            }
            Ok(())
        };
        set("delete")?;
        let metadata = admin.inner().fetch_metadata(Some(&topic), PATIENCE)?;
        let mut all = TopicPartitionList::new();
        for partition in metadata.topics().iter().flat_map(MetadataTopic::partitions) {
            all.add_partition_offset(&topic, partition.id(), Offset::End)?;
        }
        // The controller has taken the policy over; the broker refuses until it has, too.
        let deadline = Instant::now() + PATIENCE;
        loop {
            let deleted = self.block_on(admin.delete_records(&all, &options))?;
            match deleted.elements().iter().try_for_each(|element| element.error()) {
                Err(KafkaError::OffsetFetch(RDKafkaErrorCode::PolicyViolation)) if Instant::now() < deadline => {}
                outcome => break outcome?,
            }
        }
        set("compact")
    }

    /// Keeps the folder with configuration and logs after the end of the run, for somebody to read.
    pub fn keep(&mut self) -> &Path {
        self.folder.disable_cleanup(true);
        self.folder.path()
    }

    /// Waits until the status served at `http` holds `words`.
    ///
    /// # Errors
    /// When it does not within [`PATIENCE`], with the status as it was last.
    pub fn wait_for_status(&self, http: &str, words: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut last = String::new();
        while Instant::now() < deadline {
            let asked = async { reqwest::get(format!("http://{http}/status")).await?.text().await };
            last = self.block_on(asked).unwrap_or(last);
            if last.contains(words) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("the status never said `{words}`: {last}")
    }

    /// Reads topics, by their names without prefix, as `read_committed` readers see them.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn read(&self, topics: &[&str]) -> anyhow::Result<Vec<Entry>> {
        let names: Vec<String> = topics.iter().map(|name| self.topic(name)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        TopicReader::new(&self.readers, &self.registry).read(Isolation::Committed, &names)
    }

    /// Returns the simulator's journal so far.
    #[must_use]
    pub fn journal(&self) -> Vec<Line> {
        self.simulator.handle().journal()
    }

    /// Waits until the store shows the truth: of every listed device each attribute, its server, its release; asked of the store alone,
    /// so it is cheap. A device that the listing hides is passed over: nobody can know of it.
    ///
    /// # Errors
    /// When it does not within [`PATIENCE`], with what differs and the ends of the given processes' logs.
    pub fn settle(&self, stages: &mut [&mut Windfall]) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.sample()?;
            let truth = self.fleet().truth();
            let rows = self.block_on(self.database.rows("assets"))?;
            let wrong: Vec<String> =
                truth.devices.iter().filter_map(|device| difference(device, rows.get(&device.id))).collect();
            if wrong.is_empty() {
                return Ok(());
            }
            for stage in stages.iter_mut() {
                if !stage.running() {
                    bail!("a stage has ended; {}", stage.log_end());
                }
            }
            if Instant::now() > deadline {
                let logs: Vec<String> = stages.iter().map(|stage| stage.log_end()).collect();
                bail!(
                    "{} assets differ from the truth: {:?}\n{}",
                    wrong.len(),
                    &wrong[..wrong.len().min(5)],
                    logs.join("\n")
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Takes a look at the store for law L7.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn sample(&self) -> anyhow::Result<()> {
        let snapshot = self.block_on(self.database.snapshot())?;
        locked(&self.snapshots).extend(snapshot);
        Ok(())
    }

    /// Fills two other stores, one of each kind, from the first record on, and compares them with the one that lived through everything.
    ///
    /// # Errors
    /// When a store cannot be filled or read.
    pub fn rebuild(&self) -> anyhow::Result<Vec<Breach>> {
        for sink in ["rebuilt", "rebuilt_file"] {
            let mut filling = self.start(&["run", "sink", sink, "--once"], None)?;
            ensure!(filling.wait(PATIENCE)?.success(), "the sink `{sink}` did not come through; {}", filling.log_end());
        }
        let rows = self.block_on(self.database.rows("assets"))?;
        let mut breaches = rebuilt_equals(&rows, &self.block_on(self.database.rows("rebuilt"))?);
        breaches.extend(rebuilt_equals(&rows, &sqlite_rows(&self.folder.path().join(REBUILT_FILE))?));
        Ok(breaches)
    }

    /// Lets the sink read everything once more over the rows that stand: none of them may be written.
    ///
    /// # Errors
    /// When the sink does not come through.
    pub fn replay(&self) -> anyhow::Result<Vec<Breach>> {
        let before = self.block_on(self.database.writes())?;
        self.block_on(self.database.run("update windfall_positions set next_offset = 0 where sink = 'assets'"))?;
        let mut again = self.start(&["run", "sink", "assets", "--once"], None)?;
        ensure!(again.wait(PATIENCE)?.success(), "the sink did not come through again; {}", again.log_end());
        let moved = self.block_on(self.database.snapshot())?.unwrap_or_default();
        ensure!(moved.partitions.values().any(|(_, next)| *next > 0), "the sink read nothing again");
        let written = self.block_on(self.database.writes())? - before;
        Ok(if written == 0 { Vec::new() } else { vec![format!("L8: a replay wrote {written} rows again")] })
    }

    /// Gathers what the run has left behind.
    ///
    /// # Errors
    /// When something cannot be read.
    pub fn gather(&self) -> anyhow::Result<Run> {
        self.sample()?;
        let mut read: HashMap<String, Vec<Entry>> = HashMap::new();
        let topics = [&TOPICS[..], &DEAD_LETTERS[..]].concat();
        for entry in self.read(&topics)? {
            read.entry(entry.topic.clone()).or_default().push(entry);
        }
        let mut all = |name: &str| read.remove(&self.topic(name)).unwrap_or_default();
        let [changes, servers, scans, flat, rejects] = TOPICS.map(&mut all);
        Ok(Run {
            changes,
            servers,
            scans,
            flat,
            rejects,
            dead: DEAD_LETTERS.map(all).concat(),
            journal: self.journal(),
            truth: self.fleet().truth(),
            rows: self.block_on(self.database.rows("assets"))?,
            audit: self.block_on(self.database.audit())?,
            snapshots: locked(&self.snapshots).clone(),
            started: locked(&self.started).clone(),
            standbys: self.standbys.load(Ordering::Relaxed),
            logs: self.logs()?,
            private_key: std::fs::read_to_string(self.folder.path().join("secrets/abm.pem"))?,
        })
    }

    fn logs(&self) -> anyhow::Result<Vec<(String, String)>> {
        let mut logs = Vec::new();
        for file in std::fs::read_dir(self.folder.path())? {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                logs.push((path.display().to_string(), String::from_utf8_lossy(&std::fs::read(&path)?).into_owned()));
            }
        }
        Ok(logs)
    }

    /// Judges everything by the laws: see [`Run::breaches`].
    ///
    /// # Errors
    /// When something cannot be read.
    pub fn judge(&self) -> anyhow::Result<Vec<Breach>> {
        Ok(self.gather()?.breaches())
    }
}

fn locked<T>(held: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

fn difference(device: &TrueDevice, row: Option<&BTreeMap<String, Json>>) -> Option<String> {
    let released = device.released_at.is_some();
    if !device.listed && !released {
        return None;
    }
    let Some(row) = row else {
        return (!released).then(|| format!("{}: no row", device.id));
    };
    let shown = !row["released_from_org_date_time"].is_null();
    if shown != released {
        return Some(format!("{}: released {released} in truth, {shown} in the store", device.id));
    }
    let server = [("mdm_server_id", &device.server_id), ("mdm_server_name", &device.server_name)];
    let mut truth: Vec<(String, Json)> = server.map(|(name, value)| (name.to_owned(), json!(value))).into();
    if !released {
        // What a released device last was is not read again.
        truth.extend(columns(&served(&device.id, &json!(device.attributes))));
    }
    let wrong = truth.into_iter().find(|(name, value)| row.get(name) != Some(value));
    wrong.map(|(name, value)| format!("{}: {name} is {value} in truth, {:?} in the store", device.id, row.get(&name)))
}
