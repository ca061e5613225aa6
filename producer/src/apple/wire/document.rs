//! A list document, handed over item by item as it is read: no second copy of a page is ever made.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::attributes::Name;
use super::paging::{Links, Meta};

/// Apple's largest page has 1,000 items.
const MAX_ITEMS: usize = 5_000;

/// What a list document says beside its items.
pub(super) struct Rest {
    pub(super) links: Links,
    pub(super) meta: Meta,
}

/// Reads a list document and gives each item to `take`, which may refuse to go on.
///
/// # Errors
/// When it is no such document. Two lists `data` in one document are none: nobody knows which of them is the page.
pub(super) fn read<'de, E: Deserialize<'de>>(
    body: &'de str,
    take: impl FnMut(E) -> Result<(), &'static str>,
) -> serde_json::Result<Rest> {
    let mut deserializer = serde_json::Deserializer::from_str(body);
    let rest = (&mut deserializer).deserialize_map(DocumentVisitor { take, item: PhantomData })?;
    deserializer.end()?;
    Ok(rest)
}

struct DocumentVisitor<E, F> {
    take: F,
    item: PhantomData<E>,
}

impl<'de, E: Deserialize<'de>, F: FnMut(E) -> Result<(), &'static str>> Visitor<'de> for DocumentVisitor<E, F> {
    type Value = Rest;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a document with a list `data`")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Rest, A::Error> {
        let (mut data, mut links, mut meta) = (None, None, None);
        while let Some(name) = map.next_key_seed(Name)? {
            match name.as_ref() {
                "data" if data.is_none() => {
                    let items = Items { take: &mut self.take, item: PhantomData };
                    data = Some(map.next_value_seed(items)?);
                }
                "links" if links.is_none() => links = Some(map.next_value()?),
                "meta" if meta.is_none() => meta = Some(map.next_value()?),
                "data" | "links" | "meta" => return Err(de::Error::custom("a key stands there twice")),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        match data {
            Some(()) => Ok(Rest { links: links.unwrap_or_default(), meta: meta.unwrap_or_default() }),
            None => Err(de::Error::missing_field("data")),
        }
    }
}

struct Items<'f, E, F> {
    take: &'f mut F,
    item: PhantomData<E>,
}

impl<'de, E: Deserialize<'de>, F: FnMut(E) -> Result<(), &'static str>> DeserializeSeed<'de> for Items<'_, E, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, E: Deserialize<'de>, F: FnMut(E) -> Result<(), &'static str>> Visitor<'de> for Items<'_, E, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list `data`")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let mut count = 0;
        while let Some(item) = items.next_element()? {
            count += 1;
            if count > MAX_ITEMS {
                return Err(de::Error::custom(format_args!("more than {MAX_ITEMS} items on a page")));
            }
            (self.take)(item).map_err(de::Error::custom)?;
        }
        Ok(())
    }
}
