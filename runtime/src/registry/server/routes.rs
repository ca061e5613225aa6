//! The routes, each a question to the registry.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, RawQuery, Request, State};
use axum::http::{Method, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;
use windfall_schemas::wire::SchemaReference;

use super::answer::{Problem, ok};
use crate::registry::catalogue::Version;
use crate::registry::embedded::EmbeddedRegistry;

/// A schema of the largest size, escaped once more.
const MAX_BODY_BYTES: usize = 2 * 1024 * 1024;

type Registry = State<Arc<EmbeddedRegistry>>;
type Answer = Result<Response, Problem>;

/// Makes the routes of a registry.
pub fn router(registry: Arc<EmbeddedRegistry>) -> Router {
    Router::new()
        .route("/", get(async || ok(&json!({}))))
        .route("/mode", get(async || ok(&json!({ "mode": "READWRITE" }))))
        .route("/schemas/types", get(async || ok(&json!(["AVRO"]))))
        .route("/schemas/ids/{id}", get(schema))
        .route("/schemas/ids/{id}/schema", get(schema_text))
        .route("/schemas/ids/{id}/versions", get(schema_versions))
        .route("/schemas/ids/{id}/subjects", get(schema_subjects))
        .route("/schemas/guids/{guid}", get(schema_by_guid))
        .route("/subjects", get(subjects))
        .route("/subjects/{subject}", post(find))
        .route("/subjects/{subject}/versions", get(versions).post(register))
        .route("/subjects/{subject}/versions/{version}", get(version))
        .route("/subjects/{subject}/versions/{version}/schema", get(version_text))
        .route("/compatibility/subjects/{subject}/versions/{version}", post(compatibility))
        .route("/config", get(level).put(set_level))
        .route("/config/{subject}", get(level).put(set_level))
        .fallback(async || Problem::no_route())
        .method_not_allowed_fallback(async || Problem::no_route())
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn(json_only))
        .with_state(registry)
}

/// What clients send: a schema, and a type that is left out for Avro.
#[derive(Deserialize)]
struct Offered {
    schema: String,
    #[serde(rename = "schemaType")]
    schema_type: Option<String>,
    #[serde(default)]
    references: Option<Vec<Value>>,
}

/// Refuses a body that is not declared as JSON: a page in a browser may send any other one here without being asked first.
async fn json_only(request: Request, next: Next) -> Response {
    let declared = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = declared.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let json = essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"));
    if json || !matches!(*request.method(), Method::POST | Method::PUT) {
        next.run(request).await
    } else {
        Problem::no_json().into_response()
    }
}

fn offered(body: &Bytes) -> Result<String, Problem> {
    let offered: Offered =
        serde_json::from_slice(body).map_err(|error| Problem::bad_body(format!("Invalid request: {error}")))?;
    if offered.schema_type.is_some_and(|kind| !kind.is_empty() && !kind.eq_ignore_ascii_case("AVRO")) {
        return Err(Problem::bad_body("Invalid schema: only AVRO is kept here"));
    }
    if offered.references.is_some_and(|references| !references.is_empty()) {
        return Err(Problem::bad_body("Invalid schema: references are not kept here"));
    }
    Ok(offered.schema)
}

fn number(text: &str) -> Result<u32, Problem> {
    text.parse().map_err(|_| Problem::no_schema(text))
}

async fn held(registry: &EmbeddedRegistry, of: SchemaReference) -> Result<(Uuid, Arc<str>), Problem> {
    registry.schema(of).await?.ok_or_else(|| Problem::no_schema(of))
}

async fn schema(State(registry): Registry, Path(id): Path<String>) -> Answer {
    let (guid, text) = held(&registry, SchemaReference::Id(number(&id)?)).await?;
    Ok(ok(&json!({ "schema": &*text, "guid": guid })))
}

async fn schema_text(State(registry): Registry, Path(id): Path<String>) -> Answer {
    Ok(plain(&held(&registry, SchemaReference::Id(number(&id)?)).await?.1))
}

async fn schema_versions(State(registry): Registry, Path(id): Path<String>) -> Answer {
    let uses = uses(&registry, &id).await?;
    let uses: Vec<Value> =
        uses.iter().map(|used| json!({ "subject": used.subject, "version": used.version })).collect();
    Ok(ok(&json!(uses)))
}

async fn schema_subjects(State(registry): Registry, Path(id): Path<String>) -> Answer {
    let uses = uses(&registry, &id).await?;
    let subjects: Vec<&str> = uses.iter().map(|used| used.subject.as_str()).collect();
    Ok(ok(&json!(subjects)))
}

async fn uses(registry: &EmbeddedRegistry, id: &str) -> Result<Vec<Version>, Problem> {
    let id = number(id)?;
    let uses = registry.uses(id).await?;
    if uses.is_empty() { Err(Problem::no_schema(id)) } else { Ok(uses) }
}

