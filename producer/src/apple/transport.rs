//! The connection to Apple: limits on time and size, no redirects, renewed before the server would end it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::Client;
use reqwest::redirect::Policy;
use url::Url;
use windfall_runtime::http::route::{RequestError, Route, RouteError, loopback};

/// Time to connect, TLS included.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest silence within an answer.
const SILENCE: Duration = Duration::from_secs(30);
/// Whole time of a request, from its sending to the last byte of its answer.
pub const WHOLE: Duration = Duration::from_secs(60);
/// Apple ends an HTTP/2 connection after about 20 pages, in the middle of the next one; a new one goes on.
const REQUESTS_PER_CONNECTION: u32 = 15;
/// After so many broken connections in a row HTTP/1.1 is tried: streams of HTTP/2 were seen to be reset by the dozen.
const BROKEN_IN_A_ROW: u32 = 3;

/// How clients are made for one host.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What the limits on time are; only tests change them.
    pub whole: Duration,
    /// Whether plain HTTP is spoken, which is for loopback only.
    pub plain: bool,
    /// Whether requests go through a proxy.
    pub route: Route,
}

impl Settings {
    /// Fits the settings to where requests go.
    ///
    /// # Errors
    /// When the environment names a proxy that cannot be used.
    pub fn towards(url: &Url) -> Result<Self, RouteError> {
        let plain = url.scheme() == "http" && loopback(url);
        Ok(Self { whole: WHOLE, plain, route: Route::to(url, true)? })
    }

    /// Makes a client.
    ///
    /// # Errors
    /// When TLS cannot be set up, for instance without any root certificate on this machine.
    pub fn client(&self, http1: bool) -> Result<Client, RouteError> {
        let builder = Client::builder()
            .user_agent(concat!("windfall/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .referer(false)
            // Each request passes the budget, so none is repeated behind its back.
            .retry(reqwest::retry::never())
            .connect_timeout(CONNECT.min(self.whole))
            .read_timeout(SILENCE.min(self.whole))
            .timeout(self.whole)
            .https_only(!self.plain)
            .tls_version_min(reqwest::tls::Version::TLS_1_2);
        // Between us and our own machine no certificate is looked at.
        let builder = if self.plain { builder.tls_certs_only([]) } else { builder };
        self.route.client(if http1 { builder.http1_only() } else { builder })
    }
}

/// Hands out the client of the connection in use, and changes it when it is time.
#[derive(Debug)]
pub struct Transport {
    settings: Settings,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    client: Client,
    uses: u32,
    broken: u32,
    http1: bool,
}

impl Transport {
    /// Prepares a connection; none is made yet.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(settings: Settings) -> Result<Self, RouteError> {
        let client = settings.client(false)?;
        Ok(Self { settings, current: Mutex::new(Current { client, uses: 0, broken: 0, http1: false }) })
    }

    /// Returns the client for one request. A new connection is made when it is due and TLS can be set up.
    pub fn client(&self) -> Client {
        let mut current = self.lock();
        if current.uses >= REQUESTS_PER_CONNECTION
            && let Ok(client) = self.settings.client(current.http1)
        {
            current.client = client;
            current.uses = 0;
        }
        current.uses += 1;
        current.client.clone()
    }

    /// Says which way a request went that failed.
    #[must_use]
    pub fn failed(&self, source: reqwest::Error) -> RequestError {
        self.settings.route.failed(source)
    }

    /// Notes that an answer was read to its end.
    pub fn held(&self) {
        self.lock().broken = 0;
    }

    /// Makes a new connection for the next request.
    pub fn renew(&self) {
        self.lock().uses = REQUESTS_PER_CONNECTION;
    }

    /// Notes that the connection broke: the next request makes a new one, after some in a row with HTTP/1.1.
    pub fn broke(&self) {
        self.renew();
        let mut current = self.lock();
        current.broken += 1;
        if current.broken >= BROKEN_IN_A_ROW && !current.http1 {
            current.http1 = true;
            tracing::warn!(broken = current.broken, "connections keep breaking, speaking HTTP/1.1 from now on");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
