//! Apple's API over HTTP: one request, one answer, judged by its status before its body.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use metrics::{counter, histogram};
use reqwest::header::HeaderMap;
use tracing::debug;
use url::Url;
use windfall_runtime::clock::SharedClock;
use windfall_runtime::http::route::RouteError;
use windfall_runtime::metrics::{SOURCE_REQUEST_SECONDS, SOURCE_REQUESTS, label};
use windfall_runtime::telemetry::escaped;
use windfall_schemas::identifiers::DeviceId;

use super::auth::{Account, Identifiers, Token, Tokens};
pub use super::connect::{ConnectError, random_identifiers};
use super::endpoint::Endpoint;
use super::error::{DirectoryError, Refusal};
use super::key::SigningKey;
use super::limiter::Limiter;
use super::links;
use super::transport::{Settings, Transport};
use super::wire::{self, Next};
use super::{Answer, AssignedServer, Cursor, Linkage, Lookup, Page, PageOf, ServerList, headers};
use crate::budget::{Limit, LimiterState, Pace};

/// Largest body, after decompression; a page of 1,000 devices has 1.8 MB.
pub const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;
/// Longest sentence of Apple's that an error shows, in characters.
const MAX_DETAIL: usize = 300;
/// The wait after a 429 that does not say how long.
pub const USUAL_RETRY_AFTER: Duration = Duration::from_secs(60);

/// What a directory is made of.
#[derive(Debug)]
pub struct Options {
    /// Alias of the organization: goes into records, metrics and logs.
    pub org: String,
    /// Origin of the API.
    pub api_url: Url,
    /// The API account.
    pub account: Account,
    /// Its key.
    pub key: SigningKey,
    /// Its budget.
    pub limit: Limit,
    /// Items asked for with each page.
    pub page_size: u16,
    /// What an earlier process has left.
    pub state: LimiterState,
    /// Whole time of a request; [`super::transport::WHOLE`] but in tests.
    pub deadline: Duration,
}

/// Apple's API for one organization.
pub struct AppleDirectory {
    org: String,
    api_url: Url,
    page_size: u16,
    deadline: Duration,
    transport: Transport,
    tokens: Tokens,
    limiter: Limiter,
    clock: SharedClock,
    sent: AtomicU64,
    saved: Mutex<LimiterState>,
}

/// An answer of any status, read to its end.
struct Response {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
    answer: Answer,
    /// With which it was asked for.
    token: Token,
}

impl Response {
    /// Tells whether Apple itself says that the resource does not exist: its code is asked, not only the status.
    fn says_not_found(&self) -> bool {
        let problems = (self.status == 404).then(|| wire::problems(&self.body)).flatten().unwrap_or_default();
        problems.iter().any(|problem| problem.code.starts_with("NOT_FOUND"))
    }
}

impl AppleDirectory {
    /// Takes an organization over. Nothing is sent before the first method is called.
    ///
    /// # Errors
    /// When TLS cannot be set up, or the environment names a proxy that cannot be used.
    pub fn take_over(options: Options, clock: SharedClock, identifiers: Identifiers) -> Result<Self, RouteError> {
        let Options { org, api_url, account, key, limit, page_size, state, deadline } = options;
        let token_settings = Settings { whole: deadline, ..Settings::towards(&account.token_url)? };
        let transport = Transport::new(Settings { whole: deadline, ..Settings::towards(&api_url)? })?;
        let limiter = Limiter::take_over(&org, limit, &state, clock.clone());
        let tokens = Tokens::take_over(account, key, &token_settings, &state, clock.clone(), identifiers)?;
        let directory = Self {
            org,
            api_url,
            page_size,
            deadline,
            transport,
            tokens,
            limiter,
            clock,
            sent: AtomicU64::new(0),
            saved: Mutex::new(LimiterState::default()),
        };
        // What was just taken over is durable as it is.
        *directory.saved.lock().unwrap_or_else(PoisonError::into_inner) = directory.state();
        Ok(directory)
    }

    fn state(&self) -> LimiterState {
        let mut state = LimiterState::default();
        self.limiter.write(&mut state);
        self.tokens.write(&mut state);
        state
    }

