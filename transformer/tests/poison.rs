//! Records that cannot be read, in each topic that the loops read: one rule for those who meet them and for those who fold
//! them again after a restart.

use serde_json::json;
use windfall_runtime::diagnose::Diagnose as _;
use windfall_runtime::kafka::sender::Sender;
use windfall_runtime::kafka::{Connection, Headers, Outgoing, Record};
use windfall_runtime::secret::TextOrSecret;
use windfall_schemas::conflict::Conflict;
use windfall_schemas::topic::{key_subject, value_subject};
use windfall_transformer::catalog::DEVICES_COLLECTION;
use windfall_transformer::{CollectionConfig, load_collections};

use crate::workbench::{Workbench, device, eventually};

/// A frame whose schema the registry does not know, and something behind it.
const UNKNOWN_SCHEMA: &[u8] = &[0, 0x7f, 0xff, 0xff, 0xff, 1, 2, 3];
/// What a tool writes that knows no registry.
const NO_FRAME: &[u8] = b"{\"not\":\"avro\"}";

/// A record of the same key in the same partition, with another value.
fn over(record: &Record, value: &'static [u8]) -> Outgoing {
    Outgoing::new(record.topic.to_string(), record.key.clone().unwrap(), value).to_partition(record.partition)
}

/// Keys that are none of ours, in a partition.
fn strangers(topic: &str, partition: i32) -> Vec<Outgoing> {
    let stranger = |key: &'static [u8]| Outgoing::new(topic, key, NO_FRAME).to_partition(partition);
    // Newer clients name the schema in a header, by a GUID that no record of ours has.
    let by_header = Headers::new().with("__key_schema_id", vec![1; 17]).with("__value_schema_id", vec![1; 17]);
    vec![stranger(NO_FRAME), stranger(UNKNOWN_SCHEMA), stranger(b"\0").with_headers(by_header)]
}

