//! Every version ever published reads the current one and is read by it, and nothing but additions came between.

use std::fs;

use apache_avro::{
    Schema,
    schema_compatibility::{Compatibility, SchemaCompatibility},
};
use serde_json::{Map, Value as Json};
use xxhash_rust::xxh3::xxh3_128;

use crate::samples;

/// Versions are added to the history and never rewritten: a reader may hold any of them.
const HISTORY_HASHES: [(&str, &str); 21] = [
    ("abm.coverages-key/1", "38be1b7f5c642d6849889a9235cb6eae"),
    ("abm.coverages-value/1", "f0da611a86ca9c3a37cedda9314266e9"),
    ("abm.devices-key/1", "56bef805eed7e6984e4fbfec88671ca0"),
    ("abm.devices-value/1", "c1654d6d60fc5b115bc835faf977bcdd"),
    ("abm.rejects-value/1", "8d070c2264b784ae457aeeb73e985d29"),
    ("abm.scans-key/1", "3a7628d6b7c4ef8e9c9e0e0ed20cedf5"),
    ("abm.scans-value/1", "2149a19a684e89281e8a25ebd63b3fe6"),
    ("abm.servers-key/1", "6f680e15cd26142ed04cf2bf83fb56b4"),
    ("abm.servers-value/1", "b762598c044ecceeaebf8acfbfc66b7b"),
    ("assets.devices-key/1", "c8a7090feebdba1a7651f589d3663820"),
    ("assets.devices-value/1", "27c1a6da07575271232db3d1455e7e08"),
    ("assets.devices-value/2", "ec1d2e21ac5bf09dab1ca566bccdeda4"),
    ("assets.devices.conflicts-key/1", "9b0f57cea5cd7e5c721ee4cdf9b1cb0c"),
    ("assets.devices.conflicts-value/1", "79389b59eccda91408066f1830815a5b"),
    ("assets.devices.contributions-key/1", "e025c929b0fcb7d9859c63a198558ebe"),
    ("assets.devices.contributions-value/1", "ed779e28cdbf2102c40bda5494ede596"),
    ("assets.devices.contributions-value/2", "259de7995d0172d369ccc38272f54224"),
    ("assets.devices.links-key/1", "c4b8b75b2ccd5551cdb66682639e42a7"),
    ("assets.devices.links-value/1", "ee8849131c78be434d376ed09449357f"),
    ("windfall.notifications-key/1", "51442bdb8f2bf7c54ff9783527acea20"),
    ("windfall.notifications-value/1", "7de39e4aef6bd336d3f0a588082b2a28"),
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

/// Fields are added at the end, or at the end of a collection's own: in front of those with `__` that every row has.
fn fields(old: &Map<String, Json>, new: &Map<String, Json>) -> Option<String> {
    let (old_fields, new_fields) = (old["fields"].as_array().unwrap(), new["fields"].as_array().unwrap());
    if old["name"] != new["name"] || new_fields.len() < old_fields.len() {
        return Some(format!("record {} lost its name or a field", old["name"]));
    }
    let of_every_row = |field: &&Json| field["name"].as_str().is_some_and(|name| name.starts_with("__"));
    let tail = old_fields.iter().rev().take_while(of_every_row).count();
    let head = old_fields.len() - tail;
    let (kept_head, rest) = new_fields.split_at(head);
    let begin = rest.iter().position(|field| tail > 0 && field["name"] == old_fields[head]["name"]).unwrap_or(0);
    let (added_own, rest) = rest.split_at(begin);
    let (kept_tail, added_tail) = rest.split_at(tail.min(rest.len()));
    let kept = old_fields.iter().zip(kept_head.iter().chain(kept_tail)).find_map(|(old, new)| {
        if old["name"] != new["name"] {
            return Some(format!("{} stands where {} stood", new["name"], old["name"]));
        }
        changed(old, new).map(|why| format!("{}: {why}", old["name"]))
    });
    kept.or_else(|| {
        let added: Vec<&Json> = added_own.iter().chain(added_tail).collect();
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
fn published_versions_are_frozen_to_the_byte() {
    let mut found = Vec::new();
    for subject in samples::schemas().keys() {
        for (place, text) in history(subject).iter().enumerate() {
            found.push((format!("{subject}/{}", place + 1), format!("{:032x}", xxh3_128(text.as_bytes()))));
        }
    }
    let frozen = HISTORY_HASHES.map(|(version, hash)| (version.to_owned(), hash.to_owned()));
    assert_eq!(found, frozen, "a version of the history was changed, or a new one is not listed here yet");
}

#[test]
fn a_collection_grows_in_front_of_what_every_row_has() {
    let old = r#"{"type": "record", "name": "Value", "fields": [
        {"name": "asset_id", "type": "string"}, {"name": "__deleted", "type": "string"},
        {"name": "__op", "type": ["null", "string"], "default": null}]}"#;
    let new = |field: &str, before: &str| {
        old.replace(&format!("{{\"name\": \"{before}\""), &format!("{field}, {{\"name\": \"{before}\""))
    };
    let nullable = r#"{"name": "cost", "type": ["null", "double"], "default": null}"#;
    assert_eq!(objection(old, &new(nullable, "__deleted")), None);
    assert!(objection(old, &new(nullable, "asset_id")).is_some(), "in front of a field of its own");
    assert!(objection(old, &new(nullable, "__op")).is_some(), "between the fields that every row has");
    assert!(objection(old, &new(r#"{"name": "cost", "type": "double"}"#, "__deleted")).is_some(), "required");
}

#[test]
fn no_history_is_left_of_a_subject_that_is_gone() {
    for entry in fs::read_dir(samples::path("history")).unwrap() {
        let subject = entry.unwrap().file_name().into_string().unwrap();
        assert!(samples::schemas().contains_key(&subject), "{subject}: a topic's schema is never taken away");
    }
}

/// Another id of the key's schema would move keys to other partitions.
#[test]
fn a_key_has_one_version_for_ever() {
    for subject in samples::schemas().keys().filter(|subject| subject.ends_with("-key")) {
        assert_eq!(history(subject).len(), 1, "{subject}");
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
