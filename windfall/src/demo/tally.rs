//! Counts what the demo has shown.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::change::Change;

/// The order in which kinds are listed; other kinds follow by name.
const ORDER: [&str; 7] = ["added", "assigned", "reassigned", "unassigned", "updated", "released", "readded"];

/// Devices by whether they belong to the organization, and changes by kind.
#[derive(Debug, Default)]
pub(super) struct Tally {
    devices: BTreeMap<String, bool>,
    kinds: BTreeMap<String, u64>,
    /// Devices of the first scan.
    first: u64,
}

impl Tally {
    /// Takes a change in.
    pub(super) fn take(&mut self, change: &Change) {
        self.devices.insert(change.subject.clone(), change.kind != "released");
        if change.op == "r" {
            self.first += 1;
        } else {
            *self.kinds.entry(change.kind.clone()).or_default() += 1;
        }
    }

    /// Devices that belong to the organization.
    pub(super) fn live(&self) -> usize {
        self.devices.values().filter(|live| **live).count()
    }

    /// All devices ever seen; each has a row.
    pub(super) fn known(&self) -> usize {
        self.devices.len()
    }

    /// Devices of the first scan.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The counts in words.
    pub(super) fn words(&self) -> String {
        let mut parts = vec![format!("{} devices", self.live())];
        let known = ORDER.iter().filter_map(|kind| self.kinds.get_key_value(*kind));
        let others = self.kinds.iter().filter(|(kind, _)| !ORDER.contains(&kind.as_str()));
        parts.extend(known.chain(others).map(|(kind, count)| format!("{count} {kind}")));
        parts.join(" · ")
    }

    /// The counts for machines.
    pub(super) fn json(&self) -> Value {
        json!({ "devices": self.live(), "first_scan": self.first, "changes": self.kinds })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(op: &str, kind: &str, subject: &str) -> Change {
        Change {
            seen_at: chrono::DateTime::UNIX_EPOCH,
            kind: kind.to_owned(),
            op: op.to_owned(),
            subject: subject.to_owned(),
            what: String::new(),
            seen_by: String::new(),
        }
    }

    #[test]
    fn a_released_device_is_a_row_but_no_device_of_the_organization() {
        let mut tally = Tally::default();
        for change in [
            change("r", "added", "A"),
            change("r", "added", "B"),
            change("c", "added", "C"),
            change("u", "released", "A"),
            change("u", "assigned", "B"),
        ] {
            tally.take(&change);
        }
        assert_eq!((tally.live(), tally.known(), tally.first()), (2, 3, 2));
        assert_eq!(tally.words(), "2 devices · 1 added · 1 assigned · 1 released");
    }
}
