//! The embedded registry's routes, asked as foreign clients ask them.

use std::sync::Arc;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use windfall_runtime::diagnose::Diagnose as _;
use windfall_runtime::registry::RegistryError;
use windfall_runtime::registry::embedded::EmbeddedRegistry;
use windfall_runtime::registry::server::{self, Served};

pub(crate) const ONE: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"string"}]}"#;
pub(crate) const TWO: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"string"},{"name":"b","type":["null","long"],"default":null}]}"#;
pub(crate) const REQUIRED: &str =
    r#"{"type":"record","name":"R","fields":[{"name":"a","type":"string"},{"name":"b","type":"long"}]}"#;

struct Asked {
    url: String,
    client: reqwest::Client,
}

impl Asked {
    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "application/vnd.schemaregistry.v1+json");
        (response.status(), serde_json::from_slice(&response.bytes().await.unwrap()).unwrap())
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let (status, body) = self.ask(Method::GET, path, None).await;
        (status.as_u16(), body)
    }

    async fn post(&self, path: &str, schema: &str) -> (u16, Value) {
        let (status, body) = self.ask(Method::POST, path, Some(json!({ "schema": schema }))).await;
        (status.as_u16(), body)
    }

    /// Asks, and returns the status with the registry's own code.
    async fn refused(&self, method: Method, path: &str, body: Option<Value>) -> (u16, i64) {
        let (status, body) = self.ask(method, path, body).await;
        assert!(body["message"].is_string(), "{body}");
        (status.as_u16(), body["error_code"].as_i64().unwrap())
    }
}

pub(crate) async fn served() -> (String, Arc<EmbeddedRegistry>) {
    let registry = EmbeddedRegistry::in_memory();
    match server::serve(&registry, "127.0.0.1:0").await.unwrap() {
        Served::Here { address, task: _ } => (format!("http://{address}"), registry),
        Served::ByAnotherOfUs => panic!("a free port is served by us"),
    }
}

async fn asked() -> Asked {
    Asked { url: served().await.0, client: reqwest::Client::new() }
}

#[tokio::test]
async fn a_schema_is_registered_once_and_found_by_every_route() {
    let registry = asked().await;
    let (status, first) = registry.post("/subjects/a.b-value/versions?normalize=False", ONE).await;
    assert_eq!((status, &first["version"]), (200, &json!(1)));
    assert_eq!(registry.post("/subjects/a.b-value/versions", ONE).await.1, first, "the same again is no new version");
    let (_, second) = registry.post("/subjects/a.b-value/versions", TWO).await;
    assert_eq!(second["version"], 2);
    let other = registry.post("/subjects/other-value/versions", ONE).await.1;
    assert_eq!(other["id"], first["id"], "an id belongs to the text, whatever the subject");

    let (id, guid) = (&first["id"], first["guid"].as_str().unwrap());
    assert_eq!(registry.get(&format!("/schemas/ids/{id}?fetchMaxId=false&subject=x")).await.1["schema"], ONE);
    assert_eq!(registry.get(&format!("/schemas/guids/{guid}")).await.1, json!({"schema": ONE, "guid": guid}));
    assert_eq!(registry.get(&format!("/schemas/ids/{id}/schema")).await.1, serde_json::from_str::<Value>(ONE).unwrap());
    assert_eq!(registry.get(&format!("/schemas/ids/{id}/subjects")).await.1, json!(["a.b-value", "other-value"]));
    let versions = json!([{"subject": "a.b-value", "version": 1}, {"subject": "other-value", "version": 1}]);
    assert_eq!(registry.get(&format!("/schemas/ids/{id}/versions")).await.1, versions);
    assert_eq!(registry.get("/subjects?deleted=false").await.1, json!(["a.b-value", "other-value"]));
    assert_eq!(registry.get("/subjects/a.b-value/versions?offset=0&limit=-1").await.1, json!([1, 2]));
    assert_eq!(registry.get("/subjects/a.b-value/versions/latest").await.1, second);
    assert_eq!(registry.get("/subjects/a.b-value/versions/1").await.1, first);
    assert_eq!(registry.get("/subjects/a%2Eb%2Dvalue/versions/1").await.1, first, "subjects come percent-encoded");
    assert_eq!(registry.post("/subjects/a.b-value?normalize=False&deleted=False", ONE).await.1, first);
}

