//! Fingerprints see what a device is, event ids see which event it was.

use windfall_schemas::{
    device::DeviceValue,
    fingerprint::{event_id, parse_sequence, sequence, snake_case},
    server::ServerValue,
};

use crate::samples;

/// A change of this text would change every device of every fleet at once.
#[test]
fn fingerprints_stay_what_they_are() {
    assert_eq!(samples::device().fingerprint(), "917680fa68b346c53bc26b397dfa15ba");
    assert_eq!(samples::server().fingerprint(), "ef463fecf86ba8e18744b0999fbc891b");
    assert_eq!(event_id("acme", "devices", "SIM0000001", 1, "f"), "f173c4076ab3b871e04910712a5ab5a7");
}

#[test]
fn every_field_of_a_device_moves_its_fingerprint() {
    let empty = DeviceValue { org: "acme".into(), device_id: "1".into(), ..DeviceValue::default() };
    let full = serde_json::to_value(samples::device()).unwrap();
    let mut seen = std::collections::BTreeSet::from([empty.fingerprint()]);
    for (name, value) in full.as_object().unwrap() {
        let mut one = serde_json::to_value(&empty).unwrap();
        one[name] = value.clone();
        let one: DeviceValue = serde_json::from_value(one).unwrap();
        let is_key = ["org", "device_id"].contains(&name.as_str());
        assert_eq!(seen.insert(one.fingerprint()), !is_key, "{name}");
    }
}

#[test]
fn what_moves_all_the_time_does_not_move_a_servers_fingerprint() {
    let server = samples::server();
    let busy = ServerValue {
        device_count: Some(99),
        last_connected_date_time: Some(1),
        last_connected_ip: samples::text("192.0.2.99"),
        ..server.clone()
    };
    assert_eq!(busy.fingerprint(), server.fingerprint());
    assert_ne!(ServerValue { server_name: samples::text("x"), ..server.clone() }.fingerprint(), server.fingerprint());
}

#[test]
fn absent_and_empty_are_one_thing() {
    let absent = DeviceValue { serial_number: "1".into(), ..DeviceValue::default() };
    let empty = DeviceValue {
        color: samples::text(""),
        imei: Some(vec![]),
        unmapped: samples::text(r#"{"a": null, "b": "", "c": [], "d": {}}"#),
        ..absent.clone()
    };
    assert_eq!(empty.fingerprint(), absent.fingerprint());
}

#[test]
fn an_attribute_that_gets_a_field_of_its_own_keeps_the_fingerprint() {
    let named = DeviceValue { serial_number: "1".into(), ..samples::device() };
    let unmapped = DeviceValue {
        color: None,
        ethernet_mac_address: None,
        is_mdm_migration_capable: None,
        mdm_migration_deadline_date_time: None,
        unmapped: samples::text(&format!(
            r#"{{"someNewAttribute": "x", "color": "Größe 1", "isMdmMigrationCapable": true,
                "ethernetMacAddress": ["020000001003", "020000001004"], "mdmMigrationDeadlineDateTime": "{}"}}"#,
            windfall_schemas::timestamp::format_millis(samples::MOMENT + 1).unwrap()
        )),
        ..named.clone()
    };
    assert_eq!(unmapped.fingerprint(), named.fingerprint());
}

#[test]
fn the_order_of_unmapped_attributes_does_not_count() {
    let of = |text: &str| DeviceValue { unmapped: samples::text(text), ..DeviceValue::default() }.fingerprint();
    assert_eq!(
        of(r#"{"a": {"x": 1, "y": [2, {"p": 1, "q": 2}]}, "b": 2}"#),
        of(r#"{"b": 2, "a": {"y": [2, {"q": 2, "p": 1}], "x": 1}}"#)
    );
    assert_ne!(of(r#"{"a": [1, 2]}"#), of(r#"{"a": [2, 1]}"#));
    assert_ne!(of(r#"{"a": "true"}"#), of(r#"{"a": true}"#));
    assert_ne!(of("no json"), of("other"));
}

#[test]
fn neighbours_cannot_trade_bytes() {
    let of = |imei: &[&str]| DeviceValue { imei: samples::texts(imei), ..DeviceValue::default() }.fingerprint();
    assert_ne!(of(&["12", "3"]), of(&["1", "23"]));
    assert_ne!(event_id("a", "bc", "d", 1, "f"), event_id("ab", "c", "d", 1, "f"));
}

#[test]
fn an_event_has_its_id_from_all_that_names_it() {
    let base = event_id("acme", "devices", "1", 1, "f");
    assert_eq!(event_id("acme", "devices", "1", 1, "f"), base);
    for other in [
        event_id("acme2", "devices", "1", 1, "f"),
        event_id("acme", "servers", "1", 1, "f"),
        event_id("acme", "devices", "2", 1, "f"),
        event_id("acme", "devices", "1", 2, "f"),
        event_id("acme", "devices", "1", 1, "g"),
    ] {
        assert_ne!(other, base);
    }
}

#[test]
fn the_order_of_sequences_is_that_of_their_numbers() {
    assert_eq!(sequence(1), r#"["00000000000000000001"]"#);
    let numbers = [0, 1, 9, 10, 99, 1_000_000, u64::MAX];
    let texts: Vec<String> = numbers.iter().map(|number| sequence(*number)).collect();
    assert!(texts.is_sorted());
    for (text, number) in texts.iter().zip(numbers) {
        assert_eq!(parse_sequence(text), Some(number));
    }
    for text in ["", "1", r#"["1"]"#, r#"["0000000000000000000x"]"#, r#"["99999999999999999999"]"#] {
        assert_eq!(parse_sequence(text), None, "{text}");
    }
}

#[test]
fn apples_names_become_fields_mechanically() {
    assert_eq!(snake_case("addedToOrgDateTime"), "added_to_org_date_time");
    assert_eq!(snake_case("isMdmMigrationCapable"), "is_mdm_migration_capable");
    assert_eq!(snake_case("imei"), "imei");
}
