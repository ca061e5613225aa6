//! The server: requests in, answers out, and the ways in which connections break.

mod body;
mod control;
mod socket;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::any;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::answer::{Answer, Asked, Delivery};
use crate::handle::Handle;
use body::Sending;
use socket::{Breaker, Socket};

/// Largest form of a token request; a fleet's API takes no other bodies.
const LARGEST_FORM: usize = 64 * 1024;

#[derive(Clone)]
struct Api {
    handle: Handle,
    stop: CancellationToken,
}

/// Serves until `stop` is cancelled.
pub(crate) async fn serve(listener: TcpListener, handle: Handle, control: bool, stop: CancellationToken) {
    let api = Api { handle: handle.clone(), stop: stop.clone() };
    let mut router = Router::new().fallback(any(answer)).with_state(api);
    if control {
        router = router.nest("/_sim", control::routes(handle));
    }
    let service = router.into_make_service_with_connect_info::<Breaker>();
    let served = axum::serve(Socket::listen(listener), service).with_graceful_shutdown(stop.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!(%error, "simulator stopped serving");
    }
}

async fn answer(State(api): State<Api>, ConnectInfo(breaker): ConnectInfo<Breaker>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let form = match axum::body::to_bytes(body, LARGEST_FORM).await {
        Ok(form) => form,
        Err(_) => return plain(StatusCode::PAYLOAD_TOO_LARGE),
    };
    let asked = asked(&parts.method, &parts.uri, &parts.headers, &form);
    let answer = api.handle.answer(&asked);
    tracing::debug!(method = %parts.method, path = parts.uri.path(), status = ?answer.record.status, "answered");
    deliver(answer, &api, breaker).await
}

fn asked(method: &axum::http::Method, uri: &axum::http::Uri, headers: &HeaderMap, form: &Bytes) -> Asked {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let host = text(header::HOST).unwrap_or_else(|| "localhost".to_owned());
    Asked {
        method: method.to_string(),
        path: uri.path().to_owned(),
        query: uri.query().unwrap_or_default().to_owned(),
        accept: text(header::ACCEPT),
        authorization: text(header::AUTHORIZATION),
        base: format!("http://{host}"),
        form: if is_form(headers) { String::from_utf8_lossy(form).into_owned() } else { String::new() },
    }
}

/// Apple reads the parameters of a token request out of a form, and of nothing else.
fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded"))
}

async fn deliver(answer: Answer, api: &Api, breaker: Breaker) -> Response {
    let Answer { status, headers, body, delivery, delay, date_error: _, record } = answer;
    // From here on the journal gets its line, whatever becomes of the client.
    let sending = Sending::new(record, api.handle.clone());
    if let Some(delay) = delay {
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = api.stop.cancelled() => {}
        }
    }
    let length = body.len();
    let body = match delivery {
        Delivery::Whole => body::whole(body, sending),
        Delivery::Drip(bytes) => body::drip(body, bytes, sending, api.stop.clone()),
        Delivery::Padded(spaces) => body::padded(body, spaces, sending),
        Delivery::Reset(Some(at)) => body::reset(body, at, sending, breaker),
        Delivery::Reset(None) => {
            breaker.trip();
            drop(sending);
            Body::empty()
        }
        Delivery::Hang => {
            api.stop.cancelled().await;
            breaker.trip();
            drop(sending);
            Body::empty()
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    if matches!(delivery, Delivery::Whole | Delivery::Drip(_) | Delivery::Reset(Some(_))) {
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    response
}

fn plain(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
