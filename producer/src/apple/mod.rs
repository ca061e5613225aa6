//! Apple's API: what can be asked of it, and what it answers.
//!
//! One method of [`client::AppleDirectory`] is one request. Waiting for the rate limit happens inside; a refusal comes back as a
//! [`DirectoryError`], whose diagnosis says whether, and when, the same request is worth sending again.
//! Nothing is retried behind the caller's back but a single 401, with a new token.

pub mod auth;
pub mod client;
mod connect;
mod endpoint;
mod error;
mod headers;
pub mod key;
pub mod limiter;
mod links;
mod paging;
pub mod transport;
pub mod wire;

use chrono::{DateTime, Utc};
use windfall_schemas::device::DeviceValue;
use windfall_schemas::identifiers::DeviceId;
use windfall_schemas::server::ServerValue;

pub use error::{DirectoryError, Refusal, Retry, TokenError};
pub use paging::{PagingError, Trail};

/// A place in a listing, as Apple names it: opaque, and good only for the same query.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cursor(String);

/// Longest cursor that is taken for one; Apple's samples have 40 to 60 characters.
const MAX_CURSOR_BYTES: usize = 4096;

impl Cursor {
    /// Takes a cursor from Apple, or from a checkpoint; `None` for an empty, an oversized or an unprintable one.
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        let good = !text.is_empty() && text.len() <= MAX_CURSOR_BYTES && !text.chars().any(char::is_control);
        good.then_some(Self(text))
    }

    /// Returns the text, for a checkpoint.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The circumstances of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Place of the request among all that this directory has sent, from 1.
    pub number: u64,
    /// Path and query of the request, without its origin.
    pub path: String,
    /// Apple's `X-Apple-Request-Uuid`.
    pub request_id: Option<String>,
    /// When the answer had been read, by our clock.
    pub received_at: DateTime<Utc>,
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct PageOf<T> {
    /// What could be read, in Apple's order.
    pub items: Vec<Item<T>>,
    /// What could not.
    pub rejected: Vec<Rejected>,
    /// Where the next page begins; `None` on the last one.
    pub next: Option<Cursor>,
    /// How many there are in all, where Apple says so.
    pub total: Option<u64>,
    /// The circumstances of the answer.
    pub answer: Answer,
}

/// One page of the devices.
pub type Page = PageOf<Box<DeviceValue>>;
/// One page of the management services.
pub type ServerList = PageOf<ServerValue>;
/// One page of the ids of the devices that are assigned to one management service.
pub type Linkage = PageOf<DeviceId>;

/// An item that could be read.
#[derive(Debug, Clone, PartialEq)]
pub struct Item<T> {
    /// Place on the page, from 0.
    pub index: usize,
    /// The item.
    pub value: T,
    /// Which of its fields were not read.
    pub unread: Unread,
}

/// The fields of a record whose attribute had a value that could not be understood: the record says nothing of them.
pub type Unread = Vec<&'static str>;

/// An item that never becomes a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Place on the page, from 0.
    pub index: usize,
    /// Its id, else its serial number; `None` means that nobody can say which device was seen.
    pub id: Option<String>,
    /// Short code: see `wire`.
    pub reason: &'static str,
    /// What is wrong with it, for people.
    pub message: String,
    /// The item as it came, cut to 256 KiB.
    pub raw: Vec<u8>,
}

/// What a single read says of a device.
#[derive(Debug, Clone, PartialEq)]
pub enum Lookup {
    /// 200. Whether it is released, its release date says; a released device has no management service.
    Found {
        /// The device.
        device: Box<DeviceValue>,
        /// Which of its fields were not read.
        unread: Unread,
        /// The circumstances of the answer.
        answer: Answer,
    },
    /// 404 with Apple's own error document. A 404 of any other shape is a [`DirectoryError`].
    NotFound {
        /// The circumstances of the answer.
        answer: Answer,
    },
    /// 403 with Apple's own error document: we may not read it, or it is none of ours any more.
    Forbidden {
        /// What Apple says.
        refusal: Refusal,
        /// The circumstances of the answer.
        answer: Answer,
    },
}

/// What a single read says of a device's management service.
#[derive(Debug, Clone, PartialEq)]
pub struct AssignedServer {
    /// The id of the service; `None` when there is none (or when Apple does not know the device).
    pub server_id: Option<String>,
    /// The circumstances of the answer.
    pub answer: Answer,
}
