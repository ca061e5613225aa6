//! The verbs on a real Kafka, with a simulated organization: from `check` to the rows, and what each verb shows of it.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Desk, Said};

const DEVICES: usize = 50;

/// A process that is ended with the test.
pub(super) struct Running(pub(super) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts `windfall sim`, whose fleet hardly moves, and returns the lines of the configuration that connect to it.
pub(super) fn simulator(desk: &Desk) -> (Running, String) {
    simulator_with(desk, &[])
}

/// Starts `windfall sim` with more arguments.
pub(super) fn simulator_with(desk: &Desk, extra: &[&str]) -> (Running, String) {
    let devices = DEVICES.to_string();
    let mut child = Command::new(assert_cmd::cargo::cargo_bin!("windfall"))
        .args(["sim", "--listen", "127.0.0.1:0", "--rate-limit", "off", "--time-scale", "0.001", "--devices", &devices])
        .args(extra)
        .current_dir(desk.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut config = String::new();
    while !config.contains("rate_limit:") {
        config.push_str(&lines.next().expect("the simulator says how to connect"));
        config.push('\n');
    }
    (Running(child), config)
}

pub(super) fn config(source: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let prefix = format!("verbs{}x{}.", std::process::id(), now.subsec_nanos());
    format!(
        "version: 1\ninstance: desk\nhttp: {{ listen: \"127.0.0.1:{}\" }}\n\
         kafka:\n  bootstrap_servers: [\"{}\"]\n  schema_registry: {{ embedded: {{}} }}\n  topic_prefix: \"{prefix}\"\n  replication_factor: 1\n\
         {source}\
         sinks: [{{ name: assets, type: sqlite, path: rows/assets.db, collection: devices }}]\n",
        windfall_services::free_port(),
        windfall_services::kafka(),
    )
}

fn json(said: &Said) -> Value {
    serde_json::from_str(&said.out()).unwrap()
}

fn records(desk: &Desk, arguments: &[&str]) -> Vec<Value> {
    let all = [&["tap", "abm.devices", "--until-end", "-o", "json"], arguments].concat();
    desk.run(&all).ended(0).out().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(super) fn rows(desk: &Desk) -> usize {
    let rows = rusqlite::Connection::open(desk.path().join("rows/assets.db")).unwrap();
    let count: i64 =
        rows.query_row("select count(*) from assets where __deleted = 'false'", [], |row| row.get(0)).unwrap();
    usize::try_from(count).unwrap()
}

#[test]
fn a_fleet_goes_through_to_its_rows_and_every_verb_can_see_it() {
    let desk = Desk::new();
    let (_simulator, source) = simulator(&desk);
    desk.write("windfall.yaml", &config(&source));

    let said = desk.run(&["topics", "verify"]).ended(4);
    assert!(said.err().contains("windfall topics create"), "{}", said.err());
    desk.run(&["topics", "create"]).ended(0);
    desk.run(&["topics", "verify"]).ended(0);
    let checked = json(&desk.run(&["check", "-o", "json"]).ended(0));
    assert!(checked.as_array().unwrap().iter().all(|line| line["ok"] == true), "{checked:#}");

    desk.run(&["run", "all", "--once"]).ended(0);
    assert_eq!(rows(&desk), DEVICES);
    tap_shows_decoded_records(&desk);
    scans_show_the_last_scan(&desk);

    desk.run(&["run", "all", "--once"]).ended(0);
    assert_eq!(records(&desk, &[]).len(), DEVICES, "a second look at the same fleet publishes nothing");
    a_running_process_can_be_asked(&desk);
}

fn tap_shows_decoded_records(desk: &Desk) {
    let all = records(desk, &[]);
    assert_eq!(all.len(), DEVICES);
    for record in &all {
        let fields: BTreeSet<_> = record.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(fields, ["headers", "key", "offset", "partition", "timestamp", "topic", "value"].into());
        assert_eq!(record["value"]["after"]["device_id"], record["key"]["device_id"]);
        assert!(record["timestamp"].is_i64() && record["headers"]["ce_type"].is_string());
    }
    assert_eq!(records(desk, &["--limit", "3"]).len(), 3);
    assert_eq!(records(desk, &["--key", "SIM0000007"]).len(), 1);
    assert_eq!(records(desk, &["--key", r#"{"org": "nobody"}"#]).len(), 0);
    assert_eq!(records(desk, &["--from", "1h"]).len(), DEVICES);
    assert_eq!(records(desk, &["--from", "end"]).len(), 0);
    let table = desk.run(&["tap", "abm.devices", "--until-end", "--limit", "1"]).ended(0);
    assert!(table.out().contains("added") && table.out().contains("(scan 1)"), "{}", table.out());
    let lost = desk.run(&["tap", "abm.device"]).ended(4);
    assert!(lost.err().contains("did you mean `abm.devices`"), "{}", lost.err());
}

fn scans_show_the_last_scan(desk: &Desk) {
    let scans = json(&desk.run(&["scans", "list", "-o", "json"]).ended(0));
    assert_eq!(scans[0]["state"], "complete");
    assert_eq!(scans[0]["devices"], DEVICES);
    desk.run(&["scans", "show", "nothing"]).ended(4);
    desk.run(&["scans", "approve", "nothing", "--yes"]).ended(4);
}

fn a_running_process_can_be_asked(desk: &Desk) {
    let child = Command::new(assert_cmd::cargo::cargo_bin!("windfall"))
        .args(["run", "all"])
        .current_dir(desk.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut running = Running(child);
    let deadline = Instant::now() + Duration::from_secs(60);
    while desk.run(&["status", "--ready"]).code() != 0 {
        assert!(Instant::now() < deadline, "it never became ready: {}", desk.run(&["status"]).out());
    }
    let status = json(&desk.run(&["status", "-o", "json"]).ended(0));
    let parts: Vec<_> = status["parts"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(parts, ["kafka", "map devices", "merge devices", "producer acme", "sink assets"]);
    let checked = desk.run(&["check"]).ended(0);
    assert!(checked.out().contains("is being read by a running windfall"), "{}", checked.out());
    let refused = desk.run(&["run", "producer", "--once"]).ended(1);
    assert!(refused.err().contains("another instance is at work"), "{}", refused.err());

    Command::new("kill").args(["-s", "TERM", &running.0.id().to_string()]).status().unwrap();
    assert_eq!(running.0.wait().unwrap().code(), Some(0));
}

#[test]
fn a_stage_needs_no_secret_but_its_own() {
    let desk = Desk::new();
    let (_simulator, source) = simulator(&desk);
    // A store remembers its sinks, and others use this one too.
    let name = format!("assets_{}", uuid::Uuid::now_v7().simple());
    let sink = format!("name: {name}, type: postgres, url: \"SECRET[env.DATABASE_URL]\", table: {name}");
    desk.write("windfall.yaml", &config(&source).replace("name: assets, type: sqlite, path: rows/assets.db", &sink));
    let with_store = |arguments: &[&str]| {
        let output = desk.command(arguments).env("DATABASE_URL", windfall_services::postgres()).output();
        Said(output.unwrap())
    };
    // The producer, and whatever only looks at Kafka, without the store's address.
    desk.run(&["check", "producer"]).ended(0);
    desk.run(&["topics", "create"]).ended(0);
    desk.run(&["run", "producer", "--once"]).ended(0);
    let said = desk.run(&["check", "sink", &name]).ended(78);
    assert!(said.err().contains("`sinks[0].url`: the variable `DATABASE_URL` is not set"), "{}", said.err());

    // The others without the key.
    std::fs::remove_file(desk.path().join("secrets/sim.pem")).unwrap();
    desk.run(&["check", "transformer"]).ended(0);
    desk.run(&["run", "transformer", "--once"]).ended(0);
    with_store(&["check", "sink", &name]).ended(0);
    with_store(&["run", "sink", &name, "--once"]).ended(0);
    desk.run(&["tap", "abm.devices", "--until-end", "--limit", "1"]).ended(0);
    for stage in [&["run", "producer"] as &[&str], &["check", "producer"], &["check"], &["run"]] {
        let said = with_store(stage).ended(78);
        assert!(said.err().contains("`sources[0].private_key`: could not read the secret"), "{}", said.err());
        assert!(said.err().contains("sim.pem") && said.err().contains("help: put the secret into"), "{}", said.err());
    }
    // Asking a process how it is needs no secret at all.
    let asked = desk.run(&["status"]).ended(1);
    assert!(asked.err().contains("no windfall answers"), "{}", asked.err());
}

#[test]
fn a_key_that_apple_does_not_know_is_authentication() {
    let desk = Desk::new();
    let (_simulator, source) = simulator(&desk);
    desk.write("windfall.yaml", &config(&source));
    let other = windfall_simulator::Simulator::builder().seed(8);
    desk.write("secrets/sim.pem", &other.credentials()[0].private_key_pem);
    let said = desk.run(&["check"]).ended(3);
    assert!(said.out().contains("FAILED") && said.out().contains("help: compare `client_id`"), "{}", said.out());
}

#[test]
fn a_kafka_that_does_not_answer_is_named_with_the_remedy() {
    let desk = Desk::new();
    desk.write("windfall.yaml", &config("").replace(windfall_services::kafka(), "127.0.0.1:9"));
    let said = desk.run(&["topics", "create"]).ended(1);
    assert!(
        said.err().contains("error: topics were not read from `127.0.0.1:9`")
            && said.err().contains("failed: Connection refused: ")
            && said.err().contains("help: check `kafka.bootstrap_servers`"),
        "{}",
        said.err()
    );
}

/// Releases so much of the simulated fleet at once.
fn release_share(source: &str, percent: u32) {
    let url = source.split("api_url: \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let command = serde_json::json!({ "command": "release_share", "percent": percent });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let status = runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        client.post(format!("{url}/_sim/command")).json(&command).send().await.unwrap().status()
    });
    assert!(status.is_success(), "{status}");
}

fn released(desk: &Desk) -> usize {
    records(desk, &[]).iter().filter(|record| record["value"]["kind"] == "released").count()
}

#[test]
fn a_mass_release_is_held_until_somebody_approves_it() {
    let desk = Desk::new();
    let (_simulator, source) = simulator(&desk);
    desk.write("windfall.yaml", &config(&source.replace("rate_limit:", "scan: { interval: 5s }\n    rate_limit:")));
    desk.run(&["run", "producer", "--once"]).ended(0);
    release_share(&source, 60);
    desk.run(&["run", "producer", "--once"]).ended(8);
    assert_eq!(released(&desk), 0, "held is not published");

    let scans = json(&desk.run(&["scans", "list", "-o", "json"]).ended(0));
    let plan = scans[0]["held"][0].as_str().unwrap().to_owned();
    let shown = json(&desk.run(&["scans", "show", &plan, "-o", "json"]).ended(0));
    assert_eq!(shown["devices"].as_array().unwrap().len(), 30);
    let asked = desk.run(&["scans", "approve", &plan]).ended(2);
    assert!(asked.err().contains("help: add `--yes`"), "{}", asked.err());
    let asked = desk.run(&["scans", "approve", "--all"]).ended(2);
    assert!(asked.err().contains(&plan) && asked.err().contains("these 30 devices"), "{}", asked.err());

    let producer = Command::new(assert_cmd::cargo::cargo_bin!("windfall"))
        .args(["run", "producer"])
        .current_dir(desk.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _producer = Running(producer);
    let approved = desk.run(&["scans", "approve", "--all", "--yes", "-o", "json"]).ended(0);
    assert_eq!(json(&approved)["approval"]["released"], 30);
    desk.run(&["scans", "approve", &plan, "--yes"]).ended(4);
    assert!(desk.run(&["scans", "approve", "--all", "--yes"]).ended(0).err().contains("no plan is held"));
    assert_eq!(released(&desk), 30, "approving twice publishes nothing twice");
}
