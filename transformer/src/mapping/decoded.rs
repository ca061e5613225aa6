//! A record of a source table as it is read, whatever its writer's schema was.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};

use crate::value::Value;

/// A record as its writer's schema had it: names and values, whatever they are.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DecodedRow(pub Vec<(Arc<str>, Value)>);

thread_local! {
    /// The names that the last record of this thread had, by place: the next one's are nearly always the same.
    static NAMES: RefCell<Vec<Arc<str>>> = const { RefCell::new(Vec::new()) };
}

/// Makes the name at `place` one that can be kept.
fn kept(place: usize, name: &str) -> Arc<str> {
    NAMES.with_borrow_mut(|names| match names.get_mut(place) {
        Some(known) if **known == *name => Arc::clone(known),
        Some(known) => {
            *known = name.into();
            Arc::clone(known)
        }
        None => {
            let name: Arc<str> = name.into();
            if place == names.len() && place < MAX_NAMES {
                names.push(Arc::clone(&name));
            }
            name
        }
    })
}

/// Names that are kept of a record; our widest tables have some fifty fields.
const MAX_NAMES: usize = 256;

impl<'de> Deserialize<'de> for DecodedRow {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RowVisitor;
        impl<'de> Visitor<'de> for RowVisitor {
            type Value = DecodedRow;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a record")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<DecodedRow, A::Error> {
                let mut fields = Vec::with_capacity(map.size_hint().unwrap_or(40).min(MAX_NAMES));
                while let Some(name) = map.next_key_seed(NameAt(fields.len()))? {
                    let Decoded(value) = map.next_value()?;
                    fields.push((name, value));
                }
                Ok(DecodedRow(fields))
            }
        }
        deserializer.deserialize_any(RowVisitor)
    }
}

/// A value that is read over, whatever it is.
///
/// serde's `IgnoredAny` does not pass over a record: it asks for names in a way that the Avro reader refuses.
pub(crate) struct Skipped;

impl<'de> Deserialize<'de> for Skipped {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Skipped {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_none<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_some<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(deserializer)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self, A::Error> {
        while seq.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        while map.next_entry::<AnyName, Self>()?.is_some() {}
        Ok(self)
    }
}

/// A field's name at a place; the Avro reader gives it to who asks for an identifier, and to nobody else.
struct NameAt(usize);

impl<'de> DeserializeSeed<'de> for NameAt {
    type Value = Arc<str>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Arc<str>, D::Error> {
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

/// A name that is read over.
struct AnyName;

impl<'de> Deserialize<'de> for AnyName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_identifier(Self)
    }
}

impl Visitor<'_> for AnyName {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }
}

/// A value of a record, by what stands on the wire.
struct Decoded(Value);

impl<'de> Deserialize<'de> for Decoded {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DecodedVisitor)
    }
}

struct DecodedVisitor;

impl<'de> Visitor<'de> for DecodedVisitor {
    type Value = Decoded;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a scalar or a list of strings")
    }

    fn visit_unit<E>(self) -> Result<Decoded, E> {
        Ok(Decoded(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Decoded, E> {
        Ok(Decoded(Value::Null))
    }

    fn visit_some<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Decoded, D::Error> {
        Decoded::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Decoded, E> {
        Ok(Decoded(Value::Boolean(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Decoded, E> {
        Ok(Decoded(Value::Integer(value)))
    }

    fn visit_i32<E>(self, value: i32) -> Result<Decoded, E> {
        Ok(Decoded(Value::Integer(value.into())))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Decoded, E> {
        Ok(Decoded(i64::try_from(value).map_or(Value::Null, Value::Integer)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Decoded, E> {
        Ok(Decoded(if value.is_finite() { Value::Decimal(value) } else { Value::Null }))
    }

    fn visit_str<E>(self, value: &str) -> Result<Decoded, E> {
        Ok(Decoded(Value::Text(value.to_owned())))
    }

    fn visit_string<E>(self, value: String) -> Result<Decoded, E> {
        Ok(Decoded(Value::Text(value)))
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Decoded, E> {
        Ok(Decoded(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Decoded, A::Error> {
        let mut items = Vec::new();
        while let Some(Decoded(item)) = seq.next_element()? {
            if let Value::Text(text) = item {
                items.push(text);
            }
        }
        Ok(Decoded(Value::List(items)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Decoded, A::Error> {
        // A nested record: no mapping can name it, so it is read over.
        while map.next_entry::<AnyName, Skipped>()?.is_some() {}
        Ok(Decoded(Value::Null))
    }
}
