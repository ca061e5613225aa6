//! A device's attributes in one form, whether an answer of the API or an event shows them.

use std::collections::BTreeMap;

use chrono::DateTime;
use serde_json::{Value as Json, json};

/// The attributes that are present, by the names of the change topic; what has no field of its own as `unmapped.<Apple's name>`.
pub type Image = BTreeMap<String, Json>;

/// Fields that hold lists, and under which names Apple's attributes reach them.
const LISTS: [&str; 5] = ["imei", "meid", "wifi_mac_address", "bluetooth_mac_address", "ethernet_mac_address"];
/// Lists whose second element an asset holds too.
const PAIRS: [&str; 2] = ["imei", "meid"];
/// Fields that hold one value.
const SCALARS: [&str; 21] = [
    "serial_number",
    "status",
    "product_family",
    "product_type",
    "device_model",
    "device_capacity",
    "color",
    "part_number",
    "order_number",
    "order_date_time",
    "purchase_source_type",
    "purchase_source_id",
    "added_to_org_date_time",
    "released_from_org_date_time",
    "releaser_entity_type",
    "releaser_id",
    "updated_date_time",
    "eid",
    "is_mdm_migration_capable",
    "mdm_migration_status",
    "mdm_migration_deadline_date_time",
];
/// Fields of an event that no device's answer shows by itself: the key's, and the server, which the linkage lists show.
const ELSEWHERE: [&str; 4] = ["org", "device_id", "mdm_server_id", "mdm_server_name"];

/// Takes the attributes out of an event's image.
#[must_use]
pub fn shown(after: &Json) -> Image {
    let mut image = Image::new();
    for (name, value) in after.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
        if name == "unmapped" {
            let members: Image = serde_json::from_str(value.as_str().unwrap_or("{}")).unwrap_or_default();
            image.extend(members.into_iter().map(|(member, value)| (format!("unmapped.{member}"), value)));
        } else if !ELSEWHERE.contains(&name.as_str()) {
            image.insert(name.clone(), value.clone());
        }
    }
    image
}

/// Brings the attributes of the device `id`, as Apple writes them, into the same form.
#[must_use]
pub fn served(id: &str, attributes: &Json) -> Image {
    let mut image = Image::new();
    for (name, value) in attributes.as_object().into_iter().flatten().filter(|(_, value)| !empty(value)) {
        let field = field(name);
        if LISTS.contains(&field.as_str()) {
            image.insert(field.clone(), Json::Array(list(&field, value)));
        } else if SCALARS.contains(&field.as_str()) {
            image.insert(field.clone(), scalar(&field, value));
        } else {
            image.insert(format!("unmapped.{name}"), value.clone());
        }
    }
    image.entry("serial_number".to_owned()).or_insert_with(|| json!(id));
    image
}

/// Spreads an image over the columns of an asset: the first of each list, the second of those that have a column for it.
///
/// Every column is there, `null` where the device says nothing.
#[must_use]
pub fn columns(image: &Image) -> BTreeMap<String, Json> {
    let mut columns = BTreeMap::new();
    for name in SCALARS {
        columns.insert(name.to_owned(), image.get(name).cloned().unwrap_or(Json::Null));
    }
    for name in LISTS {
        let element = |at: usize| image.get(name).and_then(|items| items.get(at)).cloned().unwrap_or(Json::Null);
        columns.insert(name.to_owned(), element(0));
        if PAIRS.contains(&name) {
            columns.insert(format!("{name}_2"), element(1));
        }
    }
    columns
}

/// Writes an image as one line.
#[must_use]
pub fn line(image: &Image) -> String {
    json!(image).to_string()
}

/// `addedToOrgDateTime` becomes `added_to_org_date_time`; older names become the present ones.
#[must_use]
pub fn field(name: &str) -> String {
    match name {
        "purchaseSourceUid" => return "purchase_source_id".to_owned(),
        "builtInEthernetMacAddress" => return "ethernet_mac_address".to_owned(),
        _ => {}
    }
    let mut out = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

fn empty(value: &Json) -> bool {
    value.is_null() || value == "" || value.as_array().is_some_and(|items| items.iter().all(empty))
}

fn list(field: &str, value: &Json) -> Vec<Json> {
    let items: Vec<Json> = match value {
        Json::Array(items) => items.clone(),
        one => vec![one.clone()],
    };
    let normal = |item: &Json| match item.as_str() {
        Some(text) if field.ends_with("mac_address") => {
            json!(text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_uppercase())
        }
        _ => item.clone(),
    };
    items.iter().filter(|item| !empty(item)).map(normal).collect()
}

fn scalar(field: &str, value: &Json) -> Json {
    let value = match value {
        Json::Array(items) => items.first().unwrap_or(value),
        one => one,
    };
    match value.as_str().filter(|_| field.ends_with("_date_time")).map(DateTime::parse_from_rfc3339) {
        Some(Ok(time)) => json!(time.timestamp_millis()),
        _ => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apples_spellings_become_one_form() {
        let one = served(
            "S1",
            &json!({"eid": "", "wifiMacAddress": "aa:bb:cc:00:11:22", "addedToOrgDateTime": "2026-01-01T00:00:00.5Z"}),
        );
        let other = served(
            "S1",
            &json!({"serialNumber": "S1", "wifiMacAddress": ["AABBCC001122"], "imei": [], "addedToOrgDateTime": "2026-01-01T00:00:00.50Z"}),
        );
        assert_eq!(one, other);
    }

    #[test]
    fn an_event_and_an_answer_that_say_the_same_have_one_image() {
        let event = json!({
            "org": "acme", "device_id": "S1", "serial_number": "S1", "color": "BLUE", "imei": ["1", "2"], "eid": null,
            "mdm_server_id": "X", "unmapped": "{\"futureAttribute\":1}",
        });
        let answer = json!({"serialNumber": "S1", "color": "BLUE", "imei": ["1", "2"], "futureAttribute": 1});
        assert_eq!(shown(&event), served("S1", &answer));
        let columns = columns(&shown(&event));
        assert_eq!((&columns["imei"], &columns["imei_2"], &columns["meid_2"]), (&json!("1"), &json!("2"), &Json::Null));
    }
}
