//! The journal: what was true, and what was served, one JSON object a line.
//!
//! A checker reads it with the types below. Records of type
//!
//! | `type` | says | written |
//! | --- | --- | --- |
//! | `start` | how the simulator was set up | first |
//! | `change` | one true change, with the image after it | when life makes it, before any answer shows it |
//! | `response` | one answer of the API or the token endpoint | before its last byte leaves, or when it broke off |
//! | `truth` | every device and server as they are | at a stop, and when asked for |
//!
//! `seq` numbers the records of one journal without a gap, in the order in which they were written. A
//! response is complete once its last byte was handed to the connection; a client that died may have read less.

mod writer;

use std::collections::BTreeMap;
use std::path::Path;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use writer::JournalMode;
pub(crate) use writer::{Journal, Keep};

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Number of the line, from 1.
    pub seq: u64,
    /// What it says.
    #[serde(flatten)]
    pub record: Record,
}

/// What a line of the journal says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "written and read one line at a time")]
pub enum Record {
    /// How the simulator was set up.
    Start(Start),
    /// One true change.
    Change(Change),
    /// One answer.
    Response(Box<Response>),
    /// Everything as it is.
    Truth(Truth),
}

/// How the simulator was set up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// Wall time.
    pub at_wall: DateTime<Utc>,
    /// Time of the fleet's life.
    pub at: DateTime<Utc>,
    /// Seed of fleet and life.
    pub seed: u64,
    /// Aliases of the organizations served.
    pub orgs: Vec<String>,
    /// Devices in each organization at the start.
    pub devices: u32,
    /// Reads admitted in a sliding [`Start::limit_seconds`]; null when nothing is limited.
    pub limit: Option<u32>,
    /// Length of the sliding window.
    pub limit_seconds: u32,
}

/// What happened to a device or a server. The set may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// A device came to the organization for the first time.
    Added,
    /// A device without a server got one.
    Assigned,
    /// A device moved from one server to another.
    Reassigned,
    /// A device lost its server and got none.
    Unassigned,
    /// A device left the organization.
    Released,
    /// A released device came back.
    Readded,
    /// An attribute was corrected.
    Corrected,
    /// The listing stopped to show a device that still belongs to the organization.
    Hidden,
    /// The listing shows a hidden device again.
    Shown,
    /// A server was made.
    ServerAdded,
    /// A server changed: its name, or when it last connected.
    ServerUpdated,
    /// A server was removed.
    ServerRemoved,
}

/// One true change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// When it happened in the fleet's life.
    pub at: DateTime<Utc>,
    /// Alias of the organization.
    pub org: String,
    /// What happened.
    pub kind: ChangeKind,
    /// Apple's id of the device, when it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    /// Id of the server: the one changed, or the one that the device has now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_id: Option<String>,
    /// Id of the server that the device had before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_server_id: Option<String>,
    /// The device after the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<TrueDevice>,
    /// The server after the change; none when it was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<TrueServer>,
}

/// A device as it truly is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrueDevice {
    /// Alias of the organization.
    pub org: String,
    /// Apple's id, which is the serial number.
    pub id: String,
    /// Whether a complete listing shows it.
    pub listed: bool,
    /// Id of its server.
    pub server_id: Option<String>,
    /// Name of its server.
    pub server_name: Option<String>,
    /// When it left the organization; none while it belongs to it.
    pub released_at: Option<DateTime<Utc>>,
    /// Attributes that have a value, by Apple's names: empties are left out, MACs are bare, dates in Apple's form.
    pub attributes: BTreeMap<String, Value>,
}

/// A server as it truly is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrueServer {
    /// Alias of the organization.
    pub org: String,
    /// Apple's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// How many devices are assigned to it.
    pub devices: u32,
}

/// Everything as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Truth {
    /// Time of the fleet's life.
    pub at: DateTime<Utc>,
    /// Every device, released ones too, in the order of its organization's listing.
    pub devices: Vec<TrueDevice>,
    /// Every server.
    pub servers: Vec<TrueServer>,
}

