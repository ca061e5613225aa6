//! All that a run has left behind, and the laws over it.

use chrono::{DateTime, Utc};
use windfall_simulator::journal::{Line, Truth};

use crate::checker::{self, Breach, StoreSnapshot};
use crate::fold::{self, Rows};
use crate::identity::{self, Table};
use crate::topics::Entry;
use crate::{accounting, journal, limits, release, secrets, served};

/// What a run has left behind.
#[derive(Debug, Clone)]
pub struct Run {
    /// What was true, and what was served.
    pub journal: Vec<Line>,
    /// What is true now.
    pub truth: Truth,
    /// `abm.scans`.
    pub scans: Vec<Entry>,
    /// `abm.devices`.
    pub changes: Vec<Entry>,
    /// `abm.servers`.
    pub servers: Vec<Entry>,
    /// `assets.devices`.
    pub flat: Vec<Entry>,
    /// `abm.rejects`.
    pub rejects: Vec<Entry>,
    /// The dead letters of every loop and of the sink.
    pub dead: Vec<Entry>,
    /// The store.
    pub rows: Rows,
    /// Every version that each row had: asset, generation, partition, offset.
    pub audit: Vec<(String, i64, i32, i64)>,
    /// Looks at the store while it was written.
    pub snapshots: Vec<StoreSnapshot>,
    /// When each process that may ask for a token began, or a standby may have taken over.
    pub started: Vec<DateTime<Utc>>,
    /// Whether a second producer stood by.
    pub standbys: bool,
    /// Logs by their names.
    pub logs: Vec<(String, String)>,
    /// The key that nobody may see.
    pub private_key: String,
}

impl Run {
    /// Judges everything by the laws: all but L11, which [`crate::workbench::Workbench::settle`] waits for.
    #[must_use]
    pub fn breaches(&self) -> Vec<Breach> {
        let Self { journal, truth, scans, changes, servers, flat, rows, audit, .. } = self;
        let mut breaches = served::nothing_invented(journal, truth, changes);
        breaches.extend(served::no_server_invented(journal, servers));
        breaches.extend(journal::headers_whole(scans));
        breaches.extend(journal::nothing_lost(journal, scans, changes));
        breaches.extend(journal::log_equals_truth(truth, changes));
        breaches.extend(journal::servers_equal_truth(truth, servers));
        for (table, events) in [(Table::Devices, changes), (Table::Servers, servers)] {
            breaches.extend(checker::no_duplicate(events));
            breaches.extend(checker::ordered(events));
            breaches.extend(checker::tombstones_follow(events));
            breaches.extend(identity::events_name_themselves(table, events));
        }
        for entries in [scans, changes, servers, flat] {
            breaches.extend(identity::partitions_kept(entries));
        }
        breaches.extend(release::no_false_release(journal, truth, scans, changes));
        breaches.extend(release::no_false_removal(journal, truth, servers));
        breaches.extend(fold::assets_equal_changes(changes, flat));
        breaches.extend(fold::store_equals_log(flat, rows));
        breaches.extend(checker::offsets_move_with_rows(&self.snapshots));
        breaches.extend(checker::rows_only_go_forward(audit));
        breaches.extend(checker::audit_ends_at_rows(audit, rows));
        breaches.extend(accounting::rejects_accounted(journal, scans, &self.rejects));
        breaches.extend(accounting::no_dead_letters(&self.dead));
        breaches.extend(accounting::rows_accounted(flat, audit, self.snapshots.last()));
        breaches.extend(limits::limits_kept(journal));
        breaches.extend(limits::tokens_kept(journal, &self.started, self.standbys));
        breaches.extend(self.secrets_told());
        if changes.is_empty() || journal::complete_scans(scans).is_empty() || audit.is_empty() {
            breaches.push("nothing was published, or nothing stored: the laws would hold for nothing".to_owned());
        }
        breaches
    }

    fn secrets_told(&self) -> Vec<Breach> {
        let record = |entry: &Entry| {
            let value = entry.value.as_ref().map(ToString::to_string).unwrap_or_default();
            (entry.topic.clone(), format!("{} {value} {:?}", entry.key, entry.headers))
        };
        let topics = [&self.scans, &self.changes, &self.servers, &self.flat, &self.rejects, &self.dead];
        let records: Vec<(String, String)> = topics.into_iter().flatten().map(record).collect();
        let texts = self.logs.iter().chain(&records).map(|(name, text)| (name.as_str(), text.as_str()));
        secrets::none_told(&self.private_key, texts)
    }
}
