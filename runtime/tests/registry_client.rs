//! The registry client: against the embedded registry, by calls and by HTTP, against Apicurio, and against trouble.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect};
use futures_util::future::join_all;
use serde_json::json;
use windfall_runtime::diagnose::Diagnose as _;
use windfall_runtime::kafka::config::SchemaRegistryConfig;
use windfall_runtime::registry::embedded::EmbeddedRegistry;
use windfall_runtime::registry::{RegistryClient, RegistryError};
use windfall_runtime::secret::Secret;
use windfall_schemas::wire::SchemaReference;

use crate::registry_server::{ONE, REQUIRED, TWO, served};

fn http(url: &str) -> RegistryClient {
    RegistryClient::http(&SchemaRegistryConfig::at(url)).unwrap()
}

/// What every registry must do for us, whichever it is.
async fn lives_with(make: impl Fn() -> RegistryClient, settings_of: Option<&str>) {
    let subject = format!("t{}.r-value", uuid::Uuid::new_v4().simple());
    let client = make();
    assert_eq!(client.latest(&subject).await.unwrap(), None);
    assert_eq!(client.find(&subject, ONE).await.unwrap(), None);
    let error = client.resolve(&subject, ONE, false).await.unwrap_err();
    assert!(matches!(error, RegistryError::NotRegistered { .. }), "{error:?}");
    let id = client.resolve(&subject, ONE, true).await.unwrap();
    if let Some(url) = settings_of {
        let body = json!({ "compatibility": "BACKWARD" }).to_string();
        let request = reqwest::Client::new().put(format!("{url}/config/{subject}"));
        let set = request.header("content-type", "application/json").body(body).send().await.unwrap();
        assert!(set.status().is_success(), "{set:?}");
    }

    let fresh = make();
    assert_eq!(fresh.resolve(&subject, ONE, false).await.unwrap(), id);
    assert_eq!(&*fresh.text(SchemaReference::Id(id)).await.unwrap(), ONE);
    let latest = fresh.latest(&subject).await.unwrap().unwrap();
    assert_eq!((latest.id, latest.version, &*latest.text), (id, Some(1), ONE));
    let error = fresh.resolve(&subject, REQUIRED, true).await.unwrap_err();
    assert!(matches!(error, RegistryError::Incompatible { .. }), "{error:?}");
    let second = fresh.resolve(&subject, TWO, true).await.unwrap();
    assert_ne!(second, id);
    assert_eq!(fresh.writer(SchemaReference::Id(second)).await.unwrap().text(), TWO);
    let error = fresh.text(SchemaReference::Id(2_000_000_011)).await.unwrap_err();
    assert!(matches!(error, RegistryError::NotFound { .. }), "{error:?}");
    assert!(!error.may_pass());
}

#[tokio::test]
async fn the_embedded_registry_serves_us_by_calls() {
    let registry = EmbeddedRegistry::in_memory();
    lives_with(|| RegistryClient::embedded(Arc::clone(&registry), true), None).await;
}

#[tokio::test]
async fn the_embedded_registry_serves_us_by_http() {
    let (url, _registry) = served().await;
    lives_with(|| http(&url), Some(&url)).await;
}

#[tokio::test]
async fn apicurio_serves_us() {
    let url = windfall_services::registry();
    lives_with(|| http(url), Some(url)).await;
}

#[tokio::test]
async fn by_calls_and_by_http_a_schema_has_one_id() {
    let (url, registry) = served().await;
    let by_calls = RegistryClient::embedded(registry, true).resolve("s", ONE, true).await.unwrap();
    assert_eq!(http(&url).resolve("t", ONE, true).await.unwrap(), by_calls);
}

