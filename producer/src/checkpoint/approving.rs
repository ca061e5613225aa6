//! An approval whose plan does not fit one transaction, and how far it has come.

use serde::{Deserialize, Serialize};
use windfall_schemas::scan::{ScanPart, ScanValue};

use super::{DEVICES, Part, value};

/// Name of its part; there is one at most, since signals are obeyed one after another.
const PART: &str = "approval";

/// An approval of which some pieces are published: what is left of its plan is published without asking for the hash again.
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
    /// Returns the part of `abm.scans` that holds it.
    #[must_use]
    pub fn place() -> ScanPart {
        ScanPart::Other(PART.to_owned())
    }

    /// Writes how far it has come, as a record.
    #[must_use]
    pub fn part(&self, org: &str, at: i64) -> Part {
        let mut value = value(org, DEVICES, &Self::place(), "");
        value.updated_at = Some(at);
        value.detail = serde_json::to_string(self).ok();
        Part::set(value)
    }

    /// Reads such a record.
    pub(crate) fn read(value: &ScanValue) -> Option<Self> {
        serde_json::from_str(value.detail.as_deref()?).ok()
    }
}
