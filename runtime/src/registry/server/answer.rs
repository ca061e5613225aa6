//! What the registry answers, in Confluent's form.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tracing::warn;

use super::SIGN;
use crate::registry::error::RegistryError;
use crate::telemetry::chain;

const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/vnd.schemaregistry.v1+json");

/// A body with Confluent's content type and our sign.
pub(super) fn json(status: StatusCode, body: &Value) -> Response {
    let headers = [(header::CONTENT_TYPE.as_str(), CONTENT_TYPE), (SIGN, HeaderValue::from_static("1"))];
    (status, headers, body.to_string()).into_response()
}

pub(super) fn ok(body: &Value) -> Response {
    json(StatusCode::OK, body)
}

/// A problem, in Confluent's numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    status: StatusCode,
    code: u32,
    message: String,
}

impl Problem {
    fn new(status: StatusCode, code: u32, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    pub(super) fn no_route() -> Self {
        Self::new(StatusCode::NOT_FOUND, 404, "HTTP 404 Not Found")
    }

    pub(super) fn no_json() -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, 415, "HTTP 415 Unsupported Media Type")
    }

    pub(super) fn no_subject(subject: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, 40401, format!("Subject '{subject}' not found."))
    }

    pub(super) fn no_version(version: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, 40402, format!("Version {version} not found."))
    }

    pub(super) fn no_schema(named: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, 40403, format!("Schema {named} not found"))
    }

    pub(super) fn no_level(subject: &str) -> Self {
        let message = format!("Subject '{subject}' does not have subject-level compatibility configured");
        Self::new(StatusCode::NOT_FOUND, 40408, message)
    }

    pub(super) fn bad_version(version: &str) -> Self {
        let message = format!("The specified version '{version}' is not a valid version id.");
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, 42202, message)
    }

    pub(super) fn bad_level() -> Self {
        let message = "Invalid compatibility level. Valid values are none, backward, forward, full, \
                       backward_transitive, forward_transitive, and full_transitive";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, 42203, message)
    }

    pub(super) fn bad_body(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, 42201, reason)
    }
}

impl From<RegistryError> for Problem {
    fn from(error: RegistryError) -> Self {
        let broken = |message| Self::new(StatusCode::INTERNAL_SERVER_ERROR, 50001, message);
        match &error {
            RegistryError::Schema(_) => Self::bad_body(format!("Invalid schema: {}", chain(&error))),
            RegistryError::Incompatible { subject: _, reason } => {
                let message = format!("schema being registered is incompatible with an earlier schema: {reason}");
                Self::new(StatusCode::CONFLICT, 409, message)
            }
            RegistryError::WrongSchema { .. } => broken(error.to_string()),
            _ => {
                warn!(error = %chain(&error), "request to the schema registry failed");
                broken(format!("Error in the backend data store: {error}"))
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        json(self.status, &json!({ "error_code": self.code, "message": self.message }))
    }
}
