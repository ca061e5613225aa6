//! `windfall.signals`: Debezium-shaped commands. Plain JSON; the record's key is the topic prefix as text.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A command to a stage: `{"id", "type", "data"}`. Unknown types are left to whoever knows them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    /// Chosen by whoever asks; the answer carries it.
    pub id: String,
    /// What is asked, such as `approve-scan`, `execute-snapshot`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What the type needs.
    #[serde(default)]
    pub data: Value,
}

/// Type of the signal that lets a held plan through.
pub const APPROVE_SCAN: &str = "approve-scan";

/// `data` of an `approve-scan` signal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApproveScan {
    /// The organization's alias.
    pub source: String,
    /// Name of the plan.
    pub plan: String,
    /// Hash of the plan as the operator saw it; another one is refused.
    pub plan_hash: String,
}

impl Signal {
    /// Makes the signal that approves a held plan.
    pub fn approve_scan(id: impl Into<String>, approval: &ApproveScan) -> Self {
        let ApproveScan { source, plan, plan_hash } = approval;
        let data = serde_json::json!({"source": source, "plan": plan, "plan_hash": plan_hash});
        Self { id: id.into(), kind: APPROVE_SCAN.to_owned(), data }
    }

    /// Reads a record's value.
    pub fn from_json(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// Writes a record's value.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::json!({"id": self.id, "type": self.kind, "data": self.data}).to_string().into_bytes()
    }

    /// Returns the approval when this is an `approve-scan`, and why its data is unreadable when it is not.
    pub fn as_approve_scan(&self) -> Option<Result<ApproveScan, serde_json::Error>> {
        (self.kind == APPROVE_SCAN).then(|| ApproveScan::deserialize(&self.data))
    }
}
