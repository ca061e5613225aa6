use std::collections::BTreeSet;
use std::error::Error;

use serde_json::{Value, json};
use windfall_simulator::journal::{Record, Response};

use crate::support::{Bench, ids, quiet};

async fn with(script: &str) -> Bench {
    Bench::start(quiet().faults(script.parse().unwrap())).await
}

fn last(bench: &Bench) -> Response {
    let lines = bench.handle().journal();
    let Some(Record::Response(response)) = lines.last().map(|line| line.record.clone()) else { panic!("no response") };
    *response
}

#[tokio::test]
async fn a_429_says_when_to_come_back_in_every_way() {
    for (setting, expected) in [
        ("retry-after=3600", Some("3600")),
        ("retry-after=date:30", Some("Sat, 21 Nov 2026 09:00:30 GMT")),
        ("retry-after=garbage", Some("soon, please")),
        ("retry-after=none", None),
        ("", Some("1")),
    ] {
        let bench = with(&format!("devices @1 429 {setting}")).await;
        let response = bench.send("/v1/orgDevices").await.unwrap();
        assert_eq!(response.status(), 429);
        let header = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(header.as_deref(), expected, "{setting}");
        assert_eq!(last(&bench).retry_after.as_deref(), expected);
        assert_eq!(bench.get("/v1/orgDevices").await.0, 200);
    }
}

#[tokio::test]
async fn any_error_status_plays_as_document_or_as_html() {
    for status in [400, 401, 403, 404, 500, 502, 503, 520] {
        let bench = with(&format!("servers @1 {status}; servers @2 {status} html")).await;
        let (found, body) = bench.get("/v1/mdmServers").await;
        assert_eq!((found, &body["errors"][0]["status"]), (status, &json!(status.to_string())));
        let (found, body) = bench.get("/v1/mdmServers").await;
        assert!(found == status && body.as_str().unwrap().starts_with("<!DOCTYPE html>"), "{body}");
    }
    let bench = with("devices x1 html").await;
    let response = bench.send("/v1/orgDevices").await.unwrap();
    assert_eq!((response.status().as_u16(), response.headers()["content-type"].to_str().unwrap()), (200, "text/html"));
}

#[tokio::test]
async fn a_revoked_token_stays_revoked_until_a_new_one() {
    let mut bench = with("devices page=2 x1 revoke").await;
    let first = bench.found("/v1/orgDevices?limit=20").await;
    let next = first["links"]["next"].as_str().unwrap();
    assert_eq!(bench.get(next).await.0, 401);
    assert_eq!(bench.get(next).await.0, 401);
    bench.renew().await;
    assert_eq!(ids(&bench.found(next).await).len(), 20);
}

#[tokio::test]
async fn the_token_endpoint_fails_too() {
    let bench = with("token @2 400; token @3 503; token @4 429 retry-after=9").await;
    let form = crate::support::form(bench.account(), "a.b.c");
    assert_eq!(bench.ask_token(&form).await, (400, json!({ "error": "invalid_client" })));
    assert_eq!(bench.ask_token(&form).await.0, 503);
    let limited = bench.http.post(bench.running.token_url()).form(&form).send().await.unwrap();
    assert_eq!((limited.status().as_u16(), limited.headers()["retry-after"].to_str().unwrap()), (429, "9"));
}

#[tokio::test]
async fn a_reset_connection_gives_no_answer_or_half_of_one() {
    let bench = with("devices @1 reset; devices @2 reset at=50%").await;
    let error = bench.send("/v1/orgDevices").await.unwrap_err();
    let mut causes = Vec::new();
    let mut cause: Option<&dyn Error> = Some(&error);
    while let Some(error) = cause {
        causes.push(error.to_string());
        cause = error.source();
    }
    assert!(causes.iter().any(|text| text.contains("reset")), "{causes:?}");
    let nothing = last(&bench);
    assert_eq!((nothing.status, nothing.complete), (None, false));
    let response = bench.send("/v1/orgDevices").await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.bytes().await.is_err());
    assert_eq!(ids(&bench.found("/v1/orgDevices").await).len(), 50);
    let lines = bench.handle().journal();
    let complete: Vec<bool> = lines
        .iter()
        .filter_map(|line| if let Record::Response(one) = &line.record { Some(one.complete) } else { None })
        .collect();
    assert_eq!(complete, [true, false, false, true]);
}

