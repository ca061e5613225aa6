//! The words that `format` knows: how a value is written, or read, on its way.

use chrono::format::{Item, StrftimeItems};

use windfall_schemas::asset::FieldType;

use crate::value::{Value, parse_timestamp};

/// A way to write or read a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Format {
    Upper,
    Lower,
    Trim,
    /// The digits alone.
    Digits,
    /// Six pairs of hexadecimal digits, upper-case, with colons.
    Mac,
    /// `2026-11-21`, in UTC.
    Date,
    /// A pattern as of `strftime`, in UTC.
    Pattern(String),
    /// Text read as the target's type; what does not parse is empty.
    Parse(FieldType),
}

/// The words, without the patterns.
pub(crate) const WORDS: [&str; 7] = ["upper", "lower", "trim", "digits", "mac", "date", "parse"];

impl Format {
    /// Finds a format by its word; `target` is what `parse` reads text as. `None`: there is no such word.
    pub(crate) fn from_word(word: &str, target: FieldType) -> Option<Self> {
        Some(match word {
            "upper" => Self::Upper,
            "lower" => Self::Lower,
            "trim" => Self::Trim,
            "digits" => Self::Digits,
            "mac" => Self::Mac,
            "date" => Self::Date,
            "parse" => Self::Parse(target),
            pattern if pattern.contains('%') => {
                let sound = StrftimeItems::new(pattern).all(|item| !matches!(item, Item::Error));
                return sound.then(|| Self::Pattern(pattern.to_owned()));
            }
            _ => return None,
        })
    }

    /// What the format reads.
    pub(crate) fn reads(&self) -> FieldType {
        match self {
            Self::Date | Self::Pattern(_) => FieldType::Timestamp,
            _ => FieldType::String,
        }
    }

    /// What the format gives.
    pub(crate) fn gives(&self) -> FieldType {
        match self {
            Self::Parse(kind) => *kind,
            _ => FieldType::String,
        }
    }

    /// Whether a value can become nothing.
    pub(crate) fn loses(&self) -> bool {
        matches!(self, Self::Digits | Self::Mac | Self::Parse(_))
    }

    /// Formats a value; a value that cannot be formatted becomes nothing.
    pub(crate) fn apply(&self, value: Value) -> Value {
        match (self, value) {
            (Self::Date, Value::Timestamp(millis)) => strftime(millis, "%Y-%m-%d"),
            (Self::Pattern(pattern), Value::Timestamp(millis)) => strftime(millis, pattern),
            (Self::Upper, Value::Text(text)) => Value::text(&text.to_uppercase()),
            (Self::Lower, Value::Text(text)) => Value::text(&text.to_lowercase()),
            (Self::Trim, Value::Text(text)) => Value::text(text.trim()),
            (Self::Digits, Value::Text(text)) => {
                Value::text(&text.chars().filter(char::is_ascii_digit).collect::<String>())
            }
            (Self::Mac, Value::Text(text)) => mac(&text),
            (Self::Parse(kind), Value::Text(text)) => parse(text.trim(), *kind),
            _ => Value::Null,
        }
    }
}

fn strftime(millis: i64, pattern: &str) -> Value {
    chrono::DateTime::from_timestamp_millis(millis)
        .map_or(Value::Null, |time| Value::text(&time.format(pattern).to_string()))
}

fn mac(text: &str) -> Value {
    let digits: Vec<char> =
        text.chars().filter(char::is_ascii_hexdigit).map(|digit| digit.to_ascii_uppercase()).collect();
    if digits.len() != 12 {
        return Value::Null;
    }
    let pairs: Vec<String> = digits.chunks(2).map(|pair| pair.iter().collect()).collect();
    Value::Text(pairs.join(":"))
}

fn parse(text: &str, kind: FieldType) -> Value {
    match kind {
        FieldType::String => Value::text(text),
        FieldType::Integer => text.parse().map_or(Value::Null, Value::Integer),
        FieldType::Decimal => match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Value::Decimal(number),
            _ => Value::Null,
        },
        FieldType::Boolean => match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "1" => Value::Boolean(true),
            "false" | "no" | "0" => Value::Boolean(false),
            _ => Value::Null,
        },
        FieldType::Timestamp => parse_timestamp(text).map_or(Value::Null, Value::Timestamp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    #[test]
    fn a_mac_address_is_written_in_pairs_and_anything_else_is_nothing() {
        assert_eq!(Format::Mac.apply(text("a4-83-e7:1b2c3d")), text("A4:83:E7:1B:2C:3D"));
        assert_eq!(Format::Mac.apply(text("a483e7")), Value::Null);
    }

    #[test]
    fn text_that_does_not_parse_is_nothing() {
        assert_eq!(Format::Parse(FieldType::Integer).apply(text(" 256 ")), Value::Integer(256));
        assert_eq!(Format::Parse(FieldType::Integer).apply(text("256GB")), Value::Null);
        assert_eq!(Format::Parse(FieldType::Decimal).apply(text("inf")), Value::Null);
        assert_eq!(Format::Parse(FieldType::Timestamp).apply(text("1970-01-02")), Value::Timestamp(86_400_000));
    }

    #[test]
    fn a_pattern_that_strftime_does_not_know_is_refused() {
        assert_eq!(Format::from_word("%Q", FieldType::String), None);
        assert!(Format::from_word("%d.%m.%Y", FieldType::String).is_some());
    }
}
