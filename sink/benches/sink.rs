//! The sink's way from bytes to rows against a bare loop with the same upsert, alternating on one PostgreSQL.
//!
//! Ratios, not absolutes: both share the server, the batch and the minute.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use tokio::runtime::Runtime;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Statement};
use windfall_runtime::kafka::{Headers, Record};
use windfall_runtime::registry::RegistryClient;
use windfall_runtime::registry::embedded::EmbeddedRegistry;
use windfall_schemas::asset::{
    AssetKey, AssetMeta, AssetRecord, Collection, DEVICES_KEY_SCHEMA, DEVICES_VALUE_SCHEMA, FieldType, FieldValue,
};
use windfall_schemas::wire::Codec;
use windfall_services::{Postgres, PostgresOptions};
use windfall_sink::apply_path::ApplyPath;
use windfall_sink::config::SchemaMode;
use windfall_sink::store::postgres::{Address, PostgresStore};
use windfall_sink::store::{AssetStore, Identity};
use windfall_sink::table::{Table, TableName};

/// The allocator of the command.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Assets in the table; batches go round and round over them, so that after the first round all are updates.
const FLEET: i64 = 20_000;
/// Records of a batch, as the sink cuts them by default.
const BATCH: i64 = 1_000;
/// What is asked of the sink: this share of the bare loop's speed.
const GOAL: f64 = 0.70;

/// Makes batches of encoded records.
struct Feed {
    collection: Collection,
    key: Codec,
    value: Codec,
}

impl Feed {
    async fn new(registry: &RegistryClient) -> Self {
        let collection = Collection::from_value_schema(DEVICES_VALUE_SCHEMA).expect("the shipped schema");
        let key = registry.codec("assets.devices-key", DEVICES_KEY_SCHEMA).await.expect("the shipped schema");
        let value = registry.codec("assets.devices-value", DEVICES_VALUE_SCHEMA).await.expect("the shipped schema");
        Self { collection, key, value }
    }

    fn asset(&self, offset: i64) -> AssetRecord {
        let number = offset % FLEET;
        let value = |(place, field): (usize, &windfall_schemas::asset::Field)| match field.kind {
            _ if place % 4 == 3 => FieldValue::Null,
            FieldType::String => FieldValue::String(format!("{} of SIM{number:07}, {offset}", field.name)),
            FieldType::Integer => FieldValue::Integer(offset),
            FieldType::Decimal => FieldValue::Decimal(0.5),
            FieldType::Boolean => FieldValue::Boolean(offset % 2 == 0),
            FieldType::Timestamp => FieldValue::Timestamp(1_795_000_000_000 + offset),
        };
        let text = |text: &str| Some(text.to_owned());
        AssetRecord {
            asset_id: format!("SIM{number:07}"),
            fields: self.collection.fields().iter().enumerate().map(value).collect(),
            deleted: false,
            version: offset,
            meta: AssetMeta {
                op: text("u"),
                kind: text("updated"),
                org: text("acme"),
                device_id: Some(format!("SIM{number:07}")),
                source_ts_ms: Some(1_795_000_000_000),
                ts_ms: Some(1_795_000_000_100),
                event_id: Some(format!("{offset:032x}")),
                fingerprint: Some(format!("{offset:016x}")),
                identifier: text("serial_number"),
                mapping: text("abm-devices 0123456789abcdef"),
                sources: None,
            },
        }
    }

    fn records(&self, assets: &[(i64, AssetRecord)]) -> Vec<Record> {
        assets
            .iter()
            .map(|(offset, asset)| {
                let key = AssetKey { asset_id: asset.asset_id.clone() };
                Record {
                    topic: "assets.devices".into(),
                    partition: 0,
                    offset: *offset,
                    timestamp_ms: Some(1_795_000_000_200),
                    key: Some(self.key.encode(&key).expect("a key").into()),
                    value: Some(self.collection.encode_asset(&self.value, asset).expect("a record").into()),
                    headers: Headers::new(),
                }
            })
            .collect()
    }
}

/// The same statement without anything around it: arrays, one transaction, no positions, nothing decoded.
struct Bare {
    client: Client,
    statement: Statement,
    table: Table,
}

