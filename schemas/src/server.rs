//! `abm.servers`: a device management service of an organization, as Apple last showed it.

use serde::{Deserialize, Serialize};

use crate::fingerprint::Attributes;

/// Text of the key's schema, as registered.
pub const KEY_SCHEMA: &str = include_str!("../abm/servers-key.avsc");
/// Text of the value's schema, as registered: an envelope around [`ServerValue`].
pub const VALUE_SCHEMA: &str = include_str!("../abm/servers-value.avsc");

/// Key of `abm.servers`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename = "Key")]
pub struct ServerKey {
    /// Alias of the organization.
    pub org: String,
    /// Id of the `mdmServers` resource.
    pub server_id: String,
}

/// One device management service; the fields are those of the `.avsc` file, which documents them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename = "Value")]
#[allow(missing_docs, reason = "the .avsc file documents each field")]
pub struct ServerValue {
    pub org: String,
    pub server_id: String,
    pub server_name: Option<String>,
    pub server_type: Option<String>,
    pub status: Option<String>,
    pub device_count: Option<i64>,
    pub enable_mdm_disown_flag: Option<bool>,
    pub default_product_families: Option<Vec<String>>,
    pub last_connected_date_time: Option<i64>,
    pub last_connected_ip: Option<String>,
    pub created_date_time: Option<i64>,
    pub updated_date_time: Option<i64>,
    /// JSON object of the attributes that the schema does not name.
    pub unmapped: Option<String>,
}

impl ServerValue {
    /// Returns the key that this server has in the topic.
    pub fn key(&self) -> ServerKey {
        ServerKey { org: self.org.clone(), server_id: self.server_id.clone() }
    }

    /// Hashes the attributes that are present, without those that move all the time (`device_count`, `last_connected_*`).
    pub fn fingerprint(&self) -> String {
        let ServerValue {
            org: _,
            server_id: _,
            server_name,
            server_type,
            status,
            device_count: _,
            enable_mdm_disown_flag,
            default_product_families,
            last_connected_date_time: _,
            last_connected_ip: _,
            created_date_time,
            updated_date_time,
            unmapped,
        } = self;
        let mut attributes = Attributes::with_capacity(10);
        attributes.text("server_name", server_name.as_deref());
        attributes.text("server_type", server_type.as_deref());
        attributes.text("status", status.as_deref());
        attributes.boolean("enable_mdm_disown_flag", *enable_mdm_disown_flag);
        attributes.list("default_product_families", default_product_families.as_deref());
        attributes.time("created_date_time", *created_date_time);
        attributes.time("updated_date_time", *updated_date_time);
        attributes.unmapped(unmapped.as_deref());
        attributes.fingerprint()
    }
}
