//! From Apple's attributes to ours; every field is taken by name.

use windfall_schemas::device::DeviceValue;
use windfall_schemas::identifiers::DeviceId;
use windfall_schemas::server::ServerValue;

use super::attributes::{MdmServerAttributes, OrgDeviceAttributes};
use super::values::{Text, Texts};
use crate::device::{self, mac_addresses, present, unmapped_text};

fn text(value: Option<Text>) -> Option<String> {
    value.and_then(|text| text.0)
}

fn texts(value: Option<Texts>) -> Vec<String> {
    value.unwrap_or_default().0
}

impl OrgDeviceAttributes {
    /// Makes the record of a device; a list or a single read shows nothing of its management service and its cover.
    pub(super) fn into_value(self, org: &str, id: DeviceId) -> DeviceValue {
        let OrgDeviceAttributes {
            serial_number,
            added_to_org_date_time,
            released_from_org_date_time,
            updated_date_time,
            status,
            device_model,
            product_family,
            product_type,
            device_capacity,
            part_number,
            order_number,
            order_date_time,
            color,
            imei,
            meid,
            eid,
            wifi_mac_address,
            bluetooth_mac_address,
            ethernet_mac_address,
            built_in_ethernet_mac_address,
            purchase_source_type,
            purchase_source_id,
            purchase_source_uid,
            is_mdm_migration_capable,
            mdm_migration_status,
            mdm_migration_deadline_date_time,
            releaser_entity_type,
            releaser_id,
            unmapped,
        } = self;
        let ethernet = match texts(ethernet_mac_address) {
            none if none.is_empty() => texts(built_in_ethernet_mac_address),
            listed => listed,
        };
        DeviceValue {
            org: org.to_owned(),
            serial_number: device::serial_number(text(serial_number), &id),
            device_id: id.into_string(),
            status: text(status),
            product_family: text(product_family),
            product_type: text(product_type),
            device_model: text(device_model),
            device_capacity: text(device_capacity),
            color: text(color),
            part_number: text(part_number),
            order_number: text(order_number),
            order_date_time: order_date_time.and_then(|time| time.0),
            purchase_source_type: text(purchase_source_type),
            purchase_source_id: text(purchase_source_id).or_else(|| text(purchase_source_uid)),
            added_to_org_date_time: added_to_org_date_time.and_then(|time| time.0),
            released_from_org_date_time: released_from_org_date_time.and_then(|time| time.0),
            releaser_entity_type: text(releaser_entity_type),
            releaser_id: text(releaser_id),
            updated_date_time: updated_date_time.and_then(|time| time.0),
            imei: present(texts(imei)),
            meid: present(texts(meid)),
            eid: text(eid),
            wifi_mac_address: mac_addresses(texts(wifi_mac_address)),
            bluetooth_mac_address: mac_addresses(texts(bluetooth_mac_address)),
            ethernet_mac_address: mac_addresses(ethernet),
            mdm_server_id: None,
            mdm_server_name: None,
            is_mdm_migration_capable: is_mdm_migration_capable.and_then(|flag| flag.0),
            mdm_migration_status: text(mdm_migration_status),
            mdm_migration_deadline_date_time: mdm_migration_deadline_date_time.and_then(|time| time.0),
            coverage_status: None,
            coverage_description: None,
            coverage_end_date_time: None,
            unmapped: unmapped_text(&unmapped),
        }
    }
}

impl MdmServerAttributes {
    /// Makes the record of a management service.
    pub(super) fn into_value(self, org: &str, server_id: String) -> ServerValue {
        let MdmServerAttributes {
            server_name,
            server_type,
            status,
            device_count,
            enable_mdm_disown_flag,
            default_product_families,
            last_connected_date_time,
            last_connected_ip,
            created_date_time,
            updated_date_time,
            unmapped,
        } = self;
        ServerValue {
            org: org.to_owned(),
            server_id,
            server_name: text(server_name),
            server_type: text(server_type),
            status: text(status),
            device_count: device_count.and_then(|count| count.0),
            enable_mdm_disown_flag: enable_mdm_disown_flag.and_then(|flag| flag.0),
            default_product_families: present(texts(default_product_families)),
            last_connected_date_time: last_connected_date_time.and_then(|time| time.0),
            last_connected_ip: text(last_connected_ip),
            created_date_time: created_date_time.and_then(|time| time.0),
            updated_date_time: updated_date_time.and_then(|time| time.0),
            unmapped: unmapped_text(&unmapped),
        }
    }
}