impl Truth {
    /// Returns the device `id` of the organization `org`.
    pub fn device(&self, org: &str, id: &str) -> Option<&TrueDevice> {
        self.devices.iter().find(|device| device.org == org && device.id == id)
    }

    /// Returns the devices that belong to an organization now.
    pub fn live(&self) -> impl Iterator<Item = &TrueDevice> {
        self.devices.iter().filter(|device| device.released_at.is_none())
    }
}

/// One answer, or a request that got none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// Wall time at which the request came.
    pub at_wall: DateTime<Utc>,
    /// Time of the fleet's life that the answer shows.
    pub at: DateTime<Utc>,
    /// Alias of the organization, as far as the credentials told.
    pub org: Option<String>,
    /// `X-Apple-Request-Uuid` of the answer.
    pub request_id: String,
    /// HTTP method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// What was asked for: `token`, `devices`, `device`, `servers`, `server`, `linkage`, `assigned-server-id`,
    /// `assigned-server`, `other`.
    pub route: String,
    /// Number of the page in its chain of cursors, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<u32>,
    /// Status of the answer; none when the connection was cut or left hanging before one.
    pub status: Option<u16>,
    /// The header `Retry-After` as it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<String>,
    /// Until when the client was told to wait, when the header could be understood.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_until: Option<DateTime<Utc>>,
    /// Whether the limiter admitted the request; a request that was not asked about is not counted.
    pub admitted: bool,
    /// Whether the last byte was handed to the connection.
    pub complete: bool,
    /// Whether the whole body is what it says it is: JSON that was not cut or broken by a fault.
    pub readable: bool,
    /// Whether a list ends with this page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<bool>,
    /// Faults that played in this answer, as their script writes them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
    /// Why the request was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Devices served, as they stood in the body.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Served>,
    /// Servers served, as they stood in the body.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<Served>,
    /// The page of a linkage list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linkage: Option<ServedLinkage>,
    /// The assigned server of one device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigned: Option<ServedAssignment>,
}

/// A resource as it stood in a body.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Served {
    /// Its `id`, when it had one.
    pub id: Option<String>,
    /// Its `attributes` as served; none where the journal keeps digests, or the item had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<Value>,
    /// [`digest`] of its attributes.
    pub digest: String,
}

/// A page of a linkage list as it stood in a body.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServedLinkage {
    /// The server whose list it is.
    pub server_id: String,
    /// Ids of the devices on the page.
    pub device_ids: Vec<String>,
}

/// The assigned server of one device as it stood in a body.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServedAssignment {
    /// The device asked about.
    pub device_id: String,
    /// Its server; none for the empty forms.
    pub server_id: Option<String>,
}

/// Returns the digest of a resource's attributes: 16 hex digits over the compact JSON with sorted keys.
pub fn digest(attributes: &Value) -> String {
    format!("{:016x}", crate::draw::text(&sorted(attributes).to_string()))
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut names: Vec<&String> = members.keys().collect();
            names.sort();
            Value::Object(names.into_iter().map(|name| (name.clone(), sorted(&members[name]))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

/// Why a journal could not be read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file could not be read.
    #[error("could not read the journal `{path}`")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A line is not a record of a journal.
    #[error("line {line} of the journal `{path}` is no record")]
    Malformed {
        /// The file.
        path: String,
        /// Number of the line, from 1.
        line: usize,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
}

/// Reads a journal.
///
/// # Errors
/// When the file cannot be read, or holds a line that is no record; a last line without an end, which a kill leaves
/// behind, is left out.
pub fn read(path: &Path) -> Result<Vec<Line>, JournalError> {
    let name = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|source| JournalError::Unreadable { path: name.clone(), source })?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    bytes[..whole]
        .split(|byte| *byte == b'\n')
        .enumerate()
        .filter(|(_, line)| !line.is_empty())
        .map(|(number, line)| {
            serde_json::from_slice(line).map_err(|source| JournalError::Malformed {
                path: name.clone(),
                line: number + 1,
                source,
            })
        })
        .collect()
}
