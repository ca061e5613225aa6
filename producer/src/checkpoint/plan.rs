//! A plan: devices that would all be released, held until a person has agreed.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use windfall_schemas::scan::{ScanPart, ScanValue};

use super::{ScanRecord, detail, detailed};
use crate::breaker::plan_hash;
use crate::release::Absence;

/// Bytes of ids in one record of a plan: far below what a record may hold.
const PIECE_BYTES: usize = 64 * 1024;
/// Devices that one transaction releases at most, and so the most of a piece.
const MOST_AT_ONCE: usize = 5_000;

/// What a plan remembers of the scan that made it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlanOrigin {
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
    origin: PlanOrigin,
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<First>,
}

/// Devices of a plan that the same scan was the first to miss.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    first: First,
    ids: BTreeSet<String>,
}

/// Devices that would be released together.
///
/// A plan is cut into pieces that fit a record, each of devices that one scan was the first to miss. A device that is listed
/// again leaves its piece; an empty piece is removed, and a plan without pieces has ended by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// What the scan that made it left.
    pub origin: PlanOrigin,
    /// Id of that scan.
    pub scan_id: String,
    pieces: BTreeMap<u32, Piece>,
}

impl Plan {
    /// Makes a plan of the devices that a scan missed; `earlier` names those that a scan before it had missed already.
    pub fn new(scan_id: &str, origin: PlanOrigin, ids: &BTreeSet<String>, earlier: &BTreeMap<String, First>) -> Self {
        let own = First { scan: origin.scan, ended_at: origin.ended_at };
        let mut by_first: BTreeMap<First, Vec<&String>> = BTreeMap::new();
        for id in ids {
            by_first.entry(earlier.get(id).copied().unwrap_or(own)).or_default().push(id);
        }
        let mut pieces: Vec<Piece> = Vec::new();
        for (first, ids) in by_first {
            let mut room = 0;
            for id in ids {
                // Avro writes a text behind its length: at most three bytes for an id.
                let bytes = id.len() + 3;
                match pieces.last_mut().filter(|piece| room >= bytes && piece.ids.len() < MOST_AT_ONCE) {
                    Some(piece) => {
                        piece.ids.insert(id.clone());
                    }
                    None => {
                        pieces.push(Piece { first, ids: BTreeSet::from([id.clone()]) });
                        room = PIECE_BYTES;
                    }
                }
                room -= bytes;
            }
        }
        Self { origin, scan_id: scan_id.to_owned(), pieces: (0..).zip(pieces).collect() }
    }

    /// Returns the scan that first missed a device of the plan.
    pub fn first_missed(&self, device_id: &str) -> Option<First> {
        self.pieces.values().find(|piece| piece.ids.contains(device_id)).map(|piece| piece.first)
    }

    /// Lists the devices that the plan holds now.
    pub fn ids(&self) -> BTreeSet<String> {
        self.pieces.values().flat_map(|piece| &piece.ids).cloned().collect()
    }

    /// Counts the devices that the plan holds now.
    pub fn len(&self) -> usize {
        self.pieces.values().map(|piece| piece.ids.len()).sum()
    }

    /// Tells whether nothing is left to hold.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Tells whether the plan holds the device.
    pub fn contains(&self, device_id: &str) -> bool {
        self.first_missed(device_id).is_some()
    }

    /// Hashes the ids that the plan holds now.
    pub fn hash(&self) -> String {
        plan_hash(&self.ids())
    }

    /// Writes the whole plan as records.
    #[must_use]
    pub fn parts(&self, org: &str, name: &str, at: i64) -> Vec<ScanRecord> {
        let hash = self.hash();
        let pieces = self.pieces.iter();
        pieces.map(|(number, piece)| self.part(org, name, *number, piece.first, &piece.ids, (&hash, at))).collect()
    }

    /// Returns the devices of the first pieces of the plan, as many as one transaction releases, with the tombstones that take
    /// these pieces out, and whether they are the last ones.
    #[must_use]
    pub fn batch(&self, org: &str, name: &str) -> (Vec<&str>, Vec<ScanRecord>, bool) {
        let (mut ids, mut parts): (Vec<&str>, Vec<ScanRecord>) = (Vec::new(), Vec::new());
        for (number, piece) in &self.pieces {
            if !ids.is_empty() && ids.len() + piece.ids.len() > MOST_AT_ONCE {
                break;
            }
            ids.extend(piece.ids.iter().map(String::as_str));
            parts.push(ScanRecord::remove(org, &place(name, *number)));
        }
        let last = parts.len() == self.pieces.len();
        (ids, parts, last)
    }

    /// Makes the records that take devices out of the plan; none where it holds none of them.
    #[must_use]
    pub fn without(&self, org: &str, name: &str, device_ids: &BTreeSet<&str>, at: i64) -> Vec<ScanRecord> {
        let ids: BTreeSet<String> = self.ids().into_iter().filter(|id| !device_ids.contains(id.as_str())).collect();
        let hash = plan_hash(&ids);
        let mut parts = Vec::new();
        for (number, piece) in &self.pieces {
            let left: BTreeSet<String> = piece.ids.intersection(&ids).cloned().collect();
            if left.is_empty() {
                parts.push(ScanRecord::remove(org, &place(name, *number)));
            } else if left.len() != piece.ids.len() {
                parts.push(self.part(org, name, *number, piece.first, &left, (&hash, at)));
            }
        }
        parts
    }

    fn part(
        &self,
        org: &str,
        name: &str,
        number: u32,
        first: First,
        ids: &BTreeSet<String>,
        (hash, at): (&str, i64),
    ) -> ScanRecord {
        let detail = Detail { origin: self.origin.clone(), first: Some(first) };
        let mut value = detailed(org, &place(name, number), &detail, at);
        value.scan_id.clone_from(&self.scan_id);
        value.scan_number = i64::try_from(self.origin.scan).ok();
        value.finished_at = Some(self.origin.ended_at);
        value.devices = i64::try_from(ids.len()).ok();
        value.ids = Some(ids.iter().cloned().collect());
        value.plan_hash = Some(hash.to_owned());
        ScanRecord::set(value)
    }

    pub(super) fn set_piece(&mut self, number: u32, value: &ScanValue) {
        self.scan_id.clone_from(&value.scan_id);
        let Detail { origin, first } = detail(value).unwrap_or_default();
        let first = first.unwrap_or(First { scan: origin.scan, ended_at: origin.ended_at });
        self.origin = origin;
        self.pieces.insert(number, Piece { first, ids: value.ids.iter().flatten().cloned().collect() });
    }

    pub(super) fn remove_piece(&mut self, number: u32) {
        self.pieces.remove(&number);
    }
}

fn place(plan: &str, chunk: u32) -> ScanPart {
    ScanPart::Held { plan: plan.to_owned(), chunk }
}
