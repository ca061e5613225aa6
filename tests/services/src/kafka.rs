//! Apache Kafka, one KRaft node in one JVM.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::supervised::accepts;
use crate::{Jars, ServiceError, Supervised, free_port};

/// Chooses where a broker listens and keeps its data.
#[derive(Debug, Clone, Default)]
pub struct KafkaOptions {
    /// Port of the ordinary listener; a free one when left out.
    pub port: Option<u16>,
    /// Folder that keeps the data after the end; a temporary one when left out.
    pub folder: Option<PathBuf>,
    /// Makes a second listener whose advertised port is [`Kafka::proxy_port`], for a [`crate::Proxy`] in front.
    pub proxied: bool,
    /// Cleans and rolls quickly, for tests of compaction and retention.
    pub quick_cleaner: bool,
    /// Asks for more copies of the state of transactions than there are brokers, so that none can be kept.
    pub no_transactions: bool,
}

/// A running broker; it ends when this is dropped.
#[derive(Debug)]
pub struct Kafka {
    process: Supervised,
    bootstrap: String,
    proxy_port: u16,
    proxied_port: u16,
    _folder: Option<tempfile::TempDir>,
}

impl Kafka {
    /// Formats the storage where needed and starts the broker.
    ///
    /// # Errors
    /// When Java or Maven are missing or the broker does not come up.
    pub fn start(options: &KafkaOptions) -> Result<Self, ServiceError> {
        let jars = Jars::kafka()?;
        let temporary = match &options.folder {
            Some(_) => None,
            None => Some(
                tempfile::tempdir().map_err(|e| ServiceError::new(format!("cannot make a temporary folder: {e}")))?,
            ),
        };
        let folder = match (&options.folder, &temporary) {
            (Some(folder), _) => folder.clone(),
            (None, Some(temporary)) => temporary.path().to_path_buf(),
            (None, None) => unreachable!("a folder is named or made"),
        };
        std::fs::create_dir_all(&folder)
            .map_err(|e| ServiceError::new(format!("cannot make {}: {e}", folder.display())))?;
        let ports = Ports {
            client: options.port.unwrap_or_else(free_port),
            controller: free_port(),
            proxied: free_port(),
            proxy: free_port(),
        };
        if accepts(ports.client) {
            return Err(ServiceError::new(format!(
                "port {} is taken; stop what listens there or choose another",
                ports.client
            )));
        }
        let properties = folder.join("server.properties");
        std::fs::write(&properties, ports.properties(&folder, options))
            .map_err(|e| ServiceError::new(format!("cannot write {}: {e}", properties.display())))?;
        if !folder.join("data/meta.properties").exists() {
            format_storage(&jars, &properties)?;
        }
        let mut command = java(&jars);
        command.arg("kafka.Kafka").arg(&properties);
        let mut process = Supervised::spawn("kafka", &folder, "TERM", &command, None)?;
        process.wait_until(Duration::from_secs(60), || accepts(ports.client))?;
        Ok(Self {
            process,
            bootstrap: format!("127.0.0.1:{}", ports.client),
            proxy_port: ports.proxy,
            proxied_port: ports.proxied,
            _folder: temporary,
        })
    }

    /// Returns the address of the ordinary listener.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Returns the port that the second listener tells clients to use: a proxy must listen there.
    #[must_use]
    pub fn proxy_port(&self) -> u16 {
        self.proxy_port
    }

    /// Returns the port at which the second listener really listens.
    #[must_use]
    pub fn proxied_port(&self) -> u16 {
        self.proxied_port
    }

    /// Gives access to the process, to pause or kill it.
    pub fn process(&mut self) -> &mut Supervised {
        &mut self.process
    }
}

struct Ports {
    client: u16,
    controller: u16,
    proxied: u16,
    proxy: u16,
}

impl Ports {
    fn properties(&self, folder: &Path, options: &KafkaOptions) -> String {
        let Self { client, controller, proxied, proxy } = self;
        let data = folder.join("data");
        let mut listeners = format!("PLAINTEXT://127.0.0.1:{client}");
        let mut advertised = listeners.clone();
        if options.proxied {
            listeners.push_str(&format!(",PROXIED://127.0.0.1:{proxied}"));
            advertised.push_str(&format!(",PROXIED://127.0.0.1:{proxy}"));
        }
        let cleaner = if options.quick_cleaner {
            "log.cleaner.backoff.ms=500\nlog.cleaner.min.cleanable.ratio=0.01\nlog.retention.check.interval.ms=1000\n"
        } else {
            ""
        };
        let copies = if options.no_transactions { 3 } else { 1 };
        format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners={listeners},CONTROLLER://127.0.0.1:{controller}\nadvertised.listeners={advertised}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             inter.broker.listener.name=PLAINTEXT\ncontroller.listener.names=CONTROLLER\nlog.dirs={}\n\
             offsets.topic.replication.factor=1\noffsets.topic.num.partitions=4\n\
             transaction.state.log.replication.factor={copies}\ntransaction.state.log.min.isr=1\ntransaction.state.log.num.partitions=4\n\
             group.initial.rebalance.delay.ms=0\nauto.create.topics.enable=false\n{cleaner}",
            data.display()
        )
    }
}

fn java(jars: &Path) -> Command {
    let mut command = Command::new("java");
    command
        .args([
            "-Xmx1536m",
            "-XX:TieredStopAtLevel=1",
            "-XX:+UseSerialGC",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-cp",
        ])
        .arg(jars.join("*"));
    command
}

fn format_storage(jars: &Path, properties: &Path) -> Result<(), ServiceError> {
    // Any 16 bytes do; a fixed id lets a kept folder be recognised.
    const CLUSTER: &str = "d2luZGZhbGxfbG9jYWxfMQ";
    let output = java(jars)
        .args(["kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c"])
        .arg(properties)
        .output()
        .map_err(|e| ServiceError::new(format!("cannot run `java`: {e}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(ServiceError::new(format!("Kafka's storage could not be formatted: {}", said.trim())))
}
