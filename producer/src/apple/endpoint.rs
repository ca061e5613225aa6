//! What can be asked of Apple, and how it is written down.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use windfall_schemas::identifiers::DeviceId;

use super::Cursor;
use crate::budget::Priority;

/// Bytes of an id that may stand in a path as they are.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// What can be asked for.
pub(super) enum Endpoint<'a> {
    Devices,
    Device(&'a DeviceId),
    AssignedServer(&'a DeviceId),
    Servers,
    Linkage(&'a str),
}

impl Endpoint<'_> {
    /// The path to be asked for.
    pub(super) fn path(&self) -> String {
        let escaped = |id: &str| utf8_percent_encode(id, IN_PATH).to_string();
        match self {
            Endpoint::Devices => "/v1/orgDevices".to_owned(),
            Endpoint::Device(id) => format!("/v1/orgDevices/{}", escaped(id.as_str())),
            Endpoint::AssignedServer(id) => {
                format!("/v1/orgDevices/{}/relationships/assignedServer", escaped(id.as_str()))
            }
            Endpoint::Servers => "/v1/mdmServers".to_owned(),
            Endpoint::Linkage(id) => format!("/v1/mdmServers/{}/relationships/devices", escaped(id)),
        }
    }

    /// The path as errors and logs show it: a device's id is its serial number, and that is nobody's business there.
    pub(super) fn shown(&self) -> String {
        match self {
            Endpoint::Device(_) => "/v1/orgDevices/{id}".to_owned(),
            Endpoint::AssignedServer(_) => "/v1/orgDevices/{id}/relationships/assignedServer".to_owned(),
            Endpoint::Devices | Endpoint::Servers | Endpoint::Linkage(_) => self.path(),
        }
    }

    /// Takes the device's id out of what Apple says of the request.
    pub(super) fn without_id(&self, text: &str) -> String {
        match self {
            Endpoint::Device(id) | Endpoint::AssignedServer(id) => text.replace(id.as_str(), "{id}"),
            Endpoint::Devices | Endpoint::Servers | Endpoint::Linkage(_) => text.to_owned(),
        }
    }

    /// No `fields`: what Apple gives unasked is all there is, and the same in a list and in a single read.
    pub(super) fn query(&self, page_size: u16, cursor: Option<&Cursor>) -> Vec<(&'static str, String)> {
        match self {
            Endpoint::Device(_) | Endpoint::AssignedServer(_) => Vec::new(),
            Endpoint::Devices | Endpoint::Servers | Endpoint::Linkage(_) => {
                let limit = ("limit", page_size.to_string());
                let cursor = cursor.map(|cursor| ("cursor", cursor.as_str().to_owned()));
                std::iter::once(limit).chain(cursor).collect()
            }
        }
    }

    /// The worth of the request.
    pub(super) fn priority(&self) -> Priority {
        match self {
            Endpoint::Device(_) | Endpoint::AssignedServer(_) => Priority::LookUp,
            Endpoint::Devices => Priority::Scan,
            Endpoint::Servers | Endpoint::Linkage(_) => Priority::Linkage,
        }
    }

    /// The word for metrics.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Endpoint::Devices => "devices",
            Endpoint::Device(_) => "device",
            Endpoint::AssignedServer(_) => "assigned_server",
            Endpoint::Servers => "servers",
            Endpoint::Linkage(_) => "linkage",
        }
    }
}
