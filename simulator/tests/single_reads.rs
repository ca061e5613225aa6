use std::collections::BTreeSet;

use serde_json::{Value, json};
use windfall_simulator::{Command, ReleaseAnswer};

use crate::support::{Bench, quiet};

fn release(device: &str, answer: ReleaseAnswer) -> Command {
    Command::Release { device: device.to_owned(), answer: Some(answer) }
}

#[tokio::test]
async fn a_released_device_leaves_the_lists_and_answers_with_the_date_or_404() {
    let bench = Bench::start(quiet()).await;
    let handle = bench.handle();
    handle.assign("SIM0000001", "Intune").unwrap();
    handle.command(release("SIM0000001", ReleaseAnswer::Dated)).unwrap();
    handle.command(release("SIM0000002", ReleaseAnswer::Gone)).unwrap();
    let listed = bench.ids("/v1/orgDevices").await;
    assert_eq!((listed.len(), listed[0].as_str()), (48, "SIM0000003"));
    let intune = bench.server("Intune").await;
    let linked = bench.ids(&format!("/v1/mdmServers/{intune}/relationships/devices")).await;
    assert!(!linked.contains(&"SIM0000001".to_owned()));

    let dated = bench.found("/v1/orgDevices/SIM0000001").await;
    let attributes = &dated["data"]["attributes"];
    assert_eq!(attributes["releasedFromOrgDateTime"], "2026-11-21T09:00:00Z");
    assert_eq!(attributes["status"], "DEVICE_ASSIGNMENT_UNKNOWN");
    let (status, body) = bench.get("/v1/orgDevices/SIM0000002").await;
    assert_eq!((status, &body["errors"][0]["code"]), (404, &json!("NOT_FOUND")));
    assert_eq!(bench.get("/v1/orgDevices/NEVERSEEN").await.0, 404);
}

#[tokio::test]
async fn the_seed_decides_what_a_release_answers_and_both_occur() {
    let bench = Bench::start(quiet().gone_share(0.5)).await;
    bench.handle().command(Command::ReleaseShare { percent: 60.0 }).unwrap();
    let mut statuses = BTreeSet::new();
    for number in 1..=30 {
        statuses.insert(bench.get(&format!("/v1/orgDevices/SIM{number:07}")).await.0);
    }
    assert_eq!(statuses, BTreeSet::from([200, 404]));
    assert_eq!(bench.ids("/v1/orgDevices").await.len(), 20);
}

#[tokio::test]
async fn a_device_that_comes_back_is_listed_again_with_a_later_date() {
    let bench = Bench::start(quiet()).await;
    let handle = bench.handle();
    handle.command(release("SIM0000001", ReleaseAnswer::Gone)).unwrap();
    bench.life.advance(chrono::Duration::days(1));
    handle.command(Command::Readd { device: "SIM0000001".to_owned() }).unwrap();
    let device = bench.found("/v1/orgDevices/SIM0000001").await;
    let attributes = &device["data"]["attributes"];
    assert_eq!(attributes["addedToOrgDateTime"], "2026-11-22T09:00:00Z");
    assert_eq!(attributes["status"], "UNASSIGNED");
    assert_eq!(attributes["purchaseSourceType"], "MANUALLY_ADDED");
    assert!(attributes.get("releasedFromOrgDateTime").is_none_or(|date| *date == Value::Null));
    assert_eq!(bench.ids("/v1/orgDevices").await.len(), 50);
}

#[tokio::test]
async fn a_hidden_device_is_missing_from_the_listing_alone() {
    let bench = Bench::start(quiet()).await;
    bench.handle().command(Command::Hide { device: "SIM0000007".to_owned() }).unwrap();
    assert!(!bench.ids("/v1/orgDevices").await.contains(&"SIM0000007".to_owned()));
    let device = bench.found("/v1/orgDevices/SIM0000007").await;
    assert!(device["data"]["attributes"].get("releasedFromOrgDateTime").is_none_or(Value::is_null));
    bench.handle().command(Command::Show { device: "SIM0000007".to_owned() }).unwrap();
    assert!(bench.ids("/v1/orgDevices").await.contains(&"SIM0000007".to_owned()));
}

#[tokio::test]
async fn an_unassigned_linkage_has_the_three_forms_that_were_seen() {
    let bench = Bench::start(quiet().unassigned_share(1.0)).await;
    let mut forms = BTreeSet::new();
    for number in 1..=50 {
        let (status, body) = bench.get(&format!("/v1/orgDevices/SIM{number:07}/relationships/assignedServer")).await;
        forms.insert((status, body.get("data").map(Value::to_string)));
    }
    let expected =
        [(200, Some(r#"{"id":"","type":"mdmServers"}"#.to_owned())), (200, Some("null".to_owned())), (404, None)];
    assert_eq!(forms, BTreeSet::from(expected));
    assert_eq!(bench.get("/v1/orgDevices/SIM0000001/assignedServer").await.0, 404);
}

#[tokio::test]
async fn corrections_show_at_once_even_of_attributes_that_nobody_knows() {
    let bench = Bench::start(quiet()).await;
    for (attribute, value) in [("color", json!("TEAL")), ("shoeSize", json!(43)), ("partNumber", Value::Null)] {
        let device = "SIM0000001".to_owned();
        bench.handle().command(Command::Correct { device, attribute: attribute.to_owned(), value }).unwrap();
    }
    let device = bench.found("/v1/orgDevices/SIM0000001").await;
    let attributes = &device["data"]["attributes"];
    assert_eq!((&attributes["color"], &attributes["shoeSize"]), (&json!("TEAL"), &json!(43)));
    assert!(attributes.get("partNumber").is_none_or(|value| value.is_null() || value == ""));
}

#[tokio::test]
async fn what_the_account_may_not_do_is_forbidden_and_what_is_not_there_is_missing() {
    let bench = Bench::start(quiet()).await;
    let server = bench.server("Intune").await;
    for path in [
        format!("/v1/mdmServers/{server}/devices"),
        "/v1/auditEvents?filter[startTimestamp]=x".to_owned(),
        "/v1/orgDevices/SIM0000001/appleCareCoverage".to_owned(),
    ] {
        let (status, body) = bench.get(&path).await;
        assert_eq!((status, &body["errors"][0]["code"]), (403, &json!("FORBIDDEN_ERROR")), "{path}");
    }
    let posted = bench.http.post(format!("{}/v1/orgDevices", bench.running.url())).bearer_auth(&bench.token);
    assert_eq!(posted.send().await.unwrap().status(), 403);
    assert_eq!(bench.get("/v1/noSuchThing").await.0, 404);
    assert_eq!(bench.get("/").await.0, 404);
}
