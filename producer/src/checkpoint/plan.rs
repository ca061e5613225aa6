//! A plan: devices that would all be released, held until a person has agreed.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use windfall_schemas::scan::{ScanPart, ScanValue};

use super::{DEVICES, Part, value};
use crate::breaker::{CHUNK, CHUNK_BYTES, plan_hash};
use crate::release::Absence;

/// What a plan remembers of the scan that made it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Origin {
    /// Why the devices are held, for people.
    pub reason: String,
    /// The scan that made the plan.
    pub scan: u64,
    /// When that scan began, in epoch milliseconds.
    pub started_at: i64,
    /// When that scan ended, in epoch milliseconds.
    pub ended_at: i64,
    /// Devices that the plan held at first.
    pub count: usize,
}

/// The scan that first missed a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct First {
    /// Its number.
    pub scan: u64,
    /// When it ended, in epoch milliseconds.
    pub ended_at: i64,
}

impl From<Absence> for First {
    fn from(absence: Absence) -> Self {
        Self { scan: absence.first_scan, ended_at: absence.first_ended_at }
    }
}

/// What a piece keeps as JSON in `detail`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Detail {
    #[serde(flatten)]
    origin: Origin,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    earlier: BTreeMap<String, First>,
}

/// Devices that would be released together.
///
/// A plan is cut into pieces that fit a record. A device that is listed again leaves its piece; an empty piece is
/// removed, and a plan without pieces has ended by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// What the scan that made it left.
    pub origin: Origin,
    /// Id of that scan.
    pub scan_id: String,
    chunks: BTreeMap<u32, BTreeSet<String>>,
    /// Devices that a scan before that one had missed already.
    earlier: BTreeMap<String, First>,
}

impl Plan {
    /// Makes a plan of the devices that a scan missed.
    #[must_use]
    pub fn new(scan_id: &str, origin: Origin, ids: &BTreeSet<String>) -> Self {
        let mut chunks: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
        let (mut chunk, mut bytes) = (0, 0);
        for id in ids {
            let full = chunks.get(&chunk).is_some_and(|ids| ids.len() >= CHUNK || bytes + id.len() > CHUNK_BYTES);
            if full {
                (chunk, bytes) = (chunk + 1, 0);
            }
            bytes += id.len();
            chunks.entry(chunk).or_default().insert(id.clone());
        }
        Self { origin, scan_id: scan_id.to_owned(), chunks, earlier: BTreeMap::new() }
    }

    /// Notes which devices of the plan had been missed before, and by which scan first.
    #[must_use]
    pub fn missed_before(self, earlier: BTreeMap<String, First>) -> Self {
        Self { earlier, ..self }
    }

    /// Returns the scan that first missed a device of the plan.
    #[must_use]
    pub fn first_missed(&self, device_id: &str) -> First {
        let plan = First { scan: self.origin.scan, ended_at: self.origin.ended_at };
        self.earlier.get(device_id).copied().unwrap_or(plan)
    }

    /// Lists the devices that the plan holds now.
    #[must_use]
    pub fn ids(&self) -> BTreeSet<String> {
        self.chunks.values().flatten().cloned().collect()
    }

    /// Counts the devices that the plan holds now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.chunks.values().map(BTreeSet::len).sum()
    }

    /// Tells whether nothing is left to hold.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Tells whether the plan holds the device.
    #[must_use]
    pub fn contains(&self, device_id: &str) -> bool {
        self.chunks.values().any(|ids| ids.contains(device_id))
    }

    /// Hashes the ids that the plan holds now.
    #[must_use]
    pub fn hash(&self) -> String {
        plan_hash(&self.ids())
    }

    /// Writes the whole plan as records.
    #[must_use]
    pub fn parts(&self, org: &str, name: &str, at: i64) -> Vec<Part> {
        let hash = self.hash();
        self.chunks.iter().map(|(chunk, ids)| self.chunk_part(org, name, *chunk, ids, &hash, at)).collect()
    }

    /// Returns the first piece of the plan with the tombstone that takes it out, and whether it is the last one.
    #[must_use]
    pub fn piece(&self, org: &str, name: &str) -> Option<(&BTreeSet<String>, Part, bool)> {
        let (chunk, ids) = self.chunks.first_key_value()?;
        let part = Part::remove(org, &ScanPart::Held { plan: name.to_owned(), chunk: *chunk });
        Some((ids, part, self.chunks.len() == 1))
    }

    /// Makes the records that take devices out of the plan; none where it holds none of them.
    #[must_use]
    pub fn without(&self, org: &str, name: &str, device_ids: &BTreeSet<&str>, at: i64) -> Vec<Part> {
        let left = |ids: &BTreeSet<String>| -> BTreeSet<String> {
            ids.iter().filter(|id| !device_ids.contains(id.as_str())).cloned().collect()
        };
        let remaining: BTreeMap<u32, BTreeSet<String>> = self.chunks.iter().map(|(n, ids)| (*n, left(ids))).collect();
        let hash = plan_hash(&remaining.values().flatten().cloned().collect());
        let shrunk = remaining.iter().filter(|(chunk, ids)| self.chunks[*chunk].len() != ids.len());
        shrunk
            .map(|(chunk, ids)| {
                if ids.is_empty() {
                    Part::remove(org, &ScanPart::Held { plan: name.to_owned(), chunk: *chunk })
                } else {
                    self.chunk_part(org, name, *chunk, ids, &hash, at)
                }
            })
            .collect()
    }

    fn chunk_part(&self, org: &str, name: &str, chunk: u32, ids: &BTreeSet<String>, hash: &str, at: i64) -> Part {
        let part = ScanPart::Held { plan: name.to_owned(), chunk };
        let mut value = value(org, DEVICES, &part, &self.scan_id);
        value.scan_number = i64::try_from(self.origin.scan).ok();
        value.finished_at = Some(self.origin.ended_at);
        value.updated_at = Some(at);
        value.devices = i64::try_from(ids.len()).ok();
        value.ids = Some(ids.iter().cloned().collect());
        value.plan_hash = Some(hash.to_owned());
        let earlier = self.earlier.iter().filter(|(id, _)| ids.contains(*id));
        let earlier = earlier.map(|(id, first)| (id.clone(), *first)).collect();
        value.detail = serde_json::to_string(&Detail { origin: self.origin.clone(), earlier }).ok();
        Part::set(value)
    }

    pub(super) fn set_chunk(&mut self, chunk: u32, value: &ScanValue) {
        self.scan_id.clone_from(&value.scan_id);
        if let Some(detail) = value.detail.as_deref().and_then(|text| serde_json::from_str::<Detail>(text).ok()) {
            self.origin = detail.origin;
            self.earlier.extend(detail.earlier);
        }
        self.chunks.insert(chunk, value.ids.iter().flatten().cloned().collect());
    }

    pub(super) fn remove_chunk(&mut self, chunk: u32) {
        self.chunks.remove(&chunk);
    }
}
