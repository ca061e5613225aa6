//! Starting and stopping a simulator.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::{Builder, SimulatorConfig};
use crate::credentials::Credentials;
use crate::handle::{Handle, Shared};
use crate::http;
use crate::journal::{Journal, Record, Start};
use crate::world::{Now, World, whole_millis};

/// How long a stop waits for answers in flight.
const PATIENCE: Duration = Duration::from_secs(3);

/// Apple's API, not yet listening.
#[derive(Clone)]
pub struct Simulator {
    config: SimulatorConfig,
}

/// Why a simulator did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No organization is to be served.
    #[error("no organization is named")]
    NoOrganization,
    /// The address cannot be listened on.
    #[error("could not listen on `{listen}`")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The journal cannot be written.
    #[error("could not open the journal")]
    Journal(#[source] std::io::Error),
}

impl StartError {
    /// Returns what the operator can do.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match self {
            Self::NoOrganization => "name at least one organization alias",
            Self::Listen { .. } => "choose another address, or port 0 for a free one",
            Self::Journal(_) => "name a file in a folder that exists and can be written",
        }
    }
}

impl Simulator {
    /// Sets a simulator up.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Makes a simulator from its configuration.
    #[must_use]
    pub fn new(config: SimulatorConfig) -> Self {
        Self { config }
    }

    /// Returns the accounts that it will serve, the same for the same seed.
    #[must_use]
    pub fn credentials(&self) -> Vec<Credentials> {
        let SimulatorConfig { seed, school, orgs, .. } = &self.config;
        let numbered = orgs.iter().enumerate();
        numbered.map(|(number, org)| Credentials::seeded(*seed, number as u64, org, *school)).collect()
    }

    /// Starts to serve on `listen`; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address cannot be listened on or the journal cannot be opened.
    pub async fn start(self, listen: SocketAddr) -> Result<Running, StartError> {
        let config = &self.config;
        if config.orgs.is_empty() {
            return Err(StartError::NoOrganization);
        }
        let credentials = self.credentials();
        let clock = (config.life_clock)();
        let begin = config.origin.map_or(chrono::Duration::zero(), |origin| origin - clock);
        let now = Now { life: whole_millis(clock + begin), wall: (config.wall_clock)() };
        let journal = Journal::open(&config.journal, config.digests_only).map_err(StartError::Journal)?;
        journal.write(Record::Start(self.describe(now)));
        let world = World::new(config, &credentials, now);
        let clocks = (Arc::clone(&config.life_clock), Arc::clone(&config.wall_clock));
        let shared = Arc::new(Shared::new(world, clocks.0, clocks.1, begin, journal));
        let listener =
            tokio::net::TcpListener::bind(listen).await.map_err(|source| StartError::Listen { listen, source })?;
        let addr = listener.local_addr().map_err(|source| StartError::Listen { listen, source })?;
        let control = config.control.unwrap_or(addr.ip().is_loopback());
        let stop = CancellationToken::new();
        let task = tokio::spawn(http::serve(listener, Arc::clone(&shared), control, stop.clone()));
        tracing::info!(%addr, devices = config.devices, seed = config.seed, "simulator listens");
        Ok(Running { addr, credentials, handle: Handle { shared }, stop, task: Some(task) })
    }

    fn describe(&self, now: Now) -> Start {
        let SimulatorConfig { seed, orgs, devices, rate_limit, .. } = &self.config;
        Start {
            at_wall: now.wall,
            at: now.life,
            seed: *seed,
            orgs: orgs.clone(),
            devices: *devices,
            limit: rate_limit.map(|limit| limit.requests),
            limit_seconds: rate_limit.map_or(60, |limit| limit.seconds),
        }
    }
}

/// A simulator that listens; it stops when this is dropped.
#[derive(Debug)]
pub struct Running {
    addr: SocketAddr,
    credentials: Vec<Credentials>,
    handle: Handle,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl Running {
    /// Returns the address that it listens on.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the origin of the API, such as `http://127.0.0.1:49152`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Returns the URL of the token endpoint.
    #[must_use]
    pub fn token_url(&self) -> String {
        format!("{}/auth/oauth2/token", self.url())
    }

    /// Returns one account an organization, in the order of the configuration.
    #[must_use]
    pub fn credentials(&self) -> &[Credentials] {
        &self.credentials
    }

    /// Returns what drives it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Writes the truth into the journal and stops: answers in flight get a few seconds.
    pub async fn stop(mut self) {
        if self.handle.shared.journal.keeps() {
            self.handle.journal_truth();
        }
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            let abort = task.abort_handle();
            if tokio::time::timeout(PATIENCE, task).await.is_err() {
                abort.abort();
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
