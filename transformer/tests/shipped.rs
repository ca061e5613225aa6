//! The collection and the mapping that are shipped.

use std::path::Path;

use windfall_schemas::asset::{DEVICES_KEY_SCHEMA, DEVICES_VALUE_SCHEMA};
use windfall_schemas::contribution::Contribution;
use windfall_transformer::config::{CollectionConfig, violations};
use windfall_transformer::load_collections;

#[test]
fn the_shipped_collection_makes_the_schemas_that_are_checked_in() {
    let loaded = load_collections(Path::new("."), &[]).unwrap();
    let schema = &loaded[0].collection.schema;
    assert_eq!(schema.value_schema(), DEVICES_VALUE_SCHEMA);
    assert_eq!(schema.key_schema(), DEVICES_KEY_SCHEMA);
}

#[test]
fn the_shipped_mapping_passes_its_own_tests() {
    let loaded = load_collections(Path::new("."), &[]).unwrap();
    assert_eq!(loaded[0].test(), []);
    assert!(loaded[0].mappings[0].examples.len() >= 3);
}

#[test]
fn a_number_without_quotes_in_a_mappings_test_is_the_text_that_stands_there() {
    let folder = tempfile::tempdir().unwrap();
    let shipped = include_str!("../defaults/abm-devices.yaml");
    let tests = "tests:\n  - name: numbers\n    input: { org: acme, device_id: X, serial_number: 12345e67, order_number: 1.50, imei: [-0o17, 0x1F] }\n    \
                 expect: { serial_number: \"12345E67\", order_number: \"1.50\" }\n";
    let numbers = format!("{}{tests}", &shipped[..shipped.find("tests:\n").unwrap()]);
    std::fs::write(folder.path().join("m.yaml"), numbers).unwrap();
    let mappings = vec!["m.yaml".into()];
    let config = CollectionConfig { mappings, ..CollectionConfig::shipped() };
    let loaded = load_collections(folder.path(), &[config]).unwrap();
    assert_eq!(loaded[0].mappings[0].examples.len(), 1);
    assert_eq!(loaded[0].test(), []);
}

#[test]
fn the_shipped_mapping_reads_every_field_of_the_table() {
    let loaded = load_collections(Path::new("."), &[]).unwrap();
    let mapping = include_str!("../defaults/abm-devices.yaml");
    let unread: Vec<&str> = loaded[0].mappings[0]
        .program
        .table
        .fields
        .iter()
        .map(|field| field.name.as_str())
        // The id is the record's key, and what the schema does not name has no column.
        .filter(|name| !["device_id", "unmapped"].contains(name))
        .filter(|name| !mapping.contains(&format!(": {name}\n")) && !mapping.contains(&format!("from: {name},")))
        .collect();
    assert_eq!(unread, Vec::<&str>::new());
}

#[test]
fn every_field_of_the_shipped_collection_has_a_source() {
    let loaded = load_collections(Path::new("."), &[]).unwrap();
    let contribution = Contribution::default();
    assert!(contribution.fields.is_empty());
    let mapping = include_str!("../defaults/abm-devices.yaml");
    for target in loaded[0].collection.schema.fields() {
        assert!(mapping.contains(&format!("\n  {}: ", target.name)), "`{}` has no source", target.name);
    }
}

#[test]
fn a_collection_that_is_not_shipped_needs_its_files() {
    let phones = CollectionConfig { name: "phones".into(), file: None, mappings: Vec::new() };
    let twice = [CollectionConfig::shipped(), CollectionConfig::shipped(), phones];
    let found: Vec<String> =
        violations(&twice).into_iter().map(|violation| violation.path.unwrap_or_default()).collect();
    assert_eq!(found, ["collections[1].name", "collections[2].file", "collections[2].mappings"]);
}

#[test]
fn files_are_found_beside_the_configuration_and_lookups_beside_their_mapping() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write(
        "collections/macs.yaml",
        "collection: macs\nfields: { serial: { type: string, unique: true }, supplier: string }\nidentify_by: [serial]\n",
    );
    write("mappings/suppliers.csv", "id,name\n7,CDW\n");
    write(
        "mappings/macs.yaml",
        "mapping: abm-macs\nfrom: abm.devices\ninto: macs\nwhere: { product_family: Mac }\nfields:\n  serial: serial_number\n  \
         supplier: { from: purchase_source_id, lookup: suppliers }\nlookups:\n  suppliers: { file: suppliers.csv, key: id, value: name }\n\
         tests:\n  - { name: suppliers have names, input: { serial_number: a1, product_family: Mac, purchase_source_id: 7 }, expect: { supplier: CDW } }\n  \
         - { name: phones are left out, input: { serial_number: a1, product_family: iPhone }, expect: null }\n",
    );
    let config = CollectionConfig {
        name: "macs".into(),
        file: Some("collections/macs.yaml".into()),
        mappings: vec!["mappings/macs.yaml".into()],
    };
    let loaded = load_collections(folder.path(), std::slice::from_ref(&config)).unwrap();
    assert_eq!(loaded[0].test(), []);
    assert_eq!(loaded[0].sources(), ["abm.devices"]);
    let before = loaded[0].mappings[0].program.version.clone();
    write("mappings/suppliers.csv", "id,name\n7,Insight\n");
    let loaded = load_collections(folder.path(), &[config]).unwrap();
    assert_ne!(loaded[0].mappings[0].program.version, before, "another lookup is another mapping");
    let failures = loaded[0].test();
    assert_eq!(
        failures[0].to_string(),
        "mappings/macs.yaml:11:13: test `suppliers have names` failed: `supplier` is `Insight`, expected `CDW`"
    );
}
