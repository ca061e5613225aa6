//! Collections, and records whose fields come from them.

use proptest::prelude::*;
use windfall_schemas::{
    asset::{AssetRecord, Collection, CollectionError, Field, FieldType, FieldValue},
    wire::{Codec, WireError},
};

use crate::samples;

/// Any collection that is one.
pub(crate) fn collections() -> impl Strategy<Value = Collection> {
    let kind = proptest::sample::select(&FieldType::ALL[..]);
    let field = ("[a-z][a-z0-9_]{0,12}", kind, proptest::option::of("\\PC{1,20}"));
    ("[a-z][a-z0-9_]{0,12}", proptest::collection::vec(field, 1..20)).prop_filter_map(
        "names clash",
        |(name, fields)| {
            let fields = fields
                .into_iter()
                .map(|(name, kind, description)| Field { description, ..Field::new(name, kind) })
                .collect();
            Collection::new(name, fields).ok()
        },
    )
}

fn collection(fields: &[(&str, FieldType)]) -> Collection {
    Collection::new("laptops", fields.iter().map(|(name, kind)| Field::new(*name, *kind)).collect()).unwrap()
}

fn refused(made: Result<Collection, CollectionError>, why: &str) -> bool {
    made.is_err_and(|error| error.to_string().contains(why))
}

#[test]
fn names_that_no_schema_can_have_are_refused() {
    for name in ["", "Devices", "my-devices", "1st", "assets.devices", "gerät"] {
        let fields = vec![Field::new("serial_number", FieldType::String)];
        assert!(refused(Collection::new(name, fields), "the collection cannot be named"), "{name}");
        let named = Collection::new("devices", vec![Field::new(name, FieldType::String)]);
        assert!(refused(named, "a name matches [a-z_][a-z0-9_]*"), "{name}");
    }
}

#[test]
fn names_that_every_record_has_are_refused() {
    for name in ["collection", "asset_id", "source", "source_key", "__deleted", "__anything"] {
        let error = Collection::new("devices", vec![Field::new(name, FieldType::String)]).unwrap_err();
        assert_eq!(error.field.as_deref(), Some(name));
        assert!(refused(Err(error), "every record has a field of its own by that name"), "{name}");
    }
}

#[test]
fn two_fields_of_one_name_and_no_fields_are_refused() {
    let twice = vec![Field::new("imei", FieldType::String), Field::new("imei", FieldType::Integer)];
    assert!(refused(Collection::new("devices", twice), "`devices` has two fields named `imei`"));
    assert!(refused(Collection::new("devices", vec![]), "`devices` has no fields"));
}

#[test]
fn a_schema_of_something_else_is_no_collection() {
    for text in ["", "{}", windfall_schemas::device::VALUE_SCHEMA, windfall_schemas::device::KEY_SCHEMA] {
        assert!(refused(Collection::from_value_schema(text), "is not that of a collection"), "{text:.40}");
    }
}

#[test]
fn a_value_of_another_type_than_its_field_is_not_written() {
    let collection = collection(&[("name", FieldType::String), ("cost", FieldType::Decimal)]);
    let codec = Codec::new(1, &collection.value_schema()).unwrap();
    let encode =
        |fields| collection.encode_asset(&codec, &AssetRecord { asset_id: "a".into(), fields, ..Default::default() });
    let wrong = encode(vec![FieldValue::Null, FieldValue::Integer(3)]).unwrap_err();
    assert!(matches!(&wrong, WireError::Encode { why, .. } if why.contains("`cost`")), "{wrong}");
    assert!(matches!(encode(vec![FieldValue::Null]), Err(WireError::Encode { .. })));
    assert!(encode(vec![FieldValue::Null, FieldValue::Decimal(3.0)]).is_ok());
}

/// A mapping change adds a field and drops one: records of before are still read.
#[test]
fn a_record_of_an_older_schema_has_nulls_where_the_collection_grew() {
    let older = collection(&[("gone", FieldType::String), ("name", FieldType::String)]);
    let newer = collection(&[("name", FieldType::String), ("cost", FieldType::Decimal)]);
    let codec = Codec::new(1, &older.value_schema()).unwrap();
    let text = |text: &str| FieldValue::String(text.to_owned());
    let asset =
        AssetRecord { asset_id: "a".into(), fields: vec![text("x"), text("y")], version: 4, ..Default::default() };
    let read = newer.decode_asset(&codec, &older.encode_asset(&codec, &asset).unwrap()).unwrap();
    assert_eq!(read, AssetRecord { fields: vec![text("y"), FieldValue::Null], ..asset });
}

#[test]
fn a_field_that_changed_its_type_is_an_error_that_names_it() {
    let older = collection(&[("cost", FieldType::Integer)]);
    let newer = collection(&[("cost", FieldType::String)]);
    let codec = Codec::new(1, &older.value_schema()).unwrap();
    let asset = AssetRecord { asset_id: "a".into(), fields: vec![FieldValue::Integer(1)], ..Default::default() };
    let error = newer.decode_asset(&codec, &older.encode_asset(&codec, &asset).unwrap()).unwrap_err();
    assert!(matches!(&error, WireError::Decode { why, .. } if why.contains("`cost`")), "{error}");
}

#[test]
fn not_a_number_equals_itself_so_that_its_record_is_not_published_again() {
    assert_eq!(FieldValue::Decimal(f64::NAN), FieldValue::Decimal(f64::NAN));
    assert_ne!(FieldValue::Integer(1), FieldValue::Timestamp(1));
}

#[test]
fn the_default_collection_finds_its_fields_by_name() {
    let devices = samples::devices();
    assert_eq!(devices.name(), "devices");
    assert_eq!(devices.position("serial_number"), Some(0));
    assert_eq!(devices.field("order_date_time").map(|field| field.kind), Some(FieldType::Timestamp));
    assert_eq!(devices.field("unmapped"), None);
}
