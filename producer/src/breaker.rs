//! The mass-change breaker: how many devices may leave before a person is asked.

use std::collections::BTreeSet;

use xxhash_rust::xxh3::xxh3_128;

/// Fleet size from which a halved list is held.
const HALF_RULE_FROM: usize = 4;
/// Window in which releases are counted, in milliseconds.
pub const WINDOW: i64 = 24 * 60 * 60 * 1000;
/// How many devices may leave within a day before a person is asked: the larger of the two.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// So many in any fleet.
    pub devices: usize,
    /// So many in a hundred of the live fleet.
    pub percent: f64,
}

impl Default for Limits {
    /// A few devices leave any fleet in a day, and of a large one more than a few.
    fn default() -> Self {
        Self { devices: 10, percent: 5.0 }
    }
}

/// What the breaker looks at, over all channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Case {
    /// Releases of the last day, those of an operator left out.
    pub released_lately: usize,
    /// Devices that this scan missed and that no plan holds.
    pub suspects: usize,
    /// Devices that plans hold already and that this scan missed as well: the incident goes on.
    pub held: usize,
    /// Devices that are not released, the suspects included.
    pub live: usize,
    /// Devices that the scan listed.
    pub listed: usize,
}

impl Limits {
    /// Decides whether the suspects are held, and says why, for the report and the plan; asked before any look-up.
    ///
    /// Held when the list is empty and the fleet is not, when more than half of a fleet of four or more is missing, or when
    /// the suspects, those held before and the releases of the last day are more than [`Limits::allowed`].
    pub fn ask(&self, case: &Case) -> Option<String> {
        let Case { released_lately, suspects, held, live, listed } = *case;
        if suspects == 0 {
            return None;
        }
        if listed == 0 && live > 0 {
            return Some(format!("the list is empty and the fleet has {live} devices"));
        }
        let missing = suspects + held;
        if live >= HALF_RULE_FROM && missing * 2 > live {
            return Some(format!("{missing} of {live} devices are missing, more than half"));
        }
        let allowed = self.allowed(live);
        (released_lately + missing > allowed).then(|| {
            format!(
                "{missing} devices are missing or listed as released, and {released_lately} were released in the last 24 \
                 hours; {allowed} may leave in a day"
            )
        })
    }

    /// Returns how many devices of a fleet may leave within a day.
    pub fn allowed(&self, live: usize) -> usize {
        self.devices.max((live as f64 * self.percent / 100.0) as usize)
    }
}

/// Hashes the ids that a plan holds now; an approval names this hash, so that a stale one is refused.
pub fn plan_hash(ids: &BTreeSet<String>) -> String {
    let mut buffer = Vec::new();
    for id in ids {
        buffer.extend_from_slice(id.as_bytes());
        buffer.push(0);
    }
    format!("{:032x}", xxh3_128(&buffer))
}
