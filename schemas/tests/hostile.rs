//! A registry and a topic that others write to cannot make us spend what a record is not worth.
//!
//! Where a check is missing, these inputs take more memory or time than any machine has, so the test never ends.

use proptest::prelude::*;
use windfall_schemas::{
    device::DeviceValue,
    envelope::Envelope,
    wire::{Codec, WireError, guard},
};

use crate::{golden::codec, samples};

#[track_caller]
fn refused(text: &str, why: &str) {
    match guard::parse(text) {
        Err(error @ (WireError::Hostile { .. } | WireError::Schema { .. })) => {
            assert!(error.to_string().contains(why), "{error}");
            assert!(error.to_string().len() < 1200);
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("{} is taken", &text[..text.len().min(200)]),
    }
}

#[test]
fn a_type_that_holds_itself_is_refused() {
    refused(r#"{"type": "record", "name": "R", "fields": [{"name": "r", "type": ["null", "R"]}]}"#, "holds itself");
    refused(
        r#"{"type": "record", "name": "A", "fields": [{"name": "b", "type": {"type": "array", "items":
            {"type": "record", "name": "B", "fields": [{"name": "a", "type": "A"}]}}}]}"#,
        "holds itself",
    );
}

#[test]
fn deep_nesting_is_refused() {
    let nested =
        |depth: usize| format!("{}\"string\"{}", r#"{"type": "array", "items": "#.repeat(depth), "}".repeat(depth));
    assert!(guard::parse(&nested(guard::MAX_DEPTH)).is_ok());
    refused(&nested(guard::MAX_DEPTH + 1), "deep");
    refused(&nested(60_000 / 30), "cannot be parsed");
}

#[test]
fn names_that_double_at_each_level_are_refused() {
    let mut text = r#"{"type": "record", "name": "R0", "fields": [{"name": "a", "type": "string"}]}"#.to_owned();
    for level in 1..24 {
        text = format!(
            r#"{{"type": "record", "name": "R{level}", "fields": [{{"name": "a", "type": {text}}}, {{"name": "b", "type": "R{}"}}]}}"#,
            level - 1
        );
    }
    refused(&text, "unfolds");
}

#[test]
fn items_that_take_no_bytes_are_refused() {
    refused(r#"{"type": "array", "items": "null"}"#, "takes no bytes".replace("takes", "take").as_str());
    refused(r#"{"type": "array", "items": {"type": "record", "name": "E", "fields": []}}"#, "no bytes");
    refused(r#"{"type": "map", "values": {"type": "fixed", "name": "F", "size": 0}}"#, "no bytes");
    let wide: Vec<String> = (0..100).map(|place| format!(r#"{{"name": "f{place}", "type": "null"}}"#)).collect();
    let wide = format!(
        r#"{{"type": "array", "items": ["null", {{"type": "record", "name": "W", "fields": [{}]}}]}}"#,
        wide.join(",")
    );
    refused(&wide, "no bytes");
}

#[test]
fn fixed_types_and_texts_of_any_size_are_refused() {
    refused(r#"{"type": "fixed", "name": "F", "size": 1000000000000}"#, "bytes, more than");
    refused(&format!(r#"{{"type": "string", "doc": "{}"}}"#, "x".repeat(guard::MAX_SCHEMA_BYTES)), "its text has");
    refused("no schema at all", "cannot be parsed");
    refused(r#"{"type": "record", "name": "R", "fields": [{"name": "a", "type": "Unknown"}]}"#, "");
}

/// Zigzag number, as Avro writes lengths and counts.
fn number(value: i64) -> Vec<u8> {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    let mut bytes = Vec::new();
    while rest > 0x7F {
        bytes.push((rest & 0x7F) as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

#[test]
fn lengths_and_counts_that_the_record_cannot_hold_are_errors_at_once() {
    let schemas = [
        r#""string""#,
        r#""bytes""#,
        r#"{"type": "array", "items": "string"}"#,
        r#"{"type": "map", "values": "long"}"#,
        r#"{"type": "array", "items": "boolean"}"#,
    ];
    let counts = [1 << 20, 1 << 40, i64::MAX, -1, -(1 << 40), i64::MIN, i64::MIN + 1];
    for schema in schemas {
        let codec = Codec::new(1, schema).unwrap();
        for count in counts {
            assert!(codec.decode_json(&number(count)).is_err(), "{schema} with {count}");
            let mut behind = number(count);
            behind.extend_from_slice(&[0x80; 40]);
            assert!(codec.decode_json(&behind).is_err(), "{schema} with {count}");
        }
    }
}

/// A length that is not checked costs its memory before the end of the record is seen.
#[test]
fn a_length_beyond_the_limit_is_refused_before_memory_is_asked_for() {
    let codec = Codec::new(1, r#""bytes""#).unwrap();
    let error = codec.decode_json(&number(300 * 1024 * 1024)).unwrap_err().to_string();
    assert!(error.contains("allocate"), "{error}");
}

#[test]
fn a_foreign_schema_is_read_as_json_whatever_its_types() {
    let schema = r#"{"type": "record", "name": "R", "fields": [
        {"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["A", "B"]}},
        {"name": "f", "type": {"type": "fixed", "name": "F", "size": 2}},
        {"name": "x", "type": "float"},
        {"name": "u", "type": ["string", "long", "null"]},
        {"name": "m", "type": {"type": "map", "values": ["null", "double"]}}]}"#;
    let codec = Codec::new(1, schema).unwrap();
    let mut datum = vec![2, 0xAB, 0xCD];
    datum.extend_from_slice(&1.5f32.to_le_bytes());
    datum.extend_from_slice(&[2, 14, 2, 2, b'k', 2]);
    datum.extend_from_slice(&f64::NAN.to_le_bytes());
    datum.push(0);
    let json = serde_json::json!({"e": "B", "f": "q80=", "x": 1.5, "u": 7, "m": {"k": null}});
    assert_eq!(codec.decode_json(&datum).unwrap(), json);
}

proptest! {
    /// No panic and no endless loop, whatever becomes of the bytes of a real record.
    #[test]
    fn a_spoilt_record_is_read_or_refused(spoilt in proptest::collection::vec((0usize..1000, any::<u8>()), 1..8)) {
        let codec = codec("abm.devices-value");
        let mut bytes = codec.encode(&samples::envelope("devices", samples::device())).unwrap();
        for (at, byte) in spoilt {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        let typed = codec.decode::<Envelope<DeviceValue>>(&bytes);
        let json = codec.decode_json(&bytes[5..]);
        // What fits the type fits the schema; only then can both be read.
        prop_assert!(typed.is_err() || json.is_ok());
        if let Err(error) = typed {
            prop_assert!(error.to_string().len() < 1200);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for subject in ["abm.devices-value", "assets.devices-value", "abm.rejects-value", "windfall.notifications-value"] {
            let _ = codec(subject).decode_json(&bytes);
        }
    }
}
