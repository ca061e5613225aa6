//! Records of our own topics that cannot be read.
//!
//! Another program may write into them, and a registry can lose a schema. Neither may stop a source:
//!
//! | what cannot be read | what a fold makes of it |
//! | --- | --- |
//! | a key, or a key of another organization | passed over, and counted |
//! | a value under a key of ours | the last state of the record that can be read stands, and the next observation is published as `r` |
//! | anything, since the registry does not answer or refuses us | the fold fails, and is tried again where that may pass |

use std::collections::BTreeMap;
use std::fmt;

use metrics::counter;
use tracing::warn;
use windfall_runtime::kafka::Record;
use windfall_runtime::metrics::{ERRORS, label};
use windfall_runtime::reader::Unreadable;
use windfall_runtime::telemetry::chain;

/// Where a record that cannot be read stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The topic's full name.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset there.
    pub offset: i64,
}

impl Place {
    pub(super) fn of(record: &Record) -> Self {
        Self { topic: record.topic.to_string(), partition: record.partition, offset: record.offset }
    }

    /// Returns a number that no event of this record's key can have had before: each one takes an offset at least.
    pub(super) fn number(&self) -> u64 {
        u64::try_from(self.offset).unwrap_or(0) + 1
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{} offset {}", self.topic, self.partition, self.offset)
    }
}

/// The unreadable records that are the newest of their keys, by the id of what they speak of, and what was passed over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnreadableRecords {
    /// Devices.
    pub devices: BTreeMap<String, Place>,
    /// Management services.
    pub servers: BTreeMap<String, Place>,
    /// Parts of `abm.scans`.
    pub parts: BTreeMap<String, Place>,
    /// Records whose keys another program wrote.
    pub passed_over: u64,
}

impl UnreadableRecords {
    /// Counts the records of ours that cannot be read.
    pub fn len(&self) -> usize {
        self.devices.len() + self.servers.len() + self.parts.len()
    }

    /// Tells whether every record of ours could be read; records of other writers may have been passed over.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lists the first few places, for people.
    pub fn places(&self) -> Vec<String> {
        /// Enough to find the reason.
        const SHOWN: usize = 10;
        let all = self.devices.iter().chain(&self.servers).chain(&self.parts);
        all.take(SHOWN).map(|(id, place)| format!("{id}: {place}")).collect()
    }
}

/// Counts and logs a value of ours that cannot be read.
pub(super) fn tell(record: &Record, what: &str, error: &Unreadable) {
    counter!(ERRORS, label::STAGE => "producer", label::CODE => "unreadable_record").increment(1);
    warn!(
        topic = &*record.topic,
        partition = record.partition,
        offset = record.offset,
        what,
        error = %chain(error),
        "own record is unreadable, its last readable state stands"
    );
}
