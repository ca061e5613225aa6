//! Fills structs from a document's tree, and tells which key or value could not be read.

use std::cell::RefCell;
use std::iter::Enumerate;
use std::slice::Iter;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Error;

use super::yaml::{At, Node, Place};

/// The name of the type whose visitor is given bytes, and not text, where a secret was put into the value.
pub(crate) const TEXT_OR_SECRET: &str = "$windfall::TextOrSecret";

/// The first key or value that could not be read.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) path: String,
    pub(super) place: Place,
    /// What stands there.
    pub(super) kind: &'static str,
}

pub(super) type Failed = RefCell<Option<Failure>>;

/// Reads one value.
pub(super) struct Filler<'de> {
    pub(super) node: &'de At<Node>,
    pub(super) path: String,
    pub(super) failed: &'de Failed,
}

/// Returns the path of a key in the map at `path`.
pub(super) fn path_of(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Hands a single value to the YAML reader, which knows what a text of YAML means for each type.
macro_rules! scalars {
    ($($method:ident)+) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match &self.node.value {
                Node::Scalar(scalar) => scalar.read(|reader| reader.$method(visitor)),
                _ => self.deserialize_any(visitor),
            }
        }
    )+};
}

impl<'de> Deserializer<'de> for Filler<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Node::Scalar(scalar) => scalar.read(|reader| reader.deserialize_any(visitor)),
            Node::List(items) => visitor.visit_seq(Items { left: items.iter().enumerate(), of: self }),
            Node::Map(entries) => visitor.visit_map(Entries { left: entries.iter(), value: None, of: self }),
            Node::LeftOut => visitor.visit_unit(),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.node.value.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Node::Scalar(scalar) if scalar.secret && name == TEXT_OR_SECRET => {
                visitor.visit_bytes(scalar.text.as_bytes())
            }
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match &self.node.value {
            Node::Scalar(scalar) => scalar.read(|reader| reader.deserialize_enum(name, variants, visitor)),
            _ => self.deserialize_any(visitor),
        }
    }

    scalars! {
        deserialize_bool deserialize_u16 deserialize_u32 deserialize_u64 deserialize_i64 deserialize_f64
        deserialize_str deserialize_string
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u128 f32 char bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier
        ignored_any
    }
}

fn note<T>(failed: &Failed, failure: impl FnOnce() -> Failure, read: Result<T, Error>) -> Result<T, Error> {
    // Where it failed further inside, that is noted already.
    read.inspect_err(|_| {
        failed.borrow_mut().get_or_insert_with(failure);
    })
}

fn fill<'de, S: DeserializeSeed<'de>>(
    seed: S,
    node: &'de At<Node>,
    path: String,
    failed: &'de Failed,
) -> Result<S::Value, Error> {
    let read = seed.deserialize(Filler { node, path: path.clone(), failed });
    note(failed, || Failure { path, place: node.place, kind: node.value.kind() }, read)
}

/// The items of a list, without those that were left out.
struct Items<'de> {
    left: Enumerate<Iter<'de, At<Node>>>,
    of: Filler<'de>,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        let item = self.left.find(|(_, item)| !matches!(item.value, Node::LeftOut));
        let filled = item.map(|(at, node)| fill(seed, node, format!("{}[{at}]", self.of.path), self.of.failed));
        filled.transpose()
    }
}

/// The entries of a map, without those that were left out.
struct Entries<'de> {
    left: Iter<'de, (At<String>, At<Node>)>,
    /// The value of the last key.
    value: Option<(String, &'de At<Node>)>,
    of: Filler<'de>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        let entry = self.left.find(|(_, node)| !matches!(node.value, Node::LeftOut));
        let Some((key, node)) = entry else { return Ok(None) };
        let (path, _) = self.value.insert((path_of(&self.of.path, &key.value), node));
        let read = seed.deserialize(key.value.as_str().into_deserializer());
        note(self.of.failed, || Failure { path: path.clone(), place: key.place, kind: "a key" }, read).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        let Some((path, node)) = self.value.take() else { return Err(Error::custom("a value without a key")) };
        fill(seed, node, path, self.of.failed)
    }
}
