//! What must survive of a scan: the fold of `abm.scans`, and the records that move it.
//!
//! Every change of this state is a list of records that go into the transaction of the thing they stand for, the header
//! last. Memory is moved by applying these records after the commit, by the same function that folds the topic, so that
//! memory and fold cannot drift apart.

mod header;
mod plan;
mod suspect;

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use windfall_schemas::scan::{ScanKey, ScanPart, ScanValue};

pub use header::{Header, Missing, Reason, ScanState, Scope};
pub use plan::{First, Plan, PlanOrigin};
pub use suspect::Suspect;

use crate::budget::LimiterState;

/// Table whose scans list devices.
pub const DEVICES: &str = "devices";
/// Table whose scans list management services.
pub const SERVERS: &str = "servers";

/// A record of `abm.scans` to be written: a part with its value, or its tombstone.
#[derive(Debug, Clone, PartialEq)]
pub struct ScanRecord {
    /// The key.
    pub key: ScanKey,
    /// The value; `None` is a tombstone.
    pub value: Option<ScanValue>,
}

impl ScanRecord {
    /// Makes a record that sets a part.
    pub fn set(value: ScanValue) -> Self {
        Self { key: value.key(), value: Some(value) }
    }

    /// Makes a record that removes a part of the devices table.
    pub fn remove(org: &str, part: &ScanPart) -> Self {
        Self { key: key(org, DEVICES, part), value: None }
    }
}

fn key(org: &str, table: &str, part: &ScanPart) -> ScanKey {
    ScanKey { org: org.to_owned(), table: table.to_owned(), part: part.to_string() }
}

/// Makes the value of a part of the devices table that keeps `detail` as JSON.
fn detailed(org: &str, part: &ScanPart, detail: &impl Serialize, at: i64) -> ScanValue {
    let detail = serde_json::to_string(detail).ok();
    ScanValue { detail, updated_at: Some(at), ..value(org, DEVICES, part, "") }
}

/// Reads the JSON that a part keeps in its `detail`; `None` where there is none that can be read.
pub(crate) fn detail<T: DeserializeOwned>(value: &ScanValue) -> Option<T> {
    serde_json::from_str(value.detail.as_deref()?).ok()
}

fn value(org: &str, table: &str, part: &ScanPart, scan_id: &str) -> ScanValue {
    ScanValue {
        org: org.to_owned(),
        table: table.to_owned(),
        part: part.to_string(),
        scan_id: scan_id.to_owned(),
        ..ScanValue::default()
    }
}

/// An approval of which some pieces are published, since its plan does not fit one transaction: what is left of the plan is
/// published without asking for the hash again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Approving {
    /// Id of the signal.
    pub signal: String,
    /// The plan.
    pub plan: String,
    /// Devices released so far.
    pub released: usize,
}

impl Approving {
    /// Returns the part of `abm.scans` that holds it; there is one at most, since signals are obeyed one after another.
    pub fn place() -> ScanPart {
        ScanPart::Other("approval".to_owned())
    }

    /// Writes how far it has come, as a record.
    #[must_use]
    pub fn part(&self, org: &str, at: i64) -> ScanRecord {
        ScanRecord::set(detailed(org, &Self::place(), self, at))
    }
}

/// The scan state of one organization.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scans {
    /// The newest scan of the devices.
    pub devices: Option<Header>,
    /// The newest scan of the management services.
    pub servers: Option<Header>,
    seen: BTreeMap<u32, (String, Vec<String>)>,
    /// Devices that complete scans lack, by id.
    pub suspects: BTreeMap<String, Suspect>,
    /// Plans that wait for a person, by name.
    pub plans: BTreeMap<String, Plan>,
    /// What the limiter must remember.
    pub limiter: Option<LimiterState>,
    /// The next offset to read in `windfall.signals`.
    pub signals: Option<i64>,
    /// The approval that is published piece by piece, as far as it has come.
    pub approving: Option<Approving>,
}

impl Scans {
    /// Applies one record; parts that this version does not know are left alone.
    pub fn apply(&mut self, part: &ScanRecord) {
        let ScanRecord { key, value } = part;
        let devices = key.table == DEVICES;
        match ScanPart::parse(&key.part) {
            ScanPart::Header if devices => self.devices = value.as_ref().map(Header::read),
            ScanPart::Header if key.table == SERVERS => self.servers = value.as_ref().map(Header::read),
            ScanPart::Seen(page) if devices => match value {
                Some(value) => {
                    self.seen.insert(page, (value.scan_id.clone(), value.ids.clone().unwrap_or_default()));
                }
                None => {
                    self.seen.remove(&page);
                }
            },
            ScanPart::Suspect(device) if devices => match value {
                Some(value) => {
                    self.suspects.insert(device, detail(value).unwrap_or_default());
                }
                None => {
                    self.suspects.remove(&device);
                }
            },
            ScanPart::Held { plan, chunk } if devices => self.apply_chunk(plan, chunk, value.as_ref()),
            ScanPart::Limiter => self.limiter = value.as_ref().and_then(detail),
            ScanPart::Signals => self.signals = value.as_ref().and_then(detail),
            part if part == Approving::place() => self.approving = value.as_ref().and_then(detail),
            _ => {}
        }
    }

