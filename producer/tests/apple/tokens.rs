//! How tokens are asked for, kept and replaced.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use windfall_producer::apple::{DirectoryError, Retry, TokenError};
use windfall_producer::budget::LimiterState;

use super::server::{Reply, Request, Server, TOKEN};
use super::{directory, directory_with, options};
use crate::apple::clock::PatientClock;
use windfall_runtime::diagnose::Diagnose as _;

const EMPTY: &str = r#"{"data": [], "links": {"self": "x"}}"#;

fn token_error(error: DirectoryError) -> TokenError {
    match error {
        DirectoryError::Token(error) => error,
        other => panic!("{other}"),
    }
}

fn form(request: &Request) -> Vec<(String, String)> {
    url::form_urlencoded::parse(request.body.as_bytes()).into_owned().collect()
}

fn claims(request: &Request) -> (serde_json::Value, serde_json::Value) {
    let form = form(request);
    let assertion = &form.iter().find(|(name, _)| name == "client_assertion").unwrap().1;
    let mut parts = assertion.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap());
    let (header, claims) = (parts.next().unwrap(), parts.next().unwrap());
    assert_eq!(parts.next().unwrap().len(), 64, "R and S, not DER");
    (serde_json::from_slice(&header).unwrap(), serde_json::from_slice(&claims).unwrap())
}

