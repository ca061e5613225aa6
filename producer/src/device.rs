//! Our model of Apple's device: what one answer says of it, before anybody asks which of it is news.
//!
//! Everything here belongs to the field groups *attributes* and *release*, which a list and a single read both show.
//! The group *server* comes from linkage lists and the group *coverage* from AppleCare; both are empty in what this
//! module makes, and [`crate::observation`] says which groups an answer has read.

use serde_json::Value;
use std::collections::BTreeMap;
use windfall_schemas::device::DeviceValue;
use windfall_schemas::identifiers::{DeviceId, MacAddress, SerialNumber};

/// What Apple says of a device: its texts as they stand, empties as `None`, times in epoch milliseconds.
#[derive(Debug, Clone, Default, PartialEq)]
#[allow(missing_docs, reason = "the fields are Apple's, and documented in the schema")]
pub struct Device {
    pub serial_number: Option<String>,
    pub status: Option<String>,
    pub product_family: Option<String>,
    pub product_type: Option<String>,
    pub device_model: Option<String>,
    pub device_capacity: Option<String>,
    pub color: Option<String>,
    pub part_number: Option<String>,
    pub order_number: Option<String>,
    pub order_date_time: Option<i64>,
    pub purchase_source_type: Option<String>,
    pub purchase_source_id: Option<String>,
    pub added_to_org_date_time: Option<i64>,
    pub released_from_org_date_time: Option<i64>,
    pub releaser_entity_type: Option<String>,
    pub releaser_id: Option<String>,
    pub updated_date_time: Option<i64>,
    pub imei: Vec<String>,
    pub meid: Vec<String>,
    pub eid: Option<String>,
    pub wifi_mac_address: Vec<String>,
    pub bluetooth_mac_address: Vec<String>,
    pub ethernet_mac_address: Vec<String>,
    pub is_mdm_migration_capable: Option<bool>,
    pub mdm_migration_status: Option<String>,
    pub mdm_migration_deadline_date_time: Option<i64>,
    /// What the schema does not name, by Apple's names.
    pub unmapped: BTreeMap<String, Value>,
}

/// Makes the record of a device: MAC addresses and serial number in their one form, the id in the place of a missing serial number.
#[must_use]
pub fn normalise(org: &str, id: DeviceId, device: Device) -> DeviceValue {
    let Device {
        serial_number,
        status,
        product_family,
        product_type,
        device_model,
        device_capacity,
        color,
        part_number,
        order_number,
        order_date_time,
        purchase_source_type,
        purchase_source_id,
        added_to_org_date_time,
        released_from_org_date_time,
        releaser_entity_type,
        releaser_id,
        updated_date_time,
        imei,
        meid,
        eid,
        wifi_mac_address,
        bluetooth_mac_address,
        ethernet_mac_address,
        is_mdm_migration_capable,
        mdm_migration_status,
        mdm_migration_deadline_date_time,
        unmapped,
    } = device;
    let device_id = id.into_string();
    // In any other case it is the same number, and would come and go as a change.
    let serial_number = serial_number.and_then(one_serial);
    DeviceValue {
        org: org.to_owned(),
        serial_number: serial_number.unwrap_or_else(|| device_id.clone()),
        device_id,
        status,
        product_family,
        product_type,
        device_model,
        device_capacity,
        color,
        part_number,
        order_number,
        order_date_time,
        purchase_source_type,
        purchase_source_id,
        added_to_org_date_time,
        released_from_org_date_time,
        releaser_entity_type,
        releaser_id,
        updated_date_time,
        imei: present(imei),
        meid: present(meid),
        eid,
        wifi_mac_address: macs(wifi_mac_address),
        bluetooth_mac_address: macs(bluetooth_mac_address),
        ethernet_mac_address: macs(ethernet_mac_address),
        mdm_server_id: None,
        mdm_server_name: None,
        is_mdm_migration_capable,
        mdm_migration_status,
        mdm_migration_deadline_date_time,
        coverage_status: None,
        coverage_description: None,
        coverage_end_date_time: None,
        unmapped: unmapped_text(&unmapped),
    }
}

/// Writes attributes that the schema does not name as a JSON object with sorted names.
pub(crate) fn unmapped_text(unmapped: &BTreeMap<String, Value>) -> Option<String> {
    (!unmapped.is_empty()).then(|| serde_json::to_string(unmapped).unwrap_or_default())
}

pub(crate) fn present(list: Vec<String>) -> Option<Vec<String>> {
    (!list.is_empty()).then_some(list)
}

fn one_serial(text: String) -> Option<String> {
    let usual = (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
    if usual { Some(text) } else { SerialNumber::parse(&text).ok().map(SerialNumber::into_string) }
}

fn trimmed(text: String) -> String {
    if text.trim().len() == text.len() { text } else { text.trim().to_owned() }
}

/// What is not a MAC address, such as a longer hardware address, stays as Apple wrote it.
fn macs(list: Vec<String>) -> Option<Vec<String>> {
    let one_form = |text: String| {
        let usual = text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
        if usual { text } else { MacAddress::parse(&text).map_or_else(|_| trimmed(text), MacAddress::into_string) }
    };
    present(list.into_iter().map(one_form).collect())
}
