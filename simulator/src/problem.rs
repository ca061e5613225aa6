//! Error documents, as Apple writes them.

use serde_json::{Value, json};

/// An answer that refuses a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) status: u16,
    pub(crate) code: &'static str,
    pub(crate) title: &'static str,
    pub(crate) detail: String,
    /// The parameter that is to blame.
    pub(crate) parameter: Option<String>,
    /// Seconds to wait, for the header `Retry-After`.
    pub(crate) retry_after: Option<u32>,
}

impl Problem {
    fn new(status: u16, code: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, title, detail: detail.into(), parameter: None, retry_after: None }
    }

    /// 400 for a parameter.
    pub(crate) fn parameter(name: &str, detail: impl Into<String>) -> Self {
        let title = "A parameter has an invalid value";
        Self { parameter: Some(name.to_owned()), ..Self::new(400, "PARAMETER_ERROR.INVALID", title, detail) }
    }

    /// 400 for a parameter that the resource does not know.
    pub(crate) fn illegal(name: &str) -> Self {
        let detail = format!("The parameter '{name}' can not be used with this request");
        let title = "A parameter is not allowed";
        Self { parameter: Some(name.to_owned()), ..Self::new(400, "PARAMETER_ERROR.ILLEGAL", title, detail) }
    }

    /// 401.
    pub(crate) fn unauthorized(detail: &str) -> Self {
        Self::new(401, "NOT_AUTHORIZED", "Authentication credentials are missing or invalid", detail)
    }

    /// 403.
    pub(crate) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(403, "FORBIDDEN_ERROR", "The given operation is not allowed", detail)
    }

    /// 404 for a resource that is not there.
    pub(crate) fn missing(kind: &str, id: &str) -> Self {
        let detail = format!("There is no resource of type '{kind}' with id '{id}'");
        Self::new(404, "NOT_FOUND", "The specified resource doesn't exist", detail)
    }

    /// 404 for a path that leads nowhere.
    pub(crate) fn nowhere(path: &str) -> Self {
        let detail = format!("The path provided does not match a defined resource type: '{path}'");
        Self::new(404, "NOT_FOUND", "The specified resource doesn't exist", detail)
    }

    /// 406.
    pub(crate) fn not_acceptable() -> Self {
        Self::new(406, "NOT_ACCEPTABLE", "The media type is not available", "Send 'Accept: application/json'")
    }

    /// 429.
    pub(crate) fn limited(retry_after: Option<u32>) -> Self {
        let title = "The request rate limit has been reached";
        Self { retry_after, ..Self::new(429, "RATE_LIMIT_EXCEEDED", title, "Too many requests; wait and try again") }
    }

    /// Any status, as a fault plays it.
    pub(crate) fn of_status(status: u16) -> Self {
        match status {
            401 => Self::unauthorized("The access token has expired"),
            403 => Self::forbidden("The API account lacks the permission for this resource"),
            404 => Self::new(404, "NOT_FOUND", "The specified resource doesn't exist", "Nothing is here"),
            429 => Self::limited(None),
            500..=599 => Self::new(
                status,
                "UNEXPECTED_ERROR",
                "An unexpected error occurred",
                "An unexpected error occurred on the server side",
            ),
            _ => Self::new(status, "PARAMETER_ERROR", "The request could not be handled", "The request was refused"),
        }
    }

    /// Writes the error document; `id` names the occurrence.
    pub(crate) fn document(&self, id: &str) -> Value {
        let Self { status, code, title, detail, parameter, retry_after: _ } = self;
        let mut error = json!({
            "id": id, "status": status.to_string(), "code": code, "title": title, "detail": detail,
        });
        if let Some(parameter) = parameter {
            error["source"] = json!({ "parameter": parameter });
        }
        json!({ "errors": [error] })
    }
}

/// A page of a front server that is not Apple's API.
pub(crate) fn html(status: u16) -> String {
    format!(
        "<!DOCTYPE html>\n<html><head><title>{status}</title></head>\
         <body><center><h1>{status}</h1></center><hr><center>Apple</center></body></html>\n"
    )
}