    fn apply_chunk(&mut self, name: String, chunk: u32, value: Option<&ScanValue>) {
        match value {
            Some(value) => self.plans.entry(name).or_default().set_piece(chunk, value),
            None => {
                if let Some(plan) = self.plans.get_mut(&name) {
                    plan.remove_piece(chunk);
                    if plan.is_empty() {
                        self.plans.remove(&name);
                    }
                }
            }
        }
    }

    /// Returns the ids seen in the scan of the header; what another scan left behind is ignored.
    pub fn seen(&self) -> BTreeSet<&str> {
        let Some(header) = &self.devices else { return BTreeSet::new() };
        let mine = self.seen.values().filter(|(scan_id, _)| *scan_id == header.scan_id);
        mine.flat_map(|(_, ids)| ids.iter().map(String::as_str)).collect()
    }

    /// Lists the pages whose `seen` parts are still in the topic.
    pub fn seen_pages(&self) -> Vec<u32> {
        self.seen.keys().copied().collect()
    }

    /// Tells whether a plan holds the device.
    pub fn held(&self, device_id: &str) -> bool {
        self.plans.values().any(|plan| plan.contains(device_id))
    }

    /// Makes the records by which an operator accepts the topics as they are: pages seen, suspects and plans go, and a header of
    /// no devices comes last, behind which the next scan is a first one where no device is known.
    #[must_use]
    pub fn accept(&self, org: &str, known: bool, at: i64) -> Vec<ScanRecord> {
        let seen = self.seen.keys().map(|page| ScanPart::Seen(*page));
        let suspects = self.suspects.keys().map(|device| ScanPart::Suspect(device.clone()));
        let mut parts: Vec<ScanRecord> = seen.chain(suspects).map(|part| ScanRecord::remove(org, &part)).collect();
        for (name, plan) in &self.plans {
            parts.extend(plan.without(org, name, &plan.ids().iter().map(String::as_str).collect(), at));
        }
        parts.extend(self.approving.iter().map(|_| ScanRecord::remove(org, &Approving::place())));
        let mut header = Header { known: 0, ..Header::begin(org, self.devices.as_ref(), "operator", at) };
        (header.state, header.read_to_end, header.finished_at) = (ScanState::Incomplete, known, Some(at));
        header.note(Scope::Devices, None, "an operator has accepted the topics as they are");
        parts.push(header.part(org, DEVICES));
        parts
    }

    /// Makes the record of the ids seen on a page.
    #[must_use]
    pub fn seen_part(org: &str, scan_id: &str, page: u32, ids: Vec<String>, at: i64) -> ScanRecord {
        let mut value = value(org, DEVICES, &ScanPart::Seen(page), scan_id);
        value.page = i32::try_from(page).ok();
        value.updated_at = Some(at);
        value.ids = Some(ids);
        ScanRecord::set(value)
    }

    /// Makes the record of what the limiter must remember.
    #[must_use]
    pub fn limiter_part(org: &str, state: &LimiterState, at: i64) -> ScanRecord {
        ScanRecord::set(detailed(org, &ScanPart::Limiter, state, at))
    }

    /// Makes the record of the next offset to read in `windfall.signals`.
    #[must_use]
    pub fn signals_part(org: &str, next_offset: i64, at: i64) -> ScanRecord {
        ScanRecord::set(detailed(org, &ScanPart::Signals, &next_offset, at))
    }

    /// Makes the records that take a device, listed again or settled, out of suspicion and out of every plan.
    #[must_use]
    pub fn clear(&self, org: &str, device_ids: &BTreeSet<&str>, at: i64) -> Vec<ScanRecord> {
        let mut parts: Vec<ScanRecord> = device_ids
            .iter()
            .filter(|id| self.suspects.contains_key(**id))
            .map(|id| ScanRecord::remove(org, &ScanPart::Suspect((*id).to_owned())))
            .collect();
        for (name, plan) in &self.plans {
            parts.extend(plan.without(org, name, device_ids, at));
        }
        parts
    }
}
