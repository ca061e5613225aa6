//! `abm.devices`: a device of an organization, as Apple last showed it.

use serde::{Deserialize, Serialize};

use crate::fingerprint::Attributes;
use crate::wire::record;

/// Text of the key's schema, as registered.
pub const KEY_SCHEMA: &str = include_str!("../abm/devices-key.avsc");
/// Text of the value's schema, as registered: an envelope around [`DeviceValue`].
pub const VALUE_SCHEMA: &str = include_str!("../abm/devices-value.avsc");

/// Key of `abm.devices`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename = "Key")]
pub struct DeviceKey {
    /// Alias of the organization.
    pub org: String,
    /// Id of the `orgDevices` resource.
    pub device_id: String,
}

record! {
    /// One device: scalars and arrays of strings, empties as `None`, times in epoch milliseconds.
    ///
    /// The fields are those of the `.avsc` file, which documents them, in its order.
    #[derive(Debug, Clone, Default, PartialEq)]
    #[allow(missing_docs, reason = "the .avsc file documents each field")]
    pub struct DeviceValue as "Value" {
        pub org: String,
        pub device_id: String,
        pub serial_number: String,
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
        pub imei: Option<Vec<String>>,
        pub meid: Option<Vec<String>>,
        pub eid: Option<String>,
        pub wifi_mac_address: Option<Vec<String>>,
        pub bluetooth_mac_address: Option<Vec<String>>,
        pub ethernet_mac_address: Option<Vec<String>>,
        pub mdm_server_id: Option<String>,
        pub mdm_server_name: Option<String>,
        pub is_mdm_migration_capable: Option<bool>,
        pub mdm_migration_status: Option<String>,
        pub mdm_migration_deadline_date_time: Option<i64>,
        pub coverage_status: Option<String>,
        pub coverage_description: Option<String>,
        pub coverage_end_date_time: Option<i64>,
        /// JSON object of the attributes that the schema does not name.
        pub unmapped: Option<String>,
    }
}

impl DeviceValue {
    /// Returns the key that this device has in the topic.
    pub fn key(&self) -> DeviceKey {
        DeviceKey { org: self.org.clone(), device_id: self.device_id.clone() }
    }

    /// Tells whether the device has been released; the event's `kind` is not asked.
    pub fn is_released(&self) -> bool {
        self.released_from_org_date_time.is_some()
    }

    /// Hashes the attributes that are present, so that equal devices have equal fingerprints under every schema version.
    pub fn fingerprint(&self) -> String {
        let DeviceValue {
            org: _,
            device_id: _,
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
            mdm_server_id,
            mdm_server_name,
            is_mdm_migration_capable,
            mdm_migration_status,
            mdm_migration_deadline_date_time,
            coverage_status,
            coverage_description,
            coverage_end_date_time,
            unmapped,
        } = self;
        let mut attributes = Attributes::with_capacity(34);
        attributes.time("added_to_org_date_time", *added_to_org_date_time);
        attributes.list("bluetooth_mac_address", bluetooth_mac_address.as_deref());
        attributes.text("color", color.as_deref());
        attributes.text("coverage_description", coverage_description.as_deref());
        attributes.time("coverage_end_date_time", *coverage_end_date_time);
        attributes.text("coverage_status", coverage_status.as_deref());
        attributes.text("device_capacity", device_capacity.as_deref());
        attributes.text("device_model", device_model.as_deref());
        attributes.text("eid", eid.as_deref());
        attributes.list("ethernet_mac_address", ethernet_mac_address.as_deref());
        attributes.list("imei", imei.as_deref());
        attributes.boolean("is_mdm_migration_capable", *is_mdm_migration_capable);
        attributes.time("mdm_migration_deadline_date_time", *mdm_migration_deadline_date_time);
        attributes.text("mdm_migration_status", mdm_migration_status.as_deref());
        attributes.text("mdm_server_id", mdm_server_id.as_deref());
        attributes.text("mdm_server_name", mdm_server_name.as_deref());
        attributes.list("meid", meid.as_deref());
        attributes.time("order_date_time", *order_date_time);
        attributes.text("order_number", order_number.as_deref());
        attributes.text("part_number", part_number.as_deref());
        attributes.text("product_family", product_family.as_deref());
        attributes.text("product_type", product_type.as_deref());
        attributes.text("purchase_source_id", purchase_source_id.as_deref());
        attributes.text("purchase_source_type", purchase_source_type.as_deref());
        attributes.time("released_from_org_date_time", *released_from_org_date_time);
        attributes.text("releaser_entity_type", releaser_entity_type.as_deref());
        attributes.text("releaser_id", releaser_id.as_deref());
        attributes.text("serial_number", Some(serial_number));
        attributes.text("status", status.as_deref());
        attributes.time("updated_date_time", *updated_date_time);
        attributes.list("wifi_mac_address", wifi_mac_address.as_deref());
        attributes.unmapped(unmapped.as_deref());
        attributes.fingerprint()
    }
}