#[tokio::test]
async fn broken_bodies_come_in_whole_answers_and_are_marked_unreadable() {
    for action in ["cut at=60%", "cut at=0%", "bad-utf8", "deep", "duplicate-keys"] {
        let bench = with(&format!("devices x1 {action}")).await;
        let response = bench.send("/v1/orgDevices").await.unwrap();
        assert_eq!(response.status(), 200);
        let body = response.bytes().await.unwrap();
        let parsed = serde_json::from_slice::<Value>(&body);
        assert_eq!(parsed.is_err(), action != "duplicate-keys", "{action}");
        assert!(!last(&bench).readable, "{action}");
        assert_eq!(ids(&bench.found("/v1/orgDevices").await).len(), 50);
        assert!(last(&bench).readable);
    }
}

#[tokio::test]
async fn a_huge_body_is_sent_plain_or_packed() {
    let bench = with("devices @1 huge mib=20; devices @2 bomb mib=20").await;
    for packed in [false, true] {
        let response = bench.send("/v1/orgDevices").await.unwrap();
        let sent = response.content_length();
        let body = response.bytes().await.unwrap();
        assert!(body.len() > 20 << 20);
        assert_eq!(ids(&serde_json::from_slice(&body).unwrap()).len(), 50);
        assert!(!packed || sent.is_none_or(|sent| sent < 1 << 20), "{sent:?}");
    }
}

#[tokio::test]
async fn a_hanging_or_dripping_answer_ends_with_the_client() {
    let bench = with("devices @1 hang; devices @2 drip").await;
    for status in [None, Some(200)] {
        let wait = std::time::Duration::from_millis(200);
        let url = format!("{}/v1/orgDevices", bench.running.url());
        let sent = bench.http.get(url).bearer_auth(&bench.token).timeout(wait).send().await;
        let failed = match sent {
            Ok(response) => response.bytes().await.is_err(),
            Err(error) => error.is_timeout(),
        };
        assert!(failed);
        // The server notices the closed connection by itself; its line then says so.
        let noticed = async {
            while last(&bench).route != "devices" || last(&bench).status != status {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), noticed).await.unwrap();
        assert!(!last(&bench).complete);
    }
    assert_eq!(bench.get("/v1/orgDevices").await.0, 200);
}

#[tokio::test]
async fn pages_shift_in_both_directions() {
    let bench = with("devices page=1 @1 skip n=2; devices page=1 @2 repeat n=3").await;
    let skipped = bench.ids("/v1/orgDevices?limit=20").await;
    assert_eq!(skipped.len(), 48);
    assert!(!skipped.contains(&"SIM0000021".to_owned()) && !skipped.contains(&"SIM0000022".to_owned()));
    let repeated = bench.ids("/v1/orgDevices?limit=20").await;
    assert_eq!(repeated.len(), 53);
    assert_eq!(repeated.iter().collect::<BTreeSet<_>>().len(), 50);
    assert_eq!(repeated[20], "SIM0000018");
    assert_eq!(bench.ids("/v1/orgDevices?limit=20").await.len(), 50);
}

#[tokio::test]
async fn cursors_are_refused_on_the_page_that_is_named() {
    let bench = with("devices page=2 x1 bad-cursor; devices page=3 x1 bad-cursor status=410").await;
    let first = bench.found("/v1/orgDevices?limit=20").await;
    let next = first["links"]["next"].as_str().unwrap();
    let (status, body) = bench.get(next).await;
    assert_eq!((status, &body["errors"][0]["source"]["parameter"]), (400, &json!("cursor")));
    let second = bench.found(next).await;
    assert_eq!(bench.get(second["links"]["next"].as_str().unwrap()).await.0, 410);
}

#[tokio::test]
async fn lists_end_early_or_lie_about_their_end() {
    let bench =
        with("devices @1 empty; devices @2 cut-list keep=10%; devices @3 total by=7; devices @4 empty-page").await;
    let empty = bench.found("/v1/orgDevices?limit=20").await;
    assert_eq!((ids(&empty).len(), empty["links"].get("next")), (0, None));
    let cut = bench.found("/v1/orgDevices?limit=20").await;
    assert_eq!((ids(&cut).len(), cut["links"].get("next")), (2, None));
    assert_eq!(last(&bench).devices.len(), 2);
    let total = bench.found("/v1/orgDevices?limit=20").await;
    assert_eq!(total["meta"]["paging"]["total"], 57);
    let hollow = bench.found("/v1/orgDevices?limit=1000").await;
    assert_eq!(ids(&hollow).len(), 0);
    assert_eq!(ids(&bench.found(hollow["links"]["next"].as_str().unwrap()).await).len(), 50);
}