/// Columns as they go over the wire.
enum Array {
    Text(Vec<Option<String>>),
    Long(Vec<Option<i64>>),
    Double(Vec<Option<f64>>),
    Boolean(Vec<Option<bool>>),
    Time(Vec<Option<chrono::DateTime<chrono::Utc>>>),
}

impl Bare {
    async fn connect(url: &str, table: Table) -> Self {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a connection");
        tokio::spawn(connection);
        let names: Vec<String> = table.columns.iter().map(|column| column.name.quoted()).collect();
        let own = ["\"__deleted\"", "\"__generation\"", "\"__partition\"", "\"__offset\""].map(str::to_owned);
        let columns: Vec<String> = names.iter().cloned().chain(own).collect();
        let kind = |kind| match kind {
            FieldType::String => "text",
            FieldType::Integer => "bigint",
            FieldType::Decimal => "double precision",
            FieldType::Boolean => "boolean",
            FieldType::Timestamp => "timestamptz",
        };
        let kinds = ["text"].into_iter().chain(table.columns.iter().map(|column| kind(column.kind)));
        let kinds = kinds.chain(["text", "bigint", "integer", "bigint"]);
        let arrays: Vec<String> = kinds.enumerate().map(|(at, kind)| format!("${}::{kind}[]", at + 1)).collect();
        let sets: Vec<String> = columns.iter().map(|column| format!("{column} = excluded.{column}")).collect();
        let text = format!(
            "insert into public.bare as kept (\"asset_id\", {}) select * from unnest({}) \
             on conflict (\"asset_id\") do update set {} \
             where (kept.\"__generation\", kept.\"__partition\", kept.\"__offset\") \
             < (excluded.\"__generation\", excluded.\"__partition\", excluded.\"__offset\")",
            columns.join(", "),
            arrays.join(", "),
            sets.join(", ")
        );
        let statement = client.prepare(&text).await.expect("a statement");
        Self { client, statement, table }
    }

    /// Lays out the arrays; not part of what is measured for the bare loop.
    fn arrays(&self, feed: &Feed, records: &[Record]) -> Vec<Array> {
        let mut arrays: Vec<Array> = self
            .table
            .columns
            .iter()
            .map(|column| match column.kind {
                FieldType::String => Array::Text(Vec::new()),
                FieldType::Integer => Array::Long(Vec::new()),
                FieldType::Decimal => Array::Double(Vec::new()),
                FieldType::Boolean => Array::Boolean(Vec::new()),
                FieldType::Timestamp => Array::Time(Vec::new()),
            })
            .collect();
        for value in records.iter().filter_map(|record| record.value.as_ref()) {
            let values = feed.collection.decode_row(&feed.value, value).expect("a record").values;
            assert_eq!(arrays.len(), values.len());
            for (array, value) in arrays.iter_mut().zip(values) {
                push(array, value);
            }
        }
        arrays
    }

    async fn store(&self, assets: &[(i64, AssetRecord)], arrays: &[Array]) {
        let ids: Vec<&str> = assets.iter().map(|(_, asset)| asset.asset_id.as_str()).collect();
        let (deleted, generations, partitions) =
            (vec!["false"; ids.len()], vec![1_i64; ids.len()], vec![0_i32; ids.len()]);
        let offsets: Vec<i64> = assets.iter().map(|(offset, _)| *offset).collect();
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&ids];
        parameters.extend(arrays.iter().map(|array| match array {
            Array::Text(values) => values as &(dyn ToSql + Sync),
            Array::Long(values) => values,
            Array::Double(values) => values,
            Array::Boolean(values) => values,
            Array::Time(values) => values,
        }));
        let own: [&(dyn ToSql + Sync); 4] = [&deleted, &generations, &partitions, &offsets];
        parameters.extend(own);
        self.client.batch_execute("begin").await.expect("begin");
        let written = self.client.execute(&self.statement, &parameters).await.expect("rows");
        assert_eq!(written, ids.len() as u64);
        self.client.batch_execute("commit").await.expect("commit");
    }
}

fn push(array: &mut Array, value: FieldValue) {
    match (array, value) {
        (Array::Text(values), FieldValue::String(text)) => values.push(Some(text)),
        (Array::Long(values), FieldValue::Integer(number)) => values.push(Some(number)),
        (Array::Double(values), FieldValue::Decimal(number)) => values.push(Some(number)),
        (Array::Boolean(values), FieldValue::Boolean(value)) => values.push(Some(value)),
        (Array::Time(values), FieldValue::Timestamp(millis)) => {
            values.push(chrono::DateTime::from_timestamp_millis(millis));
        }
        (Array::Text(values), _) => values.push(None),
        (Array::Long(values), _) => values.push(None),
        (Array::Double(values), _) => values.push(None),
        (Array::Boolean(values), _) => values.push(None),
        (Array::Time(values), _) => values.push(None),
    }
}

