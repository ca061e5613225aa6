//! An answer before it is sent: its content, how it is sent, and its journal record.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::fault::RetryAfter;
use crate::journal::Response;

/// A request as the API sees it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) accept: Option<String>,
    pub(crate) authorization: Option<String>,
    /// Origin of the links in the answer: the host that the client used.
    pub(crate) base: String,
    /// Body of a token request.
    pub(crate) form: String,
}

/// How an answer leaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Delivery {
    /// Whole.
    Whole,
    /// The connection is reset after so many bytes of the body; before the head when there are none.
    Reset(Option<usize>),
    /// Nothing leaves until the client goes.
    Hang,
    /// So many bytes a second.
    Drip(usize),
    /// With so many bytes of white space in front.
    Padded(u64),
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) delivery: Delivery,
    pub(crate) delay: Option<Duration>,
    /// Seconds by which the header `Date` is wrong.
    pub(crate) date_error: i64,
    pub(crate) record: Response,
}

impl Answer {
    /// Makes a JSON answer.
    pub(crate) fn json(status: u16, body: impl Into<Vec<u8>>, record: Response) -> Self {
        Self {
            status,
            headers: vec![("content-type", "application/json".to_owned())],
            body: body.into(),
            delivery: Delivery::Whole,
            delay: None,
            date_error: 0,
            record: Response { status: Some(status), readable: true, ..record },
        }
    }

    /// Makes an HTML answer, as front servers give it.
    pub(crate) fn html(status: u16, record: Response) -> Self {
        let mut answer = Self::json(status, crate::problem::html(status), record);
        answer.headers = vec![("content-type", "text/html".to_owned())];
        answer.record.readable = false;
        answer
    }

    /// Adds the header `Retry-After` and notes until when it asks to wait.
    pub(crate) fn retry_after(mut self, wait: &RetryAfter, wall: DateTime<Utc>) -> Self {
        let until = |seconds: u32| wall + chrono::Duration::seconds(i64::from(seconds));
        let (text, until) = match wait {
            RetryAfter::Missing => return self,
            RetryAfter::Seconds(seconds) => (seconds.to_string(), Some(until(*seconds))),
            RetryAfter::Date(seconds) => (http_date(until(*seconds)), Some(until(*seconds))),
            RetryAfter::Garbage => ("soon, please".to_owned(), None),
        };
        self.headers.push(("retry-after", text.clone()));
        self.record.retry_after = Some(text);
        self.record.retry_until = until;
        self
    }
}

/// Writes a moment as HTTP headers do.
pub(crate) fn http_date(at: DateTime<Utc>) -> String {
    at.format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}
