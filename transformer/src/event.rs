//! What the map reads of a change event: any table's envelope, without its image before the change.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeSeed, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use windfall_schemas::row::{RawValue, Skipped};

use crate::value::Value;

/// A change event of any source table.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceEvent {
    /// The record after the change.
    pub after: Option<DecodedRow>,
    /// Time of the resource.
    pub ts_ms: i64,
    /// The organization.
    pub org: String,
    /// c, u, d or r.
    pub op: String,
    /// What happened.
    pub kind: Option<String>,
    /// The same if the event is sent again.
    pub event_id: Option<String>,
    /// Hash of the after-image.
    pub fingerprint: Option<String>,
}

/// An envelope as it is on the wire. The fields that hold records are named so that they are read past.
#[derive(Deserialize)]
struct Envelope {
    #[serde(default, rename = "before")]
    _before: Skipped,
    after: Option<DecodedRow>,
    source: Source,
    op: String,
    #[serde(default, rename = "transaction")]
    _transaction: Skipped,
    kind: Option<String>,
    event_id: Option<String>,
    fingerprint: Option<String>,
}

#[derive(Deserialize)]
struct Source {
    ts_ms: i64,
    db: String,
}

impl<'de> Deserialize<'de> for SourceEvent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Envelope { after, source: Source { ts_ms, db: org }, op, kind, event_id, fingerprint, .. } =
            Envelope::deserialize(deserializer)?;
        Ok(Self { after, ts_ms, org, op, kind, event_id, fingerprint })
    }
}

/// A record as its writer's schema had it: names and values, whatever they are.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DecodedRow(pub Vec<(Arc<str>, Value)>);

thread_local! {
    /// The names that the last record of this thread had, by place: the next one's are nearly always the same.
    static NAMES: RefCell<Vec<Arc<str>>> = const { RefCell::new(Vec::new()) };
}

/// Returns the name of the field at `place`; it is allocated only where the last record had another one there.
fn kept(place: usize, name: &str) -> Arc<str> {
    NAMES.with_borrow_mut(|names| {
        if let Some(known) = names.get(place).filter(|known| ***known == *name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        let known = names.len();
        if place < known {
            names[place] = Arc::clone(&name);
        } else if place == known && place < MAX_NAMES {
            names.push(Arc::clone(&name));
        }
        name
    })
}

/// Names that are kept of a record; our widest tables have some fifty fields.
const MAX_NAMES: usize = 256;

impl<'de> Deserialize<'de> for DecodedRow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RowVisitor;
        impl<'de> Visitor<'de> for RowVisitor {
            type Value = DecodedRow;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a record")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<DecodedRow, A::Error> {
                let mut fields = Vec::with_capacity(map.size_hint().unwrap_or(40).min(MAX_NAMES));
                while let Some(name) = map.next_key_seed(NameAt(fields.len()))? {
                    fields.push((name, map.next_value::<RawValue>()?.into()));
                }
                Ok(DecodedRow(fields))
            }
        }
        deserializer.deserialize_any(RowVisitor)
    }
}

/// Reads the name of the field at this place; the Avro library gives names only to those who ask for an identifier.
struct NameAt(usize);

impl<'de> DeserializeSeed<'de> for NameAt {
    type Value = Arc<str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Arc<str>, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for NameAt {
    type Value = Arc<str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Arc<str>, E> {
        Ok(kept(self.0, name))
    }
}
