//! How an answer spells a device: "no value" in Apple's four ways, attributes in changing order.

use serde_json::{Value, json};

use crate::draw::{Draw, mix, text};
use crate::portrait::Attributes;

/// How much the spelling of answers varies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shapes {
    /// Spells "no value" as null, `""`, `[]` or an absent attribute, from answer to answer; otherwise null.
    pub vary_empties: bool,
    /// Changes the order of attributes from answer to answer; otherwise Apple's usual one.
    pub vary_order: bool,
    /// Writes colons into the MAC addresses of single reads; otherwise all are bare.
    pub colons_in_single_reads: bool,
}

impl Default for Shapes {
    fn default() -> Self {
        Self { vary_empties: true, vary_order: true, colons_in_single_reads: false }
    }
}

/// Whether a device stands in a list or on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setting {
    List,
    Single,
}

const LISTS: &[&str] = &["imei", "meid", "ethernetMacAddress"];
const ADDRESSES: &[&str] = &["wifiMacAddress", "bluetoothMacAddress"];
/// Attributes that are absent, never empty, where they say nothing.
const ABSENT: &[&str] = &["isMdmMigrationCapable", "mdmMigrationStatus", "mdmMigrationDeadlineDateTime"];

/// Spells the attributes of one device for one answer; `salt` is what differs between answers.
pub(crate) fn spell(attributes: Attributes, shapes: Shapes, setting: Setting, salt: u64) -> Attributes {
    let mut spelled = Attributes::with_capacity(attributes.len());
    for (name, value) in attributes {
        let value = if value.is_null() {
            let Some(empty) = empty(&name, shapes, salt) else { continue };
            empty
        } else if shapes.colons_in_single_reads && setting == Setting::Single && ADDRESSES.contains(&name.as_ref()) {
            json!(coloned(value.as_str().unwrap_or_default()))
        } else {
            value
        };
        spelled.push((name, value));
    }
    if shapes.vary_order && !spelled.is_empty() {
        let turn = Draw::keyed(salt, &[0x04DE]).below(spelled.len() as u64) as usize;
        spelled.rotate_left(turn);
    }
    spelled
}

fn empty(name: &str, shapes: Shapes, salt: u64) -> Option<Value> {
    if ABSENT.contains(&name) {
        return None;
    }
    if !shapes.vary_empties {
        return Some(Value::Null);
    }
    let date = name.ends_with("DateTime");
    match mix(salt, &[text(name)]) % 3 {
        0 => None,
        1 if LISTS.contains(&name) => Some(json!([])),
        1 if !date => Some(json!("")),
        _ => Some(Value::Null),
    }
}

fn coloned(mac: &str) -> String {
    mac.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair)).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn device() -> Attributes {
        vec![
            ("serialNumber".into(), json!("SIM0000001")),
            ("orderDateTime".into(), Value::Null),
            ("imei".into(), Value::Null),
            ("eid".into(), Value::Null),
            ("wifiMacAddress".into(), json!("020000000101")),
            ("isMdmMigrationCapable".into(), Value::Null),
        ]
    }

    fn spellings(name: &str) -> BTreeSet<String> {
        (0..200)
            .map(|salt| {
                let spelled = spell(device(), Shapes::default(), Setting::List, salt);
                let value = spelled.iter().find(|(known, _)| known == name).map(|(_, value)| value.to_string());
                value.unwrap_or_else(|| "absent".to_owned())
            })
            .collect()
    }

    #[test]
    fn no_value_is_spelled_in_every_way_that_its_type_allows() {
        let set = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(spellings("imei"), set(&["[]", "absent", "null"]));
        assert_eq!(spellings("eid"), set(&["\"\"", "absent", "null"]));
        assert_eq!(spellings("orderDateTime"), set(&["absent", "null"]));
        assert_eq!(spellings("isMdmMigrationCapable"), set(&["absent"]));
        assert_eq!(spellings("serialNumber"), set(&["\"SIM0000001\""]));
    }

    #[test]
    fn colons_stand_in_single_reads_only_and_only_when_asked_for() {
        let shapes = Shapes { colons_in_single_reads: true, ..Shapes::default() };
        let mac = |shapes, setting| {
            let spelled = spell(device(), shapes, setting, 1);
            spelled.iter().find(|(name, _)| name == "wifiMacAddress").map(|(_, value)| value.clone()).unwrap()
        };
        assert_eq!(mac(shapes, Setting::Single), json!("02:00:00:00:01:01"));
        assert_eq!(mac(shapes, Setting::List), json!("020000000101"));
        assert_eq!(mac(Shapes::default(), Setting::Single), json!("020000000101"));
    }
}