fn last_of<'a>(log: &'a [Record], part: &str) -> &'a Record {
    let holds = |record: &&Record| record.key.as_ref().unwrap().windows(part.len()).any(|at| at == part.as_bytes());
    log.iter().rfind(holds).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contribution_that_cannot_be_read_is_one_dead_letter_and_holds_its_asset_until_its_source_speaks_again() {
    let mut bench = Workbench::new().await;
    let topic = bench.names.contributions("devices");
    let group = bench.names.merge_group("devices");
    let (seen, other) = (device("acme", "D1", "SIMP100001"), device("acme", "D2", "SIMP100002"));
    let events = vec![bench.added(1, &seen), bench.added(2, &other)];
    bench.write(events).await;
    let running = bench.start();
    bench.await_assets(|assets| assets.len() == 2).await;
    let before = bench.flat().await;

    let log = bench.log(&topic).await;
    let mut poison = vec![over(last_of(&log, "acme/D1"), UNKNOWN_SCHEMA)];
    poison.extend(strangers(&topic, last_of(&log, "acme/D1").partition));
    bench.write(poison).await;
    eventually("all are dead letters", || async { bench.dead_letters(&topic, &group).await.len() == 4 }).await;
    let poisoned =
        bench.log(&topic).await[..].iter().rfind(|r| r.value.as_deref() == Some(UNKNOWN_SCHEMA)).unwrap().clone();
    let shown = json!({
        "assets": 1,
        "topic": topic,
        "unreadable": [{ "partition": poisoned.partition, "offset": poisoned.offset }],
    });
    eventually("the status names what is held", || async {
        bench.links().await;
        bench.detail("merge devices", "held") == Some(shown.clone())
    })
    .await;

    // Another organization claims the device: what comes of it depends on what cannot be read.
    let mut claimed = device("globex", "G1", "SIMP100001");
    claimed.status = Some("ASSIGNED".to_owned());
    let mut changed = other.clone();
    changed.status = Some("ASSIGNED".to_owned());
    let events = vec![bench.added(10, &claimed), bench.updated(11, &changed)];
    bench.write(events).await;
    bench.await_assets(|assets| bench.field(&assets["SIMP100002"], "status") == "ASSIGNED").await;
    running.stop().await;

    let running = bench.start();
    eventually("the status names it after a restart, too", || async {
        bench.links().await;
        bench.detail("merge devices", "held") == Some(shown.clone())
    })
    .await;
    let of_held = |flat: Vec<(String, _)>| flat.into_iter().filter(|(id, _)| id == "SIMP100001").collect::<Vec<_>>();
    assert_eq!(of_held(bench.flat().await), of_held(before), "neither changed nor deleted");
    assert_eq!(bench.dead_letters(&topic, &group).await.len(), 4, "each is refused once");

    // The source speaks again: now the newest of the two is what the asset is.
    let mut moved = seen.clone();
    moved.color = Some("Silver".to_owned());
    let events = vec![bench.updated(12, &moved)];
    bench.write(events).await;
    eventually("the asset is merged again", || async { of_held(bench.flat().await).len() == 2 }).await;
    assert_eq!(bench.field(&bench.assets().await["SIMP100001"], "color"), "Silver");
    eventually("nothing is held", || async {
        bench.links().await;
        bench.detail("merge devices", "held").is_none()
    })
    .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_record_that_cannot_be_read_is_one_dead_letter_over_a_restart() {
    let mut bench = Workbench::new().await;
    let (topic, group) = (bench.names.devices(), bench.names.map_group("devices"));
    let seen = device("acme", "D1", "SIMP200001");
    let good = bench.added(1, &seen);
    let key = good.key.clone().unwrap();
    bench.write(vec![good]).await;
    let partition = bench.log(&topic).await[0].partition;
    let mut poison = vec![Outgoing::new(topic.clone(), key, UNKNOWN_SCHEMA).to_partition(partition)];
    poison.extend(strangers(&topic, partition));
    bench.write(poison).await;
    assert_eq!(bench.once().await.unwrap().dead_letters, 4);
    let before = bench.own_output().await;
    assert_eq!(bench.once().await.unwrap().dead_letters, 0);
    assert_eq!(bench.own_output().await, before);
    assert_eq!(bench.dead_letters(&topic, &group).await.len(), 4);
    assert_eq!(bench.assets().await.len(), 1, "what it contributed before stands");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_value_that_no_dead_letter_can_hold_stops_neither_loop() {
    let mut bench = Workbench::new().await;
    let (devices, contributions) = (bench.names.devices(), bench.names.contributions("devices"));
    let events = vec![bench.added(1, &device("acme", "D1", "SIMP250001"))];
    bench.write(events).await;
    bench.once().await.unwrap();
    let huge = |at: &Record| {
        let key = at.key.clone().unwrap();
        Outgoing::new(at.topic.to_string(), key, vec![b'x'; 5_000_000]).to_partition(at.partition)
    };
    let poison = [huge(&bench.log(&devices).await[0]), huge(&bench.log(&contributions).await[0])];
    // Packed, it is small enough for the broker; the client's own limit is the stranger's to set.
    let mut kafka = bench.setup.kafka.clone();
    kafka.properties.insert("message.max.bytes".to_owned(), TextOrSecret::Text("20000000".to_owned()));
    Sender::new(&Connection::new(&kafka, "stranger", "one")).unwrap().send(&poison).await.unwrap();
    let events = vec![bench.added(2, &device("acme", "D2", "SIMP250002"))];
    bench.write(events).await;

    assert_eq!(bench.once().await.unwrap().dead_letters, 2);
    assert_eq!(bench.assets().await.len(), 2, "what comes behind is read");
    let (map, merge) = (bench.names.map_group("devices"), bench.names.merge_group("devices"));
    for (topic, group) in [(devices, map), (contributions, merge)] {
        let letters = bench.dead_letters(&topic, &group).await;
        let told: Vec<_> = letters.iter().map(|letter| letter.headers.text("windfall.errors.value_bytes")).collect();
        assert_eq!(told, [Some("5000000")], "{topic}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_cannot_be_read_is_made_anew_so_that_what_it_named_can_be_withdrawn() {
    let mut bench = Workbench::new().await;
    let topic = bench.names.links("devices");
    let wrong = device("acme", "D1", "SIMPWRONG1");
    let events = vec![bench.added(7, &wrong), bench.added(8, &device("acme", "D2", "SIMP300002"))];
    bench.write(events).await;
    bench.once().await.unwrap();
    let before = bench.links().await;
    let log = bench.log(&topic).await;
    let mut poison = vec![over(last_of(&log, "acme/D1"), UNKNOWN_SCHEMA)];
    poison.extend(strangers(&topic, 0));
    bench.write(poison).await;

    bench.once().await.unwrap();
    let log = bench.log(&topic).await;
    let rebuilt = last_of(&log, "acme/D1");
    let schema = bench.collection().links_value_schema();
    let codec = bench.setup.registry.codec(&value_subject(&topic), &schema).await.unwrap();
    let link: windfall_schemas::link::Link = codec.decode(rebuilt.value.as_ref().unwrap()).unwrap();
    assert_eq!(link, before["acme/D1"], "it says what it said, and when the asset was claimed");
    let passed_over = bench.detail("map devices", "passed_over").unwrap();
    assert_eq!(passed_over[&topic], 3);

    let events = vec![bench.updated(9, &device("acme", "D1", "SIMPRIGHT1"))];
    bench.write(events).await;
    bench.once().await.unwrap();
    assert!(bench.assets().await.keys().eq(["SIMP300002", "SIMPRIGHT1"]));
    assert_eq!(bench.log(&topic).await.iter().filter(|r| r.value.as_deref() == Some(UNKNOWN_SCHEMA)).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn flat_records_and_conflicts_that_cannot_be_read_are_written_again_or_ended() {
    let mut bench = Workbench::new().await;
    let (assets, conflicts) = (bench.names.assets("devices"), bench.names.conflicts("devices"));
    let gone = device("acme", "D2", "SIMP400002");
    let events = vec![
        bench.added(1, &device("acme", "D1", "SIMP400001")),
        bench.added(2, &gone),
        bench.tombstone(&gone),
        bench.added(3, &device("acme", "D3", "SIMP400003")),
    ];
    bench.write(events).await;
    bench.once().await.unwrap();
    let whole = bench.assets().await;
    let log = bench.log(&assets).await;
    let (living, dead) = (last_of(&log, "SIMP400001"), last_of(&log, "SIMP400002"));
    let schema = bench.collection().conflicts_key_schema();
    let key = bench.setup.registry.codec(&key_subject(&conflicts), &schema).await.unwrap();
    let name = Conflict { asset_id: "SIMP400003".into(), subject: "color".into(), ..Conflict::default() }.key();
    let conflict = Outgoing::new(conflicts.clone(), key.encode(&name).unwrap(), NO_FRAME)
        .to_partition(last_of(&log, "SIMP400003").partition);
    let mut poison = vec![over(living, UNKNOWN_SCHEMA), over(dead, NO_FRAME), conflict];
    poison.extend(strangers(&assets, living.partition));
    poison.extend(strangers(&conflicts, living.partition));
    bench.write(poison).await;

    bench.once().await.unwrap();
    let log = bench.log(&assets).await;
    assert!(last_of(&log, "SIMP400002").value.is_none(), "a tombstone ends what nothing contributes to");
    let healed = last_of(&log, "SIMP400001").value.clone().unwrap();
    let codec = bench.setup.registry.codec(&value_subject(&assets), &bench.collection().value_schema()).await.unwrap();
    let healed = bench.collection().decode_asset(&codec, &healed).unwrap();
    assert_eq!(healed.fields, whole["SIMP400001"].fields);
    assert!(healed.version > whole["SIMP400001"].version, "a version never goes back");
    let log = bench.log(&conflicts).await;
    let schema = bench.collection().conflicts_value_schema();
    let codec = bench.setup.registry.codec(&value_subject(&conflicts), &schema).await.unwrap();
    let ended: Conflict = codec.decode(last_of(&log, "SIMP400003").value.as_ref().unwrap()).unwrap();
    assert_eq!(ended.state, "closed");
    let passed_over = bench.detail("merge devices", "passed_over").unwrap();
    assert_eq!(passed_over, json!({ (&*assets): 3, (&*conflicts): 3 }));

    let before = bench.own_output().await;
    bench.once().await.unwrap();
    assert_eq!(bench.own_output().await, before, "what is healed is left alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_nobody_can_read_are_refused_where_none_of_ours_stands_beside_them() {
    let mut bench = Workbench::new().await;
    let topic = bench.names.contributions("devices");
    bench.write(vec![Outgoing::new(topic.clone(), NO_FRAME, NO_FRAME)]).await;
    bench.once().await.unwrap();
    // As a registry leaves them behind that was set up anew.
    bench.write(vec![Outgoing::new(topic, UNKNOWN_SCHEMA, NO_FRAME)]).await;
    let error = bench.once().await.unwrap_err();
    assert!(error.to_string().contains("own output was not read") && !error.may_pass(), "{error}");
    assert!(error.help().is_some_and(|help| help.contains("registry")), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_asset_that_is_too_large_for_a_record_is_held_until_its_sources_say_less_and_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!("{DEVICES_COLLECTION}merge: {{ color: {{ take: union }} }}\n");
    std::fs::write(folder.path().join("devices.yaml"), text).unwrap();
    let config = CollectionConfig { file: Some("devices.yaml".into()), ..CollectionConfig::shipped() };
    let mut bench = Workbench::with(load_collections(folder.path(), &[config]).unwrap()).await;
    let (topic, group) = (bench.names.contributions("devices"), bench.names.merge_group("devices"));
    let colored = |org: &str, id: &str, color: String| {
        let mut seen = device(org, id, "SIMP500001");
        seen.color = Some(color);
        seen
    };
    let other = device("acme", "D2", "SIMP500002");
    // Each alone is small enough for a record, both together are not.
    let events = vec![bench.added(1, &colored("acme", "D1", "a".repeat(150_000))), bench.added(2, &other)];
    bench.write(events).await;
    bench.once().await.unwrap();
    let before = bench.assets().await;
    let mut changed = other.clone();
    changed.status = Some("ASSIGNED".to_owned());
    let events = vec![bench.added(3, &colored("globex", "G1", "b".repeat(150_000))), bench.updated(4, &changed)];
    bench.write(events).await;

    let shown = json!({ "assets": 1, "topic": topic, "unreadable": [], "too_large": ["SIMP500001"] });
    for dead_letters in [1, 0] {
        assert_eq!(bench.once().await.unwrap().dead_letters, dead_letters, "refused once, over a restart");
        let assets = bench.assets().await;
        assert_eq!(assets["SIMP500001"], before["SIMP500001"], "what was last published stands");
        assert_eq!(bench.field(&assets["SIMP500002"], "status"), "ASSIGNED");
        assert_eq!(bench.detail("merge devices", "held"), Some(shown.clone()));
    }
    let letters = bench.dead_letters(&topic, &group).await;
    assert_eq!(letters[0].headers.text("__connect.errors.stage"), Some("TRANSFORMATION"));
    assert!(letters[0].key.as_ref().unwrap().windows(9).any(|part| part == b"globex/G1"));

    let events = vec![bench.updated(5, &colored("globex", "G1", "Gold".to_owned()))];
    bench.write(events).await;
    bench.once().await.unwrap();
    assert!(bench.field(&bench.assets().await["SIMP500001"], "color").starts_with("Gold"));
    assert_eq!(bench.detail("merge devices", "held"), None);
}
