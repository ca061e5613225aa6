use serde_json::{Value, json};
use windfall_simulator::Truth;

use crate::support::{Bench, quiet};

#[tokio::test]
async fn another_process_drives_the_fleet() {
    let bench = Bench::start(quiet()).await;
    let url = |path: &str| format!("{}/_sim/{path}", bench.running.url());
    let command = async |command: Value| {
        let response = bench.http.post(url("command")).json(&command).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    let (status, done) = command(json!({ "command": "release", "device": "SIM0000001", "answer": "gone" })).await;
    assert_eq!((status, &done["changes"][0]["kind"]), (200, &json!("released")), "{done}");
    let (_, done) = command(json!({ "command": "live", "round": { "added": 2, "corrected": 1 } })).await;
    assert_eq!(done["changes"].as_array().unwrap().len(), 3);
    let (status, refused) = command(json!({ "command": "release", "device": "SIM0000001" })).await;
    assert_eq!((status, &refused["error"]), (422, &json!("the device `SIM0000001` was released")));
    let (_, done) = command(json!({ "command": "advance_life", "seconds": 3600 })).await;
    assert_eq!(done["changes"], json!([]));

    let truth: Truth = bench.http.get(url("truth")).send().await.unwrap().json().await.unwrap();
    assert_eq!((truth.devices.len(), truth.live().count()), (52, 51));
    assert_eq!(truth.at, crate::support::begin() + chrono::Duration::hours(1));
    let health: Value = bench.http.get(url("health")).send().await.unwrap().json().await.unwrap();
    assert_eq!((&health["status"], &health["devices"]), (&json!("ok"), &json!(51)));
}

#[tokio::test]
async fn another_process_sets_and_lifts_faults() {
    let bench = Bench::start(quiet()).await;
    let url = format!("{}/_sim/faults", bench.running.url());
    assert_eq!(bench.http.post(&url).body("devices x2 503").send().await.unwrap().status(), 204);
    assert_eq!(bench.get("/v1/orgDevices").await.0, 503);
    let played: Value = bench.http.get(&url).send().await.unwrap().json().await.unwrap();
    assert_eq!(played, json!([{ "rule": "devices x2 503", "played": 1 }]));
    assert_eq!(bench.http.delete(&url).send().await.unwrap().status(), 204);
    assert_eq!(bench.get("/v1/orgDevices").await.0, 200);
    let wrong = bench.http.post(&url).body("devices explode").send().await.unwrap();
    assert_eq!(wrong.status(), 422);
    assert!(wrong.text().await.unwrap().contains("`explode` is no action"));
}

#[tokio::test]
async fn control_can_be_shut() {
    let bench = Bench::start(quiet().control(Some(false))).await;
    let url = format!("{}/_sim/truth", bench.running.url());
    assert_eq!(bench.http.get(url).send().await.unwrap().status(), 404);
}