#[tokio::test]
async fn the_next_link_leads_elsewhere_or_in_a_circle() {
    let bench = with("devices @1 next-to to=https://evil.example/v1/x; devices @2 next-loop").await;
    let evil = bench.found("/v1/orgDevices?limit=20").await;
    assert_eq!(evil["links"]["next"], "https://evil.example/v1/x");
    let circle = bench.found("/v1/orgDevices?limit=20").await;
    let again = bench.found(circle["links"]["next"].as_str().unwrap()).await;
    assert_eq!(ids(&again), ids(&circle));
}

#[tokio::test]
async fn odd_items_stand_where_they_are_asked_for() {
    let check = async |action: &str, expected: fn(&Value) -> bool| {
        let bench = with(&format!("devices {action} device=SIM0000004; device {action}")).await;
        let page = bench.found("/v1/orgDevices").await;
        let items = page["data"].as_array().unwrap();
        assert!(expected(&items[3]), "{action}: {}", items[3]);
        assert_eq!(items.iter().filter(|item| expected(item)).count(), 1, "{action}");
        assert!(expected(&bench.found("/v1/orgDevices/SIM0000009").await["data"]), "{action} on a single read");
    };
    check("unknown-attribute", |item| item["attributes"]["futureAttribute"]["nested"] == true).await;
    check("unknown-status", |item| item["attributes"]["status"] == "SOME_FUTURE_STATUS").await;
    check("no-serial", |item| item.get("id").is_some() && item["attributes"].get("serialNumber").is_none()).await;
    check("no-id", |item| item.get("id").is_none() && item["attributes"].get("serialNumber").is_some()).await;
    check("nameless", |item| item.get("id").is_none() && item["attributes"].get("serialNumber").is_none()).await;
    check("no-attributes", |item| item.get("attributes").is_none()).await;
    check("malformed-item", Value::is_array).await;
    check("wrong-type", |item| item["attributes"]["productFamily"] == 42).await;
    check("variant-shapes", |item| item["attributes"].get("purchaseSourceUid").is_some()).await;
    check("serial-variant", |item| item["attributes"]["serialNumber"].as_str().is_some_and(|text| text.ends_with(' ')))
        .await;
}

#[tokio::test]
async fn a_device_stands_twice_and_its_update_lies_in_the_past() {
    let bench = with("devices @1 duplicate device=SIM0000002; devices @2 old-updated device=SIM0000002").await;
    let twice = ids(&bench.found("/v1/orgDevices?limit=10").await);
    assert_eq!((twice.len(), &twice[1]), (11, &twice[2]));
    let of = |page: &Value| page["data"][1]["attributes"]["updatedDateTime"].as_str().unwrap().to_owned();
    let (old, now) = (bench.found("/v1/orgDevices").await, bench.found("/v1/orgDevices").await);
    assert!(of(&old) < of(&now), "{} {}", of(&old), of(&now));
}

#[tokio::test]
async fn linkage_lists_lie() {
    let bench = with("linkage @1 403; linkage @2 double-link n=2; linkage @3 lag seconds=60").await;
    let (jamf, intune) = (bench.server("Jamf Cloud").await, bench.server("Intune").await);
    bench.handle().assign("SIM0000001", "Intune").unwrap();
    bench.life.advance(chrono::Duration::seconds(100));
    let path = format!("/v1/mdmServers/{jamf}/relationships/devices?limit=1000");
    assert_eq!(bench.get(&path).await.0, 403);
    let doubled = bench.ids(&path).await;
    bench.handle().assign("SIM0000001", "Jamf Cloud").unwrap();
    let lagging = bench.ids(&path).await;
    assert!(doubled.contains(&"SIM0000001".to_owned()), "double-link adds a device of another server");
    assert_eq!(doubled.len(), lagging.len() + 2);
    assert!(!lagging.contains(&"SIM0000001".to_owned()));
    assert!(bench.ids(&path).await.contains(&"SIM0000001".to_owned()));
    let other = bench.ids(&format!("/v1/mdmServers/{intune}/relationships/devices")).await;
    assert!(!other.contains(&"SIM0000001".to_owned()));
}

#[tokio::test]
async fn a_wrong_date_header_and_the_rules_that_played_are_told() {
    let bench = with("devices @1 date by=-86400; * delay ms=1").await;
    let response = bench.send("/v1/orgDevices").await.unwrap();
    assert_eq!(response.headers()["date"], "Fri, 20 Nov 2026 09:00:00 GMT");
    response.bytes().await.unwrap();
    assert_eq!(last(&bench).faults, ["devices @1 date by=-86400", "* delay ms=1"]);
    let played = bench.handle().faults_played();
    assert_eq!(played[0], ("devices @1 date by=-86400".to_owned(), 1));
}
