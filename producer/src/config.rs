//! The producer's part of the configuration, and what is checked of it before anything is asked of the network.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;
use windfall_runtime::config::{Period, Violations};
use windfall_runtime::http::route::loopback;
use windfall_runtime::secret::Secret;
use windfall_schemas::identifiers::Org;

use crate::apple::auth::Account;
use crate::apple::key::SigningKey;
use crate::breaker::Limits;
use crate::budget::Limit;

/// Apple's token endpoint, the same for both products.
pub const DEFAULT_TOKEN_URL: &str = "https://account.apple.com/auth/oauth2/token";
/// What clients of the live service found by trial; Apple publishes no number.
pub const DEFAULT_REQUESTS: u32 = 20;
/// The time in which they found it.
pub const DEFAULT_PER: Period = Period::from_secs(60);
/// All of it: most organizations have one reader.
pub const DEFAULT_SHARE: f64 = 1.0;
/// 10,000 devices take a minute of requests, so an hour leaves room for look-ups and a second reader.
pub const DEFAULT_INTERVAL: Period = Period::from_secs(3600);
/// Apple's largest page: the fewest requests.
pub const DEFAULT_PAGE_SIZE: u16 = 1000;
/// How long a cursor of Apple's lives is not known; a scan that stood still for longer shows a fleet that is past.
pub const DEFAULT_RESUME_WITHIN: Period = Period::from_secs(2 * 3600);

/// A few devices leave any fleet in a day.
pub const DEFAULT_BREAKER_DEVICES: u32 = 10;
/// Of a large fleet more than a few leave; the usual replacement of devices stays below this.
pub const DEFAULT_BREAKER_SHARE: &str = "5%";

/// An organization at Apple.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// Alias of the organization: `[a-z][a-z0-9_]*`. It is part of every key, so it stays for ever.
    pub name: String,
    /// `abm` for Apple Business (Manager), `asm` for Apple School Manager.
    #[serde(rename = "type")]
    pub kind: SourceKind,
    /// Client id of the API account, as the portal shows it.
    pub client_id: String,
    /// Key id of the API account, as the portal shows it; a few accounts only work without.
    #[serde(default)]
    pub key_id: Option<String>,
    /// The private key that the portal gave, in PEM form: `SECRET[files.NAME]`.
    pub private_key: Secret,
    /// Origin of the API; fits `type` when left out. Plain http for loopback only.
    #[serde(default)]
    pub api_url: Option<String>,
    /// Where tokens are given out. Plain http for loopback only.
    #[serde(default = "default_token_url")]
    pub token_url: String,
    /// How many requests may be made.
    #[serde(default)]
    pub rate_limit: RateLimitConfig,
    /// When and how the whole fleet is read.
    #[serde(default)]
    pub scan: ScanConfig,
    /// How many devices may be released within 24 hours before a person is asked: the larger of the two.
    #[serde(default)]
    pub breaker: BreakerConfig,
}

/// Apple's two products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// Apple Business, formerly Apple Business Manager.
    Abm,
    /// Apple School Manager.
    Asm,
}

/// How many requests may be made.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimitConfig {
    /// Requests that Apple allows the organization …
    pub requests: u32,
    /// … in so long a time.
    pub per: Period,
    /// Part of them that Windfall takes, above 0 and at most 1: the limit is shared by all programs of the organization.
    pub share: f64,
}

/// When and how the whole fleet is read.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ScanConfig {
    /// Time from the beginning of one scan to that of the next.
    pub interval: Period,
    /// Items on a page, 1 to 1000.
    pub page_size: u16,
    /// A scan that was interrupted is resumed when its last page is younger than this, else begun anew.
    pub resume_within: Period,
}

/// How many devices may be released within 24 hours before a person is asked: the larger of the two.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerConfig {
    /// Devices that may be released in any fleet; 0 leaves it to `share`.
    pub devices: u32,
    /// Share of the devices of the organization that may be released, such as `5%`; `0%` leaves it to `devices`.
    pub share: String,
}

