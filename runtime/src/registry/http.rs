//! A registry over HTTP: the requests, their retries, and what the answers mean.

use std::sync::Arc;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Client, Method, Response, StatusCode, redirect};
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::warn;
use url::Url;
use windfall_schemas::wire::SchemaReference;

use super::Registered;
use super::error::RegistryError;
use super::normal::normal_form;
use crate::diagnose::Diagnose;
use crate::http::route::Route;
use crate::kafka::config::SchemaRegistryConfig;
use crate::secret::Secret;
use crate::telemetry::chain;

/// A registry on the same network answers in milliseconds; one that restarts answers within the retries.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Rounds over all addresses, with the waits between them.
const WAITS: [Duration; 4] =
    [Duration::from_millis(200), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];
/// Our largest schema has some 10 KiB; its text is escaped once more in the answer.
const MAX_BODY_BYTES: usize = 2 * 1024 * 1024;
/// What an operator wants to read of a registry's message.
const MAX_REASON_CHARS: usize = 500;
const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";

pub(super) struct HttpRegistry {
    addresses: Vec<Address>,
    credentials: Option<(String, Secret)>,
}

/// One of the registry's addresses, and the way there.
struct Address {
    url: String,
    route: Route,
    client: Client,
}

#[derive(Deserialize)]
struct Problem {
    #[serde(default)]
    error_code: i64,
    #[serde(default)]
    message: String,
}

struct Request<'a> {
    method: Method,
    path: String,
    body: Option<&'a Value>,
    /// For messages: `the schema of id 7`.
    what: String,
}

impl HttpRegistry {
    pub(super) fn new(config: &SchemaRegistryConfig) -> Result<Self, RegistryError> {
        let urls = config.urls();
        if urls.is_empty() {
            return Err(RegistryError::Settings { reason: "no address".to_owned() });
        }
        if let Some(open) = config.open_address() {
            let reason = format!("`{open}` would have the password cross the network for all to read");
            return Err(RegistryError::Settings { reason });
        }
        let credentials = config.username.clone().zip(config.password.clone());
        let addresses =
            urls.into_iter().map(|url| Address::new(url, credentials.is_some())).collect::<Result<_, _>>()?;
        Ok(Self { addresses, credentials })
    }

    pub(super) async fn find(&self, subject: &str, text: &str) -> Result<Option<Registered>, RegistryError> {
        let body = json!({ "schema": text });
        let path = format!("/subjects/{}?normalize=false&deleted=false", encoded(subject));
        match self.ask(Method::POST, path, Some(&body), format!("the schema of `{subject}`")).await {
            Ok(found) => found.map(|found| registered(subject, text, &found)).transpose(),
            // An account that may only read is often let in by method.
            Err(RegistryError::Unauthorized { status: 403 | 405, .. }) => self.find_by_reading(subject, text).await,
            Err(error) => Err(error),
        }
    }

    /// Looks a text up among the versions of a subject, newest first, without a POST.
    async fn find_by_reading(&self, subject: &str, text: &str) -> Result<Option<Registered>, RegistryError> {
        let path = format!("/subjects/{}/versions", encoded(subject));
        let versions = self.get(path, format!("the versions of `{subject}`")).await?.unwrap_or_default();
        let meaning = |text: &str| serde_json::from_str(text).map(|schema| normal_form(&schema)).ok();
        for version in versions.as_array().into_iter().flatten().rev() {
            let found = self.version(subject, &version.to_string()).await?;
            if found.as_ref().is_some_and(|found| *found.text == *text || meaning(&found.text) == meaning(text)) {
                return Ok(found);
            }
        }
        Ok(None)
    }

    pub(super) async fn register(&self, subject: &str, text: &str) -> Result<Registered, RegistryError> {
        let body = json!({ "schema": text });
        let path = format!("/subjects/{}/versions?normalize=false", encoded(subject));
        let what = format!("registering `{subject}`");
        match self.ask(Method::POST, path, Some(&body), what.clone()).await {
            Ok(Some(found)) => registered(subject, text, &found),
            Ok(None) => Err(RegistryError::NotFound { what }),
            Err(RegistryError::Refused { status: 409, reason, .. }) => {
                Err(RegistryError::Incompatible { subject: subject.to_owned(), reason })
            }
            Err(error) => Err(error),
        }
    }

