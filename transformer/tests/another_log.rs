//! Topics that are not the ones they were, and programs that are not: what the loops do at their next start.

use std::collections::BTreeMap;
use std::path::Path;

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use windfall_runtime::diagnose::{Diagnose as _, Kind};
use windfall_runtime::health::PartState;
use windfall_runtime::kafka::consumer::BatchLimits;
use windfall_runtime::kafka::groups::CommittedOffset;
use windfall_runtime::kafka::{TopicPartition, groups, topics};
use windfall_runtime::log_identity::{ACCEPTED, Position};
use windfall_schemas::device::DeviceValue;
use windfall_transformer::{CollectionConfig, LoadedCollection, load_collections, run};

use crate::workbench::{Running, Workbench, device, eventually};

fn admin() -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", windfall_services::kafka()).create().unwrap()
}

/// Deletes a topic and makes it anew.
async fn make_anew(bench: &Workbench, topic: &str) {
    let deleted = admin().delete_topics(&[topic], &AdminOptions::new()).await.unwrap();
    deleted.into_iter().for_each(|result| drop(result.unwrap()));
    eventually("the topic is gone", || async {
        topics::partition_count(&bench.connection, topic).await.unwrap().is_none()
    })
    .await;
    let mut specs = bench.names.base_topics();
    specs.extend(run::topics(&bench.names, &bench.collections[0]));
    specs.retain(|spec| spec.name == topic);
    topics::ensure(&bench.connection, &specs[..1], bench.setup.kafka.manage_topics).await.unwrap();
}

