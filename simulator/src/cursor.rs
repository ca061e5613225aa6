//! The opaque text that leads to the next page.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::draw;

/// Where a chain of pages goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cursor {
    /// The list that it belongs to.
    pub(crate) list: u64,
    /// The place in the list to go on at.
    pub(crate) position: u32,
    /// Number of the page that it leads to, from 2.
    pub(crate) page: u32,
    /// Wall time at which it was given out.
    pub(crate) issued: i64,
    /// Page size of the request that it came from.
    pub(crate) limit: u32,
    /// Fields of the request that it came from: a chain belongs to its query.
    pub(crate) fields: Option<Vec<String>>,
}

impl Cursor {
    /// Returns the number of the list at `path` of an organization.
    pub(crate) fn list(org: &str, path: &str) -> u64 {
        draw::mix(draw::text(org), &[draw::text(path)])
    }

    /// Writes the cursor.
    pub(crate) fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// Reads a cursor; `None` when this is none of ours.
    pub(crate) fn decode(text: &str) -> Option<Self> {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
    }

    /// Tells whether the cursor still leads anywhere.
    pub(crate) fn lives(&self, now: DateTime<Utc>, ttl: std::time::Duration, not_before: DateTime<Utc>) -> bool {
        let age = now.timestamp_millis() - self.issued;
        self.issued >= not_before.timestamp_millis() && age <= i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_cursor_comes_back_as_it_went(
            (list, position, page, issued, limit) in any::<(u64, u32, u32, i64, u32)>(),
            fields in proptest::option::of(proptest::collection::vec("[a-zA-Z]{1,12}", 1..5)),
        ) {
            let cursor = Cursor { list, position, page, issued, limit, fields };
            prop_assert_eq!(Cursor::decode(&cursor.encode()), Some(cursor));
        }

        #[test]
        fn any_other_text_is_no_cursor(text in "[A-Za-z0-9_-]{0,40}") {
            prop_assert_eq!(Cursor::decode(&text), None);
        }
    }
}
