//! `abm.coverages`: an AppleCare coverage of a device, as Apple last showed it.

use serde::{Deserialize, Serialize};

use crate::fingerprint::Attributes;

/// Text of the key's schema, as registered.
pub const KEY_SCHEMA: &str = include_str!("../abm/coverages-key.avsc");
/// Text of the value's schema, as registered: an envelope around [`CoverageValue`].
pub const VALUE_SCHEMA: &str = include_str!("../abm/coverages-value.avsc");

/// Key of `abm.coverages`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename = "Key")]
pub struct CoverageKey {
    /// Alias of the organization.
    pub org: String,
    /// Id of the `orgDevices` resource that is covered.
    pub device_id: String,
    /// Id of the `appleCareCoverage` resource.
    pub coverage_id: String,
}

/// One coverage; the fields are those of the `.avsc` file, which documents them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename = "Value")]
#[allow(missing_docs, reason = "the .avsc file documents each field")]
pub struct CoverageValue {
    pub org: String,
    pub device_id: String,
    pub coverage_id: String,
    pub status: Option<String>,
    pub payment_type: Option<String>,
    pub description: Option<String>,
    pub agreement_number: Option<String>,
    pub start_date_time: Option<i64>,
    pub end_date_time: Option<i64>,
    pub contract_cancel_date_time: Option<i64>,
    pub is_canceled: Option<bool>,
    pub is_renewable: Option<bool>,
    /// JSON object of the attributes that the schema does not name.
    pub unmapped: Option<String>,
}

impl CoverageValue {
    /// Returns the key that this coverage has in the topic.
    pub fn key(&self) -> CoverageKey {
        CoverageKey { org: self.org.clone(), device_id: self.device_id.clone(), coverage_id: self.coverage_id.clone() }
    }

    /// Hashes the attributes that are present.
    pub fn fingerprint(&self) -> String {
        let CoverageValue {
            org: _,
            device_id: _,
            coverage_id: _,
            status,
            payment_type,
            description,
            agreement_number,
            start_date_time,
            end_date_time,
            contract_cancel_date_time,
            is_canceled,
            is_renewable,
            unmapped,
        } = self;
        let mut attributes = Attributes::with_capacity(11);
        attributes.text("status", status.as_deref());
        attributes.text("payment_type", payment_type.as_deref());
        attributes.text("description", description.as_deref());
        attributes.text("agreement_number", agreement_number.as_deref());
        attributes.time("start_date_time", *start_date_time);
        attributes.time("end_date_time", *end_date_time);
        attributes.time("contract_cancel_date_time", *contract_cancel_date_time);
        attributes.boolean("is_canceled", *is_canceled);
        attributes.boolean("is_renewable", *is_renewable);
        attributes.unmapped(unmapped.as_deref());
        attributes.fingerprint()
    }
}
