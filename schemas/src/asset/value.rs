use std::fmt;

use super::FieldType;

/// What one field of a record holds.
#[derive(Debug, Clone, Default)]
pub enum FieldValue {
    /// Nothing; null, empty text and absent are one thing to who makes records.
    #[default]
    Null,
    /// A text.
    String(String),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Decimal(f64),
    /// True or false.
    Boolean(bool),
    /// An instant in epoch milliseconds.
    Timestamp(i64),
}

impl FieldValue {
    /// Tells whether there is nothing.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The type that a field must have to hold this; `None` when any will do.
    pub fn kind(&self) -> Option<FieldType> {
        match self {
            Self::Null => None,
            Self::String(_) => Some(FieldType::String),
            Self::Integer(_) => Some(FieldType::Integer),
            Self::Decimal(_) => Some(FieldType::Decimal),
            Self::Boolean(_) => Some(FieldType::Boolean),
            Self::Timestamp(_) => Some(FieldType::Timestamp),
        }
    }

    /// JSON form: times as numbers, what no number can say as null.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::String(text) => text.as_str().into(),
            Self::Integer(number) | Self::Timestamp(number) => (*number).into(),
            Self::Decimal(number) => (*number).into(),
            Self::Boolean(value) => (*value).into(),
        }
    }
}

/// Decimals are equal when their bits are, so that a record with not-a-number equals itself and is not published anew.
impl PartialEq for FieldValue {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::String(a), Self::String(b)) => a == b,
            (Self::Integer(a), Self::Integer(b)) | (Self::Timestamp(a), Self::Timestamp(b)) => a == b,
            (Self::Decimal(a), Self::Decimal(b)) => a.to_bits() == b.to_bits(),
            (Self::Boolean(a), Self::Boolean(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for FieldValue {}

impl fmt::Display for FieldValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::String(text) => f.write_str(text),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Decimal(number) => write!(f, "{number}"),
            Self::Boolean(value) => write!(f, "{value}"),
            Self::Timestamp(millis) => match crate::timestamp::format_millis(*millis) {
                Some(text) => f.write_str(&text),
                None => write!(f, "{millis}"),
            },
        }
    }
}
