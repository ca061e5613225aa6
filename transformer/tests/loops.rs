//! What both loops make of device events, against a real Kafka.

use tokio_util::sync::CancellationToken;
use windfall_runtime::diagnose::Diagnose as _;
use windfall_runtime::kafka::config::ManageTopics;
use windfall_runtime::kafka::topics::{self, TopicError};
use windfall_runtime::kafka::{Connection, Outgoing};
use windfall_schemas::conflict::Conflict;
use windfall_schemas::envelope::{Kind, Op};
use windfall_schemas::topic::{Names, value_subject};
use windfall_transformer::catalog::DEVICES_COLLECTION;
use windfall_transformer::{CollectionConfig, TransformerError, load_collections, run, run_once};

use crate::workbench::{PATIENCE, Workbench, device};

#[tokio::test(flavor = "multi_thread")]
async fn device_events_become_one_flat_record_each() {
    let mut bench = Workbench::new().await;
    let mut events = Vec::new();
    for number in 0..50 {
        let mut seen = device("acme", &format!("D{number}"), &format!("sim{number:07}"));
        seen.imei = Some(vec![format!("3520990017{number:05}"), format!("3520990018{number:05}")]);
        events.push(bench.added(1_000 + number, &seen));
    }
    bench.write(events).await;
    let report = bench.once().await.unwrap();
    assert_eq!((report.records, report.dead_letters), (100, 0));

    let assets = bench.assets().await;
    assert_eq!(assets.len(), 50);
    let asset = &assets["SIM0000007"];
    assert_eq!(bench.field(asset, "serial_number"), "SIM0000007");
    assert_eq!(bench.field(asset, "imei"), "352099001700007");
    assert_eq!(bench.field(asset, "imei_2"), "352099001800007");
    assert_eq!(bench.field(asset, "org"), "acme");
    assert!(!asset.deleted);
    let meta = &asset.meta;
    assert_eq!(meta.org.as_deref(), Some("acme"));
    assert_eq!(meta.device_id.as_deref(), Some("D7"));
    assert_eq!((meta.op.as_deref(), meta.kind.as_deref()), (Some("c"), Some("added")));
    assert_eq!(meta.source_ts_ms, Some(1_007));
    assert_eq!(meta.identifier.as_deref(), Some("serial_number"));
    assert!(meta.mapping.as_deref().is_some_and(|mapping| mapping.starts_with("abm-devices@")), "{meta:?}");
    assert_eq!(meta.sources, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flat_record_lies_where_java_would_put_its_key_and_carries_cloud_events_headers() {
    let mut bench = Workbench::new().await;
    let events = vec![bench.added(5, &device("acme", "D1", "SIM1000001"))];
    bench.write(events).await;
    bench.once().await.unwrap();
    let log = bench.log(&bench.names.assets("devices")).await;
    let [record] = log.as_slice() else { panic!("{} records", log.len()) };
    let key = record.key.as_ref().unwrap();
    assert_eq!(record.partition, windfall_schemas::partition::for_key(key, 12));
    let contributions = bench.log(&bench.names.contributions("devices")).await;
    assert_eq!(contributions[0].partition, record.partition, "a contribution lies where its asset does");
    let header = |name| record.headers.text(name);
    assert_eq!(header("ce_type"), Some("asset.added"));
    assert_eq!(header("ce_source"), Some("/assets/devices"));
    assert_eq!(header("ce_subject"), Some("SIM1000001"));
    assert_eq!(header("ce_time"), Some("1970-01-01T00:00:00.005Z"));
    assert_eq!(header("content-type"), Some("application/avro"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_without_news_writes_nothing() {
    let mut bench = Workbench::new().await;
    let events = (0..20).map(|n| bench.added(n, &device("acme", &format!("D{n}"), &format!("SIM200{n:04}")))).collect();
    bench.write(events).await;
    bench.once().await.unwrap();
    let before = bench.own_output().await;
    let report = bench.once().await.unwrap();
    assert_eq!(report.records, 0);
    assert_eq!(bench.own_output().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_changes_no_field_is_not_published_again() {
    let mut bench = Workbench::new().await;
    let seen = device("acme", "D1", "SIM3000001");
    let mut odd = seen.clone();
    odd.unmapped = Some("{\"newAttribute\":1}".to_owned());
    let events = vec![bench.added(1, &seen), bench.updated(2, &odd)];
    bench.write(events).await;
    bench.once().await.unwrap();
    assert_eq!(bench.contributions().await.len(), 2);
    assert_eq!(bench.flat().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrected_serial_number_moves_the_asset() {
    let mut bench = Workbench::new().await;
    let wrong = device("acme", "D1", "SIMWRONG01");
    let right = device("acme", "D1", "SIMRIGHT01");
    let events = vec![bench.added(1, &wrong), bench.updated(2, &right)];
    bench.write(events).await;
    bench.once().await.unwrap();
    let assets = bench.assets().await;
    assert_eq!(assets.keys().collect::<Vec<_>>(), ["SIMRIGHT01"]);
    let of_wrong: Vec<_> = bench.flat().await.into_iter().filter(|(asset_id, _)| asset_id == "SIMWRONG01").collect();
    assert_eq!(of_wrong.len(), 3, "the record, the deletion, the tombstone");
    let deleted = of_wrong[1].1.as_ref().unwrap();
    assert!(deleted.deleted && deleted.version > of_wrong[0].1.as_ref().unwrap().version);
    assert_eq!(bench.field(deleted, "serial_number"), "SIMWRONG01", "a deletion carries the last values");
    assert!(of_wrong[2].1.is_none());
    let links = bench.links().await;
    let link = &links["acme/D1"];
    assert_eq!(link.assets.len(), 1);
    assert_eq!((link.assets[0].asset_id.as_str(), link.assets[0].claimed_ms), ("SIMRIGHT01", 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_released_by_one_organization_and_live_in_another_is_the_others() {
    let mut bench = Workbench::new().await;
    let mut released = device("acme", "A1", "SIM4000001");
    released.released_from_org_date_time = Some(9_000);
    released.status = None;
    let live = device("globex", "G1", "SIM4000001");
    // The release comes last, and with the later time: being live counts for more.
    let events = vec![
        bench.added(1_000, &device("acme", "A1", "SIM4000001")),
        bench.added(2_000, &live),
        bench.event(Op::Update, Kind::Released, 9_000, &released),
    ];
    bench.write(events).await;
    bench.once().await.unwrap();
    let assets = bench.assets().await;
    let asset = &assets["SIM4000001"];
    assert_eq!(bench.field(asset, "org"), "globex");
    assert_eq!(bench.field(asset, "released_from_org_date_time"), "null");
    assert_eq!(asset.meta.device_id.as_deref(), Some("G1"));

    // Once the other organization purges its record, the released one is what remains.
    let events = vec![bench.event(Op::Delete, Kind::Removed, 9_500, &live), bench.tombstone(&live)];
    bench.write(events).await;
    bench.once().await.unwrap();
    let assets = bench.assets().await;
    assert_eq!(bench.field(&assets["SIM4000001"], "org"), "acme");
    assert_eq!(bench.field(&assets["SIM4000001"], "released_from_org_date_time"), "1970-01-01T00:00:09.000Z");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purged_device_leaves_a_deletion_a_tombstone_and_an_empty_link() {
    let mut bench = Workbench::new().await;
    let seen = device("acme", "D1", "SIM5000001");
    let events = vec![bench.added(1, &seen), bench.event(Op::Delete, Kind::Removed, 2, &seen), bench.tombstone(&seen)];
    bench.write(events).await;
    bench.once().await.unwrap();
    let flat = bench.flat().await;
    assert_eq!(flat.len(), 3);
    assert!(flat[1].1.as_ref().unwrap().deleted);
    assert_eq!(flat[2].1, None);
    assert_eq!(bench.links().await["acme/D1"].assets, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_tombstone_withdraws_too() {
    let mut bench = Workbench::new().await;
    let seen = device("acme", "D1", "SIM5100001");
    let events = vec![bench.added(1, &seen), bench.tombstone(&seen)];
    bench.write(events).await;
    bench.once().await.unwrap();
    assert!(bench.assets().await.is_empty());
    assert_eq!(bench.contributions().await.last().unwrap().1, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_without_any_identifier_is_no_asset_and_no_dead_letter() {
    let mut bench = Workbench::new().await;
    let seen = device("acme", "D1", "SIM5200001");
    let nameless = device("acme", "D1", "Not Available");
    let events = vec![bench.added(1, &seen), bench.updated(2, &nameless)];
    bench.write(events).await;
    let report = bench.once().await.unwrap();
    assert_eq!(report.dead_letters, 0);
    assert!(bench.assets().await.is_empty());
    assert_eq!(bench.links().await["acme/D1"].assets, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_cannot_be_read_becomes_a_dead_letter_and_its_neighbours_go_on() {
    let mut bench = Workbench::new().await;
    let good = bench.added(1, &device("acme", "D1", "SIM6000001"));
    let key = good.key.clone().unwrap();
    let id = good.value.clone().unwrap().slice(1..5);
    let topic = bench.names.devices();
    let cut = Outgoing::new(topic.clone(), key.clone(), good.value.clone().unwrap().slice(..40));
    let foreign = Outgoing::new(topic.clone(), key.clone(), vec![0, 0x7f, 0xff, 0xff, 0xff, 1, 2, 3]);
    // An array of ten million nulls, in five bytes.
    let mut bomb = vec![0];
    bomb.extend_from_slice(&id);
    bomb.extend_from_slice(&[2, 0x80, 0xda, 0xc4, 0x09]);
    let bomb = Outgoing::new(topic.clone(), key.clone(), bomb);
    let text = Outgoing::new(topic.clone(), key.clone(), &b"{\"not\":\"avro\"}"[..]);
    let after = bench.added(2, &device("acme", "D2", "SIM6000002"));
    bench.write(vec![good, cut, foreign, bomb, text, after]).await;

    let report = bench.once().await.unwrap();
    assert_eq!(report.dead_letters, 4);
    let assets = bench.assets().await;
    assert_eq!(assets.keys().collect::<Vec<_>>(), ["SIM6000001", "SIM6000002"]);
    let letters = bench.log(&bench.names.dead_letters(&topic, &bench.names.map_group("devices"))).await;
    assert_eq!(letters.len(), 4);
    let mut kinds: Vec<_> = letters
        .iter()
        .map(|letter| letter.headers.text("__connect.errors.exception.class.name").unwrap().to_owned())
        .collect();
    kinds.sort();
    assert_eq!(kinds, ["undecodable", "undecodable", "undecodable", "unknown_schema"]);
    for letter in &letters {
        assert_eq!(letter.headers.text("__connect.errors.topic"), Some(topic.as_str()));
        assert!(letter.headers.text("__connect.errors.offset").is_some());
        assert!(letter.headers.text("__connect.errors.exception.message").unwrap().len() <= 1024);
    }
    let text = letters.iter().find(|letter| letter.value.as_deref() == Some(&b"{\"not\":\"avro\"}"[..])).unwrap();
    assert_eq!(text.headers.text("__connect.errors.stage"), Some("VALUE_CONVERTER"));
    assert_eq!(text.key.as_ref(), Some(&key), "a dead letter keeps its key");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disagreement_is_a_record_in_its_assets_partition_and_ends_with_an_agreement() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!("{DEVICES_COLLECTION}merge: {{ color: agree }}\n");
    std::fs::write(folder.path().join("devices.yaml"), text).unwrap();
    let config = CollectionConfig { file: Some("devices.yaml".into()), ..CollectionConfig::shipped() };
    let mut bench = Workbench::with(load_collections(folder.path(), &[config]).unwrap()).await;
    let colored = |org: &str, id: &str, color: &str| {
        let mut seen = device(org, id, "SIM6100001");
        seen.color = Some(color.to_owned());
        seen
    };
    let topic = bench.names.conflicts("devices");
    let schema = bench.collection().conflicts_value_schema();
    let codec = bench.setup.registry.codec(&value_subject(&topic), &schema).await.unwrap();
    let events =
        vec![bench.added(1, &colored("acme", "A1", "Silver")), bench.added(2, &colored("globex", "G1", "Gold"))];
    bench.write(events).await;
    bench.once().await.unwrap();
    assert_eq!(bench.field(&bench.assets().await["SIM6100001"], "color"), "Silver", "the earliest claim keeps it");
    let log = bench.log(&topic).await;
    let [record] = log.as_slice() else { panic!("{} conflicts", log.len()) };
    assert_eq!(record.partition, bench.log(&bench.names.assets("devices")).await[0].partition);
    let opened: Conflict = codec.decode(record.value.as_ref().unwrap()).unwrap();
    assert_eq!((opened.state.as_str(), opened.held.as_deref()), ("open", Some("\"Silver\"")));

    let before = bench.own_output().await;
    bench.once().await.unwrap();
    assert_eq!(bench.own_output().await, before, "it is remembered over a restart");

    let events = vec![bench.updated(3, &colored("globex", "G1", "Silver"))];
    bench.write(events).await;
    bench.once().await.unwrap();
    let ended: Conflict = codec.decode(bench.log(&topic).await[1].value.as_ref().unwrap()).unwrap();
    assert_eq!((ended.state.as_str(), ended.seen_at), ("closed", Some(3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_ids_that_differ_in_case_are_one_asset_with_a_conflict_that_ends_when_one_of_them_goes() {
    let mut bench = Workbench::new().await;
    let (lower, upper) = (device("acme", "sim62x", "sim62x"), device("acme", "SIM62X", "SIM62X"));
    let events = vec![bench.added(1, &upper), bench.added(2, &lower)];
    bench.write(events).await;
    bench.once().await.unwrap();
    assert_eq!(bench.assets().await.keys().collect::<Vec<_>>(), ["SIM62X"]);
    let topic = bench.names.conflicts("devices");
    let schema = bench.collection().conflicts_value_schema();
    let codec = bench.setup.registry.codec(&value_subject(&topic), &schema).await.unwrap();
    let log = bench.log(&topic).await;
    let [record] = log.as_slice() else { panic!("{} conflicts", log.len()) };
    let opened: Conflict = codec.decode(record.value.as_ref().unwrap()).unwrap();
    assert_eq!((&*opened.asset_id, &*opened.subject, &*opened.state), ("SIM62X", "asset_id", "open"));
    let candidates: Vec<serde_json::Value> = serde_json::from_str(&opened.candidates.unwrap()).unwrap();
    let named: Vec<_> = candidates.iter().map(|claim| claim["source_key"].as_str().unwrap()).collect();
    assert_eq!(named, ["acme/SIM62X", "acme/sim62x"]);

    let events = vec![bench.tombstone(&lower)];
    bench.write(events).await;
    bench.once().await.unwrap();
    let ended: Conflict = codec.decode(bench.log(&topic).await[1].value.as_ref().unwrap()).unwrap();
    assert_eq!((&*ended.subject, &*ended.state), ("asset_id", "closed"));
    assert_eq!(bench.assets().await["SIM62X"].meta.device_id.as_deref(), Some("SIM62X"));
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_with_other_partitions_are_refused_before_anything_is_read() {
    let bench = Workbench::new().await;
    let mut setup = bench.setup.clone();
    setup.kafka.topic_prefix.push_str("other.");
    let names = Names::new(&*setup.kafka.topic_prefix);
    let mut specs = run::topics(&names, &bench.collections[0]);
    for spec in specs.iter_mut().filter(|spec| spec.name == names.links("devices")) {
        spec.partitions = 3;
    }
    let connection = Connection::new(&setup.kafka, "bench", "bench");
    topics::ensure(&connection, &specs, ManageTopics::Create).await.unwrap();
    setup.kafka.manage_topics = ManageTopics::None;
    let refused = run_once(&setup, &bench.collections, CancellationToken::new());
    let error = tokio::time::timeout(PATIENCE, refused).await.expect("it is refused at the start").unwrap_err();
    let TransformerError::Topics(TopicError::Different(differences)) = &error else { panic!("{error}") };
    let told: Vec<_> = differences.iter().map(|it| (it.topic.as_str(), it.found.as_deref())).collect();
    assert_eq!(told, [(names.links("devices").as_str(), Some("3"))]);
    assert!(!error.may_pass() && error.help().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loops_run_on_the_demos_cluster_where_nothing_is_ever_committed() {
    let mut bench = Workbench::in_process().await;
    let first = device("acme", "D1", "SIM8000001");
    let events = vec![bench.added(1, &first), bench.added(2, &device("acme", "D2", "SIM8000002"))];
    bench.write(events).await;
    let running = bench.start();
    bench.await_assets(|assets| assets.len() == 2).await;
    let moved = device("acme", "D1", "SIM8000003");
    let events = vec![bench.updated(3, &moved)];
    bench.write(events).await;
    bench.await_assets(|assets| assets.keys().eq(["SIM8000002", "SIM8000003"])).await;
    running.stop().await;
}
