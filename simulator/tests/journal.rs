use serde_json::Value;
use windfall_simulator::journal::{self, ChangeKind, Line, Record, Response, digest};
use windfall_simulator::{JournalMode, RateLimit, Rates, Round};

use crate::support::{Bench, quiet};

fn responses(lines: &[Line]) -> Vec<&Response> {
    lines.iter().filter_map(|line| if let Record::Response(one) = &line.record { Some(&**one) } else { None }).collect()
}

/// Drops what has no value.
fn filled(attributes: &Value) -> Value {
    let members = attributes.as_object().unwrap().iter();
    members
        .filter(|(_, value)| !(value.is_null() || **value == "" || value.as_array().is_some_and(Vec::is_empty)))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

#[tokio::test]
async fn a_journal_file_tells_start_changes_answers_and_the_truth() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    let bench = Bench::start(quiet().journal(JournalMode::File(path.clone())).rates(Rates::office())).await;
    bench.life.advance(chrono::Duration::days(2));
    let page = bench.found("/v1/orgDevices?limit=1000").await;
    let truth = bench.handle().truth();
    bench.running.stop().await;

    let lines = journal::read(&path).unwrap();
    assert_eq!(lines.iter().map(|line| line.seq).collect::<Vec<_>>(), (1..=lines.len() as u64).collect::<Vec<_>>());
    assert!(matches!(&lines[0].record, Record::Start(start) if start.seed == 7 && start.orgs == ["acme"]));
    let Record::Truth(last) = &lines.last().unwrap().record else { panic!("the last line is not the truth") };
    assert_eq!(last, &truth);
    let listed = responses(&lines).pop().unwrap();
    assert_eq!(
        (listed.route.as_str(), listed.status, listed.complete, listed.last),
        ("devices", Some(200), true, Some(true))
    );
    assert_eq!(listed.target, "/v1/orgDevices?limit=1000");
    let served: Vec<Value> = listed.devices.iter().filter_map(|one| one.attributes.clone()).collect();
    let sent: Vec<Value> = page["data"].as_array().unwrap().iter().map(|item| item["attributes"].clone()).collect();
    assert_eq!(served, sent);
}

#[tokio::test]
async fn what_is_served_is_what_the_changes_say_is_true() {
    let bench = Bench::start(quiet().rates(Rates::office())).await;
    for _ in 0..5 {
        bench.life.advance(chrono::Duration::hours(20));
        bench.handle().live(Round::of_each(1));
        bench.pages("/v1/orgDevices?limit=20").await;
    }
    let lines = bench.handle().journal();
    let mut truth = std::collections::BTreeMap::new();
    let mut compared = 0;
    for line in &lines {
        match &line.record {
            Record::Change(change) if change.device.is_some() => {
                let device = change.device.clone().unwrap();
                assert_eq!(device.released_at.is_some(), change.kind == ChangeKind::Released);
                truth.insert(device.id.clone(), device);
            }
            Record::Response(response) if response.route == "devices" => {
                for served in &response.devices {
                    let Some(device) = truth.get(served.id.as_ref().unwrap()) else { continue };
                    let attributes = served.attributes.as_ref().unwrap();
                    assert_eq!(filled(attributes), serde_json::to_value(&device.attributes).unwrap());
                    assert_eq!(digest(attributes), served.digest);
                    compared += 1;
                }
            }
            _ => {}
        }
    }
    assert!(compared > 20, "{compared}");
    for device in bench.handle().truth().devices {
        if let Some(last) = truth.get(&device.id) {
            // A renamed server or a count is not a change of the device; nothing else may differ.
            assert_eq!(&device, last);
        }
    }
}

#[tokio::test]
async fn digests_stand_in_for_attributes_in_large_fleets() {
    let bench = Bench::start(quiet().digests_only(true)).await;
    let page = bench.found("/v1/orgDevices").await;
    let lines = bench.handle().journal();
    let served = &responses(&lines).pop().unwrap().devices;
    assert!(served.iter().all(|one| one.attributes.is_none()));
    assert_eq!(served[3].digest, digest(&page["data"][3]["attributes"]));
}

#[tokio::test]
async fn a_checker_finds_what_the_limits_need() {
    let bench = Bench::start(quiet().rate_limit(Some(RateLimit { requests: 1, seconds: 60 }))).await;
    bench.get("/v1/orgDevices").await;
    bench.wall.advance(chrono::Duration::seconds(10));
    bench.get("/v1/orgDevices").await;
    let lines = bench.handle().journal();
    let told: Vec<_> = responses(&lines)
        .iter()
        .map(|one| (one.route.clone(), one.status.unwrap(), one.admitted, one.retry_after.clone()))
        .collect();
    assert_eq!(
        told,
        [
            ("token".to_owned(), 200, true, None),
            ("devices".to_owned(), 200, true, None),
            ("devices".to_owned(), 429, false, Some("50".to_owned())),
        ]
    );
    let refused = responses(&lines).pop().unwrap();
    assert_eq!(refused.at_wall, crate::support::begin() + chrono::Duration::seconds(10));
    assert_eq!(refused.retry_until, Some(crate::support::begin() + chrono::Duration::seconds(60)));
    assert!(refused.org.as_deref() == Some("acme") && refused.request_id.len() == 36);
}

#[tokio::test]
async fn linkages_and_assigned_servers_stand_in_the_journal() {
    let bench = Bench::start(quiet()).await;
    bench.handle().assign("SIM0000001", "Intune").unwrap();
    let server = bench.server("Intune").await;
    let ids = bench.ids(&format!("/v1/mdmServers/{server}/relationships/devices")).await;
    bench.found("/v1/orgDevices/SIM0000001/relationships/assignedServer").await;
    let lines = bench.handle().journal();
    let answers = responses(&lines);
    let linkage = answers[answers.len() - 2].linkage.as_ref().unwrap();
    assert_eq!((&linkage.server_id, &linkage.device_ids), (&server, &ids));
    let assigned = answers[answers.len() - 1].assigned.as_ref().unwrap();
    assert_eq!((assigned.device_id.as_str(), assigned.server_id.as_ref()), ("SIM0000001", Some(&server)));
    assert_eq!(answers[answers.len() - 3].servers.len(), 3);
}

#[test]
fn a_line_cut_by_a_kill_is_left_out_and_a_wrong_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    let start = r#"{"seq":1,"type":"start","at_wall":"2026-11-21T09:00:00Z","at":"2026-11-21T09:00:00Z","seed":7,"orgs":["acme"],"devices":1,"limit":20,"limit_seconds":60}"#;
    std::fs::write(&path, format!("{start}\n{{\"seq\":2,\"ty")).unwrap();
    assert_eq!(journal::read(&path).unwrap().len(), 1);
    std::fs::write(&path, format!("{start}\n{{\"seq\":2}}\n")).unwrap();
    let error = journal::read(&path).unwrap_err().to_string();
    assert!(error.starts_with("line 2 of the journal"), "{error}");
}
