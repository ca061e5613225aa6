//! The attributes of Apple's resources, visited by hand: known ones typed, all others kept.
//!
//! `serde(flatten)` would do the same and cost 3 ms a page more than this does.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::values::{Count, Flag, Instant, Text, Texts, Weigh};

/// What the schema does not name, by Apple's names.
pub(crate) type Unmapped = BTreeMap<String, Value>;

/// Most attributes that are kept unread.
const MAX_UNMAPPED: usize = 200;

/// Most bytes of a resource's attributes: before and after image of an event must fit into one record.
pub(super) const MAX_WEIGHT: usize = 96 * 1024;

/// Attributes of a resource.
pub(crate) trait Attributes<'de>: Deserialize<'de> {
    /// Tells whether there is not one of them.
    fn empty(&self) -> bool;

    /// Stands in where a resource has none, if it may have none.
    fn none() -> Option<Self> {
        None
    }
}

/// The lack of attributes: an identifier in a linkage list.
#[derive(Debug)]
pub(crate) struct Identifier;

impl Attributes<'_> for Identifier {
    fn empty(&self) -> bool {
        false
    }

    fn none() -> Option<Self> {
        Some(Self)
    }
}

impl<'de> Deserialize<'de> for Identifier {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        de::IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

macro_rules! attributes {
    ($(#[$doc:meta])* $name:ident, $visitor:ident { $($apple:literal => $field:ident: $kind:ty),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub(crate) struct $name {
            $(pub(super) $field: Option<$kind>,)+
            pub(super) unmapped: Unmapped,
        }

        impl Attributes<'_> for $name {
            fn empty(&self) -> bool {
                $(self.$field.is_none() &&)+ self.unmapped.is_empty()
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_map($visitor)
            }
        }

        struct $visitor;

        impl<'de> Visitor<'de> for $visitor {
            type Value = $name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of attributes")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<$name, A::Error> {
                let mut attributes = $name::default();
                let mut weight = 0;
                while let Some(name) = map.next_key_seed(Name)? {
                    weight += match name.as_ref() {
                        $($apple => fill(&mut attributes.$field, $apple, &mut map)?,)+
                        _ => keep(&mut attributes.unmapped, &name, &mut map)?,
                    };
                    if weight > MAX_WEIGHT {
                        return Err(de::Error::custom(format_args!("its attributes have more than {MAX_WEIGHT} bytes")));
                    }
                }
                Ok(attributes)
            }
        }
    };
}

attributes! {
    /// Attributes of `orgDevices`, under every name that Apple has given them.
    OrgDeviceAttributes, OrgDeviceVisitor {
        "serialNumber" => serial_number: Text,
        "addedToOrgDateTime" => added_to_org_date_time: Instant,
        "releasedFromOrgDateTime" => released_from_org_date_time: Instant,
        "updatedDateTime" => updated_date_time: Instant,
        "status" => status: Text,
        "deviceModel" => device_model: Text,
        "productFamily" => product_family: Text,
        "productType" => product_type: Text,
        "deviceCapacity" => device_capacity: Text,
        "partNumber" => part_number: Text,
        "orderNumber" => order_number: Text,
        "orderDateTime" => order_date_time: Instant,
        "color" => color: Text,
        "imei" => imei: Texts,
        "meid" => meid: Texts,
        "eid" => eid: Text,
        "wifiMacAddress" => wifi_mac_address: Texts,
        "bluetoothMacAddress" => bluetooth_mac_address: Texts,
        "ethernetMacAddress" => ethernet_mac_address: Texts,
        "builtInEthernetMacAddress" => built_in_ethernet_mac_address: Texts,
        "purchaseSourceType" => purchase_source_type: Text,
        "purchaseSourceId" => purchase_source_id: Text,
        "purchaseSourceUid" => purchase_source_uid: Text,
        "isMdmMigrationCapable" => is_mdm_migration_capable: Flag,
        "mdmMigrationStatus" => mdm_migration_status: Text,
        "mdmMigrationDeadlineDateTime" => mdm_migration_deadline_date_time: Instant,
        "releaserEntityType" => releaser_entity_type: Text,
        "releaserId" => releaser_id: Text,
    }
}

attributes! {
    /// Attributes of `mdmServers`.
    MdmServerAttributes, MdmServerVisitor {
        "serverName" => server_name: Text,
        "serverType" => server_type: Text,
        "status" => status: Text,
        "deviceCount" => device_count: Count,
        "enableMdmDisownFlag" => enable_mdm_disown_flag: Flag,
        "defaultProductFamilies" => default_product_families: Texts,
        "lastConnectedDateTime" => last_connected_date_time: Instant,
        "lastConnectedIp" => last_connected_ip: Text,
        "createdDateTime" => created_date_time: Instant,
        "updatedDateTime" => updated_date_time: Instant,
    }
}

/// Takes a known attribute and returns how many bytes it holds.
fn fill<'de, T: Deserialize<'de> + Weigh, A: MapAccess<'de>>(
    slot: &mut Option<T>,
    name: &'static str,
    map: &mut A,
) -> Result<usize, A::Error> {
    let value: T = map.next_value().map_err(|error| de::Error::custom(format_args!("attribute `{name}`: {error}")))?;
    let weight = value.weight();
    if slot.replace(value).is_some() {
        return Err(de::Error::duplicate_field(name));
    }
    Ok(weight)
}

/// Keeps an unknown attribute and returns how many bytes it will take.
fn keep<'de, A: MapAccess<'de>>(unmapped: &mut Unmapped, name: &str, map: &mut A) -> Result<usize, A::Error> {
    let value: Value = map.next_value()?;
    if empty(&value) {
        return Ok(0);
    }
    let weight = name.len() + value.to_string().len();
    if unmapped.len() >= MAX_UNMAPPED {
        return Err(de::Error::custom(format_args!("more than {MAX_UNMAPPED} unknown attributes")));
    }
    if unmapped.insert(name.to_owned(), value).is_some() {
        return Err(de::Error::custom("an unknown attribute stands there twice"));
    }
    Ok(weight)
}

fn empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
    }
}

/// A name, borrowed from the text where it holds no escapes.
pub(super) struct Name;

impl<'de> de::DeserializeSeed<'de> for Name {
    type Value = std::borrow::Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = std::borrow::Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E: de::Error>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(name.into())
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(name.to_owned().into())
    }
}
