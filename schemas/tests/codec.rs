//! The frame, the limits, and what is an error.

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value as Json;
use windfall_schemas::{
    device::{self, DeviceKey, DeviceValue},
    envelope::{Block, Envelope, Op},
    wire::{Codec, MAX_ERROR_BYTES, MAX_READ_BYTES, SchemaReference, WireError, frame, unframe},
};

use crate::{
    golden::{ID, codec},
    samples,
};

fn key() -> DeviceKey {
    samples::device().key()
}

#[test]
fn a_frame_names_the_schema_by_its_id() {
    let framed = frame(258, b"datum");
    assert_eq!(framed, b"\x00\x00\x00\x01\x02datum");
    assert_eq!(unframe(&framed, None), Ok((SchemaReference::Id(258), &b"datum"[..])));
}

#[test]
fn a_header_names_the_schema_instead_of_the_frame() {
    let guid: Vec<u8> = std::iter::once(1).chain(0..16).collect();
    let (reference, datum) = unframe(b"\x00datum", Some(&guid)).unwrap();
    assert_eq!(reference.to_string(), "00010203-0405-0607-0809-0a0b0c0d0e0f");
    assert_eq!(datum, b"\x00datum");
    assert_eq!(unframe(b"d", Some(b"\x00\x00\x00\x01\x02")), Ok((SchemaReference::Id(258), &b"d"[..])));
}

#[test]
fn bytes_without_a_frame_are_refused() {
    for bytes in [&b""[..], b"\x00", b"\x00\x00\x00\x01", b"\x01\x00\x00\x00\x01x", b"{\"json\": true}"] {
        assert!(matches!(unframe(bytes, None), Err(WireError::Frame { .. })), "{bytes:?}");
    }
    for header in [&b""[..], b"\x00\x01", b"\x01\x02", b"\x02\x00\x00\x00\x01"] {
        assert!(matches!(unframe(b"\x00\x00\x00\x00\x01", Some(header)), Err(WireError::Frame { .. })), "{header:?}");
    }
}

#[test]
fn a_record_of_another_schema_is_not_read() {
    let bytes = codec("abm.devices-key").encode(&key()).unwrap();
    let other = Codec::new(ID + 1, device::KEY_SCHEMA).unwrap();
    let error = other.decode::<DeviceKey>(&bytes).unwrap_err();
    assert_eq!(error, WireError::OtherSchema { expected: ID + 1, found: ID.to_string() });
}

#[test]
fn a_record_cut_anywhere_is_an_error() {
    let codec = codec("abm.devices-value");
    let bytes = codec.encode(&samples::envelope("devices", samples::device())).unwrap();
    for length in 0..bytes.len() {
        let cut = codec.decode::<Envelope<DeviceValue>>(&bytes[..length]);
        assert!(cut.is_err(), "{length} of {} bytes are read", bytes.len());
        assert!(codec.decode_json(bytes[5..].get(..length.saturating_sub(5)).unwrap()).is_err(), "{length} as JSON");
    }
}

#[test]
fn a_flat_record_cut_anywhere_is_an_error() {
    let (collection, codec) = (samples::devices(), codec("assets.devices-value"));
    let bytes = collection.encode_asset(&codec, &samples::asset(&collection)).unwrap();
    for length in 0..bytes.len() {
        assert!(collection.decode_asset(&codec, &bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
    }
}

#[test]
fn bytes_left_over_are_an_error() {
    let codec = codec("abm.devices-key");
    let mut bytes = codec.encode(&key()).unwrap();
    bytes.extend_from_slice(b"xyz");
    let error = codec.decode::<DeviceKey>(&bytes).unwrap_err();
    assert_eq!(error, WireError::LeftOver { name: "abm.devices.Key".into(), bytes: 3 });
}

#[test]
fn a_record_that_is_too_large_is_not_written() {
    let key = DeviceKey { org: "acme".into(), device_id: "x".repeat(256 * 1024) };
    assert!(matches!(codec("abm.devices-key").encode(&key), Err(WireError::TooLarge { bytes }) if bytes > 256 * 1024));
}

#[test]
fn a_record_that_is_too_long_is_not_read() {
    let codec = codec("abm.devices-key");
    let bytes = frame(ID, &vec![0; MAX_READ_BYTES + 1]);
    assert_eq!(codec.decode::<DeviceKey>(&bytes), Err(WireError::TooLong { bytes: MAX_READ_BYTES + 1 }));
}

#[test]
fn a_value_that_does_not_fit_is_an_error_that_names_the_field_and_no_schema() {
    #[derive(serde::Serialize)]
    #[serde(rename = "Envelope")]
    struct Wrong {
        before: Option<String>,
    }
    let wrong = Wrong { before: Some("a device".into()) };
    let error = codec("abm.devices-value").encode(&wrong).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, WireError::Encode { .. }), "{text}");
    assert!(text.contains("`before`"), "{text}");
    assert!(text.len() <= MAX_ERROR_BYTES + 128, "{} bytes", text.len());
    assert!(!text.contains("serial_number"), "the schema is printed: {text}");
}

