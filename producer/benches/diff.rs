//! What a page of 1,000 devices costs from Apple's bytes to the records of its transaction: decode, diff, encode.
//!
//! Measured for an unchanged page and for one on which every device has changed, over fleets of 10^3 to 10^5 devices:
//! the fleet's size must not matter. The time is the thread's CPU time: a machine that does other things as well changes it
//! little.

use std::collections::BTreeMap;
use std::hint::black_box;

use chrono::DateTime;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::json;
use windfall_producer::apple::{Answer, Page, wire};
use windfall_producer::assignment::Assignments;
use windfall_producer::breaker::Limits;
use windfall_producer::checkpoint::Header;
use windfall_producer::event::{self, Origin};
use windfall_producer::memory::Memory;
use windfall_producer::step::{self, Step};
use windfall_schemas::device;
use windfall_schemas::wire::Codec;

/// The allocator of the command.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PAGE: usize = 1_000;
const AT: i64 = 1_764_000_000_000;

fn origin() -> Origin {
    Origin { org: "acme".into(), name: "windfall".into(), api: "business".into() }
}

/// Reads a page that leads nowhere.
fn read_page(body: &[u8]) -> Page {
    let wire::List { items, rejected, total, .. } = wire::devices(body, "acme").expect("a page");
    let received_at = DateTime::from_timestamp_millis(AT).unwrap_or_default();
    let answer = Answer { number: 9, path: "/v1/orgDevices?limit=1000".into(), request_id: None, received_at };
    Page { items, rejected, next: None, total, answer }
}

/// A page as Apple writes it, with the relationships and links that nobody needs.
fn page(first: usize, color: &str) -> Vec<u8> {
    let item = |index: usize| {
        let id = format!("FXT{index:09}");
        let own = format!("https://api-business.apple.com/v1/orgDevices/{id}");
        json!({
            "type": "orgDevices",
            "id": id,
            "attributes": {
                "serialNumber": id, "addedToOrgDateTime": "2025-02-10T18:22:05.52Z", "releasedFromOrgDateTime": null,
                "updatedDateTime": "2025-02-11T08:00:41.19Z", "deviceModel": "iPhone 15 Pro", "productFamily": "iPhone",
                "productType": "iPhone16,1", "deviceCapacity": "256GB", "partNumber": "MTV13LL/A",
                "orderNumber": "7000000001", "color": color, "status": "ASSIGNED",
                "orderDateTime": "2025-02-07T08:00:00Z", "imei": ["350000000001012", "350000000001020"],
                "meid": ["35000000000101"], "eid": "89049032000000000000000000010154",
                "purchaseSourceId": "-2000000000000001", "purchaseSourceType": "APPLE",
                "wifiMacAddress": "020000000101", "bluetoothMacAddress": "020000000102", "ethernetMacAddress": []
            },
            "relationships": { "assignedServer": { "links": {
                "self": format!("{own}/relationships/assignedServer"), "related": format!("{own}/assignedServer")
            } } },
            "links": { "self": own }
        })
    };
    let data: Vec<_> = (first..first + PAGE).map(item).collect();
    json!({ "data": data, "links": { "self": "https://api-business.apple.com/v1/orgDevices" } })
        .to_string()
        .into_bytes()
}

fn assignments(devices: usize) -> Assignments {
    let mut assignments = Assignments::new(BTreeMap::from([("S1".into(), "Jamf Cloud".into())]), true, 1);
    (0..devices).for_each(|index| assignments.link(&format!("FXT{index:09}"), "S1"));
    assignments
}

fn fleet(devices: usize, assignments: &Assignments) -> Memory {
    let mut memory = Memory::default();
    let mut header = Header::begin("acme", None, "bench", AT);
    for first in (0..devices).step_by(PAGE) {
        let page = read_page(&page(first, "BLUE"));
        let (step, moved) = step::page(&origin(), &Limits::default(), &memory, &header, assignments, page, AT);
        memory.apply(&step);
        header = moved;
    }
    memory.apply(&step::forget_seen(&origin(), &memory));
    memory
}

/// Decodes, diffs and encodes a page; returns the number of events.
fn process(body: &[u8], memory: &Memory, assignments: &Assignments, key: &Codec, value: &Codec) -> usize {
    let page = read_page(body);
    let step = plan(page, memory, assignments);
    encode(&step, key, value);
    step.devices.len()
}

fn plan(page: Page, memory: &Memory, assignments: &Assignments) -> Step {
    let mut header = Header::begin("acme", None, "bench", AT);
    header.read_to_end = true;
    step::page(&origin(), &Limits::default(), memory, &header, assignments, page, AT).0
}

fn encode(step: &Step, key: &Codec, value: &Codec) {
    for envelope in &step.devices {
        let record = envelope.after.as_ref().expect("devices are not removed");
        black_box(key.encode(&record.key()).expect("a key"));
        black_box(value.encode(envelope).expect("a value"));
        black_box(event::headers(envelope, &step.traceparent, false));
    }
}

/// Nanoseconds that this thread has spent on a processor, as Linux counts them.
struct CpuTime;

impl CpuTime {
    fn now() -> u64 {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux counts it");
        text.split(' ').next().and_then(|first| first.parse().ok()).expect("the first number is the CPU time")
    }
}

impl Measurement for CpuTime {
    type Intermediate = u64;
    type Value = u64;

    fn start(&self) -> u64 {
        Self::now()
    }

    fn end(&self, began: u64) -> u64 {
        Self::now() - began
    }

    fn add(&self, first: &u64, second: &u64) -> u64 {
        first + second
    }

    fn zero(&self) -> u64 {
        0
    }

    fn to_f64(&self, nanoseconds: &u64) -> f64 {
        *nanoseconds as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

fn benchmark(criterion: &mut Criterion<CpuTime>) {
    let key = Codec::new(1, device::KEY_SCHEMA).expect("the key's schema");
    let value = Codec::new(2, device::VALUE_SCHEMA).expect("the value's schema");
    let mut group = criterion.benchmark_group("page of 1000");
    group.throughput(Throughput::Elements(PAGE as u64));
    for devices in [1_000, 10_000, 100_000] {
        let assignments = assignments(devices);
        let memory = fleet(devices, &assignments);
        for (name, color, events) in [("unchanged", "BLUE", 0), ("changed", "RED", PAGE)] {
            let body = page(devices - PAGE, color);
            assert_eq!(process(&body, &memory, &assignments, &key, &value), events);
            group.bench_function(BenchmarkId::new(name, devices), |bencher| {
                bencher.iter(|| process(black_box(&body), &memory, &assignments, &key, &value));
            });
        }
        if devices == PAGE {
            let body = page(0, "RED");
            let read = read_page(&body);
            group.bench_function("decode alone", |bencher| {
                bencher.iter(|| read_page(black_box(&body)));
            });
            group.bench_function("diff alone, changed", |bencher| {
                bencher.iter_with_setup(|| read.clone(), |read| plan(read, &memory, &assignments));
            });
            let step = plan(read.clone(), &memory, &assignments);
            group.bench_function("encode alone", |bencher| bencher.iter(|| encode(black_box(&step), &key, &value)));
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = benchmark
}
criterion_main!(benches);
