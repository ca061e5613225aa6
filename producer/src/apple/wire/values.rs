//! Apple's values in every spelling that was seen. `null`, `""`, `[]` and an absent attribute all mean that there is no value.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use chrono::{Datelike as _, NaiveDate};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use windfall_schemas::identifiers::{DeviceId, MacAddress, SerialNumber};
use windfall_schemas::timestamp;

/// Longest list of an attribute; a device has two IMEIs.
const MAX_ITEMS: usize = 64;

/// Any value. A text, which nearly all are, is borrowed where it holds no escapes.
#[derive(Debug)]
pub(super) enum Json<'a> {
    Text(Cow<'a, str>),
    Other(Value),
}

/// What a value means, or the value itself where it is not understood.
pub(super) type Understood<T> = Result<T, Value>;

/// Reads a text; of a list it takes the first.
pub(super) fn text(json: Json<'_>) -> Understood<Option<String>> {
    match json {
        Json::Text(text) => Ok(Some(text.into_owned()).filter(|text| !text.is_empty())),
        other => texts(other).map(|texts| texts.into_iter().next()),
    }
}

/// Reads a text that stands empty where there is none.
pub(super) fn required(json: Json<'_>) -> Understood<String> {
    text(json).map(Option::unwrap_or_default)
}

/// Reads a list of texts; an empty one is none.
pub(super) fn list(json: Json<'_>) -> Understood<Option<Vec<String>>> {
    texts(json).map(|texts| (!texts.is_empty()).then_some(texts))
}

/// Reads a list of MAC addresses.
pub(super) fn macs(json: Json<'_>) -> Understood<Option<Vec<String>>> {
    list(json).map(|texts| texts.map(|texts| texts.into_iter().map(mac_address).collect()))
}

/// Reads any number of texts; a single text is a list of one.
fn texts(json: Json<'_>) -> Understood<Vec<String>> {
    let known = |item: &Value| matches!(item, Value::String(_) | Value::Null);
    let filled = |item| if let Value::String(text) = item { Some(text).filter(|text| !text.is_empty()) } else { None };
    match json {
        Json::Text(_) => text(json).map(|text| text.into_iter().collect()),
        Json::Other(Value::Null) => Ok(Vec::new()),
        Json::Other(Value::Array(items)) if items.len() <= MAX_ITEMS && items.iter().all(known) => {
            Ok(items.into_iter().filter_map(filled).collect())
        }
        Json::Other(value) => Err(value),
    }
}

/// Reads a time as epoch milliseconds.
pub(super) fn instant(json: Json<'_>) -> Understood<Option<i64>> {
    parsed(json, |text| usual_time(text).or_else(|| timestamp::parse_millis(text).ok()))
}

/// Reads `true` or `false`, which may stand in quotes.
pub(super) fn flag(json: Json<'_>) -> Understood<Option<bool>> {
    match json {
        Json::Other(Value::Bool(flag)) => Ok(Some(flag)),
        json => parsed(json, |text| text.parse().ok()),
    }
}

/// Reads a whole number, which may stand in quotes.
pub(super) fn count(json: Json<'_>) -> Understood<Option<i64>> {
    match json {
        Json::Other(Value::Number(number)) => number.as_i64().map(Some).ok_or(Value::Number(number)),
        json => parsed(json, |text| text.parse().ok()),
    }
}

fn parsed<T>(json: Json<'_>, parse: impl Fn(&str) -> Option<T>) -> Understood<Option<T>> {
    let owned;
    let text = match &json {
        Json::Text(text) => text.as_ref(),
        Json::Other(_) => {
            owned = text(json)?;
            owned.as_deref().unwrap_or_default()
        }
    };
    if text.is_empty() {
        return Ok(None);
    }
    parse(text).map(Some).ok_or_else(|| Value::String(text.to_owned()))
}

impl Json<'_> {
    /// Returns how many bytes of text the value holds.
    pub(super) fn weight(&self) -> usize {
        match self {
            Json::Text(text) => text.len(),
            Json::Other(Value::Array(items)) => items.iter().filter_map(Value::as_str).map(str::len).sum(),
            Json::Other(_) => 0,
        }
    }

    /// Returns the value by itself.
    pub(super) fn into_value(self) -> Value {
        match self {
            Json::Text(text) => Value::String(text.into_owned()),
            Json::Other(value) => value,
        }
    }
}

impl<'de> Deserialize<'de> for Json<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Json<'de>, E> {
        Ok(Json::Other(flag.into()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Json<'de>, E> {
        Ok(Json::Other(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json<'de>, E> {
        Ok(Json::Other(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Json<'de>, E> {
        Ok(Json::Other(number.into()))
    }

    fn visit_unit<E>(self) -> Result<Json<'de>, E> {
        Ok(Json::Other(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Json<'de>, A::Error> {
        Value::deserialize(SeqAccessDeserializer::new(items)).map(Json::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Json<'de>, A::Error> {
        Value::deserialize(MapAccessDeserializer::new(members)).map(Json::Other)
    }
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

/// Takes the serial number as Apple writes it; what is none is replaced by the device's id.
pub(super) fn serial_number(text: String, id: &DeviceId) -> String {
    let text = trimmed(text);
    let usual = (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric());
    if usual || SerialNumber::parse(&text).is_ok() { text } else { id.as_str().to_owned() }
}

/// Takes a MAC address as twelve upper-case digits; what is none, such as a longer hardware address, stays as Apple wrote it.
pub(super) fn mac_address(text: String) -> String {
    let usual = text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b));
    if usual { text } else { MacAddress::parse(&text).map_or_else(|_| trimmed(text), MacAddress::into_string) }
}

/// Writes attributes that the schema does not name as a JSON object with sorted names.
pub(super) fn unmapped_text(unmapped: &BTreeMap<String, Value>) -> Option<String> {
    (!unmapped.is_empty()).then(|| serde_json::to_string(unmapped).unwrap_or_default())
}

fn trimmed(text: String) -> String {
    if text.trim().len() == text.len() { text } else { text.trim().to_owned() }
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