#[tokio::test]
async fn the_assertion_and_the_form_are_what_apple_documents() {
    let server = Server::start().await;
    server.answer(Reply::json(200, EMPTY));
    let (directory, clock) = directory(&server);
    let before = clock.right().timestamp();
    directory.page(None).await.unwrap();
    let asked = &server.tokens_asked()[0];
    assert_eq!(asked.target, "/auth/oauth2/token", "the assertion stands in no URL");
    assert_eq!(asked.header("content-type"), Some("application/x-www-form-urlencoded"));
    let mut form = form(asked);
    form.retain(|(name, _)| name != "client_assertion");
    let expected = [
        ("grant_type", "client_credentials"),
        ("client_id", "BUSINESSAPI.canary"),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("scope", "business.api"),
    ];
    assert_eq!(form, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let (header, claims) = claims(asked);
    assert_eq!(header, serde_json::json!({"typ": "JWT", "alg": "ES256", "kid": "key-1"}));
    assert_eq!(claims["sub"], "BUSINESSAPI.canary");
    assert_eq!(claims["iss"], "BUSINESSAPI.canary");
    assert_eq!(claims["aud"], "https://account.apple.com/auth/oauth2/v2/token");
    assert_eq!(claims["jti"], "00000000-0000-0000-0000-000000000007");
    assert!((before - 61..=before).contains(&claims["iat"].as_i64().unwrap()));
    assert_eq!(claims["exp"].as_i64().unwrap() - before, 20 * 60);
}

#[tokio::test]
async fn the_key_id_can_be_left_out() {
    let server = Server::start().await;
    server.answer(Reply::json(200, EMPTY));
    let mut options = options(&server.url());
    options.account.key_id = None;
    directory_with(options, &PatientClock::new()).page(None).await.unwrap();
    assert_eq!(claims(&server.tokens_asked()[0]).0, serde_json::json!({"typ": "JWT", "alg": "ES256"}));
}

#[tokio::test]
async fn a_token_is_kept_until_five_minutes_before_its_end() {
    let server = Server::start().await;
    server.answer(Reply::json(200, EMPTY));
    let (directory, clock) = directory(&server);
    directory.page(None).await.unwrap();
    clock.pass(Duration::from_secs(3600 - 300 - 60));
    directory.page(None).await.unwrap();
    assert_eq!(server.tokens_asked().len(), 1);
    clock.pass(Duration::from_secs(60));
    directory.page(None).await.unwrap();
    assert_eq!(server.tokens_asked().len(), 2);
}

#[tokio::test]
async fn a_wall_clock_that_jumps_keeps_no_token_alive_and_kills_none() {
    let server = Server::start().await;
    server.answer(Reply::json(200, EMPTY));
    let (directory, clock) = directory(&server);
    directory.page(None).await.unwrap();
    clock.set_wrong_by(86_400);
    directory.page(None).await.unwrap();
    assert_eq!(server.tokens_asked().len(), 1);
    clock.set_wrong_by(-86_400);
    clock.pass(Duration::from_secs(3600));
    directory.page(None).await.unwrap();
    assert_eq!(server.tokens_asked().len(), 2);
}

#[tokio::test]
async fn ten_requests_at_once_share_one_token_request() {
    let server = Server::start().await;
    server.answer(Reply::json(200, EMPTY));
    let (directory, _clock) = directory(&server);
    let pages = (0..10).map(|_| directory.page(None));
    for page in futures_util::future::join_all(pages).await {
        page.unwrap();
    }
    assert_eq!(server.tokens_asked().len(), 1);
    assert_eq!(server.most_in_flight(), 1, "one request in flight");
}

#[tokio::test]
async fn a_refused_token_is_replaced_once_and_its_request_sent_again() {
    let server = Server::start().await;
    server.token(Reply::json(200, TOKEN)).token(Reply::json(200, TOKEN.replace("token-1", "token-2")));
    server.answer(Reply::error(401, "NOT_AUTHORIZED")).answer(Reply::json(200, EMPTY));
    let (directory, _clock) = directory(&server);
    directory.page(None).await.unwrap();
    let used: Vec<_> = server.gets().iter().map(|get| get.header("authorization").unwrap().to_owned()).collect();
    assert_eq!(used, ["Bearer canary-token-1", "Bearer canary-token-2"]);
}

#[tokio::test]
async fn a_second_401_is_an_error_and_no_loop() {
    let server = Server::start().await;
    server.answer(Reply::error(401, "NOT_AUTHORIZED"));
    let (directory, _clock) = directory(&server);
    let error = directory.page(None).await.unwrap_err();
    assert!(matches!(&error, DirectoryError::Unauthorized(refusal) if refusal.code == "NOT_AUTHORIZED"), "{error}");
    assert_eq!((server.gets().len(), server.tokens_asked().len()), (2, 2));
}

#[tokio::test]
async fn an_api_that_accepts_no_token_costs_two_and_then_one_in_minutes() {
    let server = Server::start().await;
    server.answer(Reply::error(401, "NOT_AUTHORIZED"));
    let (directory, clock) = directory(&server);
    directory.page(None).await.unwrap_err();
    let held = directory.unsaved().expect("the wait outlives a crash").tokens_not_before;
    for _ in 0..5 {
        let error = token_error(directory.page(None).await.unwrap_err());
        let TokenError::Held { wait, refusals: 2 } = error else { panic!("{error}") };
        assert_eq!((error.retry(), wait > Duration::from_secs(240)), (Retry::After(wait), true), "{wait:?}");
    }
    assert_eq!((server.tokens_asked().len(), server.gets().len()), (2, 2), "until {held:?}");
    clock.pass(Duration::from_secs(300));
    directory.page(None).await.unwrap_err();
    assert_eq!((server.tokens_asked().len(), server.gets().len()), (3, 3), "the next fresh one is not replayed");
    token_error(directory.page(None).await.unwrap_err());
    assert_eq!(server.tokens_asked().len(), 3);
}

#[tokio::test]
async fn a_token_that_was_accepted_ends_the_row_of_those_that_were_not() {
    let server = Server::start().await;
    for _ in 0..3 {
        server.answer(Reply::error(401, "NOT_AUTHORIZED")).answer(Reply::json(200, EMPTY));
    }
    let (directory, _clock) = directory(&server);
    for _ in 0..3 {
        directory.page(None).await.unwrap();
    }
    assert_eq!(server.tokens_asked().len(), 4);
}

#[tokio::test]
async fn after_three_refusals_nobody_is_asked_for_ten_minutes() {
    for (status, code) in [(400, "invalid_client"), (401, "invalid_client"), (429, "slow_down")] {
        let server = Server::start().await;
        for _ in 0..4 {
            server.token(Reply::json(status, format!(r#"{{"error": "{code}"}}"#)));
        }
        let (directory, clock) = directory(&server);
        for refusals in 1..=3 {
            let error = token_error(directory.page(None).await.unwrap_err());
            assert!(matches!(error, TokenError::Refused { refusals: seen, .. } if seen == refusals), "{error}");
            assert_eq!(error.retry() == Retry::Backoff, refusals < 3, "no three tries in one breath");
        }
        let error = token_error(directory.page(None).await.unwrap_err());
        let TokenError::Held { wait, refusals: 3 } = error else { panic!("{error}") };
        assert_eq!(error.retry(), Retry::After(wait));
        assert!(wait <= Duration::from_secs(600) && wait > Duration::from_secs(590), "{wait:?}");
        assert_eq!(server.tokens_asked().len(), 3, "the fourth is not sent");
        clock.pass(wait);
        directory.page(None).await.unwrap_err();
        assert_eq!(server.tokens_asked().len(), 4);
        assert_eq!(server.gets().len(), 0, "without a token nothing is asked of the API");
    }
}

#[tokio::test]
async fn the_breaker_before_the_token_endpoint_outlives_a_restart() {
    let server = Server::start().await;
    for _ in 0..5 {
        server.token(Reply::json(400, r#"{"error": "invalid_client"}"#));
    }
    let clock = PatientClock::new();
    let mut state = LimiterState::default();
    for _ in 0..5 {
        let directory = directory_with(super::Options { state: state.clone(), ..options(&server.url()) }, &clock);
        state = directory.unsaved().unwrap_or(state);
        directory.saved(&state);
        directory.page(None).await.unwrap_err();
        state = directory.unsaved().unwrap_or(state);
    }
    assert_eq!(server.tokens_asked().len(), 3);
}

#[tokio::test]
async fn the_right_key_in_the_place_of_the_wrong_one_need_not_wait() {
    let server = Server::start().await;
    for _ in 0..3 {
        server.token(Reply::json(400, r#"{"error": "invalid_client"}"#));
    }
    server.answer(Reply::json(200, EMPTY));
    let (wrong, clock) = directory(&server);
    for _ in 0..4 {
        wrong.page(None).await.unwrap_err();
    }
    let mut options = super::Options { state: wrong.unsaved().unwrap(), ..options(&server.url()) };
    options.account.key_id = Some("key-2".to_owned());
    directory_with(options, &clock).page(None).await.unwrap();
}

#[tokio::test]
async fn a_process_that_dies_after_each_token_request_asks_ten_times_in_five_minutes() {
    let server = Server::start().await;
    server.answer(Reply::json(200, EMPTY));
    let clock = PatientClock::new();
    let mut state = LimiterState::default();
    for _ in 0..30 {
        let directory = directory_with(super::Options { state: state.clone(), ..options(&server.url()) }, &clock);
        // Durable before the request; nothing after it, since the process is gone by then.
        state = directory.unsaved().unwrap_or(state);
        let _ = directory.page(None).await;
    }
    assert_eq!(server.tokens_asked().len(), 10);
}

#[tokio::test]
async fn what_was_saved_is_not_asked_for_again() {
    let server = Server::start().await;
    server.answer(Reply::json(200, EMPTY));
    let (directory, _clock) = directory(&server);
    let state = directory.unsaved().expect("the token request must be counted first");
    assert_eq!(state.tokens.len(), 1);
    directory.saved(&state);
    assert_eq!(directory.unsaved(), None);
    directory.page(None).await.unwrap();
    assert_eq!(directory.unsaved(), None, "the counted request was made, no other is due");
}

#[tokio::test]
async fn a_wrong_clock_is_corrected_by_the_servers_date() {
    for wrong_by in [-86_400, 86_400] {
        let server = Server::start().await;
        let clock = PatientClock::new();
        clock.set_wrong_by(wrong_by);
        let date = clock.right().to_rfc2822().replace("+0000", "GMT");
        server.token(Reply::json(400, r#"{"error": "invalid_client"}"#).with("date", date));
        server.answer(Reply::json(200, EMPTY));
        directory_with(options(&server.url()), &clock).page(None).await.unwrap();
        let asked = server.tokens_asked();
        assert_eq!(asked.len(), 2);
        let right = clock.right().timestamp();
        let expires = claims(&asked[1]).1["exp"].as_i64().unwrap();
        assert!((right..right + 21 * 60).contains(&expires), "{}", expires - right);
    }
}

#[tokio::test]
async fn a_refusal_under_a_right_clock_is_not_repeated_by_itself() {
    let server = Server::start().await;
    let (directory, clock) = directory(&server);
    let date = clock.right().to_rfc2822().replace("+0000", "GMT");
    server.token(Reply::json(400, r#"{"error": "invalid_client"}"#).with("date", date));
    directory.page(None).await.unwrap_err();
    assert_eq!(server.tokens_asked().len(), 1);
}

#[tokio::test]
async fn answers_that_are_no_token_are_named() {
    for (reply, why) in [
        (Reply::json(200, "{}"), "not a token document"),
        (Reply::html(200), "not a token document"),
        (Reply::json(200, TOKEN.replace("canary-token-1", "")), "empty"),
        (Reply::json(200, TOKEN.replace("canary-token-1", "a b")), "no header may"),
        (Reply::json(200, TOKEN.replace("Bearer", "MAC")), "not a bearer token"),
        (Reply::json(200, TOKEN.replace("3600", "0")), "already expired"),
        (Reply::json(200, " ".repeat(70_000)), "larger than 64 KiB"),
    ] {
        let server = Server::start().await;
        server.token(reply);
        let error = token_error(directory(&server).0.page(None).await.unwrap_err());
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!(error.retry(), Retry::Backoff);
    }
}

#[tokio::test]
async fn a_token_without_an_end_is_given_an_hour() {
    let server = Server::start().await;
    server.token(Reply::json(200, r#"{"access_token": "x"}"#)).answer(Reply::json(200, EMPTY));
    let (directory, clock) = directory(&server);
    directory.page(None).await.unwrap();
    clock.pass(Duration::from_secs(3000));
    directory.page(None).await.unwrap();
    assert_eq!(server.tokens_asked().len(), 1);
}

#[tokio::test]
async fn the_token_endpoint_in_trouble_is_no_refusal() {
    let server = Server::start().await;
    for _ in 0..5 {
        server.token(Reply::html(503).with("retry-after", "40"));
    }
    let (directory, clock) = directory(&server);
    let error = token_error(directory.page(None).await.unwrap_err());
    assert!(matches!(error, TokenError::Failing { status: 503, .. }), "{error}");
    assert_eq!(error.retry(), Retry::After(Duration::from_secs(40)));
    let error = token_error(directory.page(None).await.unwrap_err());
    assert!(matches!(error, TokenError::Held { refusals: 0, .. }), "its `Retry-After` is obeyed: {error}");
    clock.pass(Duration::from_secs(40));
    directory.page(None).await.unwrap_err();
    assert_eq!(server.tokens_asked().len(), 2);
}

#[tokio::test]
async fn a_redirect_of_the_token_endpoint_is_never_followed() {
    let (server, other) = (Server::start().await, Server::start().await);
    server.token(Reply::json(307, "").with("location", other.url()));
    let error = token_error(directory(&server).0.page(None).await.unwrap_err());
    assert!(matches!(error, TokenError::Redirects { status: 307 }), "{error}");
    assert_eq!(error.retry(), Retry::Never);
    assert_eq!(other.seen().len(), 0);
}
