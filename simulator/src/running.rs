//! Starting and stopping a simulator.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::Simulator;
use crate::credentials::Credentials;
use crate::handle::{Handle, Shared};
use crate::http;
use crate::journal::{Journal, Keep, Record, Start};
use crate::world::{Now, World, whole_millis};

/// How long a stop waits for in-flight answers.
const PATIENCE: Duration = Duration::from_secs(3);

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
    pub fn help(&self) -> &'static str {
        match self {
            Self::NoOrganization => "name at least one organization alias",
            Self::Listen { .. } => "choose another address, or port 0 for a free one",
            Self::Journal(_) => "name a file in a folder that exists and can be written",
        }
    }
}

impl Simulator {
    /// Returns the accounts that it will serve, the same for the same seed.
    pub fn credentials(&self) -> Vec<Credentials> {
        let numbered = (0..).zip(&self.orgs);
        numbered.map(|(number, org)| Credentials::seeded(self.seed, number, org, self.school)).collect()
    }

    /// Starts to serve on `listen`; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address cannot be listened on or the journal cannot be opened.
    pub async fn start(self, listen: SocketAddr) -> Result<Running, StartError> {
        if self.orgs.is_empty() {
            return Err(StartError::NoOrganization);
        }
        let Self { seed, devices, rate_limit, control, .. } = self;
        let credentials = self.credentials();
        let now = Now { life: whole_millis((self.life_clock)()), wall: (self.wall_clock)() };
        let journal = Journal::open(&self.journal, self.digests_only).map_err(StartError::Journal)?;
        journal.write(Record::Start(Start {
            at_wall: now.wall,
            at: now.life,
            seed,
            orgs: self.orgs.clone(),
            devices,
            limit: rate_limit.map(|limit| limit.requests),
            limit_seconds: rate_limit.map_or(60, |limit| limit.seconds),
        }));
        let (life_clock, wall_clock) = (Arc::clone(&self.life_clock), Arc::clone(&self.wall_clock));
        let world = Mutex::new(World::new(self, &credentials, now));
        let handle = Handle { shared: Arc::new(Shared { world, life_clock, wall_clock, journal }) };
        let listener =
            tokio::net::TcpListener::bind(listen).await.map_err(|source| StartError::Listen { listen, source })?;
        let addr = listener.local_addr().map_err(|source| StartError::Listen { listen, source })?;
        let control = control.unwrap_or(addr.ip().is_loopback());
        let stop = CancellationToken::new();
        let task = tokio::spawn(http::serve(listener, handle.clone(), control, stop.clone()));
        tracing::info!(%addr, devices, seed, "simulator listens");
        Ok(Running { addr, credentials, handle, stop, task: Some(task) })
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
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the origin of the API, such as `http://127.0.0.1:49152`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Returns the URL of the token endpoint.
    pub fn token_url(&self) -> String {
        format!("{}/auth/oauth2/token", self.url())
    }

    /// Returns one account an organization, in the order of the configuration.
    pub fn credentials(&self) -> &[Credentials] {
        &self.credentials
    }

    /// Returns what drives it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Writes the truth into the journal and stops: in-flight answers get a few seconds.
    pub async fn stop(mut self) {
        if self.handle.shared.journal.keep != Keep::Nothing {
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
