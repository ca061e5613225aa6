//! Values of source records, on their way into a collection's fields.

use windfall_schemas::asset::FieldValue;
use windfall_schemas::row::RawValue;

/// One value of a source record, or of an expression over it.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Value {
    /// Nothing is known; empty texts and empty lists are this, too.
    #[default]
    Null,
    /// Text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction; never infinite, never not-a-number.
    Decimal(f64),
    /// True or false.
    Boolean(bool),
    /// Milliseconds since 1970-01-01T00:00:00Z.
    Timestamp(i64),
    /// Texts, at least one.
    List(Vec<String>),
}

impl Value {
    /// Says whether nothing is known.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Makes a text, or nothing out of blanks alone.
    pub fn text(text: &str) -> Self {
        if text.trim().is_empty() { Self::Null } else { Self::Text(text.to_owned()) }
    }

    /// Writes the value as text; nothing becomes the empty text.
    pub fn to_text(&self) -> String {
        match self {
            Self::Null => String::new(),
            Self::Text(text) => text.clone(),
            Self::List(items) => items.join(", "),
            Self::Integer(_) | Self::Decimal(_) | Self::Boolean(_) | Self::Timestamp(_) => {
                self.clone().into_field().to_string()
            }
        }
    }

    /// Makes the value of a collection's field out of it; a list is none.
    pub fn into_field(self) -> FieldValue {
        match self {
            Self::Null | Self::List(_) => FieldValue::Null,
            Self::Text(text) => FieldValue::String(text),
            Self::Integer(number) => FieldValue::Integer(number),
            Self::Decimal(number) => FieldValue::Decimal(number),
            Self::Boolean(flag) => FieldValue::Boolean(flag),
            Self::Timestamp(millis) => FieldValue::Timestamp(millis),
        }
    }
}

impl From<RawValue> for Value {
    fn from(value: RawValue) -> Self {
        match value {
            RawValue::Text(text) => Self::Text(text),
            RawValue::Number(number) => Self::Integer(number),
            RawValue::Decimal(number) if number.is_finite() => Self::Decimal(number),
            RawValue::Boolean(flag) => Self::Boolean(flag),
            RawValue::List(items) => Self::List(items),
            RawValue::Null | RawValue::Decimal(_) | RawValue::Foreign => Self::Null,
        }
    }
}

/// Reads RFC 3339, or a date, as milliseconds since 1970.
pub(crate) fn parse_timestamp(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Ok(time) = chrono::DateTime::parse_from_rfc3339(text) {
        return Some(time.timestamp_millis());
    }
    let date = chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    Some(date.and_hms_opt(0, 0, 0)?.and_utc().timestamp_millis())
}
