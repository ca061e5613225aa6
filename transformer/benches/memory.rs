//! What map and merge remember: bytes an asset, by the slope between fleets of different sizes.

use std::path::Path;

use windfall_schemas::asset::AssetKey;
use windfall_schemas::contribution::Contribution;
use windfall_schemas::device::{self, DeviceValue};
use windfall_schemas::envelope::{Envelope, Op, Source};
use windfall_schemas::partition;
use windfall_schemas::topic::CHANGE_PARTITIONS;
use windfall_schemas::wire::{Codec, WireError};
use windfall_transformer::contribution::{SourceRecord, map};
use windfall_transformer::links::SourcePosition;
use windfall_transformer::remembered::{Contributions, Lasts, Links};
use windfall_transformer::{LoadedCollection, load_collections};

/// Most bytes that an asset may take.
const GOAL: usize = 1_000;

/// The allocator of the command.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Returns the memory that this process holds, as Linux counts it, in bytes.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").expect("Linux counts it");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the resident memory");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number of kilobytes") * 1024
}

/// The event of a device with every field that an iPhone has.
fn event(index: usize) -> Envelope<DeviceValue> {
    let text = |text: &str| Some(text.to_owned());
    let id = format!("FXT{index:09}");
    let after = DeviceValue {
        org: "acme".to_owned(),
        serial_number: id.clone(),
        device_id: id,
        status: text("ASSIGNED"),
        product_family: text("iPhone"),
        product_type: text("iPhone16,1"),
        device_model: text("iPhone 15 Pro"),
        device_capacity: text("256GB"),
        color: text("BLUE"),
        part_number: text("MTV13LL/A"),
        order_number: text("7000000001"),
        order_date_time: Some(1_738_915_200_000),
        purchase_source_type: text("APPLE"),
        purchase_source_id: text("-2000000000000001"),
        added_to_org_date_time: Some(1_739_211_725_520),
        updated_date_time: Some(1_739_260_841_190),
        imei: Some(vec!["350000000001012".to_owned(), "350000000001020".to_owned()]),
        meid: Some(vec!["35000000000101".to_owned()]),
        eid: text("89049032000000000000000000010154"),
        wifi_mac_address: Some(vec!["020000000101".to_owned()]),
        bluetooth_mac_address: Some(vec!["020000000102".to_owned()]),
        mdm_server_id: text("1F97349736CF4614A94F624E705841AD"),
        mdm_server_name: text("Jamf Cloud"),
        ..DeviceValue::default()
    };
    Envelope {
        before: None,
        fingerprint: Some(after.fingerprint()),
        after: Some(after),
        source: Source { ts_ms: 1_739_260_841_190, db: "acme".to_owned(), ..Source::default() },
        op: Op::Read,
        ts_ms: None,
        ts_us: None,
        ts_ns: None,
        transaction: None,
        event_id: Some(format!("{index:032x}")),
        kind: Some(windfall_schemas::envelope::Kind::Added),
        changed: Vec::new(),
        evidence: Vec::new(),
    }
}

/// The memory of both loops, a state a partition, and what fills it.
struct World {
    loaded: LoadedCollection,
    key: Codec,
    event: Codec,
    contribution: Codec,
    links: Vec<Links>,
    contributions: Vec<Contributions>,
    lasts: Vec<Lasts>,
}

impl World {
    fn new() -> Self {
        let loaded = load_collections(Path::new("."), &[]).expect("the shipped files are sound").remove(0);
        let schema = &loaded.collection.schema;
        let codec = |id, text: &str| Codec::new(id, text).expect("a sound schema");
        let partitions = usize::try_from(CHANGE_PARTITIONS).expect("a number of partitions");
        Self {
            key: codec(1, &schema.key_schema()),
            event: codec(2, device::VALUE_SCHEMA),
            contribution: codec(3, &schema.contributions_value_schema()),
            loaded,
            links: (0..partitions).map(|_| Links::default()).collect(),
            contributions: (0..partitions).map(|_| Contributions::default()).collect(),
            lasts: (0..partitions).map(|_| Lasts::default()).collect(),
        }
    }

    fn read(&self, encoded: &[u8]) -> Result<Contribution, WireError> {
        self.loaded.collection.schema.decode_contribution(&self.contribution, encoded)
    }

    /// Maps and merges a device that is new, and remembers it.
    fn add(&mut self, index: usize) {
        let event = self.event.encode(&event(index)).expect("an event");
        let record = SourceRecord {
            source: "abm.devices".into(),
            source_key: format!("acme/FXT{index:09}"),
            at: SourcePosition { partition: 0, offset: i64::try_from(index).expect("a small number") },
            event: Some(self.event.decode(&event).expect("an event")),
        };
        let step = map(&self.loaded.mappings[0].program, None, record);
        let said = step.contribution.expect("a device contributes");
        let key = self.key.encode(&AssetKey { asset_id: said.asset_id.clone() }).expect("a key");
        let at = usize::try_from(partition::for_key(&key, CHANGE_PARTITIONS)).expect("a partition");
        self.links[at].insert(&step.link.expect("a new device is linked"));

        let schema = &self.loaded.collection.schema;
        let encoded = schema.encode_contribution(&self.contribution, &said).expect("a contribution");
        let (asset_id, key) = (said.asset_id.clone(), (said.source.clone(), said.source_key.clone()));
        let mut unpacked = self.contributions[at].unpack(&asset_id, |encoded| self.read(encoded));
        unpacked.hear::<WireError>(key, 0, Some(&encoded), Ok(Some(said))).expect("it can be read");
        let published = unpacked.asset.conclude(&self.loaded.collection, &asset_id, 0, 0);
        assert!(published.record.is_some());
        self.contributions[at].pack(&asset_id, &unpacked);
        self.lasts[at].pack(&asset_id, &unpacked.asset);
    }
}

fn main() {
    let mut world = World::new();
    let mut grown = |from: usize, to: usize| {
        (from..to).for_each(|index| world.add(index));
        resident()
    };
    let (small, large) = (grown(0, 20_000), grown(20_000, 100_000));
    let slope = (large - small) / 80_000;
    println!(
        "map and merge: {slope} bytes an asset, by the slope between 20,000 and 100,000 devices (goal: {GOAL} at most)"
    );
}