#[test]
fn a_field_that_the_value_lacks_is_written_as_its_default() {
    #[derive(serde::Serialize)]
    #[serde(rename = "R")]
    struct Older {
        a: &'static str,
    }
    let text = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"string"},
        {"name":"b","type":["null","string"],"default":null},{"name":"c","type":"long","default":7}]}"#;
    let codec = Codec::new(ID, text).unwrap();
    let bytes = codec.encode(&Older { a: "x" }).unwrap();
    assert_eq!(bytes[5..], [2, b'x', 0, 14]);
}

#[test]
fn a_datum_read_into_another_type_is_an_error_that_holds_no_schema() {
    let codec = codec("abm.devices-value");
    let bytes = codec.encode(&samples::envelope("devices", samples::device())).unwrap();
    let text = codec.decode::<DeviceKey>(&bytes).unwrap_err().to_string();
    assert!(text.starts_with("the bytes are no value of `abm.devices.Envelope`"), "{text}");
    assert!(!text.contains("serial_number"), "the schema is printed: {text}");
}

#[test]
fn an_unknown_op_is_an_error_and_an_unknown_kind_is_kept() {
    let codec = codec("abm.devices-value");
    let mut event = samples::envelope("devices", samples::device());
    event.kind = Some("teleported".into());
    let bytes = codec.encode(&event).unwrap();
    let read: Envelope<DeviceValue> = codec.decode(&bytes).unwrap();
    assert_eq!(read.kind.unwrap().as_str(), "teleported");

    let before = b"\x02u\x02"; // op, and the branch of ts_ms behind it
    let at = bytes.windows(3).rposition(|window| window == before).unwrap();
    let mut unknown = bytes.clone();
    unknown[at + 1] = b't';
    let error = codec.decode::<Envelope<DeviceValue>>(&unknown).unwrap_err().to_string();
    assert!(error.contains("op is none of"), "{error}");
}

/// Takes fields away wherever they stand, as an older version of the schema lacked them.
fn without(schema: &mut Json, names: &[&str]) {
    match schema {
        Json::Array(parts) => {
            parts.retain(|part| !names.iter().any(|name| part["name"] == *name));
            parts.iter_mut().for_each(|part| without(part, names));
        }
        Json::Object(object) => object.values_mut().for_each(|part| without(part, names)),
        _ => {}
    }
}

/// A consumer that is newer than the producer: the writer's schema decides what is in the bytes.
#[test]
fn an_old_record_fills_a_new_type_with_its_defaults() {
    let mut old: Json = serde_json::from_str(device::VALUE_SCHEMA).unwrap();
    without(&mut old, &["evidence", "audit_event_id", "unmapped"]);
    let writer = Codec::new(7, &old.to_string()).unwrap();
    let json = serde_json::json!({
        "before": null, "op": "r", "changed": [],
        "after": {"org": "acme", "device_id": "1", "serial_number": "2"},
        "source": {"version": "0.1.0", "connector": "abm", "name": "windfall", "ts_ms": 0, "snapshot": "false",
            "db": "acme", "table": "devices"},
    });
    let bytes = writer.encode(&Record(&json)).unwrap();

    let mut event: Envelope<DeviceValue> = samples::bare_envelope("devices");
    event.op = Op::Read;
    event.after = Some(DeviceValue {
        org: "acme".into(),
        device_id: "1".into(),
        serial_number: "2".into(),
        ..DeviceValue::default()
    });
    assert_eq!(writer.decode::<Envelope<DeviceValue>>(&bytes).unwrap(), event);
}

/// A consumer that is older than the producer: it skips what it does not know.
#[test]
fn a_new_record_is_read_by_an_old_type() {
    // Nested records cannot be skipped, so an old type names them all.
    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename = "Envelope")]
    struct Old {
        before: Option<OldValue>,
        after: Option<OldValue>,
        source: OldSource,
        transaction: Option<Block>,
    }
    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename = "Source")]
    struct OldSource {
        db: String,
    }
    #[derive(Debug, Clone, PartialEq, Deserialize)]
    #[serde(rename = "Value")]
    struct OldValue {
        device_id: String,
        imei: Option<Vec<String>>,
    }
    let codec = codec("abm.devices-value");
    let device = samples::device();
    let event = samples::envelope("devices", device.clone());
    let bytes = codec.encode(&event).unwrap();
    let image = Some(OldValue { device_id: device.device_id, imei: device.imei });
    let source = OldSource { db: "acme".into() };
    let old = Old { before: image.clone(), after: image, source, transaction: event.transaction };
    assert_eq!(codec.decode::<Old>(&bytes).unwrap(), old);
}

/// JSON as a record: optional values as options, which the writer wants where a union stands.
struct Record<'a>(&'a Json);

impl Serialize for Record<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Json::Null => serializer.serialize_none(),
            Json::Object(fields) if fields.contains_key("device_id") => serializer.serialize_some(&Fields(fields)),
            Json::Number(number) => serializer.serialize_i64(number.as_i64().unwrap()),
            Json::Object(fields) => Fields(fields).serialize(serializer),
            other => other.serialize(serializer),
        }
    }
}

struct Fields<'a>(&'a serde_json::Map<String, Json>);

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, Record(value))))
    }
}
