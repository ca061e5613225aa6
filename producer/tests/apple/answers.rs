//! What comes back: each status and each broken body becomes one error that says what, where, why and what to do.

use std::time::Duration;

use windfall_producer::apple::{DirectoryError, Lookup, Retry};
use windfall_schemas::identifiers::DeviceId;

use super::server::{Reply, Server};
use super::{directory, directory_with, options};
use crate::apple::clock::PatientClock;
use windfall_runtime::diagnose::Diagnose as _;

const PAGE: &str = r#"{"data": [{"type": "orgDevices", "id": "D1", "attributes": {"color": "RED"}}], "links": {NEXT}}"#;

async fn page_of(reply: Reply) -> DirectoryError {
    let server = Server::start().await;
    server.answer(reply);
    directory(&server).0.page(None).await.unwrap_err()
}

fn page_with_next(link: &str) -> Reply {
    Reply::json(200, PAGE.replace("NEXT", &format!(r#""next": {}"#, serde_json::Value::from(link))))
}

#[tokio::test]
async fn each_status_is_one_error_with_its_remedy() {
    let mut said = Vec::new();
    for reply in [
        Reply::error(400, "PARAMETER_ERROR.ILLEGAL"),
        Reply::error(401, "NOT_AUTHORIZED"),
        Reply::error(403, "FORBIDDEN_ERROR").with("x-apple-request-uuid", "1c1f-7"),
        Reply::error(404, "NOT_FOUND"),
        Reply::error(429, "RATE_LIMIT_EXCEEDED").with("retry-after", "30"),
        Reply::error(500, "UNEXPECTED_ERROR"),
        Reply::html(502),
        Reply::html(403),
        Reply::html(404),
        Reply::html(200),
        Reply::json(200, PAGE[..40].to_owned()),
        Reply::json(302, "").with("location", "https://evil.example/v1/orgDevices?token=x"),
        page_with_next("https://evil.example/v1/orgDevices?cursor=a"),
    ] {
        let error = page_of(reply).await;
        said.push(format!("{:?} {error}\n  {}", error.retry(), error.help().unwrap()));
    }
    let said = regular(&said.join("\n"));
    insta::assert_snapshot!(said);
}

/// The test server's port is another one each time.
fn regular(said: &str) -> String {
    let (before, after) = said.split_once("http://127.0.0.1:").unwrap();
    format!("{before}http://127.0.0.1:PORT{}", after.trim_start_matches(|c: char| c.is_ascii_digit()))
}

#[tokio::test]
async fn only_apples_own_404_says_that_a_device_is_gone() {
    let id = DeviceId::parse("D1").unwrap();
    let server = Server::start().await;
    server.answer(Reply::error(404, "NOT_FOUND"));
    assert!(matches!(directory(&server).0.device(&id).await, Ok(Lookup::NotFound { .. })));
    for no_evidence in [
        Reply::html(404),
        Reply::json(404, ""),
        Reply::json(404, "{}"),
        Reply::json(404, r#"{"errors": []}"#),
        Reply::error(404, "PATH_ERROR"),
        Reply::error(410, "NOT_FOUND"),
        Reply::error(500, "NOT_FOUND"),
        Reply::json(200, r#"{"data": null}"#),
        Reply::json(200, ""),
    ] {
        let server = Server::start().await;
        server.answer(no_evidence.clone());
        let read = directory(&server).0.device(&id).await;
        assert!(read.is_err(), "{no_evidence:?}: {read:?}");
        let said = format!("{:?}", read.unwrap_err());
        assert!(!said.contains("D1"), "a serial number stands in no error: {said}");
    }
}

#[tokio::test]
async fn only_apples_own_403_says_that_we_may_not() {
    assert!(matches!(page_of(Reply::error(403, "FORBIDDEN_ERROR")).await, DirectoryError::Forbidden(_)));
    let error = page_of(Reply::html(403)).await;
    assert!(matches!(&error, DirectoryError::Unreadable { .. }), "{error}");
    assert_eq!(error.retry(), Retry::Backoff);
}

#[tokio::test]
async fn an_answer_about_another_device_is_none() {
    let server = Server::start().await;
    server.answer(Reply::json(200, r#"{"data": {"type": "orgDevices", "id": "D2", "attributes": {"color": "RED"}}}"#));
    let error = directory(&server).0.device(&DeviceId::parse("D1").unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("another device"), "{error}");
}

#[tokio::test]
async fn only_a_refusal_that_names_the_cursor_begins_the_scan_anew() {
    let cursor = windfall_producer::apple::Cursor::new("old").unwrap();
    let named = r#"{"errors": [{"code": "PARAMETER_ERROR.INVALID", "detail": "it is too old", "source": {"parameter": "cursor"}}]}"#;
    for (reply, begins_anew) in [
        (Reply::json(400, named), true),
        (Reply::error(410, "GONE"), true),
        (Reply::error(400, "PARAMETER_ERROR.INVALID"), false),
        (Reply::html(400), false),
    ] {
        let server = Server::start().await;
        server.answer(reply);
        let (directory, _clock) = directory(&server);
        let error = directory.page(Some(&cursor)).await.unwrap_err();
        match begins_anew {
            true => assert!(matches!(error, DirectoryError::CursorRefused { .. }), "{error}"),
            false => assert!(matches!(error, DirectoryError::Refused(_)), "{error}"),
        }
        let error = directory.page(None).await.unwrap_err();
        assert!(matches!(error, DirectoryError::Refused(_)), "{error}");
    }
}

#[tokio::test]
async fn a_refusal_shows_apples_sentence_cut_in_one_line_and_without_the_device() {
    let detail = format!("Device D1 may not be read\n\u{1b}[31mby this account {}", "x".repeat(1_000));
    let body = serde_json::json!({"errors": [{"code": "FORBIDDEN_ERROR.TERMS", "detail": detail}]}).to_string();
    let server = Server::start().await;
    server.answer(Reply::json(403, body.clone()));
    let read = directory(&server).0.device(&DeviceId::parse("D1").unwrap()).await.unwrap();
    let Lookup::Forbidden { refusal, .. } = read else { panic!("{read:?}") };
    let said = refusal.to_string();
    assert!(said.contains(r"`FORBIDDEN_ERROR.TERMS`, Apple says `Device {id} may not be read\n\u{1b}[31mby"), "{said}");
    assert!(said.len() < 500, "{said}");
    let error = page_of(Reply::json(403, body)).await;
    let help = error.help().unwrap();
    assert!(help.contains("terms") && help.contains("revoked") && help.contains("role"), "{help}");
}

#[tokio::test]
async fn a_page_that_leads_nowhere_is_refused() {
    let cursor = windfall_producer::apple::Cursor::new("a").unwrap();
    for (body, why) in [
        (PAGE.replace("NEXT", r#""next": "/v1/orgDevices?cursor=a""#), "leads to itself"),
        (r#"{"data": [], "links": {"next": "/v1/orgDevices?cursor=b"}}"#.to_owned(), "empty and yet has a next one"),
    ] {
        let server = Server::start().await;
        server.answer(Reply::json(200, body));
        let error = directory(&server).0.page(Some(&cursor)).await.unwrap_err();
        assert!(matches!(error, DirectoryError::CursorRefused { .. }) && error.to_string().contains(why), "{error}");
    }
}

#[tokio::test]
async fn a_next_link_without_a_cursor_is_no_end_of_the_list() {
    let error = page_of(page_with_next("/v1/orgDevices?limit=1000")).await;
    assert!(matches!(error, DirectoryError::Unreadable { .. }), "{error}");
}

#[tokio::test]
async fn a_link_within_the_origin_gives_its_cursor() {
    for (link, cursor) in [
        ("/v1/orgDevices?cursor=a%2Bb%3D", "a+b="),
        ("?cursor=a", "a"),
        ("SELF/v1/orgDevices?limit=3&cursor=a&fields=x", "a"),
    ] {
        let server = Server::start().await;
        server.answer(page_with_next(&link.replace("SELF", &server.url())));
        let page = directory(&server).0.page(None).await;
        match page {
            Ok(page) => assert_eq!(page.next.unwrap().as_str(), cursor, "{link}"),
            // A relative link is resolved against the origin, where the list is not.
            Err(error) => {
                assert!(link.starts_with('?') && matches!(error, DirectoryError::ForeignLink { .. }), "{link}: {error}")
            }
        }
    }
}

#[tokio::test]
async fn hostile_links_are_refused_whatever_their_form() {
    let server = Server::start().await;
    let port = server.url().rsplit(':').next().unwrap().to_owned();
    let hostile = [
        "https://evil.example/v1/orgDevices?cursor=a",
        "http://evil.example/v1/orgDevices?cursor=a",
        "//evil.example/v1/orgDevices?cursor=a",
        "///evil.example/v1/orgDevices?cursor=a",
        "////evil.example/?cursor=a",
        r"\\evil.example\v1\orgDevices?cursor=a",
        r"/\evil.example/v1/orgDevices?cursor=a",
        "https://127.0.0.1:PORT/v1/orgDevices?cursor=a",
        "http://127.0.0.1/v1/orgDevices?cursor=a",
        "http://127.0.0.1:1/v1/orgDevices?cursor=a",
        "http://127.0.0.2:PORT/v1/orgDevices?cursor=a",
        "http://localhost:PORT/v1/orgDevices?cursor=a",
        "http://[::1]:PORT/v1/orgDevices?cursor=a",
        "http://169.254.169.254/latest/meta-data?cursor=a",
        "http://10.0.0.1:PORT/v1/orgDevices?cursor=a",
        "http://0/v1/orgDevices?cursor=a",
        "http://user@127.0.0.1:PORT/v1/orgDevices?cursor=a",
        "http://user:pass@127.0.0.1:PORT/v1/orgDevices?cursor=a",
        "http://127.0.0.1:PORT@evil.example/v1/orgDevices?cursor=a",
        "http://evil.example#@127.0.0.1:PORT/v1/orgDevices?cursor=a",
        "http://evil.example%00.127.0.0.1:PORT/?cursor=a",
        "http://127.0.0.1.evil.example:PORT/v1/orgDevices?cursor=a",
        "http://127.0.0.1:PORT.evil.example/v1/orgDevices?cursor=a",
        "http:evil.example/v1/orgDevices?cursor=a",
        "https:/evil.example/v1/orgDevices?cursor=a",
        "ftp://127.0.0.1:PORT/v1/orgDevices?cursor=a",
        "file:///etc/passwd?cursor=a",
        "data:text/plain,x?cursor=a",
        "javascript:alert(1)?cursor=a",
        "gopher://127.0.0.1:PORT/?cursor=a",
        "ws://127.0.0.1:PORT/v1/orgDevices?cursor=a",
        "about:blank?cursor=a",
        "/v1/mdmServers?cursor=a",
        "/v1/orgDevices/../mdmServers?cursor=a",
        "/v1/orgDevices/?cursor=a",
        "/v1/orgdevices?cursor=a",
        "/v1/orgDevices%2F..?cursor=a",
        "http://127.0.0.1:PORT/v1/orgDevices\n?cursor=a",
        "http://127.0.0.1:PORT/v1/orgDevices?cursor=a\r\nHost: evil.example",
        "\thttp://evil.example/v1/orgDevices?cursor=a",
        " http://evil.example/v1/orgDevices?cursor=a",
        "http://ⓔvil.example/v1/orgDevices?cursor=a",
        "http://evil。example/v1/orgDevices?cursor=a",
    ];
    for link in hostile {
        let (directory, _clock) = directory(&server);
        server.answer(page_with_next(&link.replace("PORT", &port)));
        server.answer(page_with_next(&link.replace("PORT", &port)));
        let page = directory.page(None).await;
        assert!(matches!(page, Err(DirectoryError::ForeignLink { .. })), "{link}: {page:?}");
    }
}

#[tokio::test]
async fn a_foreign_link_is_refused_beside_a_good_cursor_too() {
    let body = r#"{"data": [], "links": {"next": "https://evil.example/x?cursor=a"}, "meta": {"paging": {"nextCursor": "b"}}}"#;
    let error = page_of(Reply::json(200, body)).await;
    assert!(matches!(&error, DirectoryError::ForeignLink { to, .. } if to == "https://evil.example"), "{error}");
}

#[tokio::test]
async fn a_redirect_is_never_followed_and_its_token_goes_nowhere() {
    let other = Server::start().await;
    for status in [301, 302, 303, 307, 308] {
        let error = page_of(Reply::json(status, "").with("location", format!("{}/steal?x=canary", other.url()))).await;
        assert!(matches!(&error, DirectoryError::Redirected { to, .. } if *to == other.url()), "{error}");
    }
    assert_eq!(other.connections(), 0);
}

#[tokio::test]
async fn a_body_without_end_is_cut_off_at_16_mib() {
    let error = page_of(Reply::Endless(vec![b' '; 256 * 1024])).await;
    assert!(matches!(error, DirectoryError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn a_torn_connection_is_no_page_and_the_next_request_makes_a_new_one() {
    let server = Server::start().await;
    server.answer(Reply::Torn(200, PAGE.replace("NEXT", "").into_bytes()));
    server.answer(Reply::json(200, PAGE.replace("NEXT", "")));
    let (directory, _clock) = directory(&server);
    let error = directory.page(None).await.unwrap_err();
    assert!(matches!(error, DirectoryError::Unreachable { .. }), "{error}");
    assert_eq!(error.retry(), Retry::Backoff);
    directory.page(None).await.unwrap();
}

#[tokio::test]
async fn a_429_whose_body_breaks_is_waited_for_as_its_header_says() {
    let server = Server::start().await;
    server.answer(Reply::Torn(429, b"{".to_vec())).answer(Reply::json(200, PAGE.replace("NEXT", "")));
    let (directory, _clock) = directory(&server);
    let error = directory.page(None).await.unwrap_err();
    assert_eq!(error.retry(), Retry::After(Duration::from_secs(201)), "{error}");
    let wait = directory.pace().wait;
    assert!(wait > Duration::from_secs(190), "the budget holds the next request back: {wait:?}");
    assert!(directory.unsaved().is_some_and(|state| state.not_before.is_some()), "also over a crash");
}

#[tokio::test]
async fn silence_ends_at_the_deadline() {
    let server = Server::start().await;
    server.answer(Reply::Silence);
    let mut options = options(&server.url());
    options.deadline = Duration::from_millis(300);
    let error = directory_with(options, &PatientClock::new()).page(None).await.unwrap_err();
    assert!(matches!(error, DirectoryError::TimedOut { .. }), "{error}");
}

#[tokio::test]
async fn nobody_there_is_said_without_the_url() {
    let server = Server::start().await;
    server.answer(Reply::json(200, PAGE.replace("NEXT", "")));
    let (directory, _clock) = directory(&server);
    directory.page(None).await.unwrap();
    server.end().await;
    let error = directory.page(None).await.unwrap_err();
    assert!(matches!(error, DirectoryError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("/v1/orgDevices"), "{error}");
}

#[tokio::test]
async fn no_error_holds_a_token_an_assertion_or_what_the_server_said() {
    for reply in [
        Reply::json(
            400,
            r#"{"errors": [{"code": "canary token code!", "title": "canary-token-1", "detail": "canary-token-1"}]}"#,
        ),
        Reply::json(
            403,
            r#"{"errors": [{"code": "FORBIDDEN_ERROR", "title": "canary-token-1", "detail": "canary-token-1"}]}"#,
        ),
        Reply::json(500, "canary-token-1"),
        Reply::json(200, "canary-token-1"),
        Reply::json(200, r#"{"canary-token-1": 1}"#),
        Reply::json(302, "").with("location", "https://evil.example/canary-token-1"),
        Reply::json(401, "canary-token-1"),
        page_with_next("https://evil.example/canary-token-1?cursor=canary-token-1"),
        Reply::Torn(200, b"canary-token-1".to_vec()),
    ] {
        let error = page_of(reply).await;
        let mut text = format!("{error} {error:?}");
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text += &format!(" {cause} {cause:?}");
            source = cause.source();
        }
        assert!(!text.contains("canary") && !text.contains("eyJ"), "{text}");
    }
}
