//! The settings of a simulator.

use std::time::Duration;

use crate::assertion::KeyIdRule;
use crate::clock::{self, TimeSource};
use crate::fault::FaultScript;
use crate::journal::JournalMode;
use crate::life::Rates;
use crate::limiter::RateLimit;

/// The seed of the demo and of the documentation: only its devices have serial numbers of the form `SIM0000001`.
pub(crate) const DEFAULT_SEED: u64 = 7;

/// How the next page of a list is found when the list changes between two requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PagingStyle {
    /// A page begins behind the last device of the page before: nothing that is listed throughout is skipped or repeated.
    #[default]
    Keyset,
    /// A page begins at a number of items: when a device leaves between two pages, another one is skipped.
    Offset,
}

/// Declares each setting once: the field with its default, and the method that sets it.
macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident: $kind:ty = $default:expr;)+) => {
        /// Apple's API, set up and not yet listening; each method changes one setting.
        #[derive(Clone)]
        pub struct Simulator {
            $($(#[$doc])* pub(crate) $name: $kind,)+
        }

        impl Default for Simulator {
            fn default() -> Self {
                Self { $($name: $default,)+ }
            }
        }

        impl Simulator {
            $(
                $(#[$doc])*
                pub fn $name(mut self, $name: $kind) -> Self {
                    self.$name = $name;
                    self
                }
            )+
        }
    };
}

settings! {
    /// Devices of each organization at the start.
    devices: u32 = 200;
    /// Servers of each organization at the start.
    servers: u16 = 3;
    /// Seed of fleets, serial numbers, lives, keys and chances.
    seed: u64 = DEFAULT_SEED;
    /// Aliases of the organizations; each has its own account, fleet and rate limit.
    orgs: Vec<String> = vec!["acme".to_owned()];
    /// Serves Apple School Manager instead of Apple Business.
    school: bool = false;
    /// Share of devices that begin without a server: about every fifth device of a real organization is unused.
    unassigned_share: f64 = 0.2;
    /// Share of released devices whose single read answers 404 instead of the release date.
    gone_share: f64 = 0.3;
    /// What happens by itself.
    rates: Rates = Rates::office();
    /// Where the journal goes.
    journal: JournalMode = JournalMode::Off;
    /// Keeps only digests of served attributes in the journal: for large fleets.
    digests_only: bool = false;
    /// Reads admitted; `None` for no limit.
    rate_limit: Option<RateLimit> = Some(RateLimit::OBSERVED);
    /// Token requests admitted per account; `None` for no limit.
    token_limit: Option<RateLimit> = Some(RateLimit::TOKENS);
    /// Whether assertions carry the key id.
    key_id_rule: KeyIdRule = KeyIdRule::Required;
    /// What goes wrong.
    faults: FaultScript = FaultScript::default();
    /// How the next page of a list is found.
    paging: PagingStyle = PagingStyle::Keyset;
    /// How long a cursor lives, in wall time. Apple documents nothing; a stored cursor was seen to work hours later.
    cursor_ttl: Duration = Duration::from_secs(24 * 3600);
    /// How long linkage lists lag behind an assignment, in the fleet's time.
    linkage_lag: Duration = Duration::ZERO;
    /// Whether `/_sim` is served; `None` serves it on loopback addresses only.
    control: Option<bool> = None;
    /// Time of the fleet's life.
    life_clock: TimeSource = clock::system();
    /// Time of tokens, rate limits, cursors, `Date` and `Retry-After`.
    wall_clock: TimeSource = clock::system();
}

impl Simulator {
    /// Begins with the default settings.
    pub fn builder() -> Self {
        Self::default()
    }

    /// Lets nothing happen by itself; only commands change the fleet.
    #[must_use]
    pub fn still(self) -> Self {
        self.rates(Rates::default())
    }
}
