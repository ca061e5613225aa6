//! Every version ever published reads the current one and is read by it, and nothing but additions came between.

use std::fs;

use apache_avro::{
    Schema,
    schema_compatibility::{Compatibility, SchemaCompatibility},
};
use serde_json::{Map, Value as Json};
use xxhash_rust::xxh3::xxh3_128;

use crate::samples;

/// Keys are frozen: another id of the key's schema moves keys to other partitions.
const KEY_HASHES: [(&str, &str); 9] = [
    ("abm.coverages-key", "38be1b7f5c642d6849889a9235cb6eae"),
    ("abm.devices-key", "56bef805eed7e6984e4fbfec88671ca0"),
    ("abm.scans-key", "3a7628d6b7c4ef8e9c9e0e0ed20cedf5"),
    ("abm.servers-key", "6f680e15cd26142ed04cf2bf83fb56b4"),
    ("assets.devices-key", "c8a7090feebdba1a7651f589d3663820"),
    ("assets.devices.conflicts-key", "9b0f57cea5cd7e5c721ee4cdf9b1cb0c"),
    ("assets.devices.contributions-key", "e025c929b0fcb7d9859c63a198558ebe"),
    ("assets.devices.links-key", "c4b8b75b2ccd5551cdb66682639e42a7"),
    ("windfall.notifications-key", "51442bdb8f2bf7c54ff9783527acea20"),
];

/// Says what stands between two versions; `None` when each reads the other and only nullable fields were added.
fn objection(older: &str, newer: &str) -> Option<String> {
    let (old, new) = (Schema::parse_str(older).unwrap(), Schema::parse_str(newer).unwrap());
    for (writer, reader, way) in [(&old, &new, "the newer reads the older"), (&new, &old, "the older reads the newer")]
    {
        match SchemaCompatibility::can_read(writer, reader) {
            Ok(Compatibility::Full) => {}
            Ok(Compatibility::Partial) => return Some(format!("{way} only in part")),
            Err(error) => return Some(format!("{way}: {error}")),
        }
    }
    changed(&serde_json::from_str(older).unwrap(), &serde_json::from_str(newer).unwrap())
}

/// Finds what is not an addition: the library lets units, names and orders change.
fn changed(old: &Json, new: &Json) -> Option<String> {
    match (old, new) {
        (Json::Object(old), Json::Object(new)) if old.get("type") == Some(&Json::from("record")) => fields(old, new),
        (Json::Object(old), Json::Object(new)) => ["type", "items", "values", "logicalType", "default"]
            .iter()
            .find_map(|part| match (old.get(*part), new.get(*part)) {
                (Some(old), Some(new)) => changed(old, new),
                (None, None) => None,
                _ => Some(format!("`{part}` came or went")),
            }),
        (Json::Array(old), Json::Array(new)) if old.len() == new.len() => {
            old.iter().zip(new).find_map(|(old, new)| changed(old, new))
        }
        _ if old == new => None,
        _ => Some(format!("{old} became {new}")),
    }
}

fn fields(old: &Map<String, Json>, new: &Map<String, Json>) -> Option<String> {
    let (old_fields, new_fields) = (old["fields"].as_array().unwrap(), new["fields"].as_array().unwrap());
    if old["name"] != new["name"] || new_fields.len() < old_fields.len() {
        return Some(format!("record {} lost its name or a field", old["name"]));
    }
    let kept = old_fields.iter().zip(new_fields).find_map(|(old, new)| {
        if old["name"] != new["name"] {
            return Some(format!("{} stands where {} stood", new["name"], old["name"]));
        }
        changed(old, new).map(|why| format!("{}: {why}", old["name"]))
    });
    kept.or_else(|| {
        let added = &new_fields[old_fields.len()..];
        let wrong = added.iter().find(|field| field["type"][0] != "null" || field.get("default") != Some(&Json::Null));
        // An older type cannot skip a record: see `wire::Codec`.
        let nested = || added.iter().find(|field| field["type"][1]["type"] == "record");
        wrong
            .or_else(nested)
            .map(|field| format!("{} was added without being a nullable scalar or list", field["name"]))
    })
}

fn history(subject: &str) -> Vec<String> {
    let folder = samples::path(&format!("history/{subject}"));
    let versions = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())).count();
    (1..=versions).map(|version| samples::read(folder.join(format!("{version}.avsc")))).collect()
}

#[test]
fn every_published_version_and_the_current_one_read_each_other() {
    for (subject, current) in samples::schemas() {
        for (place, version) in history(&subject).iter().enumerate() {
            assert_eq!(objection(version, &current), None, "{subject}, version {}", place + 1);
        }
    }
}

#[test]
fn the_current_file_is_the_newest_version_in_the_history() {
    for (subject, current) in samples::schemas() {
        assert_eq!(history(&subject).last(), Some(&current), "{subject}: add the file to history/ as the next version");
    }
}

#[test]
fn no_history_is_left_of_a_subject_that_is_gone() {
    for entry in fs::read_dir(samples::path("history")).unwrap() {
        let subject = entry.unwrap().file_name().into_string().unwrap();
        assert!(samples::schemas().contains_key(&subject), "{subject}: a topic's schema is never taken away");
    }
}

#[test]
fn key_schemas_are_frozen_to_the_byte() {
    let schemas = samples::schemas();
    assert_eq!(schemas.keys().filter(|subject| subject.ends_with("-key")).count(), KEY_HASHES.len());
    for (subject, hash) in KEY_HASHES {
        assert_eq!(format!("{:032x}", xxh3_128(schemas[subject].as_bytes())), hash, "{subject}");
    }
}

#[test]
fn changes_that_break_a_reader_are_objected_to() {
    let old = r#"{"type": "record", "name": "Value", "fields": [
        {"name": "id", "type": "string"},
        {"name": "at", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}], "default": null}]}"#;
    let grown = |field: &str| old.replace("\"default\": null}]}", &format!("\"default\": null}}, {field}]}}"));
    assert_eq!(objection(old, old), None);
    assert_eq!(objection(old, &grown(r#"{"name": "n", "type": ["null", "string"], "default": null}"#)), None);

    let breaking = [
        ("a required field", grown(r#"{"name": "n", "type": "string"}"#)),
        ("a field with a default that is not null", grown(r#"{"name": "n", "type": "string", "default": ""}"#)),
        (
            "a record",
            grown(r#"{"name": "n", "type": ["null", {"type": "record", "name": "R", "fields": []}], "default": null}"#),
        ),
        ("another unit", old.replace("timestamp-millis", "timestamp-micros")),
        ("another type", old.replace("\"type\": \"string\"", "\"type\": \"bytes\"")),
        ("another name", old.replace("\"name\": \"at\"", "\"name\": \"when\"")),
        ("a field less", r#"{"type": "record", "name": "Value", "fields": [{"name": "id", "type": "string"}]}"#.into()),
    ];
    for (what, new) in breaking {
        assert_ne!(new, old, "{what} is no change");
        assert!(objection(old, &new).is_some(), "{what} passes");
    }
}
