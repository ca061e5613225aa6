//! Whether a run met what the laws are about: a law that had nothing to judge was not kept, it was not asked.

use std::collections::HashSet;

use windfall_simulator::journal::{ChangeKind, Record};

use crate::checker::{Breach, events, text};
use crate::journal::{good, responses, scans_ended};
use crate::limits::{busiest, setup};
use crate::run::Run;

/// The true changes of devices that a run must hold, and what the log calls them.
const OF_DEVICES: [(ChangeKind, &str); 7] = [
    (ChangeKind::Added, "added"),
    (ChangeKind::Assigned, "assigned"),
    (ChangeKind::Reassigned, "reassigned"),
    (ChangeKind::Unassigned, "unassigned"),
    (ChangeKind::Released, "released"),
    (ChangeKind::Readded, "readded"),
    (ChangeKind::Corrected, "updated"),
];
/// The same of servers.
const OF_SERVERS: [(ChangeKind, &str); 3] = [
    (ChangeKind::ServerAdded, "added"),
    (ChangeKind::ServerUpdated, "updated"),
    (ChangeKind::ServerRemoved, "removed"),
];

/// Names what a run through faults lacks: a kind of change without its event, a proof that was never asked for, a limit that never bound.
#[must_use]
pub fn missing(run: &Run) -> Vec<Breach> {
    let mut missing = unseen_changes(run);
    let mut need = |met: bool, what: &str| {
        if !met {
            missing.push(format!("nothing to judge: {what}"));
        }
    };
    let answers = || responses(&run.journal);
    let look_ups = || answers().filter(|it| it.route == "device");
    let dated = |it: &&_| good(it) && it.devices.iter().any(|device| released(device.attributes.as_ref()));
    need(look_ups().any(|it| dated(&it)), "no look-up showed a release date");
    need(look_ups().any(|it| it.status == Some(404)), "no look-up was answered with 404");
    need(look_ups().any(|it| good(it) && !dated(&it)), "no look-up found a device that the listing had missed");
    need(look_ups().any(|it| !matches!(it.status, Some(200 | 404))), "no look-up failed");
    let scans = scans_ended(&run.scans);
    need(scans.iter().any(|scan| scan.state == "complete"), "no scan was complete");
    need(scans.iter().any(|scan| scan.state == "held"), "no scan was held");
    need(scans.iter().any(|scan| !scan.absence_counts), "no scan was one whose absences prove nothing");
    let halved = |scan: &crate::journal::Scan| scan.state == "incomplete" && scan.absence_counts;
    need(scans.iter().any(halved), "no scan lacked a linkage list");
    let told = answers().filter_map(|it| it.retry_until).min();
    need(told.is_some_and(|until| answers().any(|it| it.at_wall >= until)), "no `Retry-After` was waited for");
    need(!run.rejects.is_empty(), "no item was rejected");
    need(binding(run), "the limit of reads was never near");
    need(run.snapshots.iter().any(|it| it.partitions.values().any(|(row, _)| *row >= 0)), "no snapshot saw a row");
    missing
}

/// Whether reads came so densely that the limit must have held some back: without it they come faster still.
fn binding(run: &Run) -> bool {
    let limit = setup(&run.journal).and_then(|start| Some((start.limit? as usize, start.limit_seconds)));
    limit.is_some_and(|(limit, seconds)| busiest(&run.journal, seconds) * 2 > limit)
}

fn released(attributes: Option<&serde_json::Value>) -> bool {
    attributes.is_some_and(|it| it["releasedFromOrgDateTime"].as_str().is_some_and(|date| !date.is_empty()))
}

/// Each kind of change must have come with an event of its kind about one of those that it happened to.
fn unseen_changes(run: &Run) -> Vec<Breach> {
    let tables =
        [(&run.changes, "device_id", OF_DEVICES.as_slice()), (&run.servers, "server_id", OF_SERVERS.as_slice())];
    let mut missing = Vec::new();
    for (entries, key, kinds) in tables {
        for (kind, word) in kinds {
            let happened: HashSet<&str> = run
                .journal
                .iter()
                .filter_map(|line| match &line.record {
                    Record::Change(change) if change.kind == *kind => {
                        change.device_id.as_deref().or(change.server_id.as_deref())
                    }
                    _ => None,
                })
                .collect();
            let told = events(entries).filter(|(_, event)| event["kind"] == *word);
            if !told.into_iter().any(|(entry, _)| happened.contains(text(&entry.key, key))) {
                let how_often = happened.len();
                missing.push(format!(
                    "nothing to judge: {kind:?} happened to {how_often}, and no event is `{word}` about one of them"
                ));
            }
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;
    use windfall_simulator::Truth;

    #[test]
    fn a_run_in_which_nothing_happened_proves_nothing() {
        let truth = Truth { at: chrono::DateTime::UNIX_EPOCH, devices: Vec::new(), servers: Vec::new() };
        let run = Run {
            journal: Vec::new(),
            truth,
            scans: Vec::new(),
            changes: Vec::new(),
            servers: Vec::new(),
            flat: Vec::new(),
            rejects: Vec::new(),
            dead: Vec::new(),
            rows: std::collections::BTreeMap::new(),
            audit: Vec::new(),
            snapshots: Vec::new(),
            started: Vec::new(),
            standbys: false,
            logs: Vec::new(),
            private_key: String::new(),
        };
        let missing = missing(&run);
        assert_eq!(missing.len(), OF_DEVICES.len() + OF_SERVERS.len() + 12, "{missing:#?}");
        assert!(run.breaches().iter().any(|breach| breach.starts_with("nothing was published")));
    }
}
