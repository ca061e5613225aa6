use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use windfall_simulator::journal::Record;
use windfall_simulator::{KeyForm, KeyIdRule, RateLimit};

use crate::support::{AUDIENCE, Bench, assertion, begin, claims, form, quiet, signed};

/// Returns why the last answer was a refusal, as the journal has it.
fn reason(bench: &Bench) -> String {
    let lines = bench.handle().journal();
    let Some(Record::Response(response)) = lines.last().map(|line| &line.record) else { panic!("no response") };
    response.reason.clone().unwrap_or_default()
}

#[tokio::test]
async fn a_good_assertion_gets_a_token_in_the_form_of_the_fixture() {
    let bench = Bench::start(quiet()).await;
    let account = bench.account();
    let (status, body) = bench.ask_token(&form(account, &assertion(account, &claims(account, begin())))).await;
    let fixture: Value = serde_json::from_str(include_str!("../fixtures/token-response.json")).unwrap();
    assert_eq!(status, 200);
    assert_eq!(body["token_type"], fixture["token_type"]);
    assert_eq!(body["expires_in"], fixture["expires_in"]);
    assert_eq!(body["scope"], fixture["scope"]);
    assert_eq!(body["access_token"].as_str().unwrap().split('.').count(), 5);
}

#[tokio::test]
async fn parameters_in_the_query_and_the_other_path_work_too_and_leave_no_assertion_in_the_journal() {
    let bench = Bench::start(quiet()).await;
    let account = bench.account();
    let assertion = assertion(account, &claims(account, begin()));
    let url = format!("{}/auth/oauth2/v2/token", bench.running.url());
    let response = bench.http.post(url).query(&form(account, &assertion)).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let journal = serde_json::to_string(&bench.handle().journal()).unwrap();
    assert!(journal.contains("/auth/oauth2/v2/token"));
    assert!(!journal.contains(&assertion[..40]), "the assertion stands in the journal");
    assert!(!journal.contains(&bench.token), "a token stands in the journal");
}

#[tokio::test]
async fn one_assertion_may_be_used_again() {
    let bench = Bench::start(quiet()).await;
    let account = bench.account();
    let form = form(account, &assertion(account, &claims(account, begin())));
    assert_eq!(bench.ask_token(&form).await.0, 200);
    assert_eq!(bench.ask_token(&form).await.0, 200);
}

#[tokio::test]
async fn every_flaw_of_an_assertion_is_refused_as_invalid_client() {
    let bench = Bench::start(quiet()).await;
    let account = bench.account();
    let now = begin().timestamp();
    let other = quiet().seed(8).credentials().remove(0);
    let good = claims(account, begin());
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        assertion(account, &claims)
    };
    let without = |name: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(name);
        assertion(account, &claims)
    };
    let fine = assertion(account, &good);
    let parts: Vec<&str> = fine.split('.').collect();
    let hs256 = URL_SAFE_NO_PAD.encode(json!({ "alg": "HS256", "kid": account.key_id }).to_string());
    let none = URL_SAFE_NO_PAD.encode(json!({ "alg": "none", "kid": account.key_id }).to_string());
    let forged = URL_SAFE_NO_PAD.encode(good.to_string().replace("1200", "1201") + " ");
    for (assertion, expected) in [
        (format!("{hs256}.{}.{}", parts[1], parts[2]), "`alg`"),
        (format!("{none}.{}.", parts[1]), "`alg`"),
        (signed(Some("another-key"), &account.private_key_pem, &good), "`kid`"),
        (signed(None, &account.private_key_pem, &good), "`kid`"),
        (with("sub", json!(other.client_id)), "`sub`"),
        (without("sub"), "`sub`"),
        (with("iss", json!(other.client_id)), "`iss`"),
        (with("aud", json!("https://appleid.apple.com")), "`aud`"),
        (with("aud", json!([AUDIENCE])), "`aud`"),
        (with("iat", json!(now + 3600)), "`iat`"),
        (without("iat"), "`iat`"),
        (with("exp", json!(now)), "`exp`"),
        (without("exp"), "`exp`"),
        (with("exp", json!(now + 180 * 86_400 + 1)), "180 days"),
        (without("jti"), "`jti`"),
        (signed(Some(&account.key_id), &other.private_key_pem, &good), "signature"),
        (format!("{}.{forged}.{}", parts[0], parts[2]), "signature"),
        (format!("{}.{}.{}", parts[0], parts[1], "AAAA"), "signature"),
        ("no.jwt".to_owned(), "three parts"),
        ("a.b.c".to_owned(), "three parts"),
    ] {
        let (status, body) = bench.ask_token(&form(account, &assertion)).await;
        assert_eq!((status, &body), (400, &json!({ "error": "invalid_client" })), "{expected}");
        assert!(reason(&bench).contains(expected), "{expected}: {}", reason(&bench));
    }
    // Apple's own sample lives exactly 180 days, and leaves the issuer out.
    assert_eq!(bench.ask_token(&form(account, &with("exp", json!(now + 180 * 86_400)))).await.0, 200);
    assert_eq!(bench.ask_token(&form(account, &without("iss"))).await.0, 200);
}

#[tokio::test]
async fn every_flaw_of_the_request_has_its_error() {
    let bench = Bench::start(quiet()).await;
    let account = bench.account();
    let good = form(account, &assertion(account, &claims(account, begin())));
    let changed = |name: &str, value: &str| {
        let mut form = good.clone();
        form.iter_mut().find(|(known, _)| known == name).unwrap().1 = value.to_owned();
        form
    };
    for (form, error) in [
        (changed("scope", "school.api"), "invalid_scope"),
        (changed("grant_type", "password"), "unsupported_grant_type"),
        (changed("client_assertion_type", "other"), "invalid_request"),
        (changed("client_id", "BUSINESSAPI.unknown"), "invalid_client"),
        (changed("client_assertion", ""), "invalid_request"),
        (good[..4].to_vec(), "invalid_request"),
    ] {
        assert_eq!(bench.ask_token(&form).await, (400, json!({ "error": error })));
    }
}