fn default_token_url() -> String {
    DEFAULT_TOKEN_URL.to_owned()
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self { devices: DEFAULT_BREAKER_DEVICES, share: DEFAULT_BREAKER_SHARE.to_owned() }
    }
}

impl Default for RateLimitConfig {
    fn default() -> Self {
        Self { requests: DEFAULT_REQUESTS, per: DEFAULT_PER, share: DEFAULT_SHARE }
    }
}

impl Default for ScanConfig {
    fn default() -> Self {
        Self { interval: DEFAULT_INTERVAL, page_size: DEFAULT_PAGE_SIZE, resume_within: DEFAULT_RESUME_WITHIN }
    }
}

/// What differs between Apple's two products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Product {
    /// Origin of the API.
    pub api_url: &'static str,
    /// The scope that a token is asked for.
    pub scope: &'static str,
    /// The word for `source.api` in events.
    pub api: &'static str,
    client_id_prefix: &'static str,
    portal: &'static str,
}

impl SourceKind {
    /// Returns what differs between the two products.
    pub fn product(self) -> Product {
        match self {
            SourceKind::Abm => Product {
                api_url: "https://api-business.apple.com",
                scope: "business.api",
                api: "business",
                client_id_prefix: "BUSINESSAPI.",
                portal: "Apple Business",
            },
            SourceKind::Asm => Product {
                api_url: "https://api-school.apple.com",
                scope: "school.api",
                api: "school",
                client_id_prefix: "SCHOOLAPI.",
                portal: "Apple School Manager",
            },
        }
    }
}

impl SourceConfig {
    /// Returns everything that cannot stand, the key's text included; asks nothing of the network.
    #[must_use]
    pub fn violations(&self) -> Violations {
        let mut all = Violations::new();
        if let Err(error) = Org::parse(&self.name) {
            all.push_with_help("name", format!("must be an alias: {}", error.why), "use a short name such as `acme`");
        }
        self.account_violations(&mut all);
        let api = self.api_url.as_deref().unwrap_or(self.kind.product().api_url);
        if let Some(api) = checked_url(&mut all, "api_url", api) {
            if api.path() != "/" || api.query().is_some() {
                let help = format!("write `{}`", api.origin().ascii_serialization());
                all.push_with_help("api_url", "must be an origin without a path", help);
            }
            self.check_host(&mut all, "api_url", &api, self.kind.product().api_url);
        }
        if let Some(token) = checked_url(&mut all, "token_url", &self.token_url) {
            self.check_host(&mut all, "token_url", &token, DEFAULT_TOKEN_URL);
        }
        self.rate_limit.violations(&mut all);
        self.scan.violations(&mut all);
        let share = "must be a percentage from `0%` to `100%`";
        all.require(self.breaker.percent().is_some(), "breaker.share", share);
        all
    }

    /// Refuses a host of Apple's that does something else than what `ours` is for; other hosts may be proxies or simulators.
    fn check_host(&self, all: &mut Violations, path: &str, url: &Url, ours: &str) {
        let host = url.host_str().unwrap_or_default();
        let apple = host == "apple.com" || host.ends_with(".apple.com");
        if apple && Url::parse(ours).ok().as_ref().and_then(Url::host_str) != Some(host) {
            let known = [
                ("appleid.apple.com", "signs people in, and gives out no tokens for this API"),
                ("account.apple.com", "gives out tokens, and has no API"),
                ("api-business.apple.com", "is the API of Apple Business"),
                ("api-school.apple.com", "is the API of Apple School Manager"),
            ];
            let found = known.iter().find(|(name, _)| *name == host);
            let does = found.map_or("is none that is known for this", |(_, does)| does);
            let what = format!("does not fit an account of {}: `{host}` {does}", self.kind.product().portal);
            all.push_with_help(
                path,
                what,
                format!("leave `{path}` out, or write `{ours}`; compare `type` with the portal"),
            );
        }
    }

