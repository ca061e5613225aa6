//! The schemas of the producer's topics with the ids that the registry gave them.

use std::collections::HashMap;

use windfall_runtime::reader::Decoder;
use windfall_runtime::registry::RegistryClient;
use windfall_schemas::topic::{self, Names, SubjectSchema};
use windfall_schemas::wire::Codec;

use super::LedgerError;

/// The schemas that the producer writes.
pub struct Codecs {
    /// Key of `abm.devices`.
    pub device_key: Codec,
    /// Value of `abm.devices`.
    pub device_value: Codec,
    /// Key of `abm.servers`.
    pub server_key: Codec,
    /// Value of `abm.servers`.
    pub server_value: Codec,
    /// Key of `abm.scans`.
    pub scan_key: Codec,
    /// Value of `abm.scans`.
    pub scan_value: Codec,
    /// Value of `abm.rejects`.
    pub reject_value: Codec,
    /// Key of `windfall.notifications`.
    pub notification_key: Codec,
    /// Value of `windfall.notifications`.
    pub notification_value: Codec,
    /// Reads records by the schema that they were written with, also one of an earlier version.
    pub decoder: Decoder,
}

impl Codecs {
    /// Resolves all schemas; the registry registers what it may and does not know.
    ///
    /// # Errors
    /// [`LedgerError::Schema`] names the first that the registry does not give.
    pub async fn resolve(registry: RegistryClient, names: &Names) -> Result<Self, LedgerError> {
        let texts: HashMap<String, String> =
            names.base_schemas().into_iter().map(|SubjectSchema { subject, text }| (subject, text)).collect();
        let codec = async |subject: String| {
            let text = texts.get(&subject).map_or("", String::as_str);
            let resolved = registry.codec(&subject, text).await;
            resolved.map_err(|source| LedgerError::Schema { subject, source: Box::new(source) })
        };
        Ok(Self {
            device_key: codec(topic::key_subject(&names.devices())).await?,
            device_value: codec(topic::value_subject(&names.devices())).await?,
            server_key: codec(topic::key_subject(&names.servers())).await?,
            server_value: codec(topic::value_subject(&names.servers())).await?,
            scan_key: codec(topic::key_subject(&names.scans())).await?,
            scan_value: codec(topic::value_subject(&names.scans())).await?,
            reject_value: codec(topic::value_subject(&names.rejects())).await?,
            notification_key: codec(topic::key_subject(&names.notifications())).await?,
            notification_value: codec(topic::value_subject(&names.notifications())).await?,
            decoder: Decoder::new(registry.clone(), topic::value_subject(&names.devices())),
        })
    }
}
