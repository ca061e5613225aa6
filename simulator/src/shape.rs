//! How an answer spells a device: "no value" in Apple's four ways, and attributes in changing order.

use serde_json::{Value, json};

use crate::draw::{Draw, mix, text};
use crate::portrait::Attributes;

const LISTS: &[&str] = &["imei", "meid", "ethernetMacAddress"];
/// Attributes that are absent, never empty, where they say nothing.
const ABSENT: &[&str] = &["isMdmMigrationCapable", "mdmMigrationStatus", "mdmMigrationDeadlineDateTime"];

/// Spells the attributes of one device for one answer; `salt` is what differs between answers.
pub(crate) fn spell(attributes: Attributes, salt: u64) -> Attributes {
    let spelled = attributes.into_iter().filter_map(|(name, value)| {
        let value = if value.is_null() { empty(&name, salt)? } else { value };
        Some((name, value))
    });
    let mut spelled: Attributes = spelled.collect();
    if !spelled.is_empty() {
        let turn = Draw::keyed(salt, &[0x04DE]).below(spelled.len() as u64) as usize;
        spelled.rotate_left(turn);
    }
    spelled
}

fn empty(name: &str, salt: u64) -> Option<Value> {
    if ABSENT.contains(&name) {
        return None;
    }
    let date = name.ends_with("DateTime");
    match mix(salt, &[text(name)]) % 3 {
        0 => None,
        1 if LISTS.contains(&name) => Some(json!([])),
        1 if !date => Some(json!("")),
        _ => Some(Value::Null),
    }
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
                let spelled = spell(device(), salt);
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
}
