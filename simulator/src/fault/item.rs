//! Odd items in a page.

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::rule::ItemFault;
use crate::apple_time::{DAY, written};
use crate::document::Resource;
use crate::portrait::Attributes;

/// Makes `count` resources odd, or the one that is named.
pub(crate) fn spoil(resources: &mut Vec<Resource>, fault: ItemFault, count: usize, device: Option<&str>) {
    let chosen: Vec<usize> = match device {
        Some(name) => resources.iter().position(|resource| resource.name == name).into_iter().collect(),
        // From a third of the page on, so that there are good items before and behind the odd ones.
        None => (resources.len() / 3..resources.len()).take(count).collect(),
    };
    for place in chosen.into_iter().rev() {
        if fault == ItemFault::Duplicate {
            let twice = resources[place].clone();
            resources.insert(place + 1, twice);
        } else {
            spoil_one(&mut resources[place], fault);
        }
    }
}

fn spoil_one(resource: &mut Resource, fault: ItemFault) {
    match fault {
        ItemFault::NoId => resource.id = None,
        ItemFault::NoAttributes => resource.attributes = None,
        ItemFault::Malformed => resource.raw = RawValue::from_string(r#"["orgDevices", 42]"#.to_owned()).ok(),
        ItemFault::Nameless => {
            resource.id = None;
            remove(resource, "serialNumber");
        }
        ItemFault::NoSerial => remove(resource, "serialNumber"),
        ItemFault::UnknownAttribute => set(resource, "futureAttribute", json!({ "nested": true })),
        ItemFault::UnknownStatus => set(resource, "status", json!("SOME_FUTURE_STATUS")),
        ItemFault::WrongType => set(resource, "productFamily", json!(42)),
        ItemFault::SerialVariant => {
            let serial = format!("{} ", resource.name.to_lowercase());
            set(resource, "serialNumber", json!(serial));
        }
        ItemFault::OldUpdated => {
            let value = resource.attributes.iter().flatten().find(|(name, _)| name == "updatedDateTime");
            let updated =
                value.and_then(|(_, value)| value.as_str()).and_then(|text| text.parse::<DateTime<Utc>>().ok());
            if let Some(updated) = updated {
                set(resource, "updatedDateTime", json!(written(updated.timestamp_millis() - DAY)));
            }
        }
        ItemFault::VariantShapes => {
            if let Some(attributes) = &mut resource.attributes {
                older_shapes(attributes);
            }
        }
        ItemFault::Duplicate => {}
    }
}

fn older_shapes(attributes: &mut Attributes) {
    for (name, value) in attributes {
        match (name.as_ref(), &*value) {
            ("imei" | "meid", Value::Array(items)) if items.len() == 1 => *value = items[0].clone(),
            ("eid" | "wifiMacAddress" | "bluetoothMacAddress", Value::String(text)) if !text.is_empty() => {
                *value = json!([text]);
            }
            ("purchaseSourceId", _) => *name = "purchaseSourceUid".into(),
            _ => {}
        }
    }
}

fn set(resource: &mut Resource, name: &'static str, value: Value) {
    let attributes = resource.attributes.get_or_insert_default();
    match attributes.iter_mut().find(|(known, _)| known == name) {
        Some((_, present)) => *present = value,
        None => attributes.push((name.into(), value)),
    }
}

fn remove(resource: &mut Resource, name: &str) {
    if let Some(attributes) = &mut resource.attributes {
        attributes.retain(|(known, _)| known != name);
    }
}
