//! What becomes of records when a registry does not give their schemas: a scripted registry over HTTP.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::json;
use windfall_runtime::diagnose::Diagnose as _;
use windfall_runtime::kafka::config::SchemaRegistryConfig;
use windfall_runtime::kafka::{Headers, Record};
use windfall_runtime::reader::{Decoder, Unreadable};
use windfall_runtime::registry::{RegistryClient, RegistryError};

use crate::registry_server::{ONE, REQUIRED, TWO};

const OWN: &str = "abm.devices-value";
/// How long "not found" is doubted in these tests.
const SHORT: Duration = Duration::from_millis(5);

/// A registry that answers as the script says, by method, path and how often that was asked before; it counts the requests.
async fn scripted(
    script: impl Fn(&Method, &str, usize) -> Response + Clone + Send + Sync + 'static,
) -> (SchemaRegistryConfig, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let asked = Arc::new(std::sync::Mutex::new(HashMap::<String, usize>::new()));
    let counted = Arc::clone(&count);
    let router = Router::new().fallback(async move |request: Request| {
        counted.fetch_add(1, Ordering::SeqCst);
        let path = request.uri().path().to_owned();
        let before = {
            let mut asked = asked.lock().unwrap();
            let times = asked.entry(format!("{} {path}", request.method())).or_default();
            *times += 1;
            *times - 1
        };
        script(request.method(), &path, before)
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (SchemaRegistryConfig::at(url), count)
}

fn status(code: u16) -> Response {
    StatusCode::from_u16(code).unwrap().into_response()
}

fn coded(status: u16, code: i64) -> Response {
    let body = json!({ "error_code": code, "message": "no" }).to_string();
    (StatusCode::from_u16(status).unwrap(), body).into_response()
}

/// The ways in which registries say that they do not have a schema.
fn missing(way: usize) -> Response {
    match way {
        0 => coded(404, 40403),
        1 => (StatusCode::NOT_FOUND, "<html>not here</html>").into_response(),
        2 => coded(422, 42201),
        _ => "<html>hello</html>".into_response(),
    }
}

fn own_subject() -> Response {
    json!({ "subject": OWN, "version": 1, "id": 1, "schema": ONE }).to_string().into_response()
}

fn is_own(path: &str) -> bool {
    path.starts_with("/subjects/") && path.ends_with("/versions/latest")
}

/// A record of schema 7 that `ONE` can read.
fn record() -> Record {
    record_of(7)
}

fn record_of(id: u8) -> Record {
    Record {
        topic: "abm.devices".into(),
        partition: 0,
        offset: 0,
        timestamp_ms: None,
        key: None,
        value: Some(Bytes::from(vec![0, 0, 0, 0, id, 2, b'x'])),
        headers: Headers::new(),
    }
}

#[derive(Debug, PartialEq, serde::Deserialize)]
#[serde(rename = "R")]
struct Row {
    a: String,
}

#[tokio::test]
async fn one_answer_that_a_schema_is_missing_costs_no_record() {
    for way in 0..4 {
        let (config, _) = scripted(move |_, path, before| match (path, before) {
            ("/schemas/ids/7", 0) => missing(way),
            ("/schemas/ids/7", _) => json!({ "schema": ONE }).to_string().into_response(),
            (path, _) if is_own(path) => own_subject(),
            _ => status(404),
        })
        .await;
        let decoder = Decoder::new(RegistryClient::http(&config).unwrap(), OWN);
        let error = decoder.learn([&record()]).await.unwrap_err();
        assert!(error.may_pass(), "{way}: {error}");
        decoder.learn([&record()]).await.unwrap();
        assert_eq!(decoder.value::<Row>(&record()), Ok(Some(Row { a: "x".to_owned() })), "{way}");
    }
}

#[tokio::test]
async fn a_schema_that_stays_missing_is_the_records_fault_and_is_not_asked_for_again() {
    for way in 0..4 {
        let (config, count) = scripted(move |_, path, _| if is_own(path) { own_subject() } else { missing(way) }).await;
        let decoder = Decoder::new(RegistryClient::doubted(&config, SHORT).unwrap(), OWN);
        while let Err(error) = decoder.learn([&record()]).await {
            assert!(error.may_pass(), "{way}: {error}");
        }
        assert!(count.load(Ordering::SeqCst) >= 4, "{way}: it was asked again, and for our own subject, too");
        let error = decoder.value::<Row>(&record()).unwrap_err();
        assert!(matches!(error, Unreadable::UnknownSchema { .. }), "{way}: {error:?}");
        let asked = count.load(Ordering::SeqCst);
        for _ in 0..100 {
            decoder.learn([&record()]).await.unwrap();
        }
        assert_eq!(count.load(Ordering::SeqCst), asked, "{way}: the miss is remembered");
    }
}

#[tokio::test]
async fn ids_that_somebody_makes_up_are_doubted_once_and_again_after_the_registry_was_away() {
    let (config, count) = scripted(|_, path, _| match path {
        path if is_own(path) => own_subject(),
        "/schemas/ids/40" => status(503),
        _ => missing(0),
    })
    .await;
    let decoder = Decoder::new(RegistryClient::doubted(&config, SHORT).unwrap(), OWN);
    while decoder.learn([&record_of(10)]).await.is_err() {}
    let asked = count.load(Ordering::SeqCst);
    for id in 11..40 {
        decoder.learn([&record_of(id)]).await.unwrap();
        assert!(matches!(decoder.value::<Row>(&record_of(id)), Err(Unreadable::UnknownSchema { .. })), "{id}");
    }
    assert_eq!(count.load(Ordering::SeqCst), asked + 2 * 29, "each was asked for once, and our own subject with it");
    assert!(decoder.learn([&record_of(40)]).await.unwrap_err().may_pass());
    let error = decoder.learn([&record_of(41)]).await.unwrap_err();
    assert!(matches!(error, RegistryError::Doubtful { .. }), "{error:?}");
}

#[tokio::test]
async fn a_registry_that_has_lost_our_own_subject_stops_us_and_blames_no_record() {
    let (config, _) = scripted(|_, _, _| missing(1)).await;
    let decoder = Decoder::new(RegistryClient::doubted(&config, SHORT).unwrap(), OWN);
    let error = loop {
        match decoder.learn([&record()]).await.unwrap_err() {
            error if error.may_pass() => {}
            error => break error,
        }
    };
    assert!(matches!(&error, RegistryError::Lost { subject, .. } if subject == OWN), "{error:?}");
    assert!(error.help().unwrap().contains("restore"));
}

#[tokio::test]
async fn a_registry_that_is_away_is_waited_for_and_one_that_refuses_us_is_not() {
    for (code, passes) in [(500, true), (503, true), (401, false), (403, false)] {
        let (config, _) = scripted(move |_, _, _| status(code)).await;
        let decoder = Decoder::new(RegistryClient::doubted(&config, SHORT).unwrap(), OWN);
        let error = decoder.learn([&record()]).await.unwrap_err();
        assert_eq!(error.may_pass(), passes, "{code}: {error}");
    }
}

#[tokio::test]
async fn a_schema_that_is_none_is_the_records_fault_at_once() {
    let (config, _) = scripted(|_, _, _| json!({ "schema": "syntax = \"proto3\";" }).to_string().into_response()).await;
    let decoder = Decoder::new(RegistryClient::http(&config).unwrap(), OWN);
    decoder.learn([&record()]).await.unwrap();
    assert_eq!(decoder.value::<Row>(&record()).unwrap_err().kind(), "bad_schema");
}

#[tokio::test]
async fn many_records_with_missing_schemas_are_asked_for_together() {
    let (config, _) = scripted(|_, path, _| if is_own(path) { own_subject() } else { missing(0) }).await;
    let decoder = Decoder::new(RegistryClient::doubted(&config, SHORT).unwrap(), OWN);
    let records: Vec<Record> = (10..60).map(record_of).collect();
    let mut rounds = 0;
    while decoder.learn(&records).await.is_err() {
        rounds += 1;
    }
    assert!(rounds >= 1, "they are doubted first");
    assert!(records.iter().all(|record| decoder.value::<Row>(record).is_err()));
}

#[tokio::test]
async fn a_registry_that_has_just_started_does_not_end_a_start() {
    for way in 0..4 {
        let (config, _) = scripted(move |_, path, before| match (path, before) {
            (path, 0) if path.starts_with("/subjects/") => missing(way),
            (path, _) if path.starts_with("/subjects/") => own_subject(),
            _ => json!({ "schema": ONE }).to_string().into_response(),
        })
        .await;
        let config = SchemaRegistryConfig { register: false, ..config };
        let client = RegistryClient::doubted(&config, Duration::from_millis(200)).unwrap();
        assert_eq!(client.codec(OWN, ONE).await.unwrap().id(), 1, "{way}");
    }
}

/// A registry with two versions that answers GET alone.
async fn read_only() -> SchemaRegistryConfig {
    let version = |version: u32, id: u32, text: &str| {
        json!({ "subject": OWN, "version": version, "id": id, "schema": text }).to_string().into_response()
    };
    let script = move |method: &Method, path: &str, _| match path {
        _ if method != Method::GET => status(403),
        path if path.ends_with("/versions") => json!([1, 2]).to_string().into_response(),
        path if path.ends_with("/versions/1") => version(1, 7, ONE),
        path if path.ends_with("/versions/2") => version(2, 8, TWO),
        "/schemas/ids/7" => json!({ "schema": ONE }).to_string().into_response(),
        "/schemas/ids/8" => json!({ "schema": TWO }).to_string().into_response(),
        _ => coded(404, 40401),
    };
    scripted(script).await.0
}

#[tokio::test]
async fn an_account_that_may_only_read_serves_where_the_schema_stands() {
    let client = RegistryClient::http(&read_only().await).unwrap();
    assert_eq!(client.codec(OWN, ONE).await.unwrap().id(), 7);
    assert_eq!(client.codec(OWN, TWO).await.unwrap().id(), 8);
    let error = client.codec(OWN, REQUIRED).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorized { status: 403, .. }), "{error:?}");
    assert!(error.to_string().contains("registering") && error.help().unwrap().contains("topics create"), "{error}");
}
