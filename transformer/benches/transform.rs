//! Records a second of the pure path: map one event, merge one asset.

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use windfall_transformer::asset::Asset;
use windfall_transformer::contribution::{SourceRecord, map};
use windfall_transformer::event::SourceEvent;
use windfall_transformer::links::Position;
use windfall_transformer::mapping::source::{DecodedRow, Kind};
use windfall_transformer::{LoadedCollection, Value, load_collections};

/// A device with every field filled.
fn full(loaded: &LoadedCollection, offset: i64) -> SourceRecord {
    let fields = loaded.mappings[0].program.table().fields.iter().map(|field| {
        let value = match field.kind {
            Kind::Text if field.name == "serial_number" => Value::Text(format!("SIM{offset:07}")),
            Kind::List => Value::List(vec!["352099001761481".into(), "352099001761499".into()]),
            Kind::Boolean => Value::Boolean(true),
            Kind::Timestamp | Kind::Integer => Value::Integer(1_795_000_000_000),
            _ => Value::Text(format!("value of {}", field.name)),
        };
        (field.name.clone(), value)
    });
    SourceRecord {
        source: "abm.devices".into(),
        source_key: format!("acme/{offset}"),
        at: Position { partition: 0, offset },
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
