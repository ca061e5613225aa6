//! Apple's values in all the spellings that were seen: `null`, `""`, `[]` and absent are one thing.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};
use windfall_schemas::timestamp;

/// Longest list of an attribute; a device has two IMEIs.
const MAX_ITEMS: usize = 64;

/// A text; of a list its first.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Text(pub(super) Option<String>);

/// Any number of texts; a text alone is a list of one.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Texts(pub(super) Vec<String>);

/// An instant in epoch milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Instant(pub(super) Option<i64>);

/// A yes or no.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Flag(pub(super) Option<bool>);

/// A count.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Count(pub(super) Option<i64>);

fn filled(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

macro_rules! nothing_is_default {
    () => {
        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }

        fn visit_none<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(Self::Value::default())
        }
    };
}

macro_rules! visited_by {
    ($value:ident, $visitor:ident) => {
        impl<'de> Deserialize<'de> for $value {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any($visitor)
            }
        }
    };
}

struct TextVisitor;
visited_by!(Text, TextVisitor);

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a list of texts")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Text, E> {
        Ok(Text(filled(text).map(str::to_owned)))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Text, E> {
        Ok(Text(Some(text).filter(|text| !text.is_empty())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Text, A::Error> {
        TextsVisitor.visit_seq(items).map(|texts| Text(texts.0.into_iter().next()))
    }

    nothing_is_default!();
}

struct TextsVisitor;
visited_by!(Texts, TextsVisitor);

impl<'de> Visitor<'de> for TextsVisitor {
    type Value = Texts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a list of texts")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Texts, E> {
        Ok(Texts(filled(text).map(str::to_owned).into_iter().collect()))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Texts, E> {
        self.visit_str(&text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Texts, A::Error> {
        let mut texts = Vec::new();
        while let Some(Single(text)) = items.next_element()? {
            texts.extend(text);
            if texts.len() > MAX_ITEMS {
                return Err(de::Error::custom(format_args!("more than {MAX_ITEMS} items")));
            }
        }
        Ok(Texts(texts))
    }

    nothing_is_default!();
}

/// An item of a list: no lists inside lists.
struct Single(Option<String>);

struct SingleVisitor;
visited_by!(Single, SingleVisitor);

impl Default for Single {
    fn default() -> Self {
        Self(None)
    }
}

impl Visitor<'_> for SingleVisitor {
    type Value = Single;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Single, E> {
        Ok(Single(filled(text).map(str::to_owned)))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Single, E> {
        self.visit_str(&text)
    }

    nothing_is_default!();
}

struct InstantVisitor;
visited_by!(Instant, InstantVisitor);

impl Visitor<'_> for InstantVisitor {
    type Value = Instant;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a time such as 2026-08-03T11:20:00.5Z")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Instant, E> {
        match filled(text) {
            Some(text) => timestamp::parse_millis(text).map(|millis| Instant(Some(millis))).map_err(E::custom),
            None => Ok(Instant(None)),
        }
    }

    nothing_is_default!();
}

struct FlagVisitor;
visited_by!(Flag, FlagVisitor);

impl Visitor<'_> for FlagVisitor {
    type Value = Flag;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true or false")
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<Flag, E> {
        Ok(Flag(Some(flag)))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Flag, E> {
        match text {
            "" => Ok(Flag(None)),
            "true" => Ok(Flag(Some(true))),
            "false" => Ok(Flag(Some(false))),
            _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
        }
    }

    nothing_is_default!();
}

struct CountVisitor;
visited_by!(Count, CountVisitor);

impl<'de> Visitor<'de> for CountVisitor {
    type Value = Count;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Count, E> {
        Ok(Count(i64::try_from(number).ok()))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Count, E> {
        Ok(Count(Some(number)))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Count, E> {
        Ok(Count(text.parse().ok()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Count, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Count(None))
    }

    nothing_is_default!();
}