async fn schema_by_guid(State(registry): Registry, Path(guid): Path<String>) -> Answer {
    let named = guid.parse::<Uuid>().map_err(|_| Problem::no_schema(&guid))?;
    let (guid, text) = held(&registry, SchemaReference::Guid(named.into_bytes())).await?;
    Ok(ok(&json!({ "schema": &*text, "guid": guid })))
}

async fn subjects(State(registry): Registry, RawQuery(query): RawQuery) -> Answer {
    let prefix = parameter(query.as_deref(), "subjectPrefix").unwrap_or_default();
    let subjects: Vec<String> =
        registry.subjects().await?.into_iter().filter(|subject| subject.starts_with(&prefix)).collect();
    Ok(ok(&json!(subjects)))
}

async fn find(State(registry): Registry, Path(subject): Path<String>, body: Bytes) -> Answer {
    let text = offered(&body)?;
    if let Some(version) = registry.find(&subject, &text).await? {
        return Ok(ok(&described(&version)));
    }
    match registry.versions(&subject).await? {
        Some(_) => Err(Problem::no_schema("in that subject")),
        None => Err(Problem::no_subject(&subject)),
    }
}

async fn versions(State(registry): Registry, Path(subject): Path<String>) -> Answer {
    let versions = registry.versions(&subject).await?.ok_or_else(|| Problem::no_subject(&subject))?;
    let numbers: Vec<u32> = versions.iter().map(|version| version.version).collect();
    Ok(ok(&json!(numbers)))
}

async fn register(State(registry): Registry, Path(subject): Path<String>, body: Bytes) -> Answer {
    let version = registry.add(&subject, &offered(&body)?).await?;
    Ok(ok(&described(&version)))
}

async fn version(State(registry): Registry, Path((subject, version)): Path<(String, String)>) -> Answer {
    Ok(ok(&described(&chosen(&registry, &subject, &version).await?)))
}

async fn version_text(State(registry): Registry, Path((subject, version)): Path<(String, String)>) -> Answer {
    Ok(plain(&chosen(&registry, &subject, &version).await?.text))
}

async fn chosen(registry: &EmbeddedRegistry, subject: &str, version: &str) -> Result<Version, Problem> {
    let wanted = match version {
        "latest" | "-1" => None,
        number => Some(number.parse::<u32>().ok().filter(|n| *n > 0).ok_or_else(|| Problem::bad_version(number))?),
    };
    let versions = registry.versions(subject).await?.ok_or_else(|| Problem::no_subject(subject))?;
    let found = match wanted {
        None => versions.last(),
        Some(wanted) => versions.iter().find(|known| known.version == wanted),
    };
    found.cloned().ok_or_else(|| Problem::no_version(version))
}

async fn compatibility(
    State(registry): Registry,
    Path((subject, version)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    body: Bytes,
) -> Answer {
    let text = offered(&body)?;
    let version = chosen(&registry, &subject, &version).await?;
    let objections = registry.objections(&version, &text)?;
    let mut answer = json!({ "is_compatible": objections.is_empty() });
    if parameter(query.as_deref(), "verbose").is_some_and(|verbose| verbose.eq_ignore_ascii_case("true")) {
        answer["messages"] = json!(objections);
    }
    Ok(ok(&answer))
}

async fn level(State(registry): Registry, subject: Option<Path<String>>, RawQuery(query): RawQuery) -> Answer {
    let subject = subject.as_ref().map(|Path(subject)| subject.as_str());
    let global = parameter(query.as_deref(), "defaultToGlobal").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let level = match registry.level(subject).await? {
        None if global => registry.level(None).await?,
        own => own,
    };
    let level = level.ok_or_else(|| Problem::no_level(subject.unwrap_or_default()))?;
    Ok(ok(&json!({ "compatibilityLevel": level.to_string() })))
}

async fn set_level(State(registry): Registry, subject: Option<Path<String>>, body: Bytes) -> Answer {
    let body: Value = serde_json::from_slice(&body).map_err(|_| Problem::bad_level())?;
    let name = body.get("compatibility").and_then(Value::as_str).ok_or_else(Problem::bad_level)?;
    let level = name.parse().map_err(|_| Problem::bad_level())?;
    registry.set_level(subject.as_ref().map(|Path(subject)| subject.as_str()), level).await?;
    Ok(ok(&json!({ "compatibility": level.to_string() })))
}

fn described(version: &Version) -> Value {
    let Version { subject, version, id, guid, text } = version;
    json!({ "subject": subject, "version": version, "id": id, "guid": guid, "schema": &**text })
}

/// A schema's text as it is, which is JSON in itself.
fn plain(text: &str) -> Response {
    let headers = [("content-type", "application/vnd.schemaregistry.v1+json")];
    (headers, text.to_owned()).into_response()
}

/// Returns a parameter of the query, percent-decoded; unknown ones are nobody's business.
fn parameter(query: Option<&str>, name: &str) -> Option<String> {
    let pairs = url::form_urlencoded::parse(query?.as_bytes());
    pairs.into_iter().find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
}