#[tokio::test]
async fn what_is_not_there_is_told_in_confluents_codes() {
    let registry = asked().await;
    registry.post("/subjects/s/versions", ONE).await;
    let get = |path: &'static str| registry.refused(Method::GET, path, None);
    assert_eq!(get("/schemas/ids/9").await, (404, 40403));
    assert_eq!(get("/schemas/guids/00000000-0000-0000-0000-000000000000").await, (404, 40403));
    assert_eq!(get("/subjects/none/versions").await, (404, 40401));
    assert_eq!(get("/subjects/s/versions/7").await, (404, 40402));
    assert_eq!(get("/subjects/s/versions/seven").await, (422, 42202));
    assert_eq!(get("/config/s").await, (404, 40408));
    assert_eq!(get("/associations/resources/-/s?resourceType=topic").await, (404, 404));
    assert_eq!(get("/nothing").await, (404, 404));
    let post = |path: &'static str, schema: &'static str| {
        registry.refused(Method::POST, path, Some(json!({"schema": schema})))
    };
    assert_eq!(post("/subjects/none", ONE).await, (404, 40401));
    assert_eq!(post("/subjects/s", TWO).await, (404, 40403));
    assert_eq!(post("/subjects/s/versions", "{\"type\":\"nonsense\"}").await, (422, 42201));
    assert_eq!(post("/subjects/s/versions", "{").await, (422, 42201));
    assert_eq!(post("/subjects/s/versions", REQUIRED).await, (409, 409));
    assert_eq!(post("/compatibility/subjects/none/versions/latest", ONE).await, (404, 40401));
    assert_eq!(
        registry.refused(Method::PUT, "/config", Some(json!({"compatibility": "SIDEWAYS"}))).await,
        (422, 42203)
    );
    assert_eq!(registry.refused(Method::DELETE, "/subjects/s", None).await, (404, 404));
}

#[tokio::test]
async fn a_level_is_kept_and_decides_what_may_follow() {
    let registry = asked().await;
    registry.post("/subjects/s/versions", ONE).await;
    assert_eq!(registry.get("/config").await.1, json!({"compatibilityLevel": "BACKWARD"}));
    let path = "/compatibility/subjects/s/versions/latest?verbose=True";
    let (_, verdict) = registry.post(path, REQUIRED).await;
    assert_eq!(verdict["is_compatible"], false);
    assert!(!verdict["messages"].as_array().unwrap().is_empty());
    assert_eq!(registry.post(path, TWO).await.1, json!({"is_compatible": true, "messages": []}));
    let put = registry.ask(Method::PUT, "/config/s", Some(json!({"compatibility": "forward"}))).await.1;
    assert_eq!(put, json!({"compatibility": "FORWARD"}));
    assert_eq!(registry.get("/config/s").await.1, json!({"compatibilityLevel": "FORWARD"}));
    assert_eq!(registry.get("/config/t?defaultToGlobal=true").await.1, json!({"compatibilityLevel": "BACKWARD"}));
    assert_eq!(registry.post(path, REQUIRED).await.1["is_compatible"], true);
    assert_eq!(registry.post("/subjects/s/versions", REQUIRED).await.0, 200);
}

#[tokio::test]
async fn small_questions_have_their_answers() {
    let registry = asked().await;
    assert_eq!(registry.get("/").await.1, json!({}));
    assert_eq!(registry.get("/mode").await.1, json!({"mode": "READWRITE"}));
    assert_eq!(registry.get("/schemas/types").await.1, json!(["AVRO"]));
}

#[tokio::test]
async fn a_port_that_another_of_us_serves_is_no_error_and_any_other_is() {
    let (url, _registry) = served().await;
    let address = url.strip_prefix("http://").unwrap();
    let second = EmbeddedRegistry::in_memory();
    assert!(matches!(server::serve(&second, address).await.unwrap(), Served::ByAnotherOfUs));
    let foreign = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = foreign.local_addr().unwrap().to_string();
    let stranger = axum::Router::new().route("/", axum::routing::get(async || "{}"));
    tokio::spawn(async move { axum::serve(foreign, stranger).await });
    let error = server::serve(&second, &address).await.unwrap_err();
    assert!(matches!(error, RegistryError::Listen { .. }), "{error:?}");
    assert!(error.help().is_some());
}

#[tokio::test]
async fn a_page_in_a_browser_can_neither_read_nor_register() {
    let registry = asked().await;
    let path = format!("{}/subjects/a-value/versions", registry.url);
    let body = json!({ "schema": ONE }).to_string();
    for kind in
        [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("text/plain; x=application/json")]
    {
        let request = registry.client.post(&path).body(body.clone());
        let request = match kind {
            Some(kind) => request.header("content-type", kind),
            None => request,
        };
        assert_eq!(request.send().await.unwrap().status(), 415, "{kind:?}");
    }
    let request = registry.client.post(&path).header("host", "evil.example").header("content-type", "application/json");
    assert_eq!(request.body(body.clone()).send().await.unwrap().status(), 403);
    assert_eq!(registry.client.get(&path).header("host", "evil.example:80").send().await.unwrap().status(), 403);
    for kind in ["application/json; charset=utf-8", "application/vnd.schemaregistry.v1+json"] {
        let request = registry.client.post(&path).header("content-type", kind).body(body.clone());
        assert_eq!(request.send().await.unwrap().status(), 200, "{kind}");
    }
}
