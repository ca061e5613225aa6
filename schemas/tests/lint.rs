//! What foreign readers fail on stands in no schema.

use proptest::prelude::*;
use serde_json::Value as Json;
use windfall_schemas::{asset::Collection, topic::Names, wire::guard};

use crate::samples;

/// Where in a schema the lint is.
#[derive(Clone, Copy)]
struct Place<'a> {
    subject: &'a str,
    /// Inside of a `Value`, which must be flat.
    in_value: bool,
}

fn lint(schema: &Json, place: Place<'_>) -> Vec<String> {
    let mut faults = Vec::new();
    visit(schema, place, &mut faults);
    faults
}

fn visit(schema: &Json, place: Place<'_>, faults: &mut Vec<String>) {
    match schema {
        Json::Array(branches) => {
            if branches.len() != 2 || branches[0] != "null" {
                faults.push(format!("a union is not null and one other: {schema}"));
            }
            branches.iter().for_each(|branch| visit(branch, place, faults));
        }
        Json::Object(object) => match object["type"].as_str() {
            Some("record") => record(schema, place, faults),
            Some("enum") => faults.push(format!("enum {}", object["name"])),
            Some("map") if place.subject != "windfall.notifications-value" => faults.push("a map".to_owned()),
            Some("array") => visit(&object["items"], place, faults),
            _ => {}
        },
        _ => {}
    }
}

fn record(schema: &Json, place: Place<'_>, faults: &mut Vec<String>) {
    // The one record inside of a `Value`: links are read by the transformer alone.
    if place.in_value && schema["connect.name"] != "assets.devices.links.Asset" {
        faults.push(format!("record {} inside of a Value", schema["name"]));
    }
    let place = Place { in_value: place.in_value || schema["name"] == "Value", ..place };
    for field in schema["fields"].as_array().expect("a record has fields") {
        let name = field["name"].as_str().expect("a field has a name");
        let snake = name.bytes().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b'_');
        if !snake {
            faults.push(format!("{name} is not in snake_case"));
        }
        if field.get("doc").and_then(Json::as_str).is_none_or(str::is_empty) {
            faults.push(format!("{name} has no doc"));
        }
        if let Some(fault) = default_fault(field, place) {
            faults.push(format!("{name}: {fault}"));
        }
        visit(&field["type"], place, faults);
    }
}

/// A default fits the first branch; an array of a `Value` has none, for Debezium's JDBC sink dies of it.
fn default_fault(field: &Json, place: Place<'_>) -> Option<&'static str> {
    let kind = match &field["type"] {
        Json::Array(branches) => &branches[0],
        kind => kind,
    };
    let kind = if kind.is_object() { &kind["type"] } else { kind };
    match (field.get("default"), kind.as_str()) {
        (None, Some("null")) => Some("a nullable field has no default"),
        (None, _) | (Some(Json::Null), Some("null")) => None,
        (Some(Json::String(_)), Some("string")) | (Some(Json::Bool(_)), Some("boolean")) => None,
        (Some(Json::Array(items)), Some("array")) if items.is_empty() && !place.in_value => None,
        _ => Some("its default does not fit"),
    }
}

#[test]
fn no_schema_has_what_readers_fail_on() {
    for (subject, text) in samples::schemas() {
        let schema: Json = serde_json::from_str(&text).unwrap();
        assert_eq!(lint(&schema, Place { subject: &subject, in_value: false }), Vec::<String>::new(), "{subject}");
    }
}

#[test]
fn the_lint_finds_each_fault() {
    let faulty = [
        r#"{"name": "f", "doc": "d", "type": {"type": "enum", "name": "E", "symbols": ["A"]}}"#,
        r#"{"name": "f", "doc": "d", "type": {"type": "map", "values": "string"}}"#,
        r#"{"name": "f", "doc": "d", "type": {"type": "record", "name": "R", "fields": []}}"#,
        r#"{"name": "f", "doc": "d", "type": ["string", "null"], "default": ""}"#,
        r#"{"name": "f", "doc": "d", "type": ["null", "string", "long"], "default": null}"#,
        r#"{"name": "f", "doc": "d", "type": ["null", "string"], "default": ""}"#,
        r#"{"name": "f", "doc": "d", "type": ["null", "string"]}"#,
        r#"{"name": "f", "doc": "d", "type": {"type": "array", "items": "string"}, "default": []}"#,
        r#"{"name": "f", "doc": "d", "type": "string", "default": 1}"#,
        r#"{"name": "f", "type": "string"}"#,
        r#"{"name": "someField", "doc": "d", "type": "string"}"#,
    ];
    for field in faulty {
        let text = format!(r#"{{"type": "record", "name": "Value", "fields": [{field}]}}"#);
        let schema: Json = serde_json::from_str(&text).unwrap();
        assert_ne!(lint(&schema, Place { subject: "s", in_value: false }), Vec::<String>::new(), "{field} passes");
    }
}

proptest! {
    #[test]
    fn whatever_the_collection_its_schemas_parse_and_say_it_back(collection in crate::assets::collections()) {
        for schema in Names::default().collection_schemas(&collection) {
            prop_assert!(guard::parse(&schema.text).is_ok(), "{}", schema.text);
        }
        prop_assert_eq!(Collection::from_value_schema(&collection.value_schema()).unwrap(), collection);
    }
}
