//! From Apple's attributes to ours; every field is taken by name.

use windfall_schemas::device::DeviceValue;
use windfall_schemas::identifiers::DeviceId;
use windfall_schemas::server::ServerValue;

use super::attributes::{Kept, MdmServerAttributes, OrgDeviceAttributes};
use crate::apple::Unread;
use crate::device::{self, mac_addresses, present, unmapped_text};

impl OrgDeviceAttributes {
    /// Makes the record of a device; a list or a single read shows nothing of its management service and its cover.
    pub(super) fn into_value(self, org: &str, id: DeviceId) -> (DeviceValue, Unread) {
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
            kept: Kept { unmapped, mut unread, .. },
        } = self;
        let ethernet =
            if ethernet_mac_address.is_empty() { built_in_ethernet_mac_address } else { ethernet_mac_address };
        let purchase_source_id = purchase_source_id.or(purchase_source_uid);
        // Of two names for one field it is enough to read one.
        for (other_name, field, read) in [
            ("built_in_ethernet_mac_address", "ethernet_mac_address", !ethernet.is_empty()),
            ("purchase_source_uid", "purchase_source_id", purchase_source_id.is_some()),
        ] {
            unread.iter_mut().filter(|unread| **unread == other_name).for_each(|unread| *unread = field);
            unread.retain(|unread| !read || *unread != field);
        }
        let value = DeviceValue {
            org: org.to_owned(),
            serial_number: device::serial_number(serial_number, &id),
            device_id: id.into_string(),
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
            wifi_mac_address: mac_addresses(wifi_mac_address),
            bluetooth_mac_address: mac_addresses(bluetooth_mac_address),
            ethernet_mac_address: mac_addresses(ethernet),
            mdm_server_id: None,
            mdm_server_name: None,
            is_mdm_migration_capable,
            mdm_migration_status,
            mdm_migration_deadline_date_time,
            coverage_status: None,
            coverage_description: None,
            coverage_end_date_time: None,
            unmapped: unmapped_text(&unmapped),
        };
        (value, unread)
    }
}

impl MdmServerAttributes {
    /// Makes the record of a management service.
    pub(super) fn into_value(self, org: &str, server_id: String) -> (ServerValue, Unread) {
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
            kept: Kept { unmapped, unread, .. },
        } = self;
        let value = ServerValue {
            org: org.to_owned(),
            server_id,
            server_name,
            server_type,
            status,
            device_count,
            enable_mdm_disown_flag,
            default_product_families: present(default_product_families),
            last_connected_date_time,
            last_connected_ip,
            created_date_time,
            updated_date_time,
            unmapped: unmapped_text(&unmapped),
        };
        (value, unread)
    }
}
