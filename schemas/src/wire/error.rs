use apache_avro::error::Details;

use super::{MAX_ERROR_BYTES, MAX_READ_BYTES, MAX_WRITE_BYTES};

/// Why bytes were not made or not read. No text of it holds a schema or more than 1 KiB.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes in front of the datum name no schema.
    #[error("the record is not framed for a schema registry: {why}")]
    Frame {
        /// What is wrong.
        why: &'static str,
    },
    /// The codec of one schema was given bytes of another one.
    #[error("the record was written with schema {found}, not with schema {expected}")]
    OtherSchema {
        /// Id of the codec.
        expected: u32,
        /// Schema that the frame names.
        found: String,
    },
    /// The schema's text does not parse.
    #[error("the schema cannot be parsed: {why}")]
    Schema {
        /// What the parser says.
        why: String,
    },
    /// The schema parses, but could make a small record cost much.
    #[error("the schema is refused: {why}")]
    Hostile {
        /// Which limit it breaks.
        why: String,
    },
    /// The value does not fit the schema.
    #[error("the value does not fit the schema of `{name}`: {why}")]
    Encode {
        /// Name of the schema.
        name: String,
        /// What does not fit.
        why: String,
    },
    /// The encoded value is too large to be sent.
    #[error("the encoded value has {bytes} bytes, more than the {MAX_WRITE_BYTES} that are sent")]
    TooLarge {
        /// Size of the datum.
        bytes: usize,
    },
    /// The bytes are no datum of the schema, or are cut.
    #[error("the bytes are no value of `{name}`: {why}")]
    Decode {
        /// Name of the schema.
        name: String,
        /// What does not fit.
        why: String,
    },
    /// The record is larger than what is read.
    #[error("the record has {bytes} bytes, more than the {MAX_READ_BYTES} that are read")]
    TooLong {
        /// Size of the datum.
        bytes: usize,
    },
    /// The datum ended before the bytes did.
    #[error("{bytes} bytes are left over after the value of `{name}`")]
    LeftOver {
        /// Name of the schema.
        name: String,
        /// How many.
        bytes: usize,
    },
}

impl WireError {
    pub(super) fn schema(error: apache_avro::Error) -> Self {
        Self::Schema { why: reason(error) }
    }
}

/// Says what the library says, without the schemas that it prints, and short.
pub(super) fn reason(error: apache_avro::Error) -> String {
    let text = match error.into_details() {
        Details::SerializeValueWithSchema { value_type, value, schema: _ } => format!("{value_type}: {value}"),
        Details::SerializeRecordFieldWithSchema { field_name, record_schema: _, error } => {
            format!("field `{field_name}`: {error}")
        }
        Details::MissingDefaultForSkippedField { field_name, schema: _ } => {
            format!("field `{field_name}` is missing and has no default")
        }
        Details::DeserializeSchemaAware { value_type, value, schema: _ } => format!("{value_type}: {value}"),
        details => details.to_string(),
    };
    cut(text)
}

/// Cuts a text to the limit at a character's border.
pub(super) fn cut(mut text: String) -> String {
    if text.len() > MAX_ERROR_BYTES {
        let end = (0..=MAX_ERROR_BYTES - 3).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push_str("...");
    }
    text
}
