//! Whatever a record holds, what one library writes the other one reads.

use proptest::{collection::vec, option, prelude::*};
use serde_avro_fast::{from_datum_slice, ser::SerializerConfig, to_datum_vec};
use windfall_schemas::{
    asset::{AssetRecord, Collection, FieldType, FieldValue},
    contribution::Contribution,
    device::DeviceValue,
    envelope::{Channel, Envelope, Kind, Op, Snapshot},
};

use crate::{
    golden::{codec, fast_schema},
    samples,
};

fn words() -> impl Strategy<Value = Option<String>> {
    option::of("\\PC{0,12}")
}

fn lists() -> impl Strategy<Value = Option<Vec<String>>> {
    option::of(vec("\\PC{0,6}", 0..4))
}

fn devices() -> impl Strategy<Value = DeviceValue> {
    let texts = (words(), words(), words(), words(), words(), words());
    let rest = (lists(), lists(), option::of(any::<bool>()), option::of(any::<i64>()), option::of(any::<i64>()));
    ("[a-z]{1,8}", "\\PC{1,12}", texts, rest).prop_map(|(org, device_id, texts, rest)| {
        let (status, color, eid, mdm_server_id, order_number, unmapped) = texts;
        let (imei, wifi_mac_address, is_mdm_migration_capable, order_date_time, updated_date_time) = rest;
        DeviceValue {
            serial_number: device_id.clone(),
            org,
            device_id,
            status,
            color,
            eid,
            mdm_server_id,
            order_number,
            unmapped,
            imei,
            wifi_mac_address,
            is_mdm_migration_capable,
            order_date_time,
            updated_date_time,
            ..DeviceValue::default()
        }
    })
}

fn events() -> impl Strategy<Value = Envelope<DeviceValue>> {
    let op = proptest::sample::select(&[Op::Create, Op::Update, Op::Delete, Op::Read][..]);
    let images = (option::of(devices()), option::of(devices()));
    let sets = ("[a-z-]{1,12}", "[a-z]{1,12}", "[a-z]{1,12}");
    (op, images, sets, vec("\\PC{0,20}", 0..4), words()).prop_map(|(op, (before, after), sets, lines, event_id)| {
        let mut event = samples::bare_envelope("devices");
        event.op = op;
        event.before = before;
        event.after = after;
        event.kind = Some(Kind::from(sets.0.as_str()));
        event.source.snapshot = Snapshot::from(sets.1.as_str());
        event.source.channel = Some(Channel::from(sets.2.as_str()));
        event.changed = lines.clone();
        event.evidence = lines;
        event.event_id = event_id;
        event
    })
}

fn value(kind: FieldType) -> BoxedStrategy<FieldValue> {
    let some = match kind {
        FieldType::String => "\\PC{0,12}".prop_map(FieldValue::String).boxed(),
        FieldType::Integer => any::<i64>().prop_map(FieldValue::Integer).boxed(),
        FieldType::Decimal => any::<f64>().prop_map(FieldValue::Decimal).boxed(),
        FieldType::Boolean => any::<bool>().prop_map(FieldValue::Boolean).boxed(),
        FieldType::Timestamp => any::<i64>().prop_map(FieldValue::Timestamp).boxed(),
    };
    prop_oneof![1 => Just(FieldValue::Null), 3 => some].boxed()
}

/// A collection and a value for each of its fields.
fn rows() -> impl Strategy<Value = (Collection, Vec<FieldValue>)> {
    crate::assets::collections().prop_flat_map(|collection| {
        let values: Vec<_> = collection.fields().iter().map(|field| value(field.kind)).collect();
        (Just(collection), values)
    })
}

proptest! {
    #[test]
    fn an_event_written_by_one_library_is_read_by_the_other(event in events()) {
        let (codec, schema) = (codec("abm.devices-value"), fast_schema("abm.devices-value"));
        let framed = codec.encode(&event).unwrap();
        let datum = to_datum_vec(&event, &mut SerializerConfig::new(&schema)).unwrap();
        prop_assert_eq!(&framed[5..], &datum[..]);
        prop_assert_eq!(&codec.decode::<Envelope<DeviceValue>>(&framed).unwrap(), &event);
        prop_assert_eq!(&from_datum_slice::<Envelope<DeviceValue>>(&datum, &schema).unwrap(), &event);
    }

    #[test]
    fn a_row_of_any_collection_is_read_as_it_was_written((collection, fields) in rows(), deleted in any::<bool>()) {
        let flat = windfall_schemas::wire::Codec::new(1, &collection.value_schema()).unwrap();
        let asset = AssetRecord { asset_id: "a".into(), fields: fields.clone(), deleted, version: 3, ..Default::default() };
        let bytes = collection.encode_asset(&flat, &asset).unwrap();
        prop_assert_eq!(collection.decode_asset(&flat, &bytes).unwrap(), asset);
        // The other library reads the same cells.
        let schema: serde_avro_fast::Schema = collection.value_schema().parse().unwrap();
        let json: serde_json::Value = from_datum_slice(&bytes[5..], &schema).unwrap();
        for (field, value) in collection.fields().iter().zip(&fields) {
            prop_assert_eq!(&json[&field.name], &value.to_json());
        }

        let codec = windfall_schemas::wire::Codec::new(2, &collection.contributions_value_schema()).unwrap();
        let contribution = Contribution { asset_id: "a".into(), fields, released: deleted, ..Default::default() };
        let bytes = collection.encode_contribution(&codec, &contribution).unwrap();
        prop_assert_eq!(collection.decode_contribution(&codec, &bytes).unwrap(), contribution);
    }
}