/// Deletes all records of a topic, as retention does.
async fn expire(bench: &Workbench, topic: &str) {
    let mut specs = run::topics(&bench.names, &bench.collections[0]);
    specs.retain(|spec| spec.name == topic);
    let alter = async |policy: &str| {
        let mut settings = specs[0].settings();
        settings.retain(|(name, _)| *name != "cleanup.policy");
        let config = AlterConfig::new(ResourceSpecifier::Topic(topic)).set("cleanup.policy", policy);
        let config = settings.iter().fold(config, |config, (name, value)| config.set(name, value));
        let config = config.set("min.insync.replicas", "1");
        admin().alter_configs(&[config], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    };
    alter("delete").await;
    let mut list = TopicPartitionList::new();
    let partitions = topics::partition_count(&bench.connection, topic).await.unwrap().unwrap();
    (0..partitions).for_each(|at| list.add_partition_offset(topic, at, Offset::End).unwrap());
    // The controller has taken the policy over; the broker refuses until it has, too.
    eventually("the records are deleted", || async {
        let deleted = admin().delete_records(&list, &AdminOptions::new()).await.unwrap();
        match deleted.elements().iter().try_for_each(|element| element.error()) {
            Err(KafkaError::OffsetFetch(RDKafkaErrorCode::PolicyViolation)) => false,
            outcome => outcome.map(|()| true).unwrap(),
        }
    })
    .await;
    alter("compact").await;
}

fn devices(count: usize) -> Vec<DeviceValue> {
    (0..count).map(|n| device("acme", &format!("D{n}"), &format!("SIM8{n:06}"))).collect()
}

async fn add(bench: &mut Workbench, devices: &[DeviceValue], ts_ms: i64) {
    let events = devices.iter().map(|device| bench.added(ts_ms, device)).collect();
    bench.write(events).await;
}

/// Sets the offsets of a group as a command does.
async fn set_offsets(bench: &Workbench, group: &str, topic: &str, next_offset: Option<i64>, program: Option<&str>) {
    let all = (0..12).map(|at| TopicPartition::new(topic, at)).collect();
    let committed = groups::committed(&bench.connection, group, all).await.unwrap();
    let set = committed.into_iter().filter_map(|(at, known)| {
        let position = next_offset.map_or_else(|| known.map(|known| known.position), |next| Some(Position::at(next)));
        Some((at, CommittedOffset { position: position?, program: program.map(str::to_owned) }))
    });
    groups::commit(&bench.connection, group, set.collect()).await.unwrap();
}

async fn refused_as_another_log(bench: &Workbench, topic: &str) {
    for _ in 0..2 {
        let error = bench.once().await.unwrap_err();
        let told = error.told();
        assert!(error.kind() == Kind::Refused && !error.may_pass(), "{told}");
        assert!(told.contains(topic) && told.contains("windfall topics accept"), "{told}");
    }
}

/// Runs the loops until the merge is held, and returns the reason; nothing may be published meanwhile.
async fn held(bench: &Workbench, published: usize) -> (Running, String) {
    let running = bench.start();
    let reason = || {
        let snapshot = bench.setup.status.snapshot();
        let part = snapshot.parts.get("merge devices").filter(|part| part.state == PartState::Held && !part.ready);
        part.and_then(|part| part.details.get("reason").map(ToString::to_string))
    };
    eventually("the merge is held", || async {
        assert_eq!(bench.flat().await.len(), published, "nothing is published");
        reason().is_some()
    })
    .await;
    (running, reason().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn contributions_that_were_deleted_delete_no_asset_and_come_back_by_mapping_again() {
    let mut bench = Workbench::new().await;
    add(&mut bench, &devices(40), 1).await;
    bench.once().await.unwrap();
    make_anew(&bench, &bench.names.contributions("devices")).await;
    let (running, reason) = held(&bench, 40).await;
    assert!(reason.contains("40 of 40") && reason.contains("windfall remap devices"), "{reason}");
    running.stop().await;
    let error = bench.once().await.unwrap_err();
    let told = error.told();
    assert!(error.kind() == Kind::Held && !error.may_pass(), "a single run waits for nobody: {told}");
    assert!(told.contains("40 of 40") && told.contains("windfall remap devices"), "{told}");

    // What `windfall remap` does.
    set_offsets(&bench, &bench.names.map_group("devices"), &bench.names.devices(), None, None).await;
    let running = bench.start();
    eventually("all contributions stand again", || async { bench.contributions().await.len() == 40 }).await;
    add(&mut bench, &[device("acme", "new", "SIM8999999")], 2).await;
    bench.await_assets(|assets| assets.contains_key("SIM8999999")).await;
    running.stop().await;
    assert_eq!(bench.flat().await.len(), 41, "what stood before is not published again");
}

#[tokio::test(flavor = "multi_thread")]
async fn contributions_that_expired_hold_the_merge_and_delete_no_asset() {
    let mut bench = Workbench::new().await;
    add(&mut bench, &devices(40), 1).await;
    bench.once().await.unwrap();
    expire(&bench, &bench.names.contributions("devices")).await;
    let (running, reason) = held(&bench, 40).await;
    assert!(reason.contains("40 of 40"), "{reason}");
    running.stop().await;
    assert_eq!(bench.flat().await.len(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_that_was_made_anew_under_offsets_that_were_kept_is_refused_while_it_is_shorter_and_when_it_has_grown()
{
    let mut bench = Workbench::new().await;
    let fleet = devices(30);
    add(&mut bench, &fleet, 1).await;
    add(&mut bench, &fleet, 2).await;
    bench.once().await.unwrap();
    let (source, group) = (bench.names.devices(), bench.names.map_group("devices"));
    let all: Vec<_> = (0..12).map(|at| TopicPartition::new(source.as_str(), at)).collect();
    let before = groups::committed(&bench.connection, &group, all).await.unwrap();
    make_anew(&bench, &source).await;
    // As on a cluster that was swapped for another of the same names, with the offsets taken along.
    let kept = before.into_iter().filter_map(|(at, known)| Some((at, known?))).collect();
    groups::commit(&bench.connection, &group, kept).await.unwrap();
    add(&mut bench, &fleet, 3).await;
    refused_as_another_log(&bench, &source).await;
    for ts_ms in 4..=9 {
        add(&mut bench, &fleet, ts_ms).await;
    }
    refused_as_another_log(&bench, &source).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_was_made_anew_and_has_grown_stops_the_map_until_it_is_accepted_and_then_counts_as_newer() {
    let mut bench = Workbench::new().await;
    let fleet = devices(30);
    for ts_ms in 1..=3 {
        add(&mut bench, &fleet, ts_ms).await;
    }
    bench.once().await.unwrap();
    let (source, read_at) = (bench.names.devices(), std::time::Instant::now());
    make_anew(&bench, &source).await;
    eventually("the brokers' clock has moved on by more than two leaders may disagree", || async {
        let asked = topics::partition_count(&bench.connection, &source).await.unwrap();
        asked.is_some() && read_at.elapsed() > std::time::Duration::from_secs(2)
    })
    .await;
    let changed: Vec<DeviceValue> =
        fleet.iter().map(|device| DeviceValue { color: Some("BLUE".to_owned()), ..device.clone() }).collect();
    add(&mut bench, &changed, 4).await;
    refused_as_another_log(&bench, &source).await;
    for ts_ms in 5..=9 {
        add(&mut bench, &changed, ts_ms).await;
    }
    refused_as_another_log(&bench, &source).await;

    set_offsets(&bench, &bench.names.map_group("devices"), &source, Some(0), Some(ACCEPTED)).await;
    bench.once().await.unwrap();
    let colors: BTreeMap<String, usize> = bench.assets().await.values().fold(BTreeMap::new(), |mut colors, asset| {
        *colors.entry(bench.field(asset, "color")).or_default() += 1;
        colors
    });
    assert_eq!(colors.values().copied().collect::<Vec<_>>(), [30], "every record of the new log counts: {colors:?}");
    assert!(colors.keys().all(|color| color.contains("BLUE")));
    let count = bench.contributions().await.len();
    bench.once().await.unwrap();
    assert_eq!(bench.contributions().await.len(), count, "accepted once, it is the log from now on");
}

/// The shipped collection with a field more, and a mapping that fills it.
fn with_site(folder: &Path, site: &str) -> Vec<LoadedCollection> {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("defaults");
    let collection = std::fs::read_to_string(shipped.join("devices.yaml")).unwrap();
    let collection = collection.replace("identify_by:", "  site: string\nidentify_by:");
    let mapping = std::fs::read_to_string(shipped.join("abm-devices.yaml")).unwrap();
    let mapping = mapping.split("tests:").next().unwrap().to_owned() + &format!("  site: {{ const: {site} }}\n");
    std::fs::write(folder.join("devices.yaml"), collection).unwrap();
    std::fs::write(folder.join("abm.yaml"), mapping).unwrap();
    let config = CollectionConfig {
        file: Some("devices.yaml".into()),
        mappings: vec!["abm.yaml".into()],
        ..CollectionConfig::shipped()
    };
    load_collections(folder, &[config]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_collection_and_mapping_reach_every_asset_although_killed_half_way_and_no_older_value_shows() {
    const DEVICES: usize = 10_000;
    let mut bench = Workbench::new().await;
    let fleet = devices(DEVICES);
    for (ts_ms, color) in [(1, "RED"), (2, "BLUE")] {
        let colored: Vec<DeviceValue> =
            fleet.iter().map(|device| DeviceValue { color: Some(color.to_owned()), ..device.clone() }).collect();
        add(&mut bench, &colored, ts_ms).await;
        bench.once().await.unwrap();
    }
    let published = bench.flat().await.len();
    let folder = tempfile::tempdir().unwrap();
    bench.collections = with_site(folder.path(), "Berlin");
    bench.setup.limits = BatchLimits { max_records: 500, ..BatchLimits::default() };
    let running = bench.start();
    eventually("some are mapped again", || async { bench.contributions().await.len() > 2 * DEVICES + DEVICES / 4 })
        .await;
    running.kill().await;
    bench.setup.limits = BatchLimits::default();
    bench.once().await.unwrap();
    let sites = |assets: &BTreeMap<String, windfall_schemas::asset::AssetRecord>| {
        assets.values().filter(|asset| bench.field(asset, "site").contains("Berlin")).count()
    };
    let assets = bench.assets().await;
    assert_eq!((assets.len(), sites(&assets)), (DEVICES, DEVICES), "every asset ends as the new program says");
    let since = &bench.flat().await[..];
    let mut newest: BTreeMap<&str, bool> = BTreeMap::new();
    for (asset_id, record) in since {
        let blue = record.as_ref().is_some_and(|record| bench.field(record, "color").contains("BLUE"));
        let before = newest.insert(asset_id, blue).unwrap_or_default();
        assert!(blue || !before, "{asset_id} shows an older value");
    }
    assert_eq!(since.len(), published + DEVICES, "each asset is published once more, and no other record");

    // The same program again has nothing to do.
    let contributions = bench.contributions().await.len();
    bench.once().await.unwrap();
    assert_eq!(bench.contributions().await.len(), contributions);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_names_assets_otherwise_moves_them_without_showing_an_older_value() {
    let mut bench = Workbench::new().await;
    let mut phone = device("acme", "D1", "SIM8100001");
    phone.imei = Some(vec!["490154203237518".to_owned()]);
    for (ts_ms, color) in [(1, "RED"), (2, "BLUE")] {
        let colored = DeviceValue { color: Some(color.to_owned()), ..phone.clone() };
        add(&mut bench, &[colored], ts_ms).await;
    }
    bench.once().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("defaults/devices.yaml");
    let collection = std::fs::read_to_string(shipped).unwrap();
    let collection = collection.replace("[serial_number, imei,", "[imei, serial_number,");
    std::fs::write(folder.path().join("devices.yaml"), collection).unwrap();
    let config = CollectionConfig { file: Some("devices.yaml".into()), ..CollectionConfig::shipped() };
    let before = bench.flat().await.len();
    bench.collections = load_collections(folder.path(), &[config]).unwrap();
    bench.once().await.unwrap();
    let assets = bench.assets().await;
    assert_eq!(assets.keys().collect::<Vec<_>>(), ["490154203237518"]);
    let since = bench.flat().await.split_off(before);
    let reds = since
        .iter()
        .flat_map(|(_, record)| record)
        .filter(|record| record.asset_id == "490154203237518" && bench.field(record, "color").contains("RED"));
    assert_eq!(reds.count(), 0, "the older record is not mapped again");
}