    /// Returns the text of a schema, which `what` describes in messages.
    pub(super) async fn text(&self, of: SchemaReference, what: &str) -> Result<Option<Arc<str>>, RegistryError> {
        let path = match of {
            SchemaReference::Id(id) => format!("/schemas/ids/{id}"),
            SchemaReference::Guid(_) => format!("/schemas/guids/{of}"),
        };
        let Some(found) = self.get(path, what.to_owned()).await? else { return Ok(None) };
        let text = found.get("schema").and_then(Value::as_str);
        text.map(|text| Some(text.into())).ok_or_else(|| malformed(what, "no `schema`"))
    }

    pub(super) async fn latest(&self, subject: &str) -> Result<Option<Registered>, RegistryError> {
        self.version(subject, "latest").await
    }

    async fn version(&self, subject: &str, version: &str) -> Result<Option<Registered>, RegistryError> {
        let path = format!("/subjects/{}/versions/{version}", encoded(subject));
        let Some(found) = self.get(path, format!("version {version} of `{subject}`")).await? else { return Ok(None) };
        let text = found.get("schema").and_then(Value::as_str).unwrap_or_default();
        registered(subject, text, &found).map(Some)
    }

    async fn get(&self, path: String, what: String) -> Result<Option<Value>, RegistryError> {
        self.ask(Method::GET, path, None, what).await
    }

    /// Returns the answer, or `None` where the registry says that there is no such thing.
    async fn ask(
        &self,
        method: Method,
        path: String,
        body: Option<&Value>,
        what: String,
    ) -> Result<Option<Value>, RegistryError> {
        let request = Request { method, path, body, what };
        let mut waits = WAITS.iter();
        loop {
            let error = match self.round(&request).await {
                Err(error) if error.may_pass() => error,
                answered => return answered,
            };
            let Some(wait) = waits.next() else { return Err(error) };
            warn!(error = %chain(&error), "schema registry did not answer, retrying");
            tokio::time::sleep(*wait).await;
        }
    }

    /// Asks one address after the other until one answers.
    async fn round(&self, request: &Request<'_>) -> Result<Option<Value>, RegistryError> {
        let mut last = RegistryError::Settings { reason: "no address".to_owned() };
        for address in &self.addresses {
            match self.once(address, request).await {
                Err(error) if error.may_pass() => last = error,
                answered => return answered,
            }
        }
        Err(last)
    }

    async fn once(&self, address: &Address, request: &Request<'_>) -> Result<Option<Value>, RegistryError> {
        let Address { url, route, client } = address;
        let unreachable =
            |source: reqwest::Error| RegistryError::Unreachable { url: url.clone(), source: route.failed(source) };
        let mut builder = client.request(request.method.clone(), format!("{url}{}", request.path));
        builder = builder.header("accept", CONTENT_TYPE);
        if let Some((username, password)) = &self.credentials {
            builder = builder.basic_auth(username, Some(password.expose()));
        }
        if let Some(body) = request.body {
            builder = builder.header("content-type", CONTENT_TYPE).body(body.to_string());
        }
        let response = builder.send().await.map_err(unreachable)?;
        let status = response.status();
        let body = bounded(response).await.map_err(unreachable)?;
        judge(url, &request.what, status, body.as_deref())
    }
}

