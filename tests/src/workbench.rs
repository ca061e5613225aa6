//! One organization, one broker's corner, one database, and the product's stages as processes of their own.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::runtime::Runtime;
use windfall_simulator::journal::Line;
use windfall_simulator::{Builder, Handle, JournalMode, RateLimit, Running};

use crate::checker::{self, Breach, Served, StoreSnapshot};
use crate::journal;
use crate::process::{Start, Windfall};
use crate::store::Database;
use crate::topics::{Entry, Isolation, TopicReader};

/// How long anything may take to heal before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Reads admitted in a minute: high, so that a scan takes seconds, and checked all the same.
pub const LIMIT: u32 = 1_200;

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
}

impl Workbench {
    /// Makes the organization that `fleet` describes and a corner of its own on broker and database.
    ///
    /// # Errors
    /// When a service cannot be had.
    pub fn new(name: &str, program: &str, fleet: Builder) -> anyhow::Result<Self> {
        let kafka = windfall_services::kafka();
        Self::at(name, program, fleet, kafka, kafka)
    }

    /// The same on another broker: the product reaches it at `bootstrap`, the checker at `readers`.
    ///
    /// # Errors
    /// When a service cannot be had.
    pub fn at(name: &str, program: &str, fleet: Builder, bootstrap: &str, readers: &str) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let folder = tempfile::tempdir()?;
        let unique = format!("{name}_{}", uuid::Uuid::new_v4().simple());
        let limit = RateLimit { requests: LIMIT, seconds: 60 };
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
    rate_limit: {{ requests: {LIMIT}, per: 1m }}
    scan: {{ interval: 1s, page_size: 250 }}
sinks:
  - name: assets
    type: postgres
    url: \"{database}\"
    collection: devices
    table: public.assets
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

    /// The same, with health and status at `http`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_serving(&self, verb: &[&str], failpoints: Option<&str>, http: &str) -> anyhow::Result<Windfall> {
        let mut arguments: Vec<String> = verb.iter().map(ToString::to_string).collect();
        arguments.extend(["--config".to_owned(), self.configuration().display().to_string()]);
        arguments.extend(["--http".to_owned(), http.to_owned(), "--log-format".to_owned(), "json".to_owned()]);
        Windfall::start(&Start {
            program: &self.program,
            arguments,
            failpoints: failpoints.map(str::to_owned),
            environment: vec![("WINDFALL_LOG".to_owned(), "info".to_owned())],
            log: self.folder.path().join(format!("{}.log", verb.join("-"))),
        })
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

    /// Waits until the store shows the truth: every live device's server, status and release; asked of the store alone, so it is cheap.
    ///
    /// # Errors
    /// When it does not within [`PATIENCE`], with what differs and the ends of the given processes' logs.
    pub fn settle(&self, stages: &mut [&mut Windfall]) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.sample()?;
            let truth = self.fleet().truth();
            let rows = self.block_on(self.database.rows())?;
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
        self.snapshots.lock().unwrap_or_else(PoisonError::into_inner).extend(snapshot);
        Ok(())
    }

    /// Judges everything by the laws: L1 to L8 and L10.
    ///
    /// # Errors
    /// When something cannot be read.
    pub fn judge(&self) -> anyhow::Result<Vec<Breach>> {
        let journal = self.journal();
        let truth = self.fleet().truth();
        let topics = ["abm.devices", "abm.scans", "assets.devices"];
        let mut read: Vec<Vec<Entry>> = vec![Vec::new(); topics.len()];
        for entry in self.read(&topics)? {
            if let Some(at) = topics.iter().position(|name| self.topic(name) == entry.topic) {
                read[at].push(entry);
            }
        }
        let [changes, scans, flat] = read.as_slice() else { unreachable!("three topics are read") };
        let rows = self.block_on(self.database.rows())?;
        let audit = self.block_on(self.database.audit())?;
        let served = Served { devices: journal::served(&journal) };
        let mut breaches = checker::nothing_invented(changes, &served);
        breaches.extend(journal::nothing_lost(&journal, scans, changes));
        breaches.extend(journal::log_equals_truth(&truth, changes));
        breaches.extend(checker::no_duplicate(changes));
        breaches.extend(checker::ordered(changes));
        breaches.extend(journal::no_false_release(&journal, changes));
        breaches.extend(checker::assets_equal_changes(changes, flat));
        breaches.extend(checker::store_equals_log(flat, &rows));
        breaches
            .extend(checker::offsets_move_with_rows(&self.snapshots.lock().unwrap_or_else(PoisonError::into_inner)));
        breaches.extend(checker::rows_only_go_forward(&audit));
        breaches.extend(journal::limits_kept(&journal, LIMIT as usize));
        if changes.is_empty() || journal::complete_scans(scans).is_empty() {
            breaches.push("nothing was published: the laws would hold for nothing".to_owned());
        }
        Ok(breaches)
    }
}

fn difference(
    device: &windfall_simulator::journal::TrueDevice,
    row: Option<&std::collections::BTreeMap<String, serde_json::Value>>,
) -> Option<String> {
    let Some(row) = row else {
        return device.released_at.is_none().then(|| format!("{}: no row", device.id));
    };
    let released = !row["released_from_org_date_time"].is_null();
    if released != device.released_at.is_some() {
        return Some(format!(
            "{}: released {} in truth, {released} in the store",
            device.id,
            device.released_at.is_some()
        ));
    }
    let server = device.server_name.as_deref().filter(|_| !released);
    if row["mdm_server_name"].as_str() != server {
        return Some(format!("{}: on {server:?} in truth, {} in the store", device.id, row["mdm_server_name"]));
    }
    for (attribute, column) in [
        ("color", "color"),
        ("orderNumber", "order_number"),
        ("partNumber", "part_number"),
        ("deviceCapacity", "device_capacity"),
    ] {
        let truth = device.attributes.get(attribute).and_then(|value| value.as_str());
        if !released && row[column].as_str() != truth {
            return Some(format!("{}: {attribute} {truth:?} in truth, {} in the store", device.id, row[column]));
        }
    }
    None
}
