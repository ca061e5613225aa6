//! The attributes of Apple's resources, visited by hand: known ones typed, all others kept.
//!
//! `serde(flatten)` would do the same and cost 3 ms a page more than this does.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Deserialize, DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use windfall_schemas::device::DeviceValue;
use windfall_schemas::identifiers::DeviceId;
use windfall_schemas::server::ServerValue;

use super::values::{Json, Understood, count, flag, instant, list, macs, required, serial_number, text, unmapped_text};
use crate::apple::Unread;

/// Most attributes that are kept unread.
const MAX_UNMAPPED: usize = 200;

/// Most bytes of a resource's attributes: before and after image of an event must fit into one record.
const MAX_WEIGHT: usize = 96 * 1024;

/// Attributes of a resource.
pub(crate) trait Attributes: DeserializeOwned {
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

impl Attributes for Identifier {
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

/// What is kept as Apple wrote it, by Apple's names: attributes that the schema does not name, and known ones with a value
/// that could not be understood.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) unmapped: BTreeMap<String, Value>,
    /// The fields of the attributes that could not be understood.
    pub(super) unread: Unread,
    /// Whether any attribute says anything.
    told: bool,
    weight: usize,
}

impl Kept {
    /// Takes a known attribute, or keeps its value; of several with one name the last counts.
    fn known<T: Default>(&mut self, field: &'static str, name: &str, value: Understood<T>) -> T {
        self.told = true;
        if !self.unread.is_empty() {
            self.unread.retain(|unread| *unread != field);
            self.unmapped.remove(name);
        }
        value.unwrap_or_else(|value| {
            self.unread.push(field);
            self.unknown(name, value);
            T::default()
        })
    }

    fn unknown(&mut self, name: &str, value: Value) {
        self.unmapped.remove(name);
        if !empty(&value) {
            self.told = true;
            self.weight += name.len() + value.to_string().len();
            self.unmapped.insert(name.to_owned(), value);
        }
    }

