//! Scenario files: one case a file, named as a sentence.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use windfall_schemas::asset::FieldValue;
use windfall_schemas::contribution::Contribution;
use windfall_transformer::catalog::source_tables;
use windfall_transformer::collection::{self, CompiledCollection};
use windfall_transformer::identity::{Shape, placeholder};
use windfall_transformer::mapping;
use windfall_transformer::merge::merge;

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios").join(folder);
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

#[test]
fn every_mapping_scenario_comes_out_as_it_says() {
    let tables = source_tables().unwrap();
    for file in files("mapping") {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        let (collection, mapping) = text.split_once("--- # mapping\n").unwrap();
        let collection = collection::parse(&name, collection).unwrap_or_else(|problems| panic!("{problems}"));
        let beside = |_: &str| Err("nothing lies beside a scenario".to_owned());
        let mapping = mapping::load(&name, mapping, &tables, &collection, &beside);
        let mapping = mapping.unwrap_or_else(|problems| panic!("{problems}"));
        assert!(!mapping.examples.is_empty(), "{name} has no tests");
        let failures: Vec<String> = mapping.test().iter().map(ToString::to_string).collect();
        assert_eq!(failures, Vec::<String>::new());
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MergeScenario {
    collection: String,
    contributions: Vec<Said>,
    expect: Expected,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    #[serde(default)]
    source: Option<String>,
    source_key: String,
    source_ts_ms: i64,
    #[serde(default)]
    claimed_ms: Option<i64>,
    #[serde(default)]
    released: bool,
    fields: BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    fields: BTreeMap<String, serde_json::Value>,
    #[serde(default)]
    first: Option<String>,
    /// Not looked at when left out.
    #[serde(default, deserialize_with = "present")]
    sources: Option<Option<String>>,
    #[serde(default)]
    conflicts: Vec<Disagreement>,
}

#[derive(Deserialize, PartialEq, Debug)]
#[serde(deny_unknown_fields)]
struct Disagreement {
    subject: String,
    held: String,
    candidates: String,
    seen_at: i64,
}

fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

fn contribution(collection: &CompiledCollection, said: Said) -> Contribution {
    let mut fields = vec![FieldValue::Null; collection.schema.fields().len()];
    for (name, value) in said.fields {
        let position = collection.schema.position(&name).unwrap_or_else(|| panic!("no field `{name}`"));
        fields[position] = match value {
            serde_json::Value::Number(number) => FieldValue::Integer(number.as_i64().unwrap()),
            serde_json::Value::String(text) => FieldValue::String(text),
            other => panic!("{other}"),
        };
    }
    Contribution {
        asset_id: "A".into(),
        source: said.source.unwrap_or_else(|| "abm.devices".into()),
        org: said.source_key.split('/').next().map(str::to_owned),
        source_key: said.source_key,
        source_ts_ms: Some(said.source_ts_ms),
        claimed_ms: said.claimed_ms,
        released: said.released,
        fields,
        ..Contribution::default()
    }
}

#[test]
fn every_merge_scenario_comes_out_as_it_says() {
    for file in files("merge") {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        let scenario: MergeScenario = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let collection = collection::parse(&name, &scenario.collection).unwrap_or_else(|problems| panic!("{problems}"));
        let said: Vec<Contribution> =
            scenario.contributions.into_iter().map(|said| contribution(&collection, said)).collect();
        let merged = merge(&collection, &said).unwrap();
        for (field, wanted) in &scenario.expect.fields {
            let value = &merged.fields[collection.schema.position(field).unwrap()];
            assert_eq!(&value.to_json(), wanted, "{name}: {field}");
        }
        if let Some(first) = &scenario.expect.first {
            let found = format!("{}/{}", merged.meta.org.unwrap(), merged.meta.device_id.unwrap());
            assert_eq!(&found, first, "{name}");
        }
        if let Some(sources) = &scenario.expect.sources {
            assert_eq!(&merged.meta.sources, sources, "{name}");
        }
        let conflicts: Vec<Disagreement> = merged
            .conflicts
            .into_iter()
            .map(|conflict| Disagreement {
                subject: conflict.subject,
                held: conflict.held.unwrap(),
                candidates: conflict.candidates.unwrap(),
                seen_at: conflict.seen_at.unwrap(),
            })
            .collect();
        assert_eq!(conflicts, scenario.expect.conflicts, "{name}");
    }
}

#[test]
fn placeholders_are_no_identifiers() {
    let text = include_str!("../scenarios/placeholders.txt");
    let (refused, taken) = text.split_once("\n\n").unwrap();
    for word in refused.lines() {
        assert!(placeholder(word), "`{word}` names nothing");
    }
    for word in taken.lines() {
        assert!(!placeholder(word), "`{word}` is an identifier");
    }
}

#[test]
fn a_fields_name_says_how_its_identifier_is_normalised() {
    let cases = [
        ("imei_2", "35 209900 176148 1", Some("352099001761481")),
        ("imei", "1234", None),
        ("meid", "3520-9900-176148", Some("35209900176148")),
        ("eid", "8904 3051 2022 2308 2022 1234 5678 9012", Some("89043051202223082022123456789012")),
        ("wifi_mac_address", "a4:83:e7:1b:2c:3d", Some("A483E71B2C3D")),
        ("serial_number", " c02xk0aaJGH5 ", Some("C02XK0AAJGH5")),
        ("asset_tag", "tag-1", Some("TAG-1")),
    ];
    for (field, text, wanted) in cases {
        assert_eq!(Shape::of_field(field).normalise(text).as_deref(), wanted, "{field}: {text}");
    }
}
