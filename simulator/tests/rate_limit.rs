use serde_json::json;
use windfall_simulator::RateLimit;

use crate::support::{Bench, quiet};

#[tokio::test]
async fn the_twenty_first_read_in_a_minute_is_told_how_long_to_wait() {
    let bench = Bench::start(quiet().rate_limit(Some(RateLimit::OBSERVED))).await;
    for second in 0..20 {
        assert_eq!(bench.get("/v1/mdmServers").await.0, 200, "read {second}");
        bench.wall.advance(chrono::Duration::seconds(1));
    }
    let refused = bench.send("/v1/mdmServers").await.unwrap();
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["retry-after"], "40");
    let body: serde_json::Value = refused.json().await.unwrap();
    let fixture: serde_json::Value = serde_json::from_str(include_str!("../fixtures/error-429.json")).unwrap();
    assert_eq!(body["errors"][0]["code"], fixture["errors"][0]["code"]);
    bench.wall.advance(chrono::Duration::seconds(40));
    assert_eq!(bench.get("/v1/mdmServers").await.0, 200);
    // The second read of the minute has not left the window yet.
    assert_eq!(bench.get("/v1/mdmServers").await.0, 429);
}

#[tokio::test]
async fn refusals_and_token_requests_do_not_count_and_organizations_do_not_share() {
    let limit = RateLimit { requests: 2, seconds: 60 };
    let mut bench =
        Bench::start(quiet().orgs(["acme", "globex"].map(str::to_owned).to_vec()).rate_limit(Some(limit))).await;
    bench.renew().await;
    assert_eq!(bench.get("/v1/orgDevices?limit=0").await.0, 400);
    assert_eq!(bench.get("/v1/orgDevices").await.0, 200);
    for _ in 0..5 {
        assert_eq!(bench.get("/v1/orgDevices").await.0, 429);
    }
    let other = bench.running.credentials()[1].clone();
    bench.token = bench.token_of(&other).await;
    assert_eq!(bench.get("/v1/orgDevices").await.0, 200);
    bench.renew().await;
    bench.wall.advance(chrono::Duration::seconds(60));
    assert_eq!(bench.get("/v1/orgDevices").await.1["errors"], json!(null));
}