    fn weigh<E: de::Error>(&self) -> Result<(), E> {
        if self.weight > MAX_WEIGHT {
            return Err(E::custom(format_args!("its attributes have more than {MAX_WEIGHT} bytes")));
        }
        if self.unmapped.len() > MAX_UNMAPPED {
            return Err(E::custom(format_args!("more than {MAX_UNMAPPED} unknown attributes")));
        }
        Ok(())
    }
}

/// Writes how the attributes of a resource are read into its record; `beside` it stand second names of a field.
macro_rules! attributes {
    (
        $(#[$doc:meta])* $name:ident, $visitor:ident, $record:ident { $($apple:literal => $field:ident = $read:ident),+ $(,)? }
        beside { $($other:literal => $beside:ident: $kind:ty = $read_beside:ident),* $(,)? }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub(crate) struct $name {
            pub(super) value: Box<$record>,
            $(pub(super) $beside: $kind,)*
            pub(super) kept: Kept,
        }

        impl Attributes for $name {
            fn empty(&self) -> bool {
                !self.kept.told
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
                while let Some(name) = map.next_key_seed(Name)? {
                    let value: Json<'_> = map.next_value()?;
                    let kept = &mut attributes.kept;
                    match name.as_ref() {
                        $($apple => {
                            kept.weight += value.weight();
                            attributes.value.$field = kept.known(stringify!($field), $apple, $read(value));
                        })+
                        $($other => {
                            kept.weight += value.weight();
                            attributes.$beside = kept.known(stringify!($beside), $other, $read_beside(value));
                        })*
                        _ => kept.unknown(&name, value.into_value()),
                    }
                }
                attributes.kept.weigh()?;
                Ok(attributes)
            }
        }
    };
}

attributes! {
    /// Attributes of `orgDevices`, under every name that Apple has given them.
    OrgDeviceAttributes, OrgDeviceVisitor, DeviceValue {
        "serialNumber" => serial_number = required,
        "addedToOrgDateTime" => added_to_org_date_time = instant,
        "releasedFromOrgDateTime" => released_from_org_date_time = instant,
        "updatedDateTime" => updated_date_time = instant,
        "status" => status = text,
        "deviceModel" => device_model = text,
        "productFamily" => product_family = text,
        "productType" => product_type = text,
        "deviceCapacity" => device_capacity = text,
        "partNumber" => part_number = text,
        "orderNumber" => order_number = text,
        "orderDateTime" => order_date_time = instant,
        "color" => color = text,
        "imei" => imei = list,
        "meid" => meid = list,
        "eid" => eid = text,
        "wifiMacAddress" => wifi_mac_address = macs,
        "bluetoothMacAddress" => bluetooth_mac_address = macs,
        "ethernetMacAddress" => ethernet_mac_address = macs,
        "purchaseSourceType" => purchase_source_type = text,
        "purchaseSourceId" => purchase_source_id = text,
        "isMdmMigrationCapable" => is_mdm_migration_capable = flag,
        "mdmMigrationStatus" => mdm_migration_status = text,
        "mdmMigrationDeadlineDateTime" => mdm_migration_deadline_date_time = instant,
        "releaserEntityType" => releaser_entity_type = text,
        "releaserId" => releaser_id = text,
    } beside {
        "builtInEthernetMacAddress" => built_in_ethernet_mac_address: Option<Vec<String>> = macs,
        "purchaseSourceUid" => purchase_source_uid: Option<String> = text,
    }
}

attributes! {
    /// Attributes of `mdmServers`.
    MdmServerAttributes, MdmServerVisitor, ServerValue {
        "serverName" => server_name = text,
        "serverType" => server_type = text,
        "status" => status = text,
        "deviceCount" => device_count = count,
        "enableMdmDisownFlag" => enable_mdm_disown_flag = flag,
        "defaultProductFamilies" => default_product_families = list,
        "lastConnectedDateTime" => last_connected_date_time = instant,
        "lastConnectedIp" => last_connected_ip = text,
        "createdDateTime" => created_date_time = instant,
        "updatedDateTime" => updated_date_time = instant,
    } beside {}
}

impl OrgDeviceAttributes {
    /// Makes the record of a device; a list or a single read shows nothing of its management service and its cover.
    pub(super) fn into_value(self, org: &str, id: DeviceId) -> (Box<DeviceValue>, Unread) {
        let Self { mut value, built_in_ethernet_mac_address, purchase_source_uid, kept } = self;
        let Kept { unmapped, mut unread, .. } = kept;
        value.ethernet_mac_address = value.ethernet_mac_address.or(built_in_ethernet_mac_address);
        value.purchase_source_id = value.purchase_source_id.or(purchase_source_uid);
        // Of two names for one field it is enough to read one.
        for (other_name, field, read) in [
            ("built_in_ethernet_mac_address", "ethernet_mac_address", value.ethernet_mac_address.is_some()),
            ("purchase_source_uid", "purchase_source_id", value.purchase_source_id.is_some()),
        ] {
            unread.iter_mut().filter(|unread| **unread == other_name).for_each(|unread| *unread = field);
            unread.retain(|unread| !read || *unread != field);
        }
        value.org = org.to_owned();
        value.serial_number = serial_number(value.serial_number, &id);
        value.device_id = id.into_string();
        value.unmapped = unmapped_text(&unmapped);
        (value, unread)
    }
}

impl MdmServerAttributes {
    /// Makes the record of a management service.
    pub(super) fn into_value(self, org: &str, server_id: String) -> (ServerValue, Unread) {
        let Self { value, kept: Kept { unmapped, unread, .. } } = self;
        (ServerValue { org: org.to_owned(), server_id, unmapped: unmapped_text(&unmapped), ..*value }, unread)
    }
}

/// Reads the attributes of one item. A value that the parser refuses, such as a number out of range, is taken as the text
/// that stands there.
pub(super) fn read<A: Attributes>(json: &str) -> serde_json::Result<A> {
    serde_json::from_str(json).or_else(|_| {
        let members: BTreeMap<String, &RawValue> = serde_json::from_str(json)?;
        let value = |json: &str| serde_json::from_str(json).unwrap_or_else(|_| Value::String(json.to_owned()));
        A::deserialize(Value::Object(members.into_iter().map(|(name, member)| (name, value(member.get()))).collect()))
    })
}

/// Tells whether a value is one of those that say nothing.
pub(super) fn empty(value: &Value) -> bool {
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
