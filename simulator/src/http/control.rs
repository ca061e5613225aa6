//! `/_sim`: what a test in another process reads and drives.
//!
//! | route | does |
//! | --- | --- |
//! | `GET /_sim/health` | 200 while it serves |
//! | `GET /_sim/truth` | everything as it is, the type [`crate::Truth`]; `?journal=true` writes it into the journal too |
//! | `GET /_sim/faults` | each rule of the fault script with how often it has played |
//! | `POST /_sim/faults` | adds rules: the script is the body |
//! | `DELETE /_sim/faults` | lifts all faults |
//! | `POST /_sim/command` | a [`crate::Command`] as JSON, `?org=alias` for another organization than the first; answers `{"changes": […]}`, the true changes that it made, of the type [`crate::journal::Change`] |

use std::collections::HashMap;

use axum::Router;
use axum::extract::{Json, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::json;

use crate::command::Command;
use crate::handle::Handle;
use crate::journal::Truth;

/// Returns the routes below `/_sim`.
pub(crate) fn routes(handle: Handle) -> Router {
    Router::new()
        .route(
            "/health",
            get(|State(handle): State<Handle>| async move {
                Json(json!({ "status": "ok", "devices": handle.live_devices(), "at": handle.now() }))
            }),
        )
        .route("/truth", get(truth))
        .route("/faults", get(faults).post(add_faults).delete(clear_faults))
        .route("/command", post(command))
        .with_state(handle)
}

async fn truth(State(handle): State<Handle>, Query(query): Query<HashMap<String, String>>) -> Json<Truth> {
    let journal = query.get("journal").is_some_and(|value| value == "true");
    Json(if journal { handle.journal_truth() } else { handle.truth() })
}

async fn faults(State(handle): State<Handle>) -> Json<serde_json::Value> {
    let played = handle.faults_played().into_iter();
    Json(played.map(|(rule, played)| json!({ "rule": rule, "played": played })).collect())
}

async fn add_faults(State(handle): State<Handle>, script: String) -> Response {
    match handle.add_faults(&script) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => refuse(&error),
    }
}

async fn clear_faults(State(handle): State<Handle>) -> StatusCode {
    handle.clear_faults();
    StatusCode::NO_CONTENT
}

async fn command(
    State(handle): State<Handle>,
    Query(query): Query<HashMap<String, String>>,
    Json(command): Json<Command>,
) -> Response {
    match handle.command_in(query.get("org").map(String::as_str), command) {
        Ok(changes) => Json(json!({ "changes": changes })).into_response(),
        Err(error) => refuse(&error),
    }
}

fn refuse(error: &dyn std::error::Error) -> Response {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let text: Vec<String> = causes.map(ToString::to_string).collect();
    (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({ "error": text.join(": ") }))).into_response()
}
