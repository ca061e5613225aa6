//! Apple's values in all the spellings that were seen: `null`, `""`, `[]` and absent are one thing.

use std::fmt;

use chrono::{Datelike as _, NaiveDate};
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

/// How many bytes a value holds that will have to be kept.
pub(super) trait Weigh {
    fn weight(&self) -> usize {
        8
    }
}

impl Weigh for Instant {}
impl Weigh for Flag {}
impl Weigh for Count {}

impl Weigh for Text {
    fn weight(&self) -> usize {
        self.0.as_ref().map_or(0, String::len)
    }
}

impl Weigh for Texts {
    fn weight(&self) -> usize {
        self.0.iter().map(String::len).sum()
    }
}

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
#[derive(Default)]
struct Single(Option<String>);

struct SingleVisitor;
visited_by!(Single, SingleVisitor);

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
            Some(text) => match usual_time(text) {
                Some(millis) => Ok(Instant(Some(millis))),
                None => timestamp::parse_millis(text).map(|millis| Instant(Some(millis))).map_err(E::custom),
            },
            None => Ok(Instant(None)),
        }
    }

    nothing_is_default!();
}

/// Reads the form in which Apple writes nearly all times, `2026-08-03T11:20:00.5Z`, at a tenth of the general price.
fn usual_time(text: &str) -> Option<i64> {
    let bytes = text.strip_suffix('Z')?.as_bytes();
    let (whole, fraction) = bytes.split_at_checked(19)?;
    let two = |at: usize| {
        let (tens, ones) = (whole[at].wrapping_sub(b'0'), whole[at + 1].wrapping_sub(b'0'));
        (tens < 10 && ones < 10).then(|| u32::from(tens) * 10 + u32::from(ones))
    };
    let separated = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if separated.iter().any(|(at, separator)| whole[*at] != *separator) {
        return None;
    }
    let year = i32::try_from(two(0)? * 100 + two(2)?).ok()?;
    let date = NaiveDate::from_ymd_opt(year, two(5)?, two(8)?)?;
    let (hour, minute, second) = (two(11)?, two(14)?, two(17)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let millis = match fraction {
        [] => 0,
        [b'.', digits @ ..] if (1..=3).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit) => {
            let read = digits.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
            read * [100, 10, 1][digits.len() - 1]
        }
        _ => return None,
    };
    let days = i64::from(date.num_days_from_ce()) - 719_163;
    let seconds = i64::from(hour * 3600 + minute * 60 + second);
    Some((days * 86_400 + seconds) * 1000 + millis)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_quick_way_and_the_general_way_agree_on_every_time(millis in -2_000_000_000_000_i64..4_000_000_000_000) {
            let text = timestamp::format_millis(millis).unwrap();
            prop_assert_eq!(usual_time(&text), Some(millis));
            let shorter = format!("{}Z", text.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.'));
            if let Some(read) = usual_time(&shorter) {
                prop_assert_eq!(timestamp::parse_millis(&shorter), Ok(read));
            }
        }

        #[test]
        fn what_the_quick_way_reads_the_general_way_reads_alike(text in "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{0,4})?Z") {
            if let Some(read) = usual_time(&text) {
                prop_assert_eq!(timestamp::parse_millis(&text), Ok(read));
            }
        }
    }
}
