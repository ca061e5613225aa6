//! What the map reads of a change event: any table's envelope, without its before-image.

use std::fmt;

use serde::Deserialize;
use serde::de::{Error as _, MapAccess, Visitor};

use crate::mapping::decoded::{DecodedRow, Skipped};

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

impl<'de> Deserialize<'de> for SourceEvent {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EventVisitor)
    }
}

/// The fields of an envelope that are read.
#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum EventPart {
    After,
    Source,
    Op,
    Kind,
    EventId,
    Fingerprint,
    #[serde(other)]
    Other,
}

struct EventVisitor;

impl<'de> Visitor<'de> for EventVisitor {
    type Value = SourceEvent;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an envelope")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SourceEvent, A::Error> {
        let (mut after, mut source, mut op) = (None, None, None);
        let (mut kind, mut event_id, mut fingerprint) = (None, None, None);
        while let Some(part) = map.next_key()? {
            match part {
                EventPart::After => after = map.next_value()?,
                EventPart::Source => source = Some(map.next_value::<Origin>()?),
                EventPart::Op => op = Some(map.next_value()?),
                EventPart::Kind => kind = map.next_value()?,
                EventPart::EventId => event_id = map.next_value()?,
                EventPart::Fingerprint => fingerprint = map.next_value()?,
                EventPart::Other => {
                    map.next_value::<Skipped>()?;
                }
            }
        }
        let Origin { ts_ms, org } = source.ok_or_else(|| A::Error::missing_field("source"))?;
        let op = op.ok_or_else(|| A::Error::missing_field("op"))?;
        Ok(SourceEvent { after, ts_ms, org, op, kind, event_id, fingerprint })
    }
}

/// What the map reads of an event's `source`.
struct Origin {
    ts_ms: i64,
    org: String,
}

/// The fields of it that are read.
#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum OriginPart {
    TsMs,
    Db,
    #[serde(other)]
    Other,
}

impl<'de> Deserialize<'de> for Origin {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OriginVisitor;
        impl<'de> Visitor<'de> for OriginVisitor {
            type Value = Origin;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the source of an envelope")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Origin, A::Error> {
                let (mut ts_ms, mut org) = (None, None);
                while let Some(part) = map.next_key()? {
                    match part {
                        OriginPart::TsMs => ts_ms = Some(map.next_value()?),
                        OriginPart::Db => org = Some(map.next_value()?),
                        OriginPart::Other => {
                            map.next_value::<Skipped>()?;
                        }
                    }
                }
                let ts_ms = ts_ms.ok_or_else(|| A::Error::missing_field("ts_ms"))?;
                Ok(Origin { ts_ms, org: org.ok_or_else(|| A::Error::missing_field("db"))? })
            }
        }
        deserializer.deserialize_any(OriginVisitor)
    }
}