impl Address {
    fn new(url: String, credentials: bool) -> Result<Self, RegistryError> {
        let unusable = |reason: String| RegistryError::Settings { reason };
        let parsed = Url::parse(&url).map_err(|error| unusable(format!("`{url}` is no URL: {error}")))?;
        let builder = Client::builder()
            .timeout(REQUEST_TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(redirect::Policy::none());
        let route = Route::to(&parsed, credentials)?;
        let client = route.client(builder)?;
        Ok(Self { url, route, client })
    }
}

/// Reads a body up to the limit; `None` when it is longer.
async fn bounded(mut response: Response) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > MAX_BODY_BYTES {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

/// Says what an answer means; `None` where there is no such thing.
fn judge(url: &str, what: &str, status: StatusCode, body: Option<&[u8]>) -> Result<Option<Value>, RegistryError> {
    let code = status.as_u16();
    if status.is_server_error() || code == 429 || code == 408 {
        return Err(RegistryError::Unavailable { url: url.to_owned(), status: code, what: what.to_owned() });
    }
    if matches!(code, 401 | 403 | 405) {
        return Err(RegistryError::Unauthorized { url: url.to_owned(), status: code, what: what.to_owned() });
    }
    let body = body.ok_or_else(|| malformed(what, "it is too long"))?;
    if status.is_success() {
        return serde_json::from_slice(body).map(Some).map_err(|_| malformed(what, "it is no JSON"));
    }
    if status.is_redirection() {
        return Err(malformed(what, &format!("it is a redirection ({code}), which is not followed")));
    }
    let refused = |code: i64, reason: &str| {
        let reason = reason.chars().take(MAX_REASON_CHARS).collect();
        RegistryError::Refused { what: what.to_owned(), status: status.as_u16(), code, reason }
    };
    match (code, serde_json::from_slice::<Problem>(body)) {
        // Only a registry's own "not found": the page of some other server must not be taken for one.
        (404, Ok(problem)) if problem.error_code != 0 => Ok(None),
        (404, _) => Err(malformed(what, "404 without a registry's error code")),
        (_, Ok(problem)) => Err(refused(problem.error_code, &problem.message)),
        (409, Err(_)) => Err(refused(0, "no reason given")),
        (_, Err(_)) => Err(malformed(what, &format!("status {code}"))),
    }
}

fn registered(subject: &str, text: &str, found: &Value) -> Result<Registered, RegistryError> {
    let number = |name: &str| found.get(name).and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok());
    let id = number("id").ok_or_else(|| malformed(&format!("`{subject}`"), "no `id`"))?;
    Ok(Registered { subject: subject.to_owned(), version: number("version"), id, text: text.into() })
}

fn malformed(what: &str, reason: &str) -> RegistryError {
    RegistryError::Malformed { what: what.to_owned(), reason: reason.to_owned() }
}

fn encoded(subject: &str) -> impl std::fmt::Display + '_ {
    utf8_percent_encode(subject, NON_ALPHANUMERIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, body: &str) -> Result<Option<Value>, RegistryError> {
        judge("http://r", "x", StatusCode::from_u16(status).unwrap(), Some(body.as_bytes()))
    }

    #[test]
    fn no_client_is_made_that_would_send_a_password_in_clear() {
        let made = |url: &str| {
            let mut config = SchemaRegistryConfig::at(url);
            (config.username, config.password) = (Some("u".to_owned()), Some(Secret::new("hunter2")));
            HttpRegistry::new(&config).err().map(|error| error.to_string())
        };
        let refused = made("http://registry:8081").unwrap();
        assert!(refused.contains("`http://registry:8081`") && !refused.contains("hunter2"), "{refused}");
        assert_eq!(made("https://registry:8081"), None);
        assert_eq!(made("http://127.0.0.1:8081"), None);
    }

    #[test]
    fn only_a_registrys_own_not_found_means_missing() {
        assert!(matches!(judged(404, r#"{"error_code":40401,"message":"no"}"#), Ok(None)));
        assert!(matches!(judged(404, "<html>not here</html>"), Err(RegistryError::Malformed { .. })));
        assert!(matches!(judged(404, "{}"), Err(RegistryError::Malformed { .. })));
    }

    #[test]
    fn only_what_may_pass_is_asked_again() {
        for (status, passes) in
            [(500, true), (503, true), (429, true), (401, false), (403, false), (422, false), (302, false)]
        {
            let error = judged(status, r#"{"error_code":1,"message":"m"}"#).err().unwrap();
            assert_eq!(error.may_pass(), passes, "{status}");
        }
    }

    #[test]
    fn a_conflict_is_known_by_its_status_whatever_its_code() {
        for code in [409, 40901] {
            let body = format!(r#"{{"error_code":{code},"message":"incompatible"}}"#);
            assert!(matches!(judged(409, &body), Err(RegistryError::Refused { status: 409, .. })));
        }
    }
}
