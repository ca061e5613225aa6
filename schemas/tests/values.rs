//! Identifiers, times, parts of a scan, rejects and signals: text in, one form out.

use proptest::prelude::*;
use windfall_schemas::{
    identifiers::{DeviceId, Eid, Imei, MacAddress, Meid, Org, SerialNumber},
    reject::RejectValue,
    scan::ScanPart,
    signal::{ApproveScan, Signal},
    timestamp::{format_millis, parse, parse_millis},
};

use crate::samples;

#[test]
fn the_written_forms_of_a_mac_address_are_one() {
    for text in ["0a:1b:2c:3d:4e:5f", "0A-1B-2C-3D-4E-5F", "0a1b.2c3d.4e5f", " 0A1B2C3D4E5F "] {
        assert_eq!(MacAddress::parse(text).unwrap().as_str(), "0A1B2C3D4E5F", "{text}");
    }
    for text in ["", "0a:1b:2c:3d:4e", "0a:1b:2c:3d:4e:5g", "0A1B2C3D4E5F00", "Not Available"] {
        assert!(MacAddress::parse(text).is_err(), "{text}");
    }
}

#[test]
fn the_written_forms_of_radio_identifiers_are_one() {
    assert_eq!(Imei::parse("35 000000 000101 2").unwrap().as_str(), "350000000001012");
    assert_eq!(Imei::parse("35-000000-000101").unwrap().as_str(), "35000000000101");
    assert_eq!(Meid::parse("a0 0000 0009 2e28").unwrap().as_str(), "A0000000092E28");
    assert_eq!(Meid::parse("268435456002010026").unwrap().as_str(), "268435456002010026");
    assert_eq!(
        Eid::parse("8904 9032 0000 0000 0000 0000 0001 0154").unwrap().as_str(),
        "89049032000000000000000000010154"
    );
    for text in ["", "1234567890123", "12345678901234567", "A5000000000101"] {
        assert!(Imei::parse(text).is_err(), "{text}");
    }
    for text in ["", "A0000000092E2", "A00000000092E28", "26843545600201002X"] {
        assert!(Meid::parse(text).is_err(), "{text}");
    }
    assert!(Eid::parse("8904903200000000000000000001015").is_err());
}

