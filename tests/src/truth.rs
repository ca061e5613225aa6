//! What was true of each device, one state after the other.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use windfall_simulator::journal::{ChangeKind, Line, Record, Truth};

/// A state of a device, until the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// When it began.
    pub since: DateTime<Utc>,
    /// Id of its server.
    pub server: Option<String>,
    /// Whether the device had left the organization.
    pub released: bool,
}

/// The states of every device, in their order.
pub type Lives = HashMap<String, Vec<State>>;

/// Reads the life of every device out of the journal's changes, and out of the truth where nothing happened.
#[must_use]
pub fn lives(journal: &[Line], truth: &Truth) -> Lives {
    let mut lives = Lives::new();
    for line in journal {
        let Record::Change(change) = &line.record else { continue };
        let Some(id) = &change.device_id else { continue };
        let states = lives.entry(id.clone()).or_default();
        if states.is_empty() && change.kind != ChangeKind::Added {
            let released = change.kind == ChangeKind::Readded;
            states.push(State { since: DateTime::<Utc>::MIN_UTC, server: change.previous_server_id.clone(), released });
        }
        let released = change.device.as_ref().is_some_and(|device| device.released_at.is_some());
        states.push(State { since: change.at, server: change.server_id.clone(), released });
    }
    for device in &truth.devices {
        lives.entry(device.id.clone()).or_insert_with(|| {
            let released = device.released_at.is_some();
            vec![State { since: DateTime::<Utc>::MIN_UTC, server: device.server_id.clone(), released }]
        });
    }
    lives
}

/// Goes through a device's life beside its events: what they say must have been true, in the order in which it was.
///
/// States may be missed, since a scan looks now and then; none may come twice or too early. So there are at most as many
/// changes in the log as in truth.
#[derive(Debug, Clone)]
pub struct Walk<'a> {
    states: &'a [State],
    at: usize,
}

impl<'a> Walk<'a> {
    /// Begins with the first state of `id`.
    #[must_use]
    pub fn of(lives: &'a Lives, id: &str) -> Self {
        Self { states: lives.get(id).map(Vec::as_slice).unwrap_or_default(), at: 0 }
    }

    /// Goes on to the next state that fits and had begun `by` then; stays where it is, and says no, when there is none.
    pub fn reach(&mut self, by: DateTime<Utc>, fits: impl Fn(&State) -> bool) -> bool {
        let ahead = self.states.iter().enumerate().skip(self.at);
        let found = ahead.take_while(|(_, state)| state.since <= by).find(|(_, state)| fits(state));
        if let Some((at, _)) = found {
            self.at = at;
        }
        found.is_some()
    }

    /// Returns the state that was true `by` then.
    #[must_use]
    pub fn by(&self, by: DateTime<Utc>) -> Option<&'a State> {
        self.states.iter().take_while(|state| state.since <= by).last()
    }
}
