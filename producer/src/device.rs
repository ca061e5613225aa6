//! The one form of what Apple says of a device, so that another spelling is no change.
//!
//! An answer to a list or a single read shows the field groups *attributes* and *release*. The group *server* comes from
//! linkage lists and the group *coverage* from AppleCare: [`crate::observation`] says which groups an answer has read.

use std::collections::BTreeMap;

use serde_json::Value;
use windfall_schemas::identifiers::{DeviceId, MacAddress, SerialNumber};

/// Takes the serial number as Apple writes it; what is none is replaced by the device's id.
pub(crate) fn serial_number(text: String, id: &DeviceId) -> String {
    let text = trimmed(text);
    let usual = (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric());
    if usual || SerialNumber::parse(&text).is_ok() { text } else { id.as_str().to_owned() }
}

/// Takes a MAC address as twelve upper-case digits; what is none, such as a longer hardware address, stays as Apple wrote it.
pub(crate) fn mac_address(text: String) -> String {
    let usual = text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
    if usual { text } else { MacAddress::parse(&text).map_or_else(|_| trimmed(text), MacAddress::into_string) }
}

/// Writes attributes that the schema does not name as a JSON object with sorted names.
pub(crate) fn unmapped_text(unmapped: &BTreeMap<String, Value>) -> Option<String> {
    (!unmapped.is_empty()).then(|| serde_json::to_string(unmapped).unwrap_or_default())
}

fn trimmed(text: String) -> String {
    if text.trim().len() == text.len() { text } else { text.trim().to_owned() }
}