#[test]
fn an_id_is_kept_as_it_is_and_a_serial_number_in_upper_case() {
    assert_eq!(DeviceId::parse(" Abc-1 ").unwrap().as_str(), "Abc-1");
    assert_eq!(SerialNumber::parse(" fxtvar0010kk ").unwrap().as_str(), "FXTVAR0010KK");
    for text in ["", "   ", "a\u{0}b", "a\nb", &"x".repeat(129)] {
        assert!(DeviceId::parse(text).is_err(), "{text:?}");
        assert!(SerialNumber::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn an_alias_is_a_name_that_databases_take() {
    for text in ["a", "acme", "acme_school_2"] {
        assert_eq!(Org::parse(text).unwrap().as_str(), text);
    }
    for text in ["", "Acme", "2nd", "_acme", "acme-school", "acme.school", "ümlaut"] {
        let error = Org::parse(text).unwrap_err().to_string();
        assert!(error.contains("[a-z][a-z0-9_]*"), "{error}");
    }
}

#[test]
fn apples_times_are_read_with_any_fraction_and_offset() {
    let cases = [
        ("2011-08-15T07:00:00Z", 1_313_391_600_000),
        ("2011-08-15T07:00:00.5Z", 1_313_391_600_500),
        ("2011-08-15T07:00:00.52Z", 1_313_391_600_520),
        ("2011-08-15T07:00:00.255Z", 1_313_391_600_255),
        ("2011-08-15T07:00:00.255999999Z", 1_313_391_600_255),
        ("2011-08-15T09:00:00+02:00", 1_313_391_600_000),
        ("2011-08-15T00:30:00.000-0630", 1_313_391_600_000),
        (" 2011-08-15t07:00:00z ", 1_313_391_600_000),
        ("1969-12-31T23:59:59.999Z", -1),
        // Without a zone it is UTC, without a time it is midnight.
        ("2011-08-15T07:00:00", 1_313_391_600_000),
        ("2011-08-15", 1_313_366_400_000),
    ];
    for (text, millis) in cases {
        assert_eq!(parse_millis(text), Ok(millis), "{text}");
    }
    for text in ["", "yesterday", "2011-13-15T07:00:00Z", "1313391600"] {
        assert!(parse(text).is_err(), "{text}");
    }
    assert!(parse(&"x".repeat(500)).unwrap_err().to_string().len() < 150);
}

#[test]
fn the_parts_of_a_scan_have_the_texts_of_the_contract() {
    let cases = [
        ("", ScanPart::Header),
        ("seen:12", ScanPart::Seen(12)),
        ("suspect:SIM:1", ScanPart::Suspect("SIM:1".into())),
        ("held:p:1:0", ScanPart::Held { plan: "p:1".into(), chunk: 0 }),
        ("limiter", ScanPart::Limiter),
        ("audit", ScanPart::Audit),
        ("signals", ScanPart::Signals),
        ("queue:3", ScanPart::Other("queue:3".into())),
        // Earlier versions wrote these two; they may stand in the topic for ever.
        ("owner", ScanPart::Other("owner".into())),
        ("owner:once", ScanPart::Other("owner:once".into())),
        ("seen:x", ScanPart::Other("seen:x".into())),
    ];
    for (text, part) in cases {
        assert_eq!(ScanPart::parse(text), part);
        assert_eq!(part.to_string(), text);
    }
}

#[test]
fn a_reject_is_cut_to_what_can_be_sent() {
    let reject =
        RejectValue { message: "ä".repeat(2_000), payload: Some(vec![7; 400 * 1024]), ..samples::reject() }.cut();
    assert_eq!(reject.message.chars().count(), 1_000);
    assert!(crate::golden::codec("abm.rejects-value").encode(&reject).is_ok());
}

#[test]
fn an_approval_is_the_json_that_the_contract_shows() {
    let approval = ApproveScan { source: "acme".into(), plan: "p-1".into(), plan_hash: "abc".into() };
    let signal = Signal::approve_scan("id-1", &approval);
    let json: serde_json::Value = serde_json::from_slice(&signal.to_json()).unwrap();
    let data = serde_json::json!({"source": "acme", "plan": "p-1", "plan_hash": "abc"});
    assert_eq!(json, serde_json::json!({"id": "id-1", "type": "approve-scan", "data": data}));
    let read = Signal::from_json(&signal.to_json()).unwrap();
    assert_eq!(read.as_approve_scan().unwrap().unwrap(), approval);
}

#[test]
fn a_signal_of_another_type_is_no_approval_and_one_without_data_says_so() {
    let other = Signal::from_json(br#"{"id": "1", "type": "log", "data": {"message": "m"}}"#).unwrap();
    assert!(other.as_approve_scan().is_none());
    let empty = Signal::from_json(br#"{"id": "1", "type": "approve-scan"}"#).unwrap();
    assert!(empty.as_approve_scan().unwrap().is_err());
    assert!(Signal::from_json(b"not json").is_err());
}

proptest! {
    #[test]
    fn a_time_that_is_written_is_read_back(millis in -60_000_000_000_000i64..250_000_000_000_000) {
        prop_assert_eq!(parse_millis(&format_millis(millis).unwrap()), Ok(millis));
    }

    #[test]
    fn what_was_parsed_once_parses_to_itself(text in "\\PC{0,40}") {
        if let Ok(serial) = SerialNumber::parse(&text) {
            prop_assert_eq!(SerialNumber::parse(serial.as_str()).unwrap(), serial);
        }
    }
}