#[tokio::test]
async fn parameters_in_a_body_that_is_no_form_are_not_read() {
    let bench = Bench::start(quiet()).await;
    let account = bench.account();
    let form = form(account, &assertion(account, &claims(account, begin())));
    let body = form.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&");
    let answer = reqwest::Client::new().post(bench.running.token_url()).body(body).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 400);
    assert_eq!(answer.json::<Value>().await.unwrap(), json!({ "error": "invalid_request" }));
}

#[tokio::test]
async fn accounts_that_must_leave_the_key_id_out_exist() {
    for (rule, with, without) in
        [(KeyIdRule::Required, 200, 400), (KeyIdRule::Optional, 200, 200), (KeyIdRule::Forbidden, 400, 200)]
    {
        let running = quiet().key_id_rule(rule).start("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let account = &running.credentials()[0];
        let claims = claims(account, chrono::Utc::now());
        for (kid, expected) in [(Some(account.key_id.as_str()), with), (None, without)] {
            let form = form(account, &signed(kid, &account.private_key_pem, &claims));
            let sent = reqwest::Client::new().post(running.token_url()).form(&form).send().await.unwrap();
            assert_eq!(sent.status(), expected, "{rule:?} {kid:?}");
        }
    }
}

#[tokio::test]
async fn a_token_lives_an_hour_and_a_revoked_one_no_longer() {
    let mut bench = Bench::start(quiet()).await;
    bench.wall.advance(chrono::Duration::seconds(3599));
    assert_eq!(bench.get("/v1/mdmServers").await.0, 200);
    bench.wall.advance(chrono::Duration::seconds(1));
    let (status, body) = bench.get("/v1/mdmServers").await;
    assert_eq!((status, &body["errors"][0]["code"]), (401, &json!("NOT_AUTHORIZED")));
    bench.renew().await;
    assert_eq!(bench.get("/v1/mdmServers").await.0, 200);
    bench.handle().command(windfall_simulator::Command::RevokeTokens).unwrap();
    assert_eq!(bench.get("/v1/mdmServers").await.0, 401);
    bench.renew().await;
    bench.handle().command(windfall_simulator::Command::RevokeKey).unwrap();
    assert_eq!(bench.get("/v1/mdmServers").await.0, 401);
    let account = bench.account();
    let refused = bench.ask_token(&form(account, &assertion(account, &claims(account, bench.wall.now())))).await;
    assert_eq!(refused, (400, json!({ "error": "invalid_client" })));
}

#[tokio::test]
async fn requests_without_a_good_token_or_media_type_are_refused() {
    let bench = Bench::start(quiet()).await;
    let url = format!("{}/v1/orgDevices", bench.running.url());
    assert_eq!(bench.http.get(&url).send().await.unwrap().status(), 401);
    assert_eq!(bench.http.get(&url).bearer_auth("made-up").send().await.unwrap().status(), 401);
    let xml = bench.http.get(&url).bearer_auth(&bench.token).header("accept", "text/xml").send().await.unwrap();
    assert_eq!(xml.status(), 406);
}

#[tokio::test]
async fn the_token_endpoint_is_limited_by_account() {
    let bench = Bench::start(quiet().token_limit(Some(RateLimit { requests: 3, seconds: 300 }))).await;
    let account = bench.account();
    let bad = form(account, "a.b.c");
    assert_eq!(bench.ask_token(&bad).await.0, 400);
    assert_eq!(bench.ask_token(&bad).await.0, 400);
    let response = bench.http.post(bench.running.token_url()).form(&bad).send().await.unwrap();
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "300");
    bench.wall.advance(chrono::Duration::seconds(300));
    assert_eq!(bench.ask_token(&bad).await.0, 400);
}

#[tokio::test]
async fn school_manager_has_its_own_client_ids_and_scope() {
    let bench = Bench::start(quiet().school(true)).await;
    assert!(bench.account().client_id.starts_with("SCHOOLAPI."));
    assert_eq!(bench.account().scope, "school.api");
    assert_eq!(bench.ids("/v1/orgDevices").await.len(), 50);
    let id = bench.server("Intune").await;
    assert_eq!(bench.get(&format!("/v1/mdmServers/{id}")).await.0, 403);
}

#[test]
fn the_key_file_comes_in_every_form_that_was_seen() {
    let account = quiet().credentials().remove(0);
    let label = |form| account.private_key_as(form).lines().next().unwrap().to_owned();
    assert_eq!(label(KeyForm::Pkcs8), "-----BEGIN PRIVATE KEY-----");
    assert_eq!(label(KeyForm::Sec1), "-----BEGIN EC PRIVATE KEY-----");
    assert_eq!(label(KeyForm::WithParameters), "-----BEGIN EC PARAMETERS-----");
    assert!(account.private_key_as(KeyForm::Crlf).contains("-----\r\n"));
    let mislabelled = account.private_key_as(KeyForm::Mislabelled);
    // The size of a live set-up's file.
    assert_eq!((label(KeyForm::Mislabelled).as_str(), mislabelled.len()), ("-----BEGIN EC PRIVATE KEY-----", 246));
    assert!(!format!("{account:?}").contains("PRIVATE"));
}