    /// Sends a GET; a 401 is answered with a new token, once, and not where the API has refused a fresh one before.
    async fn get(&self, endpoint: &Endpoint<'_>, cursor: Option<&Cursor>) -> Result<Response, DirectoryError> {
        let (path, query) = (endpoint.path(), endpoint.query(self.page_size, cursor));
        // However they are escaped, URL parsers take them for steps upwards: another resource would answer.
        if path.split('/').any(|segment| matches!(segment, "." | "..")) {
            return Err(unreadable_at(&endpoint.shown(), wire::Unreadable("its id cannot stand in a URL".to_owned())));
        }
        let response = self.send(endpoint, &path, &query).await?;
        if response.status != 401 || !self.tokens.reject(&response.token).await {
            return Ok(response);
        }
        debug!(path = endpoint.shown(), "token not accepted, asking for another");
        let response = self.send(endpoint, &path, &query).await?;
        if response.status == 401 {
            self.tokens.reject(&response.token).await;
        }
        Ok(response)
    }

    async fn send(
        &self,
        endpoint: &Endpoint<'_>,
        path: &str,
        query: &[(&'static str, String)],
    ) -> Result<Response, DirectoryError> {
        let shown = endpoint.shown();
        let mut url = self.api_url.clone();
        url.set_path(path);
        // Without a token no turn is taken from others …
        self.tokens.token().await?;
        // … whose permit is held until the body has been read: one request in flight.
        let permit = self.limiter.admit(endpoint.priority()).await;
        // A long wait outlives a token.
        let token = self.tokens.token().await?;
        let number = self.sent.fetch_add(1, Ordering::Relaxed) + 1;
        let begun = self.clock.elapsed();
        let client = self.transport.client();
        let request = client.get(url).query(query).bearer_auth(token.expose()).header("accept", "application/json");
        let answered = self.read(&shown, request).await;
        let status = answered.as_ref().map_or_else(|error| error.code().to_owned(), |(status, ..)| status.to_string());
        self.count(endpoint, status, self.clock.elapsed().saturating_sub(begun));
        let (status, headers, body) = answered?;
        drop(permit);
        if matches!(status, 200 | 403 | 404) {
            self.tokens.accepted();
        }
        let query = query.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&");
        let answer = Answer {
            number,
            path: if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") },
            request_id: headers::request_id(&headers),
            received_at: self.clock.now(),
        };
        Ok(Response { status, headers, body, answer, token })
    }

    async fn read(
        &self,
        path: &str,
        request: reqwest::RequestBuilder,
    ) -> Result<(u16, HeaderMap, Bytes), DirectoryError> {
        let broken = |source| self.broken(path, source);
        let mut response = request.send().await.map_err(broken)?;
        let status = response.status().as_u16();
        // What the headers ask for holds whatever becomes of the body.
        self.heed(status, response.headers());
        let mut body = BytesMut::new();
        let whole = loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() > MAX_BODY_BYTES => {
                    self.transport.renew();
                    return Err(DirectoryError::TooLarge { path: path.to_owned(), limit_bytes: MAX_BODY_BYTES });
                }
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => break Ok(()),
                Err(source) => break Err(broken(source)),
            }
        };
        match whole {
            Ok(()) => self.transport.held(),
            Err(error) if status == 200 => return Err(error),
            // A refusal is told by its status; of its body as much was read as came.
            Err(_) => {}
        }
        Ok((status, std::mem::take(response.headers_mut()), body.freeze()))
    }

    fn broken(&self, path: &str, source: reqwest::Error) -> DirectoryError {
        if source.is_connect() {
            self.transport.renew();
        } else {
            self.transport.broke();
        }
        let path = path.to_owned();
        if source.is_timeout() {
            return DirectoryError::TimedOut { path, limit: self.deadline };
        }
        DirectoryError::Unreachable { path, source: self.transport.failed(source) }
    }

    fn count(&self, endpoint: &Endpoint<'_>, status: String, took: Duration) {
        let (source, endpoint) = (self.org.clone(), endpoint.label());
        counter!(SOURCE_REQUESTS, label::SOURCE => source.clone(), label::ENDPOINT => endpoint, label::STATUS => status)
            .increment(1);
        histogram!(SOURCE_REQUEST_SECONDS, label::SOURCE => source, label::ENDPOINT => endpoint)
            .record(took.as_secs_f64());
    }

