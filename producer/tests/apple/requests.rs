//! What is sent: where to, with what, how fast, over which connection.

use std::time::Duration;

use windfall_producer::apple::{Cursor, DirectoryError, Lookup};
use windfall_runtime::clock::Clock as _;
use windfall_schemas::identifiers::DeviceId;

use super::directory;
use super::server::{Reply, Server};

const LAST: &str = r#"{"data": [{"type": "orgDevices", "id": "D1", "attributes": {"color": "RED"}}], "links": {}}"#;

fn id(text: &str) -> DeviceId {
    DeviceId::parse(text).unwrap()
}

#[tokio::test]
async fn a_list_and_a_single_read_ask_for_the_same_fields() {
    let server = Server::start().await;
    server.answer(Reply::json(200, LAST)).answer(Reply::json(200, LAST.replace(['[', ']'], "")));
    let (directory, _clock) = directory(&server);
    directory.page(None).await.unwrap();
    directory.device(&id("D1")).await.unwrap();
    let targets: Vec<_> = server.gets().into_iter().map(|get| get.target).collect();
    assert_eq!(targets, ["/v1/orgDevices?limit=1000", "/v1/orgDevices/D1"]);
    for get in server.gets() {
        assert_eq!(get.header("accept"), Some("application/json"));
        assert!(get.header("user-agent").unwrap().starts_with("windfall/"));
    }
}

#[tokio::test]
async fn every_page_repeats_the_query_with_its_cursor() {
    let server = Server::start().await;
    server.answer(Reply::json(200, LAST));
    let (directory, _clock) = directory(&server);
    let cursor = Cursor::new("a+b/c==&limit=1").unwrap();
    directory.page(Some(&cursor)).await.unwrap();
    directory.servers(None).await.unwrap();
    directory.linkage("F1/../..", None).await.unwrap();
    let targets: Vec<_> = server.gets().into_iter().map(|get| get.target).collect();
    assert_eq!(
        targets,
        [
            "/v1/orgDevices?limit=1000&cursor=a%2Bb%2Fc%3D%3D%26limit%3D1",
            "/v1/mdmServers?limit=1000",
            "/v1/mdmServers/F1%2F..%2F../relationships/devices?limit=1000",
        ]
    );
}

#[tokio::test]
async fn an_id_can_not_leave_its_place_in_the_path() {
    let server = Server::start().await;
    let (directory, _clock) = directory(&server);
    for up in ["..", "."] {
        assert!(directory.device(&id(up)).await.is_err());
        assert!(directory.linkage(up, None).await.is_err());
    }
    assert_eq!(server.gets().len(), 0);
    for odd in ["a/b", "a?b", "a#b", "a%2fb", "../x", "é"] {
        let found = directory.device(&id(odd)).await;
        assert!(matches!(found, Ok(Lookup::NotFound { .. })), "{odd}: {found:?}");
    }
    for get in server.gets() {
        let rest = get.target.strip_prefix("/v1/orgDevices/").unwrap_or_else(|| panic!("{}", get.target));
        assert!(!rest.is_empty() && !rest.contains(['/', '?', '#']), "{}", get.target);
    }
}

#[tokio::test]
async fn answers_carry_their_circumstances() {
    let server = Server::start().await;
    server.answer(Reply::json(200, LAST).with("x-apple-request-uuid", "1c1f; level=error 7"));
    let (directory, _clock) = directory(&server);
    directory.page(None).await.unwrap();
    let answer = directory.page(None).await.unwrap().answer;
    assert_eq!(answer.number, 2);
    assert_eq!(answer.path, "/v1/orgDevices?limit=1000");
    assert_eq!(answer.request_id.as_deref(), Some("1c1flevelerror7"));
}

#[tokio::test]
async fn requests_are_a_period_apart_and_the_first_waits_one() {
    let server = Server::start().await;
    server.answer(Reply::json(200, LAST));
    let (directory, clock) = directory(&server);
    let begun = clock.elapsed();
    directory.page(None).await.unwrap();
    // The clock begins with the process, and with it nothing but the time of a predecessor.
    let waited = clock.elapsed() - begun;
    assert!(waited >= Duration::from_millis(3_060) && waited <= Duration::from_millis(6_120), "{waited:?}");
    for _ in 0..3 {
        let before = clock.elapsed();
        directory.page(None).await.unwrap();
        assert!(clock.elapsed() - before >= Duration::from_millis(3_000), "{:?}", clock.elapsed() - before);
    }
}

#[tokio::test]
async fn a_request_that_is_given_up_while_it_waits_blocks_nobody() {
    let server = Server::start().await;
    server.answer(Reply::json(200, LAST));
    let (directory, _clock) = directory(&server);
    {
        let given_up = std::pin::pin!(directory.page(None));
        assert!(futures_util::poll!(given_up).is_pending());
    }
    directory.page(None).await.unwrap();
}

#[tokio::test]
async fn a_connection_is_renewed_before_apple_would_end_it() {
    let server = Server::start().await;
    server.answer(Reply::json(200, LAST));
    let (directory, _clock) = directory(&server);
    for _ in 0..31 {
        directory.page(None).await.unwrap();
    }
    // One for the token, then one for every 15 pages.
    assert_eq!(server.connections(), 1 + 3);
}

#[tokio::test]
async fn a_429_holds_every_request_for_as_long_as_it_says() {
    for (header, seconds) in
        [(Some("0"), 0), (Some("1"), 1), (Some("177"), 177), (Some("3600"), 3600), (Some("soon"), 60), (None, 60)]
    {
        let server = Server::start().await;
        let refusal = Reply::error(429, "RATE_LIMIT_EXCEEDED");
        server.answer(match header {
            Some(text) => refusal.with("retry-after", text),
            None => refusal,
        });
        server.answer(Reply::json(200, LAST));
        let (directory, clock) = directory(&server);
        directory.saved(&directory.unsaved().expect("a token will be asked for"));
        let error = directory.page(None).await.unwrap_err();
        let DirectoryError::RateLimited { retry_after, .. } = &error else { panic!("{error}") };
        assert_eq!(retry_after.as_secs(), seconds);
        let refused = clock.elapsed();
        assert!(directory.pace().wait >= *retry_after);
        let state = directory.unsaved();
        assert_eq!(state.is_some(), seconds > 0, "what must be waited for must outlive a crash");
        directory.page(None).await.unwrap();
        assert!(clock.elapsed() - refused >= *retry_after, "{header:?}");
    }
}

#[tokio::test]
async fn a_503_with_a_retry_after_is_obeyed_too() {
    let server = Server::start().await;
    server.answer(Reply::html(503).with("retry-after", "44")).answer(Reply::json(200, LAST));
    let (directory, clock) = directory(&server);
    let error = directory.page(None).await.unwrap_err();
    assert!(matches!(error, DirectoryError::Failing { .. }), "{error}");
    let refused = clock.elapsed();
    directory.page(None).await.unwrap();
    assert!(clock.elapsed() - refused >= Duration::from_secs(44));
}