/// A server that answers as told, and counts.
async fn stub(
    answer: impl Fn(usize) -> axum::response::Response + Clone + Send + Sync + 'static,
) -> (String, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let router = Router::new().fallback(async move || answer(counted.fetch_add(1, Ordering::SeqCst)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, count)
}

fn schema() -> axum::response::Response {
    json!({ "schema": ONE }).to_string().into_response()
}

#[tokio::test]
async fn a_registry_that_restarts_is_asked_again() {
    let (url, count) = stub(|n| if n < 2 { StatusCode::SERVICE_UNAVAILABLE.into_response() } else { schema() }).await;
    assert_eq!(&*http(&url).text(SchemaReference::Id(7)).await.unwrap(), ONE);
    assert_eq!(count.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_refusal_is_not_asked_again_and_says_what_to_do() {
    let (url, count) = stub(|_| StatusCode::UNAUTHORIZED.into_response()).await;
    let error = http(&url).text(SchemaReference::Id(7)).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unauthorized { status: 401, .. }), "{error:?}");
    assert!(error.help().unwrap().contains("password"));
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn many_who_ask_the_same_make_one_request_and_none_later() {
    let (url, count) = stub(|_| schema()).await;
    let client = http(&url);
    let answers = join_all((0..20).map(|_| client.text(SchemaReference::Id(7)))).await;
    assert!(answers.iter().all(|answer| answer.as_deref().unwrap() == ONE));
    client.text(SchemaReference::Id(7)).await.unwrap();
    assert_eq!(count.load(Ordering::SeqCst), 1);
    client.text(SchemaReference::Id(8)).await.unwrap();
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_failure_is_not_remembered() {
    let (url, _) = stub(|n| if n == 0 { StatusCode::NOT_ACCEPTABLE.into_response() } else { schema() }).await;
    let client = http(&url);
    client.text(SchemaReference::Id(7)).await.unwrap_err();
    client.text(SchemaReference::Id(7)).await.unwrap();
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_is_down() {
    let (url, _) = stub(|_| schema()).await;
    let client = http(&format!("http://127.0.0.1:1, {url}"));
    assert_eq!(&*client.text(SchemaReference::Id(7)).await.unwrap(), ONE);
}

#[tokio::test]
async fn a_redirection_is_not_followed() {
    let (target, count) = stub(|_| schema()).await;
    let (url, _) = stub(move |_| Redirect::temporary(&target).into_response()).await;
    let error = http(&url).text(SchemaReference::Id(7)).await.unwrap_err();
    assert!(matches!(error, RegistryError::Malformed { .. }), "{error:?}");
    assert_eq!(count.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_answer_without_end_is_cut() {
    let (url, _) = stub(|_| vec![b' '; 3_000_000].into_response()).await;
    let error = http(&url).text(SchemaReference::Id(7)).await.unwrap_err();
    assert!(matches!(error, RegistryError::Malformed { .. }), "{error:?}");
}

#[tokio::test]
async fn an_id_that_holds_another_schema_is_found_out_before_anything_is_written() {
    let answer = |_| json!({ "id": 7, "version": 1, "schema": "\"string\"" }).to_string().into_response();
    let (url, _) = stub(answer).await;
    let error = http(&url).resolve("s", ONE, true).await.unwrap_err();
    assert!(matches!(error, RegistryError::WrongSchema { id: 7, .. }), "{error:?}");
}

#[tokio::test]
async fn the_password_is_sent_and_in_no_message() {
    let authorized = |headers: axum::http::HeaderMap| async move {
        match headers.get("authorization").and_then(|value| value.to_str().ok()) {
            Some("Basic dTpodW50ZXIy") => schema(),
            _ => StatusCode::FORBIDDEN.into_response(),
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(authorized)).await });
    let with = |password: &str| {
        let mut config = SchemaRegistryConfig::at(url.as_str());
        config.username = Some("u".to_owned());
        config.password = Some(Secret::new(password));
        RegistryClient::http(&config).unwrap()
    };
    assert_eq!(&*with("hunter2").text(SchemaReference::Id(7)).await.unwrap(), ONE);
    let error = with("wrong-secret").text(SchemaReference::Id(7)).await.unwrap_err();
    assert!(!format!("{error:?} {error}").contains("wrong-secret"));
}