    /// Tells the budget before the next request can be admitted.
    fn heed(&self, status: u16, headers: &HeaderMap) {
        let retry_after = headers::retry_after(headers, self.clock.now());
        match (status, retry_after) {
            (429, wait) => self.limiter.throttled(wait.unwrap_or(USUAL_RETRY_AFTER)),
            (500.., Some(wait)) => self.limiter.hold(wait),
            _ => {}
        }
    }

    /// Returns the body of an answer with status 200, or says what the answer is instead.
    fn judge(
        &self,
        endpoint: &Endpoint<'_>,
        cursor: Option<&Cursor>,
        response: Response,
    ) -> Result<(Bytes, Answer), DirectoryError> {
        let Response { status, headers, body, answer, token } = response;
        if status == 200 {
            return Ok((body, answer));
        }
        let problems = wire::problems(&body);
        let apples = problems.is_some();
        let cursor_named = problems.iter().flatten().any(|problem| problem.cursor);
        let (code, detail) = problems.into_iter().flatten().next().map(|it| (it.code, it.detail)).unwrap_or_default();
        let detail = endpoint.without_id(&detail.replace(token.expose(), "…"));
        let detail = escaped(&detail.chars().take(MAX_DETAIL).collect::<String>()).to_string().into();
        let refusal = Refusal { path: endpoint.shown(), status, code, detail, request_id: answer.request_id };
        let retry_after = headers::retry_after(&headers, self.clock.now());
        Err(match status {
            300..400 => DirectoryError::Redirected { path: refusal.path, to: links::target(&self.api_url, &headers) },
            400 | 410 if cursor.is_some() && (cursor_named || status == 410) => {
                DirectoryError::CursorRefused { why: "Apple answered with an error", refusal }
            }
            401 => DirectoryError::Unauthorized(refusal),
            // Only Apple's own word is evidence: a gateway on the way may say 403 and 404 as well.
            403 if apples => DirectoryError::Forbidden(refusal),
            404 if apples => DirectoryError::NotFound(refusal),
            403 | 404 => DirectoryError::Unreadable {
                path: refusal.path,
                why: format!("it is a {status} without Apple's error document"),
            },
            429 => DirectoryError::RateLimited { retry_after: retry_after.unwrap_or(USUAL_RETRY_AFTER), refusal },
            408 | 500.. => DirectoryError::Failing { retry_after, refusal },
            _ => DirectoryError::Refused(refusal),
        })
    }

    async fn list<T>(
        &self,
        endpoint: Endpoint<'_>,
        cursor: Option<&Cursor>,
        read: impl FnOnce(&[u8], &str) -> Result<wire::List<T>, wire::Unreadable>,
    ) -> Result<PageOf<T>, DirectoryError> {
        let path = endpoint.path();
        let response = self.get(&endpoint, cursor).await?;
        let (body, answer) = self.judge(&endpoint, cursor, response)?;
        let list = read(&body, &self.org).map_err(|unreadable| unreadable_at(&path, unreadable))?;
        let wire::List { items, rejected, next, total } = list;
        let next = self.next(&path, next)?;
        let loops = next.is_some() && next.as_ref() == cursor;
        let hollow = next.is_some() && items.is_empty() && rejected.is_empty();
        if loops || hollow {
            let why = if loops { "the page leads to itself" } else { "the page is empty and yet has a next one" };
            let refusal = Refusal { path, status: 200, request_id: answer.request_id, ..Refusal::default() };
            return Err(DirectoryError::CursorRefused { why, refusal });
        }
        Ok(PageOf { items, rejected, next, total, answer })
    }

    fn next(&self, path: &str, next: Next) -> Result<Option<Cursor>, DirectoryError> {
        let Next::At { cursor, link } = next else { return Ok(None) };
        let in_link = match &link {
            Some(link) => links::cursor(&self.api_url, path, link)?,
            None => None,
        };
        let unusable = || unreadable_at(path, wire::Unreadable("its next page has no usable cursor".to_owned()));
        cursor.or(in_link).and_then(Cursor::new).ok_or_else(unusable).map(Some)
    }
}

