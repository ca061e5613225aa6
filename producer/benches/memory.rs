//! What the last known fleet keeps in memory: bytes a device, by the slope between fleets of different sizes.

use windfall_producer::fleet::{Event, Fleet};
use windfall_schemas::device::DeviceValue;

/// Most bytes that a device may take.
const GOAL: usize = 450;

/// The allocator of the command.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Returns the memory that this process holds, as Linux counts it, in bytes.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").expect("Linux counts it");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the resident memory");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number of kilobytes") * 1024
}

/// A device with every field that an iPhone has.
fn device(index: usize) -> DeviceValue {
    let text = |text: &str| Some(text.to_owned());
    let id = format!("FXT{index:09}");
    DeviceValue {
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
    }
}

/// Adds devices to a fleet up to `devices`, and tells how much memory the process holds then.
fn grown(fleet: &mut Fleet, devices: usize) -> usize {
    for index in fleet.len()..devices {
        let value = device(index);
        let id = value.device_id.clone();
        let event = Event { after: Some(value.into()), number: 1, made_at: 1, told_at: 1, channel: None };
        fleet.apply(&id, Some(event));
    }
    resident()
}

fn main() {
    let mut fleet = Fleet::default();
    let (small, large) = (grown(&mut fleet, 20_000), grown(&mut fleet, 100_000));
    let slope = (large - small) / 80_000;
    println!("fleet: {slope} bytes a device, by the slope between 20,000 and 100,000 devices (goal: {GOAL} at most)");
}
