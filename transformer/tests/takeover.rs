//! Crashes, restarts, torn output and hidden tails: what a loop does before it computes anything.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use windfall_runtime::diagnose::Diagnose as _;
use windfall_runtime::kafka::Outgoing;
use windfall_runtime::kafka::consumer::BatchLimits;
use windfall_runtime::kafka::table::TableError;
use windfall_runtime::worker::WorkerError;
use windfall_schemas::asset::{AssetKey, AssetRecord, FieldValue};
use windfall_schemas::link::{Link, LinkKey};
use windfall_schemas::topic::{key_subject, value_subject};
use windfall_transformer::TransformerError;

use crate::workbench::{PATIENCE, Workbench, device, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn loops_that_are_killed_again_and_again_repeat_nothing_and_lose_nothing() {
    const DEVICES: usize = 300;
    let mut bench = Workbench::new().await;
    bench.setup.limits = BatchLimits { max_records: 10, ..BatchLimits::default() };
    let events = (0..DEVICES)
        .map(|n| bench.added(i64::try_from(n).unwrap(), &device("acme", &format!("D{n}"), &format!("SIM7{n:06}"))))
        .collect();
    bench.write(events).await;
    for kills in 1..=3 {
        let running = bench.start();
        let enough = DEVICES / 5 * kills;
        eventually("some contributions are written", || async { bench.contributions().await.len() >= enough }).await;
        running.kill().await;
    }
    let running = bench.start();
    bench.await_assets(|assets| assets.len() == DEVICES).await;
    running.stop().await;
    assert_eq!(bench.contributions().await.len(), DEVICES, "each event contributes once");
    assert_eq!(bench.flat().await.len(), DEVICES, "each asset is published once");
    assert_eq!(bench.links().await.len(), DEVICES);
}

#[tokio::test(flavor = "multi_thread")]
async fn loops_without_committed_offsets_read_all_again_and_repeat_nothing() {
    let mut bench = Workbench::new().await;
    let moved = device("acme", "D1", "SIM7100002");
    let events = vec![
        bench.added(1, &device("acme", "D1", "SIM7100001")),
        bench.updated(2, &moved),
        bench.added(3, &device("acme", "D2", "SIM7100003")),
    ];
    bench.write(events).await;
    bench.once().await.unwrap();
    let before = bench.flat().await;
    forget_offsets(&bench, &bench.names.map_group("devices")).await;
    forget_offsets(&bench, &bench.names.merge_group("devices")).await;
    bench.once().await.unwrap();
    assert_eq!(bench.flat().await, before);
    let withdrawn = bench.contributions().await.iter().filter(|(_, contribution)| contribution.is_none()).count();
    assert_eq!(withdrawn, 1, "what was withdrawn once is not withdrawn again");
}

#[tokio::test(flavor = "multi_thread")]
async fn output_that_a_torn_transaction_left_behind_heals_at_the_next_assignment() {
    let mut bench = Workbench::new().await;
    let events =
        vec![bench.added(1, &device("acme", "D1", "SIM7200001")), bench.added(2, &device("acme", "D2", "SIM7200002"))];
    bench.write(events).await;
    bench.once().await.unwrap();
    let whole = bench.assets().await;
    // As if the flat record had been lost although the offset of its contribution was committed.
    let topic = bench.names.assets("devices");
    let schema = bench.collection().key_schema();
    let codec = bench.setup.registry.codec(&key_subject(&topic), &schema).await.unwrap();
    let key = codec.encode(&AssetKey { asset_id: "SIM7200001".to_owned() }).unwrap();
    bench.write(vec![Outgoing::tombstone(topic, key)]).await;
    assert_eq!(bench.assets().await.len(), 1);

    let running = bench.start();
    bench.await_assets(|assets| assets.len() == 2).await;
    running.stop().await;
    let healed = bench.assets().await;
    assert_eq!(healed["SIM7200001"].fields, whole["SIM7200001"].fields);
    assert!(healed["SIM7200001"].version > whole["SIM7200001"].version, "a version never goes back");
    assert_eq!(healed["SIM7200002"], whole["SIM7200002"], "what is whole is left alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_that_anothers_open_transaction_hides_is_waited_for() {
    let mut bench = Workbench::new().await;
    let events = vec![bench.added(1, &device("acme", "D1", "SIM7300001"))];
    bench.write(events).await;
    bench.once().await.unwrap();
    let partition = bench.log(&bench.names.links("devices")).await[0].partition;

    // Another writer's transaction stands open in the partition of the link, with a newer link in it.
    let intruder = open_transaction(&bench, &bench.names.links("devices"), partition).await;
    let events = vec![bench.updated(2, &device("acme", "D1", "SIM7300002"))];
    bench.write(events).await;
    let running = bench.start();
    eventually("the status names what is hidden", || async {
        // A round trip to the broker, so that nothing spins; and nothing may be computed from a tail that is not seen.
        assert_eq!(bench.contributions().await.len(), 1);
        let shown = bench.setup.status.snapshot();
        shown.parts.get("map devices").is_some_and(|part| part.details.contains_key("hidden"))
    })
    .await;
    tokio::task::spawn_blocking(move || intruder.abort_transaction(Duration::from_secs(20)).unwrap()).await.unwrap();
    bench.await_assets(|assets| assets.keys().eq(["SIM7300002"])).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_beyond_its_source_is_refused() {
    let mut bench = Workbench::new().await;
    let seen = device("acme", "D1", "SIM7400001");
    let events = vec![bench.added(1, &seen)];
    bench.write(events).await;
    bench.once().await.unwrap();
    let mut link = bench.links().await["acme/D1"].clone();
    link.source_offset = 1_000;
    let record = link_record(&bench, &link).await.to_partition(link.source_partition);
    bench.write(vec![record]).await;
    let error = bench.once().await.unwrap_err();
    let TransformerError::Worker(worker) = &error else { panic!("{error}") };
    let WorkerError::OtherLog(other) = &**worker else { panic!("{error}") };
    assert_eq!((other.at.partition, other.position.next_offset), (link.source_partition, 1_001));
    assert!(error.help().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_member_takes_its_share_and_gives_it_back() {
    let mut bench = Workbench::new().await;
    bench.setup.dynamic = true;
    let first = bench.start();
    let events = (0..60).map(|n| bench.added(n, &device("acme", &format!("D{n}"), &format!("SIM75{n:05}")))).collect();
    bench.write(events).await;
    bench.await_assets(|assets| assets.len() == 60).await;
    let instance = std::mem::replace(&mut bench.setup.instance, "other".to_owned());
    let second = bench.start();
    bench.setup.instance = instance;
    let events = (0..60)
        .map(|n| {
            let mut changed = device("acme", &format!("D{n}"), &format!("SIM75{n:05}"));
            changed.status = Some("ASSIGNED".to_owned());
            bench.updated(1_000 + n, &changed)
        })
        .collect();
    bench.write(events).await;
    let status = bench.collection().position("status").unwrap();
    let assigned = |record: &AssetRecord| record.fields[status] == FieldValue::String("ASSIGNED".into());
    bench.await_assets(|assets| assets.len() == 60 && assets.values().all(assigned)).await;
    second.stop().await;
    let events =
        (0..60).map(|n| bench.updated(2_000 + n, &device("acme", &format!("D{n}"), &format!("SIM75{n:05}")))).collect();
    bench.write(events).await;
    bench.await_assets(|assets| assets.len() == 60 && !assets.values().any(assigned)).await;
    first.stop().await;
    assert_eq!(bench.contributions().await.len(), 180, "each event contributes once");
    assert_eq!(bench.flat().await.len(), 180, "each change is published once");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_another_registry_are_refused() {
    let mut bench = Workbench::new().await;
    let events = vec![bench.added(1, &device("acme", "D1", "SIM7600001"))];
    bench.write(events).await;
    bench.once().await.unwrap();
    let link = bench.links().await["acme/D1"].clone();
    // The same schema with another text has another id, as it would in another registry.
    let schema = bench.collection().links_key_schema().replace("\"doc\": \"", "\"doc\": \"the ");
    let other = bench.setup.registry.codec("other-key", &schema).await.unwrap();
    let mut foreign = link_record(&bench, &link).await.to_partition(link.source_partition);
    foreign.key = Some(other.encode(&link.key()).unwrap().into());
    bench.write(vec![foreign]).await;
    let error = bench.once().await.unwrap_err();
    let TransformerError::Table(source) = &error else { panic!("{error}") };
    let TableError::KeySchema { found, ours, .. } = **source else { panic!("{source}") };
    assert_eq!(found, Some(other.id()));
    assert_ne!(ours, other.id());
    assert!(!error.may_pass() && error.help().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_run_beside_a_running_instance_is_refused() {
    let mut bench = Workbench::new().await;
    let running = bench.start();
    let events = vec![bench.added(1, &device("acme", "D1", "SIM7700001"))];
    bench.write(events).await;
    bench.await_assets(|assets| assets.len() == 1).await;
    let error = bench.once().await.unwrap_err();
    let TransformerError::Worker(worker) = &error else { panic!("{error}") };
    let WorkerError::Shared { got, of, .. } = &**worker else { panic!("{error}") };
    assert!(got < of, "{error}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_asset_of_which_only_a_newer_contribution_is_left_is_not_taken_for_gone() {
    let mut bench = Workbench::new().await;
    let seen = device("acme", "D1", "SIM7800001");
    let events = vec![bench.added(1, &seen)];
    bench.write(events).await;
    bench.once().await.unwrap();
    // What compaction leaves of a backlog: below the committed offset nothing of the asset, beyond it the newer contribution.
    // A tombstone stands in for what was compacted away.
    let topic = bench.names.contributions("devices");
    let record = bench.log(&topic).await.remove(0);
    let (key, value) = (record.key.clone().unwrap(), record.value.clone().unwrap());
    bench.write(vec![Outgoing::tombstone(topic.clone(), key.clone()).to_partition(record.partition)]).await;
    bench.write(vec![Outgoing::new(topic.clone(), key, value).to_partition(record.partition)]).await;
    let newer = bench.log(&topic).await.into_iter().map(|record| record.offset).max().unwrap();
    commit(&bench.names.merge_group("devices"), &topic, record.partition, newer).await;
    let before = bench.flat().await;
    let report = bench.once().await.unwrap();
    assert_eq!(report.records, 1, "the newer contribution is read");
    assert_eq!(bench.flat().await, before, "neither deleted nor published again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_asset_whose_contribution_has_a_schema_that_the_registry_lost_is_not_taken_for_gone() {
    let mut bench = Workbench::new().await;
    let events = vec![bench.added(1, &device("acme", "D1", "SIM7810001"))];
    bench.write(events).await;
    bench.once().await.unwrap();
    let topic = bench.names.contributions("devices");
    let record = bench.log(&topic).await.remove(0);
    let (key, value) = (record.key.clone().unwrap(), record.value.clone().unwrap());
    let lost = [&[0, 0x7f, 0xff, 0xff, 0xff], &value[5..]].concat();
    // The tombstone stands in for compaction, which leaves of a key only its newest record.
    bench.write(vec![Outgoing::tombstone(topic.clone(), key.clone()).to_partition(record.partition)]).await;
    bench.write(vec![Outgoing::new(topic.clone(), key, lost).to_partition(record.partition)]).await;
    let newest = bench.log(&topic).await.into_iter().map(|record| record.offset).max().unwrap();
    commit(&bench.names.merge_group("devices"), &topic, record.partition, newest + 1).await;
    let before = bench.flat().await;
    assert_eq!(bench.once().await.unwrap().dead_letters, 0, "it was read once, and is no dead letter");
    assert_eq!(bench.flat().await, before, "nothing is deleted");
    let held = bench.detail("merge devices", "held").unwrap();
    assert_eq!(held["unreadable"], serde_json::json!([{ "partition": record.partition, "offset": newest }]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_with_the_same_instance_ends_the_first_and_goes_on() {
    let mut bench = Workbench::new().await;
    let first = bench.start();
    let events = vec![bench.added(1, &device("acme", "D1", "SIM7900001"))];
    bench.write(events).await;
    bench.await_assets(|assets| assets.len() == 1).await;
    let second = bench.start();
    let error = tokio::time::timeout(PATIENCE, first.task).await.unwrap().unwrap().unwrap_err();
    assert!(!error.may_pass(), "{error}");
    assert!(error.help().is_some_and(|help| help.contains("instance")), "{error}");
    let events = vec![bench.added(2, &device("acme", "D2", "SIM7900002"))];
    bench.write(events).await;
    bench.await_assets(|assets| assets.len() == 2).await;
    second.stop().await;
    assert_eq!(bench.flat().await.len(), 2, "each asset is published once");
}

/// Commits an offset for a group that has no members.
async fn commit(group: &str, topic: &str, partition: i32, offset: i64) {
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
    let (servers, group) = (windfall_services::kafka(), group.to_owned());
    let commit = move || {
        let member: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", servers).set("group.id", group).create().unwrap();
        member.commit(&offsets, CommitMode::Sync).unwrap();
    };
    tokio::task::spawn_blocking(commit).await.unwrap();
}

async fn link_record(bench: &Workbench, link: &Link) -> Outgoing {
    let topic = bench.names.links("devices");
    let collection = bench.collection();
    let registry = &bench.setup.registry;
    let key = registry.codec(&key_subject(&topic), &collection.links_key_schema()).await.unwrap();
    let value = registry.codec(&value_subject(&topic), &collection.links_value_schema()).await.unwrap();
    let name = LinkKey { source: link.source.clone(), source_key: link.source_key.clone() };
    Outgoing::new(topic, key.encode(&name).unwrap(), value.encode(link).unwrap())
}

/// Opens a transaction in a partition and leaves it open.
pub(crate) async fn open_transaction(bench: &Workbench, topic: &str, partition: i32) -> BaseProducer {
    let (servers, id) = (windfall_services::kafka(), bench.names.topic("intruder"));
    let topic = topic.to_owned();
    let open = move || {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", servers)
            .set("transactional.id", id)
            .set("transaction.timeout.ms", "60000")
            .create()
            .unwrap();
        producer.init_transactions(Duration::from_secs(20)).unwrap();
        producer.begin_transaction().unwrap();
        producer.send(BaseRecord::to(&topic).partition(partition).key(&[1][..]).payload(&[2][..])).unwrap();
        producer.flush(Duration::from_secs(20)).unwrap();
        producer
    };
    tokio::task::spawn_blocking(open).await.unwrap()
}

/// Deletes a group with its offsets.
async fn forget_offsets(bench: &Workbench, group: &str) {
    let admin: rdkafka::admin::AdminClient<rdkafka::client::DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", windfall_services::kafka()).create().unwrap();
    let _ = bench;
    let deleted = admin.delete_groups(&[group], &rdkafka::admin::AdminOptions::new()).await.unwrap();
    for group in deleted {
        group.unwrap();
    }
}