struct Bench {
    _server: Postgres,
    feed: Feed,
    bare: Bare,
    sink: ApplyPath<PostgresStore>,
    next: AtomicI64,
}

async fn set_up() -> Bench {
    let server = Postgres::start(&PostgresOptions { fsync: true }).expect("a server");
    let url = server.url();
    let registry = RegistryClient::embedded(EmbeddedRegistry::in_memory(), true);
    let feed = Feed::new(&registry).await;
    let table =
        |name: &str| Table::of_collection(TableName::parse(name).expect("a name"), &feed.collection).expect("a table");
    let store = |name: &str| {
        let identity = Identity { sink: name.to_owned(), topic: "assets.devices".to_owned() };
        PostgresStore::new(Address::parse(&url).expect("a url"), identity, table(name), SchemaMode::Evolve)
    };
    store("bare").claim(&[]).await.expect("its table");
    let collection = feed.collection.clone();
    let sink = ApplyPath::claim(store("framed"), &[0], collection, registry).await.expect("a claim");
    let bare = Bare::connect(&url, table("bare")).await;
    Bench { _server: server, feed, bare, sink, next: AtomicI64::new(0) }
}

impl Bench {
    /// Stores one batch each way, the order changing from pair to pair; returns both times.
    async fn pair(&mut self) -> (Duration, Duration) {
        let from = self.next.fetch_add(BATCH, Ordering::Relaxed);
        let assets: Vec<(i64, AssetRecord)> =
            (from..from + BATCH).map(|offset| (offset, self.feed.asset(offset))).collect();
        let records = self.feed.records(&assets);
        let arrays = self.bare.arrays(&self.feed, &records);
        if (from / BATCH) % 2 == 0 {
            let bare = self.bare(&assets, &arrays).await;
            (self.framed(records).await, bare)
        } else {
            let framed = self.framed(records).await;
            (framed, self.bare(&assets, &arrays).await)
        }
    }

    async fn bare(&self, assets: &[(i64, AssetRecord)], arrays: &[Array]) -> Duration {
        let begun = Instant::now();
        self.bare.store(assets, arrays).await;
        begun.elapsed()
    }

    async fn framed(&mut self, records: Vec<Record>) -> Duration {
        let begun = Instant::now();
        let applied = self.sink.store(records).await.expect("rows");
        let took = begun.elapsed();
        assert_eq!(applied.applied, BATCH.unsigned_abs());
        took
    }
}

fn sink_against_bare_loop(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let mut bench = runtime.block_on(set_up());
    for _ in 0..(FLEET / BATCH) * 2 {
        runtime.block_on(bench.pair());
    }
    let mut ratios: Vec<f64> = Vec::new();
    let (mut framed_total, mut bare_total) = (Duration::ZERO, Duration::ZERO);
    criterion.bench_function("sink: decode and store 1000 updates", |bencher| {
        bencher.iter_custom(|iterations| {
            let mut total = Duration::ZERO;
            for _ in 0..iterations {
                let (framed, bare) = runtime.block_on(bench.pair());
                ratios.push(bare.as_secs_f64() / framed.as_secs_f64());
                total += framed;
                framed_total += framed;
                bare_total += bare;
            }
            total
        });
    });
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ratios.len() / 2];
    let rate = |total: Duration| BATCH as f64 * ratios.len() as f64 / total.as_secs_f64();
    println!(
        "sink {:.0} rows/s, bare loop {:.0} rows/s over {} pairs: ratio {:.2} in all, {median:.2} in the median (goal {GOAL:.2}: {})",
        rate(framed_total),
        rate(bare_total),
        ratios.len(),
        bare_total.as_secs_f64() / framed_total.as_secs_f64(),
        if median >= GOAL { "met" } else { "missed" },
    );
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_secs(2)).measurement_time(Duration::from_secs(10));
    targets = sink_against_bare_loop
}
criterion_main!(benches);
