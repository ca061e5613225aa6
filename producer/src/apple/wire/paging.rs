//! Where a list goes on.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

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
        let value = Value::deserialize(deserializer)?;
        // A link is a text, or in JSON:API's other form an object with `href`.
        let next = &value["next"];
        Ok(Self { next: text(next).or_else(|| text(&next["href"])) })
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
        let value = Value::deserialize(deserializer)?;
        let paging = &value["paging"];
        let total = &paging["total"];
        let total = total.as_u64().or_else(|| total.as_str().and_then(|text| text.parse().ok()));
        Ok(Self { next: text(&paging["nextCursor"]), total })
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}
