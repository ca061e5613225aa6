//! Records a second of the pure path: map one event, merge one asset.

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use windfall_schemas::asset::FieldType;
use windfall_schemas::device::{self, DeviceValue};
use windfall_schemas::envelope::{Envelope, Op, Source};
use windfall_schemas::wire::Codec;
use windfall_transformer::asset::Asset;
use windfall_transformer::contribution::{SourceRecord, map};
use windfall_transformer::event::{DecodedRow, SourceEvent};
use windfall_transformer::links::SourcePosition;
use windfall_transformer::{LoadedCollection, Value, load_collections};

/// A device with every field filled.
fn full(loaded: &LoadedCollection, offset: i64) -> SourceRecord {
    let fields = loaded.mappings[0].program.table.fields.iter().map(|field| {
        let value = match field.kind {
            _ if field.list => Value::List(vec!["352099001761481".into(), "352099001761499".into()]),
            FieldType::String if field.name == "serial_number" => Value::Text(format!("SIM{offset:07}")),
            FieldType::Boolean => Value::Boolean(true),
            FieldType::Timestamp | FieldType::Integer => Value::Integer(1_795_000_000_000),
            _ => Value::Text(format!("value of {}", field.name)),
        };
        (field.name.as_str().into(), value)
    });
    SourceRecord {
        source: "abm.devices".into(),
        source_key: format!("acme/{offset}"),
        at: SourcePosition { partition: 0, offset },
        event: Some(SourceEvent {
            after: Some(DecodedRow(fields.collect())),
            ts_ms: 1,
            org: "acme".into(),
            op: "u".into(),
            kind: Some("updated".into()),
            event_id: Some("e".into()),
            fingerprint: Some("f".into()),
        }),
    }
}

/// The allocator of the command.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The bytes of both ends: change events in, contributions out.
struct Wire {
    event: Codec,
    contribution: Codec,
}

impl Wire {
    fn new(loaded: &LoadedCollection) -> Self {
        let schema = loaded.collection.schema.contributions_value_schema();
        Self {
            event: Codec::new(1, device::VALUE_SCHEMA).expect("the shipped schema"),
            contribution: Codec::new(2, &schema).expect("the collection's schema"),
        }
    }

    /// An update, with both images, of a device as Apple has them: about half of the fields are filled.
    fn event(&self, number: i64) -> Vec<u8> {
        let text = |text: &str| Some(text.to_owned());
        let before = DeviceValue {
            org: "acme".to_owned(),
            device_id: format!("SIM{number:07}"),
            serial_number: format!("SIM{number:07}"),
            device_model: text("iPhone 15 Pro"),
            product_family: text("iPhone"),
            product_type: text("iPhone16,1"),
            device_capacity: text("256GB"),
            color: text("NATURAL"),
            part_number: text("MTUX3ZD/A"),
            order_number: text("1234567890"),
            imei: Some(vec!["352099001761481".to_owned(), "352099001761499".to_owned()]),
            eid: text("89049032007008882600042338195520"),
            wifi_mac_address: Some(vec!["A483E71B2C3D".to_owned()]),
            bluetooth_mac_address: Some(vec!["A483E71B2C3E".to_owned()]),
            purchase_source_type: text("APPLE"),
            purchase_source_id: text("0001234567"),
            status: text("UNASSIGNED"),
            ..DeviceValue::default()
        };
        let after = DeviceValue {
            status: text("ASSIGNED"),
            mdm_server_id: text("1F97349736CF4614A94F624E705841AD"),
            mdm_server_name: text("Jamf Cloud"),
            ..before.clone()
        };
        let envelope = Envelope {
            before: Some(before),
            fingerprint: Some(after.fingerprint()),
            after: Some(after),
            source: Source { ts_ms: number, db: "acme".to_owned(), table: "devices".to_owned(), ..Source::default() },
            op: Op::Update,
            ts_ms: Some(number),
            ts_us: None,
            ts_ns: None,
            transaction: None,
            event_id: Some(format!("{number:032x}")),
            kind: Some(windfall_schemas::envelope::Kind::Assigned),
            changed: vec!["mdm_server_id".to_owned(), "mdm_server_name".to_owned(), "status".to_owned()],
            evidence: Vec::new(),
        };
        self.event.encode(&envelope).expect("an event")
    }

    fn mapped(&self, loaded: &LoadedCollection, offset: i64, event: &[u8]) -> Option<Vec<u8>> {
        let record = SourceRecord {
            source: "abm.devices".into(),
            source_key: format!("acme/SIM{offset:07}"),
            at: SourcePosition { partition: 0, offset },
            event: Some(self.event.decode(event).expect("an event")),
        };
        let contribution = map(&loaded.mappings[0].program, None, record).contribution?;
        let schema = &loaded.collection.schema;
        Some(schema.encode_contribution(&self.contribution, &contribution).expect("a contribution"))
    }
}

fn transform(criterion: &mut Criterion) {
    let loaded = load_collections(Path::new("."), &[]).expect("the shipped files are sound").remove(0);
    let program = &loaded.mappings[0].program;
    let records: Vec<SourceRecord> = (0..1_000).map(|offset| full(&loaded, offset)).collect();
    let mut group = criterion.benchmark_group("transform");
    group.throughput(Throughput::Elements(1_000));
    group.bench_function("map", |bencher| {
        bencher.iter_batched(
            || records.clone(),
            |records| records.into_iter().map(|record| map(program, None, record)).collect::<Vec<_>>(),
            criterion::BatchSize::LargeInput,
        );
    });
    let wire = Wire::new(&loaded);
    let events: Vec<Vec<u8>> = (0..1_000).map(|number| wire.event(number)).collect();
    group.bench_function("decode, map, encode", |bencher| {
        bencher.iter(|| {
            for (offset, event) in (0..).zip(&events) {
                black_box(wire.mapped(&loaded, offset, event));
            }
        });
    });
    let contributions: Vec<_> =
        records.iter().filter_map(|record| map(program, None, record.clone()).contribution).collect();
    group.bench_function("merge", |bencher| {
        bencher.iter_batched(
            || contributions.clone(),
            |contributions| {
                for (cause, contribution) in (0..).zip(contributions) {
                    let mut asset = Asset::default();
                    let asset_id = contribution.asset_id.clone();
                    asset.apply((contribution.source.clone(), contribution.source_key.clone()), Some(contribution));
                    black_box(asset.conclude(&loaded.collection, &asset_id, cause, 0));
                }
            },
            criterion::BatchSize::LargeInput,
        );
    });
    group.finish();
}

criterion_group!(benches, transform);
criterion_main!(benches);