    fn account_violations(&self, all: &mut Violations) {
        let prefix = self.kind.product().client_id_prefix;
        let printable = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if self.client_id.strip_prefix(prefix).is_none_or(str::is_empty) || !printable(&self.client_id) {
            let what = format!("must begin with `{prefix}`, as client ids of {} do", self.kind.product().portal);
            let other = match self.kind {
                SourceKind::Abm => SourceKind::Asm.product(),
                SourceKind::Asm => SourceKind::Abm.product(),
            };
            let help = if self.client_id.starts_with(other.client_id_prefix) {
                format!("this client id belongs to {}: compare it with `type`", other.portal)
            } else {
                "copy the client id from the API account's page in Apple's portal".to_owned()
            };
            all.push_with_help("client_id", what, help);
        }
        if self.key_id.as_deref().is_some_and(|id| id.is_empty() || !printable(id)) {
            let help = "copy the key id from the API account's page in Apple's portal";
            all.push_with_help("key_id", "must be a key id, or be left out", help);
        }
        if let Err(error) = SigningKey::from_pem(self.private_key.expose()) {
            all.refused("private_key", "must be the API account's key", &error);
        }
    }

    /// Returns the origin of the API; `None` when it is no URL, which [`SourceConfig::violations`] says.
    pub fn api_url(&self) -> Option<Url> {
        Url::parse(self.api_url.as_deref().unwrap_or(self.kind.product().api_url)).ok()
    }

    /// Returns who asks for tokens, and where; `None` when `token_url` is no URL.
    pub fn account(&self) -> Option<Account> {
        Some(Account {
            client_id: self.client_id.clone(),
            key_id: self.key_id.clone(),
            scope: self.kind.product().scope,
            token_url: Url::parse(&self.token_url).ok()?,
        })
    }
}

impl RateLimitConfig {
    /// Returns the limit for the budget.
    pub fn limit(&self) -> Limit {
        Limit { requests: self.requests, per: self.per.get(), share: self.share }
    }

    fn violations(&self, all: &mut Violations) {
        let Self { requests, per, share } = self;
        all.require((1..=10_000).contains(requests), "rate_limit.requests", "must lie between 1 and 10000");
        let sound = (Duration::from_secs(1)..=Duration::from_secs(24 * 3600)).contains(&per.get());
        all.require(sound, "rate_limit.per", "must lie between 1s and 24h");
        let sound = *share >= 0.001 && *share <= 1.0;
        all.require(sound, "rate_limit.share", format!("must lie between 0.001 and 1, is {share}"));
    }
}

impl ScanConfig {
    fn violations(&self, all: &mut Violations) {
        let Self { interval, page_size, resume_within } = self;
        let size = format!("must lie between 1 and 1000, Apple's largest page, is {page_size}");
        all.require((1..=1000).contains(page_size), "scan.page_size", size);
        all.require(interval.get() >= Duration::from_secs(1), "scan.interval", "must be 1s or more");
        all.require(!resume_within.get().is_zero(), "scan.resume_within", "must be more than nothing");
    }
}

impl BreakerConfig {
    /// Returns the numbers of the breaker.
    pub fn limits(&self) -> Limits {
        Limits { devices: self.devices as usize, percent: self.percent().unwrap_or_default() }
    }

    fn percent(&self) -> Option<f64> {
        let number = self.share.strip_suffix('%')?.trim_end().parse().ok()?;
        (0.0..=100.0).contains(&number).then_some(number)
    }
}

/// Checks where secrets would be sent to.
fn checked_url(all: &mut Violations, path: &str, text: &str) -> Option<Url> {
    let Ok(url) = Url::parse(text) else {
        all.push_with_help(path, "must be a URL", "write it with its scheme, such as `https://example.com`");
        return None;
    };
    let safe = url.scheme() == "https" || (url.scheme() == "http" && loopback(&url));
    if !safe {
        let what =
            "must begin with `https://`; plain `http://` is for this machine alone (127.0.0.1, [::1], localhost)";
        all.push(path, what);
        return None;
    }
    if !url.username().is_empty() || url.password().is_some() {
        all.push(path, "must not hold a user name or a password");
        return None;
    }
    all.require(url.fragment().is_none(), path, "must not have a `#` part");
    Some(url)
}
