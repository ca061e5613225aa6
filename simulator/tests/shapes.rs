use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use windfall_simulator::{Command, ReleaseAnswer};

use crate::support::{Bench, quiet};

/// Collects the paths of all members, `[]` for items of an array; below `attributes` only where `attributes` says so.
fn members(value: &Value, path: &str, attributes: bool, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let path = format!("{path}.{name}");
                found.insert(path.clone());
                if attributes || name != "attributes" {
                    members(value, &path, attributes, found);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| members(item, &format!("{path}[]"), attributes, found)),
        _ => {}
    }
}

fn of(value: &Value, attributes: bool) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    members(value, "", attributes, &mut found);
    found
}

/// Leaves out the kinds that say nothing.
fn real<'a>(kinds: &BTreeSet<&'a str>) -> Vec<&'a str> {
    kinds.iter().copied().filter(|kind| ["boolean", "text", "items", "other"].contains(kind)).collect()
}

fn fixture(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[tokio::test]
async fn documents_have_the_members_of_the_fixtures() {
    let bench = Bench::start(quiet()).await;
    let server = bench.server("Jamf Cloud").await;
    bench.handle().assign("SIM0000001", "Jamf Cloud").unwrap();
    let released = Command::Release { device: "SIM0000002".to_owned(), answer: Some(ReleaseAnswer::Dated) };
    bench.handle().command(released).unwrap();
    let link = format!("/v1/mdmServers/{server}/relationships/devices");
    for (path, text, attributes) in [
        ("/v1/orgDevices?limit=5", include_str!("../fixtures/org-devices-page-1.json"), false),
        ("/v1/orgDevices", include_str!("../fixtures/org-devices-page-2-last.json"), false),
        (
            "/v1/orgDevices?fields%5BorgDevices%5D=serialNumber,status,updatedDateTime&limit=1000",
            include_str!("../fixtures/org-devices-sparse-fields.json"),
            true,
        ),
        ("/v1/orgDevices/SIM0000001", include_str!("../fixtures/org-device.json"), false),
        ("/v1/orgDevices/SIM0000002", include_str!("../fixtures/org-device-released.json"), false),
        (
            "/v1/orgDevices/SIM0000001/relationships/assignedServer",
            include_str!("../fixtures/assigned-server-linkage.json"),
            true,
        ),
        ("/v1/orgDevices/SIM0000001/assignedServer", include_str!("../fixtures/assigned-server.json"), true),
        ("/v1/mdmServers", include_str!("../fixtures/mdm-servers.json"), true),
        (&format!("/v1/mdmServers/{server}"), include_str!("../fixtures/mdm-server.json"), true),
        (&format!("{link}?limit=3"), include_str!("../fixtures/mdm-server-devices-linkage-page-1.json"), true),
        (&format!("{link}?limit=1000"), include_str!("../fixtures/mdm-server-devices-linkage-page-2-last.json"), true),
    ] {
        assert_eq!(of(&bench.found(path).await, attributes), of(&fixture(text), attributes), "{path}");
    }
    let fixture = fixture(include_str!("../fixtures/error-404.json"));
    assert_eq!(of(&bench.get("/v1/orgDevices/NONE").await.1, true), of(&fixture, true));
}

#[tokio::test]
async fn every_attribute_served_stands_in_a_fixture_with_a_value_of_its_type() {
    let bench = Bench::start(quiet().devices(400)).await;
    let mut kinds: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    let note = |value: &Value, kinds: &mut BTreeMap<String, BTreeSet<&str>>| {
        for item in value["data"].as_array().unwrap() {
            for (name, value) in item["attributes"].as_object().unwrap() {
                let kind = match value {
                    Value::Null => "null",
                    Value::Bool(_) => "boolean",
                    Value::String(text) if text.is_empty() => "empty",
                    Value::String(_) => "text",
                    Value::Array(items) if items.is_empty() => "no items",
                    Value::Array(_) => "items",
                    Value::Number(_) | Value::Object(_) => "other",
                };
                kinds.entry(name.clone()).or_default().insert(kind);
            }
        }
    };
    let mut known = BTreeMap::new();
    note(&fixture(include_str!("../fixtures/org-devices-page-1.json")), &mut known);
    note(&fixture(include_str!("../fixtures/org-devices-page-2-last.json")), &mut known);
    note(&bench.found("/v1/orgDevices?limit=1000").await, &mut kinds);
    for (name, found) in &kinds {
        let fixture = known.get(name).unwrap_or_else(|| panic!("`{name}` stands in no fixture"));
        assert!(real(found).is_empty() || real(fixture).is_empty() || real(found) == real(fixture), "{name} {found:?}");
    }
    for (name, spellings) in [("imei", 3), ("eid", 3), ("wifiMacAddress", 3), ("orderDateTime", 2)] {
        assert_eq!(kinds[name].len(), spellings, "{name} {:?}", kinds[name]);
    }
}

#[tokio::test]
async fn date_times_have_zero_to_three_fraction_digits_and_order_varies() {
    let bench = Bench::start(quiet().devices(300)).await;
    let text = bench.send("/v1/orgDevices?limit=1000").await.unwrap().text().await.unwrap();
    let lengths: BTreeSet<usize> = text
        .split("\"addedToOrgDateTime\":\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .map(|date| date.trim_end_matches('Z').split_once('.').map_or(0, |(_, fraction)| fraction.len()))
        .collect();
    assert_eq!(lengths, BTreeSet::from([0, 1, 2, 3]));
    let firsts: BTreeSet<&str> =
        text.split("\"attributes\":{\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert!(firsts.len() > 5, "{firsts:?}");
}

#[tokio::test]
async fn answers_carry_apples_headers_and_the_wall_clocks_date() {
    let bench = Bench::start(quiet()).await;
    let first = bench.send("/v1/mdmServers").await.unwrap();
    let second = bench.send("/v1/orgDevices/NONE").await.unwrap();
    assert_eq!(first.headers()["content-type"], "application/json");
    assert_eq!(first.headers()["server"], "Apple");
    assert_eq!(first.headers()["date"], "Sat, 21 Nov 2026 09:00:00 GMT");
    let id = |response: &reqwest::Response| response.headers()["x-apple-request-uuid"].to_str().unwrap().to_owned();
    assert_ne!(id(&first), id(&second));
    let uuid = id(&second);
    let body: Value = second.json().await.unwrap();
    assert_eq!(body["errors"][0]["id"], uuid);
}
