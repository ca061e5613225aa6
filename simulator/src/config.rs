//! How a simulator is set up.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::assertion::KeyIdRule;
use crate::clock::{self, TimeSource};
use crate::fault::FaultScript;
use crate::journal::JournalMode;
use crate::life::Rates;
use crate::limiter::RateLimit;
use crate::shape::Shapes;

/// How the pages of a list hang together when the list changes between them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PagingStyle {
    /// A page begins behind the last device of the page before: nothing listed throughout is skipped or repeated.
    #[default]
    Keyset,
    /// A page begins at a number of items: a device that leaves between pages makes another one be skipped.
    Offset,
}

/// How a simulator is set up; made by [`crate::Simulator::builder`].
#[derive(Clone)]
pub struct SimulatorConfig {
    /// Devices of each organization at the start.
    pub devices: u32,
    /// Servers of each organization at the start.
    pub servers: u16,
    /// Seed of fleets, lives, keys and chances.
    pub seed: u64,
    /// Aliases of the organizations; each has its own account, fleet and rate limit.
    pub orgs: Vec<String>,
    /// Apple School Manager instead of Apple Business.
    pub school: bool,
    /// Share of devices that begin without a server.
    pub unassigned_share: f64,
    /// Share of released devices whose single read answers 404 instead of the date.
    pub gone_share: f64,
    /// What happens by itself.
    pub rates: Rates,
    /// Where the journal goes.
    pub journal: JournalMode,
    /// Keeps only digests of served attributes in the journal: for large fleets.
    pub digests_only: bool,
    /// Reads admitted; none for no limit.
    pub rate_limit: Option<RateLimit>,
    /// Token requests admitted per account; none for no limit.
    pub token_limit: Option<RateLimit>,
    /// Whether assertions carry the key id.
    pub key_id_rule: KeyIdRule,
    /// What goes wrong.
    pub faults: FaultScript,
    /// How answers are spelled.
    pub shapes: Shapes,
    /// How pages hang together.
    pub paging: PagingStyle,
    /// How long a cursor lives, in wall time.
    pub cursor_ttl: Duration,
    /// How long linkage lists lag behind an assignment, in the fleet's time.
    pub linkage_lag: Duration,
    /// Serves `/_sim`; when not set, on loopback addresses only.
    pub control: Option<bool>,
    /// Time of the fleet's life.
    pub life_clock: TimeSource,
    /// Time of tokens, rate limits, cursors, `Date` and `Retry-After`.
    pub wall_clock: TimeSource,
    /// Begin of the fleet's life; when not set, what its clock shows at the start.
    pub origin: Option<DateTime<Utc>>,
}

impl Default for SimulatorConfig {
    fn default() -> Self {
        Self {
            devices: 200,
            servers: 3,
            seed: 7,
            orgs: vec!["acme".to_owned()],
            school: false,
            // About every fifth device of a real organization waits in a drawer or belongs to nobody.
            unassigned_share: 0.2,
            gone_share: 0.3,
            rates: Rates::office(),
            journal: JournalMode::Off,
            digests_only: false,
            rate_limit: Some(RateLimit::OBSERVED),
            token_limit: Some(RateLimit::TOKENS),
            key_id_rule: KeyIdRule::Required,
            faults: FaultScript::default(),
            shapes: Shapes::default(),
            paging: PagingStyle::Keyset,
            // Undocumented; a stored cursor was seen to go on a pull hours later.
            cursor_ttl: Duration::from_secs(24 * 3600),
            linkage_lag: Duration::ZERO,
            control: None,
            life_clock: clock::system(),
            wall_clock: clock::system(),
            origin: None,
        }
    }
}

/// Sets a simulator up, one thing at a time.
#[derive(Clone, Default)]
pub struct Builder {
    config: SimulatorConfig,
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $kind:ty;)+) => {
        $($(#[$doc])* #[must_use] pub fn $name(mut self, $name: $kind) -> Self { self.config.$name = $name; self })+
    };
}

impl Builder {
    setters! {
        /// Sets the devices of each organization at the start.
        devices: u32;
        /// Sets the servers of each organization at the start.
        servers: u16;
        /// Sets the seed of fleets, lives, keys and chances.
        seed: u64;
        /// Serves Apple School Manager.
        school: bool;
        /// Sets the share of devices that begin without a server.
        unassigned_share: f64;
        /// Sets the share of released devices whose single read answers 404.
        gone_share: f64;
        /// Sets what happens by itself.
        rates: Rates;
        /// Sets where the journal goes.
        journal: JournalMode;
        /// Keeps only digests of served attributes in the journal.
        digests_only: bool;
        /// Sets the limit of reads; none for no limit.
        rate_limit: Option<RateLimit>;
        /// Sets the limit of token requests; none for no limit.
        token_limit: Option<RateLimit>;
        /// Sets whether assertions carry the key id.
        key_id_rule: KeyIdRule;
        /// Sets what goes wrong.
        faults: FaultScript;
        /// Sets how answers are spelled.
        shapes: Shapes;
        /// Sets how pages hang together.
        paging: PagingStyle;
        /// Sets how long a cursor lives.
        cursor_ttl: Duration;
        /// Sets how long linkage lists lag behind.
        linkage_lag: Duration;
        /// Sets the time of the fleet's life.
        life_clock: TimeSource;
        /// Sets the time of tokens, limits and headers.
        wall_clock: TimeSource;
    }

    /// Serves these organizations.
    #[must_use]
    pub fn orgs<S: Into<String>>(mut self, orgs: impl IntoIterator<Item = S>) -> Self {
        self.config.orgs = orgs.into_iter().map(Into::into).collect();
        self
    }

    /// Lets nothing happen but what the handle is told.
    #[must_use]
    pub fn still(self) -> Self {
        self.rates(Rates::still())
    }

    /// Serves `/_sim`, or not, whatever the address.
    #[must_use]
    pub fn control(mut self, control: bool) -> Self {
        self.config.control = Some(control);
        self
    }

    /// Begins the fleet's life at `origin`.
    #[must_use]
    pub fn origin(mut self, origin: DateTime<Utc>) -> Self {
        self.config.origin = Some(origin);
        self
    }

    /// Returns the configuration.
    #[must_use]
    pub fn config(self) -> SimulatorConfig {
        self.config
    }

    /// Starts the simulator; see [`crate::Simulator::start`].
    ///
    /// # Errors
    /// When the address cannot be listened on or the journal cannot be opened.
    pub async fn start(self, listen: std::net::SocketAddr) -> Result<crate::Running, crate::StartError> {
        crate::Simulator::new(self.config).start(listen).await
    }
}
