//! The small server for people's and machines' questions: health, readiness, metrics, status.

pub mod route;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::diagnose::{Diagnose, Diagnosis, Kind};
use crate::health::StatusRegistry;
use route::loopback_host;

/// What the server shows.
#[derive(Clone)]
pub struct Shown {
    /// The status registry.
    pub status: StatusRegistry,
    /// The metrics; none where no recorder is installed.
    pub metrics: Option<PrometheusHandle>,
}

/// Why the server cannot be started.
#[derive(Debug, thiserror::Error)]
#[error("could not listen on `{address}`")]
pub struct ListenError {
    /// The address.
    pub address: String,
    /// Why.
    #[source]
    pub source: std::io::Error,
}

impl Diagnose for ListenError {
    fn diagnosis(&self) -> Diagnosis {
        Kind::Refused.help(
            "choose another address in `http.listen`, or `--http ADDR` for a second process on this host, or `--http off`",
        )
    }
}

/// Binds `address` and returns the address that was bound (port 0 takes a free one) with the socket.
///
/// # Errors
/// When the address is taken or not ours.
pub async fn bind(address: &str) -> Result<(SocketAddr, TcpListener), ListenError> {
    let failed = |source| ListenError { address: address.to_owned(), source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((bound, listener))
}

/// Serves until `stop` is cancelled; a socket that breaks ends it early.
///
/// # Errors
/// When the socket fails.
pub async fn serve(listener: TcpListener, shown: Shown, stop: CancellationToken) -> std::io::Result<()> {
    let loopback = listener.local_addr()?.ip().is_loopback();
    axum::serve(listener, router(shown, loopback)).with_graceful_shutdown(stop.cancelled_owned()).await
}

/// Makes the routes; with `loopback` a request whose `Host` is not this machine is refused, since a page in a browser
/// can point a name of its own at 127.0.0.1.
pub fn router(shown: Shown, loopback: bool) -> Router {
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route("/ping", get(healthz))
        .route("/health", get(healthz))
        .route("/readyz", get(readyz))
        .route("/ready", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .route("/version", get(version))
        .fallback(unknown)
        .with_state(Arc::new(shown));
    if loopback { router.layer(middleware::from_fn(local_host_only)) } else { router }
}

type Shared = State<Arc<Shown>>;

async fn healthz(State(shown): Shared) -> Response {
    let draining = shown.status.draining();
    let code = if draining { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (code, Json(json!({ "ok": !draining, "draining": draining }))).into_response()
}

async fn readyz(State(shown): Shared) -> Response {
    let snapshot = shown.status.snapshot();
    let code = if snapshot.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let parts: serde_json::Map<_, _> = snapshot
        .parts
        .iter()
        .map(|(name, part)| {
            let line =
                json!({ "ready": part.ready, "state": part.state, "silent_s": part.silent_s, "limit_s": part.limit_s });
            (name.clone(), line)
        })
        .collect();
    (code, Json(json!({ "ready": snapshot.ready, "draining": snapshot.draining, "parts": parts }))).into_response()
}

async fn metrics(State(shown): Shared) -> Response {
    let text = shown.metrics.as_ref().map(PrometheusHandle::render).unwrap_or_default();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

async fn status(State(shown): Shared) -> Response {
    Json(shown.status.snapshot()).into_response()
}

async fn version() -> Response {
    Json(json!({ "name": "windfall", "version": env!("CARGO_PKG_VERSION") })).into_response()
}

async fn unknown() -> Response {
    let routes = ["/healthz", "/readyz", "/metrics", "/status", "/version"];
    (StatusCode::NOT_FOUND, Json(json!({ "error": "no such page", "pages": routes }))).into_response()
}

pub(crate) async fn local_host_only(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    if host.is_none_or(names_this_machine) {
        return next.run(request).await;
    }
    (StatusCode::FORBIDDEN, Json(json!({ "error": "the Host header does not name this machine" }))).into_response()
}

/// Returns whether a `Host` header names the loopback interface.
fn names_this_machine(host: &str) -> bool {
    host.parse::<Authority>().is_ok_and(|authority| loopback_host(authority.host()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::SystemClock;

    async fn served(status: StatusRegistry) -> (String, CancellationToken) {
        let (address, listener) = bind("127.0.0.1:0").await.unwrap();
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, Shown { status, metrics: None }, stop.clone()));
        (format!("http://{address}"), stop)
    }

    async fn code(url: &str, host: Option<&str>) -> u16 {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client.get(url);
        let request = match host {
            Some(host) => request.header("host", host),
            None => request,
        };
        request.send().await.unwrap().status().as_u16()
    }

    #[tokio::test]
    async fn a_process_is_healthy_while_it_lives_and_ready_while_it_makes_progress() {
        let status = StatusRegistry::new("a", SystemClock::shared());
        let (url, _stop) = served(status.clone()).await;
        let part = status.part("sink assets", Duration::from_secs(60));
        assert_eq!(code(&format!("{url}/healthz"), None).await, 200);
        assert_eq!(code(&format!("{url}/readyz"), None).await, 503, "it starts");
        part.progress();
        for page in ["readyz", "ready", "health", "ping", "metrics", "status", "version"] {
            assert_eq!(code(&format!("{url}/{page}"), None).await, 200, "{page}");
        }
        status.drain();
        assert_eq!(code(&format!("{url}/healthz"), None).await, 503, "it stops");
        assert_eq!(code(&format!("{url}/readyz"), None).await, 503);
    }

    #[tokio::test]
    async fn a_page_of_another_name_is_not_served_on_loopback() {
        let (url, _stop) = served(StatusRegistry::new("a", SystemClock::shared())).await;
        assert_eq!(code(&format!("{url}/status"), Some("evil.example")).await, 403);
        assert_eq!(code(&format!("{url}/status"), Some("localhost:1")).await, 200);
    }

    #[tokio::test]
    async fn an_address_that_is_taken_is_named_with_the_remedy() {
        let (address, _listener) = bind("127.0.0.1:0").await.unwrap();
        let error = bind(&address.to_string()).await.unwrap_err();
        assert_eq!(error.to_string(), format!("could not listen on `{address}`"));
        assert!(error.help().unwrap().contains("--http"));
    }

    #[test]
    fn only_names_of_this_machine_pass() {
        for host in ["localhost", "LOCALHOST:9644", "127.0.0.1:9644", "[::1]:9644", "127.8.8.8"] {
            assert!(names_this_machine(host), "{host}");
        }
        for host in
            ["evil.example", "evil.example:9644", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1", ""]
        {
            assert!(!names_this_machine(host), "{host}");
        }
    }
}
