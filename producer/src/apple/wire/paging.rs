//! Where a list goes on.

use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

use super::attributes::empty;

/// Where the next page begins, as the document says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nowhere: this is the last page.
    End,
    /// At a cursor, a link or both; a link is looked at even when it is not followed.
    At { cursor: Option<String>, link: Option<String> },
}

impl Next {
    pub(super) fn of(cursor: Option<String>, link: Option<String>) -> Self {
        match (cursor, link) {
            (None, None) => Next::End,
            (cursor, link) => Next::At { cursor, link },
        }
    }
}

/// `links` of a list document.
#[derive(Debug, Default)]
pub(super) struct Links {
    pub(super) next: Option<String>,
}

impl<'de> Deserialize<'de> for Links {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let links = Value::deserialize(deserializer)?;
        // A link is a text, or in JSON:API's other form an object with `href`.
        let next = match &links["next"] {
            Value::Object(link) => link.get("href").filter(|href| !empty(href)).unwrap_or(&links["next"]),
            next => next,
        };
        Ok(Self { next: text("links", &links, next)? })
    }
}

/// `meta.paging` of a list document.
#[derive(Debug, Default)]
pub(super) struct Meta {
    pub(super) next: Option<String>,
    pub(super) total: Option<u64>,
}

impl<'de> Deserialize<'de> for Meta {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let meta = Value::deserialize(deserializer)?;
        let paging = &meta["paging"];
        let total = &paging["total"];
        let total = total.as_u64().or_else(|| total.as_str().and_then(|text| text.parse().ok()));
        Ok(Self { next: text("meta", &meta, &paging["nextCursor"])?, total })
    }
}

/// Takes what leads to the next page. A form that is not known is no last page: the list goes on somewhere.
fn text<E: de::Error>(name: &str, member: &Value, next: &Value) -> Result<Option<String>, E> {
    match next {
        Value::String(text) if !text.is_empty() => Ok(Some(text.clone())),
        next if empty(next) && (member.is_object() || empty(member)) => Ok(None),
        _ => Err(E::custom(format_args!("`{name}` leads to the next page in a form that is not known"))),
    }
}
