use std::cmp::Ordering;

const HOUR_MS: u64 = 60 * 60 * 1000;
const DAY_MS: u64 = 24 * HOUR_MS;
/// How long a log stays whole, so that a reader that was away as long misses nothing.
pub const WHOLE_MS: u64 = 30 * DAY_MS;
/// How long signals are kept.
pub const SIGNALS_RETENTION_MS: u64 = 7 * DAY_MS;

/// What happens to old records of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleanup {
    /// The last record of each key stays for ever; the last 30 days stay whole.
    Compacted,
    /// `abm.scans`: compacted at once and often, for it is small and read whole at each start.
    CompactedSoon,
    /// The last record of each key stays for ever, nothing else is asked.
    CompactedPlain,
    /// Records go after so many milliseconds.
    Deleted {
        /// How long a record stays.
        retention_ms: u64,
    },
}

/// How a setting of an existing topic compares with the declared one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// It is as declared, or as good.
    Fits,
    /// It differs, and no promise rests on it: many clusters set such settings themselves.
    Differs,
    /// It differs, and a promise rests on it.
    Breaks,
}

/// A topic as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Full name, with prefix.
    pub name: String,
    /// Number of partitions.
    pub partitions: i32,
    /// What happens to old records.
    pub cleanup: Cleanup,
}

impl TopicSpec {
    pub(super) fn new(name: String, partitions: i32, cleanup: Cleanup) -> Self {
        Self { name, partitions, cleanup }
    }

    /// The settings that the topic is made with; replication and `min.insync.replicas` are the cluster's matter.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let mut settings = vec![
            ("message.timestamp.type", "LogAppendTime".to_owned()),
            ("compression.type", "producer".to_owned()),
            ("cleanup.policy", if self.is_compacted() { "compact" } else { "delete" }.to_owned()),
        ];
        match self.cleanup {
            Cleanup::Compacted => settings.extend([
                ("min.compaction.lag.ms", WHOLE_MS.to_string()),
                ("delete.retention.ms", WHOLE_MS.to_string()),
                ("segment.ms", DAY_MS.to_string()),
            ]),
            Cleanup::CompactedSoon => settings.extend([
                ("min.compaction.lag.ms", "0".to_owned()),
                ("delete.retention.ms", DAY_MS.to_string()),
                ("segment.ms", HOUR_MS.to_string()),
                ("segment.bytes", (64 * 1024 * 1024).to_string()),
                ("min.cleanable.dirty.ratio", "0.1".to_owned()),
            ]),
            Cleanup::CompactedPlain => {}
            Cleanup::Deleted { retention_ms } => settings.push(("retention.ms", retention_ms.to_string())),
        }
        settings
    }

    /// Judges what was found for a setting that is declared otherwise.
    ///
    /// Promises rest on what is kept and for how long, and on the broker's own time stamps. A longer compaction lag keeps more.
    pub fn fit(name: &str, declared: &str, found: &str) -> Fit {
        // Numbers may be written in several ways, such as `0.1` and `0.10`.
        let order = declared.parse::<f64>().ok().zip(found.parse::<f64>().ok()).and_then(|(a, b)| b.partial_cmp(&a));
        match (name, order) {
            _ if declared == found => Fit::Fits,
            (_, Some(Ordering::Equal)) => Fit::Fits,
            ("cleanup.policy" | "message.timestamp.type", _) => Fit::Breaks,
            ("min.compaction.lag.ms", Some(Ordering::Less) | None) => Fit::Breaks,
            _ => Fit::Differs,
        }
    }

    /// Tells whether the last record of a key stays for ever.
    pub fn is_compacted(&self) -> bool {
        !matches!(self.cleanup, Cleanup::Deleted { .. })
    }
}

/// `min.insync.replicas` that goes with a replication factor: one replica may be away.
pub fn min_insync_replicas(replication_factor: i32) -> i32 {
    (replication_factor - 1).max(1)
}
