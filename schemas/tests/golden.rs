//! A fixed record per schema has the bytes that stand in `golden/`, whichever library writes it, and reads as the JSON
//! beside them. `WINDFALL_BLESS=1` writes the files anew; `golden.py` reads them with a third library.

use std::{env, fs};

use serde::{Serialize, de::DeserializeOwned};
use serde_avro_fast::{Schema as FastSchema, from_datum_slice, ser::SerializerConfig, to_datum_vec};
use serde_json::Value as Json;
use windfall_schemas::{device::DeviceValue, envelope::Envelope, wire::Codec};

use crate::samples;

/// Id in the frame of all samples; it does not stand in the golden files.
pub(crate) const ID: u32 = 0x0102_0304;

pub(crate) fn codec(subject: &str) -> Codec {
    Codec::new(ID, &samples::schemas()[subject]).unwrap()
}

pub(crate) fn fast_schema(subject: &str) -> FastSchema {
    samples::schemas()[subject].parse().unwrap()
}

pub(crate) fn fast_bytes<T: Serialize>(subject: &str, value: &T) -> Vec<u8> {
    to_datum_vec(value, &mut SerializerConfig::new(&fast_schema(subject))).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compares a file with what it should hold, or writes it when asked to.
fn matches_file(path: &str, text: &str) {
    let path = samples::path(path);
    if env::var_os("WINDFALL_BLESS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
    }
    assert_eq!(samples::read(path), text);
}

/// The datum of a framed record.
#[track_caller]
fn datum(framed: &[u8]) -> &[u8] {
    assert_eq!(framed[..5], [0, 1, 2, 3, 4]);
    &framed[5..]
}

fn agrees_with_files(name: &str, subject: &str, datum: &[u8]) {
    matches_file(&format!("tests/golden/{name}.hex"), &format!("{}\n", hex(datum)));
    let json = codec(subject).decode_json(datum).unwrap();
    matches_file(&format!("tests/golden/{name}.json"), &format!("{}\n", serde_json::to_string_pretty(&json).unwrap()));
}

/// Both libraries write the golden bytes of a value and read it back.
#[track_caller]
fn golden<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(name: &str, subject: &str, value: &T) {
    let framed = codec(subject).encode(value).unwrap();
    let bytes = datum(&framed);
    assert_eq!(hex(&fast_bytes(subject, value)), hex(bytes), "{name}: the libraries write different bytes");
    assert_eq!(&codec(subject).decode::<T>(&framed).unwrap(), value, "{name}");
    assert_eq!(&from_datum_slice::<T>(bytes, &fast_schema(subject)).unwrap(), value, "{name}");
    agrees_with_files(name, subject, bytes);
}

#[test]
fn changes_have_their_golden_bytes() {
    golden("abm.devices-key", "abm.devices-key", &samples::device().key());
    golden("abm.devices-value", "abm.devices-value", &samples::envelope("devices", samples::device()));
    let bare: Envelope<DeviceValue> = samples::bare_envelope("devices");
    golden("abm.devices-value.bare", "abm.devices-value", &bare);
    golden("abm.servers-key", "abm.servers-key", &samples::server().key());
    golden("abm.servers-value", "abm.servers-value", &samples::envelope("servers", samples::server()));
}

#[test]
fn scans_rejects_and_notifications_have_their_golden_bytes() {
    golden("abm.scans-key", "abm.scans-key", &samples::scan().key());
    golden("abm.scans-value", "abm.scans-value", &samples::scan());
    golden("abm.rejects-value", "abm.rejects-value", &samples::reject());
    golden("windfall.notifications-key", "windfall.notifications-key", &samples::notification().key());
    golden("windfall.notifications-value", "windfall.notifications-value", &samples::notification());
}

#[test]
fn what_the_transformer_remembers_has_its_golden_bytes() {
    golden("assets.devices-key", "assets.devices-key", &samples::asset_key());
    golden("assets.devices.links-key", "assets.devices.links-key", &samples::link_key());
    golden("assets.devices.links-value", "assets.devices.links-value", &samples::link());
    golden("assets.devices.contributions-key", "assets.devices.contributions-key", &samples::contribution_key());
    golden("assets.devices.conflicts-key", "assets.devices.conflicts-key", &samples::conflict_key());
    golden("assets.devices.conflicts-value", "assets.devices.conflicts-value", &samples::conflict());
}

/// Rows whose fields come from the collection: the other library writes them from JSON.
#[test]
fn flat_records_and_contributions_have_their_golden_bytes() {
    let collection = samples::devices();
    let asset = collection.encode_asset(&codec("assets.devices-value"), &samples::asset(&collection)).unwrap();
    let contributions = "assets.devices.contributions-value";
    let contribution = samples::contribution(&collection);
    let contribution = collection.encode_contribution(&codec(contributions), &contribution).unwrap();
    for (subject, framed) in [("assets.devices-value", asset), (contributions, contribution)] {
        let bytes = datum(&framed);
        agrees_with_files(subject, subject, bytes);
        let json: Json = from_datum_slice(bytes, &fast_schema(subject)).unwrap();
        assert_eq!(json, codec(subject).decode_json(bytes).unwrap(), "{subject}");
        assert_eq!(hex(&fast_bytes(subject, &json)), hex(bytes), "{subject}");
    }
}

#[test]
fn every_subject_has_golden_bytes() {
    for subject in samples::schemas().keys() {
        assert!(samples::path(&format!("tests/golden/{subject}.hex")).exists(), "{subject}");
    }
}