fn unreadable_at(path: &str, unreadable: wire::Unreadable) -> DirectoryError {
    DirectoryError::Unreadable { path: path.to_owned(), why: unreadable.0 }
}

/// What Windfall reads of an organization: its devices, its management services and who is assigned to which.
///
/// Every method of these waits until the organization's budget admits its request, sends one, and reads the answer to its end.
impl AppleDirectory {
    /// Fetches one page of the listing; `None` asks for the first.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub async fn page(&self, cursor: Option<&Cursor>) -> Result<Page, DirectoryError> {
        self.list(Endpoint::Devices, cursor, wire::devices).await
    }

    /// Looks up one device by Apple's id, released or not.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub async fn device(&self, id: &DeviceId) -> Result<Lookup, DirectoryError> {
        let endpoint = Endpoint::Device(id);
        let path = endpoint.shown();
        let response = self.get(&endpoint, None).await?;
        if response.says_not_found() {
            return Ok(Lookup::NotFound { answer: response.answer });
        }
        let answer = response.answer.clone();
        let body = match self.judge(&endpoint, None, response) {
            Ok((body, _)) => body,
            Err(DirectoryError::Forbidden(refusal)) => return Ok(Lookup::Forbidden { refusal, answer }),
            Err(error) => return Err(error),
        };
        let single = wire::single_device(&body, &self.org);
        let (device, unread) = single.map_err(|unreadable| unreadable_at(&path, unreadable))?;
        if device.device_id != id.as_str() {
            return Err(unreadable_at(&path, wire::Unreadable("it is about another device".to_owned())));
        }
        Ok(Lookup::Found { device, unread, answer })
    }

    /// Fetches one page of the management services; `None` asks for the first.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub async fn servers(&self, cursor: Option<&Cursor>) -> Result<ServerList, DirectoryError> {
        self.list(Endpoint::Servers, cursor, wire::servers).await
    }

    /// Fetches one page of the devices that are assigned to a management service; `None` asks for the first.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub async fn linkage(&self, server_id: &str, cursor: Option<&Cursor>) -> Result<Linkage, DirectoryError> {
        self.list(Endpoint::Linkage(server_id), cursor, |body, _| wire::linkage(body)).await
    }

    /// Reads which management service one device is assigned to.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub async fn assigned_server(&self, id: &DeviceId) -> Result<AssignedServer, DirectoryError> {
        let endpoint = Endpoint::AssignedServer(id);
        let path = endpoint.shown();
        let response = self.get(&endpoint, None).await?;
        if response.says_not_found() {
            return Ok(AssignedServer { server_id: None, answer: response.answer });
        }
        let (body, answer) = self.judge(&endpoint, None, response)?;
        let server_id = wire::to_one(&body).map_err(|unreadable| unreadable_at(&path, unreadable))?;
        Ok(AssignedServer { server_id, answer })
    }

    /// Returns what must be made durable before the next request is sent, if it is not yet.
    ///
    /// The next request may wait for a `Retry-After`, or ask for a token: both must outlive a crash. Whoever sends requests
    /// writes this into the part `limiter` of `abm.scans` first, then says [`AppleDirectory::saved`].
    pub fn unsaved(&self) -> Option<LimiterState> {
        self.tokens.reserve();
        let state = self.state();
        let saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        // The pace recovers by itself and need not be written each time.
        let same = LimiterState { requests: saved.requests, ..state.clone() } == *saved;
        (!same).then_some(state)
    }

    /// Notes that `state` is durable.
    pub fn saved(&self, state: &LimiterState) {
        self.saved.lock().unwrap_or_else(PoisonError::into_inner).clone_from(state);
    }

    /// Heeds what another process may have written since this one last worked: its waits, its pace and its token requests.
    ///
    /// Called at each take-over but the first. Nothing is sent within one period from now.
    pub fn merge(&self, state: &LimiterState) {
        let merged = self.state().merge(state);
        self.limiter.take_over_again(&merged);
        self.tokens.take_over_again(&merged);
        self.saved(state);
    }

    /// Tells how fast requests are let through now, and what the next one waits for.
    pub fn pace(&self) -> Pace {
        self.limiter.pace()
    }
}
