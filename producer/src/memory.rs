//! What one organization's task knows: the folds of its own topics, moved only by what is committed.

use crate::checkpoint::Scans;
use crate::fleet::{Event, Fleet, Servers};
use crate::step::Step;

/// The folds of `abm.devices`, `abm.servers` and `abm.scans` for one organization.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// The last known devices.
    pub fleet: Fleet,
    /// The last known management services.
    pub servers: Servers,
    /// What survives of scans.
    pub scans: Scans,
}

impl Memory {
    /// Moves on by a step whose commit has answered OK, by the same functions that fold the topics.
    pub fn apply(&mut self, step: &Step) {
        for envelope in &step.devices {
            if let Some(value) = envelope.after.as_ref().or(envelope.before.as_ref()) {
                self.fleet.apply(&value.device_id, Some(Event::from(envelope.clone())));
            }
        }
        for envelope in &step.servers {
            let Some(value) = envelope.after.as_ref().or(envelope.before.as_ref()) else { continue };
            self.servers.apply(&value.server_id, Some(Event::from(envelope.clone())));
            if envelope.after.is_none() {
                self.servers.apply(&value.server_id, None);
            }
        }
        for (device_id, reads) in &step.observed {
            self.fleet.observed(device_id, reads, step.observed_at);
        }
        for part in &step.parts {
            self.scans.apply(part);
        }
    }
}
