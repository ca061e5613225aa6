//! Formats a record as JSON, or as one line of text.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::DateTime;
use serde_json::{Map, Value};
use windfall_runtime::kafka::{Headers, Record};
use windfall_runtime::reader::{Decoder, Unreadable};
use windfall_runtime::telemetry::{chain, escaped};

use crate::change::Change;
use crate::output::Output;

/// Decodes a record by the schemas that it names; what cannot be decoded is shown as base64 with the reason.
pub(crate) async fn decode(decoder: &Decoder, record: &Record) -> Value {
    let mut shown = Map::new();
    shown.insert("topic".to_owned(), record.topic.as_ref().into());
    shown.insert("partition".to_owned(), record.partition.into());
    shown.insert("offset".to_owned(), record.offset.into());
    shown.insert("timestamp".to_owned(), record.timestamp_ms.into());
    shown.insert("headers".to_owned(), headers(&record.headers));
    let learned = decoder.learn([record]).await;
    for (name, bytes) in [("key", record.key.as_deref()), ("value", record.value.as_deref())] {
        let header = format!("__{name}_schema_id");
        match side(decoder, bytes, record.headers.get(&header)) {
            Ok(value) => {
                shown.insert(name.to_owned(), value);
            }
            Err(error) => {
                let why = match (&error, &learned) {
                    (Unreadable::UnknownSchema { .. }, Err(registry)) => chain(registry).to_string(),
                    _ => error.to_string(),
                };
                shown.insert(format!("{name}_error"), why.into());
                shown.insert(format!("{name}_raw"), bytes.map(|bytes| STANDARD.encode(bytes)).into());
            }
        }
    }
    Value::Object(shown)
}

fn side(decoder: &Decoder, bytes: Option<&[u8]>, header: Option<&[u8]>) -> Result<Value, Unreadable> {
    let Some(bytes) = bytes else { return Ok(Value::Null) };
    // Signals are plain JSON and their key is a plain name; a frame begins with a zero byte, which neither does.
    if header.is_none() && bytes.first().is_some_and(|first| *first != 0) {
        if let Ok(value) = serde_json::from_slice::<Value>(bytes) {
            return Ok(value);
        }
        if let Ok(text) = std::str::from_utf8(bytes)
            && !text.chars().any(char::is_control)
        {
            return Ok(text.into());
        }
    }
    let (codec, datum) = decoder.codec(bytes, header)?;
    Ok(codec.decode_json(datum)?)
}

fn headers(headers: &Headers) -> Value {
    let value = |bytes: Option<&[u8]>| match bytes {
        None => Value::Null,
        Some(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => text.into(),
            Err(_) => STANDARD.encode(bytes).into(),
        },
    };
    Value::Object(headers.iter().map(|(name, bytes)| (name.to_owned(), value(bytes))).collect())
}

/// Selects records by their key.
pub(super) enum KeyFilter {
    /// One of the key's fields, or the key itself, is this text.
    Text(String),
    /// These fields of the key have these values.
    Fields(Map<String, Value>),
}

impl KeyFilter {
    pub(super) fn new(text: &str) -> Self {
        match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => Self::Fields(fields),
            _ => Self::Text(text.to_owned()),
        }
    }

    pub(super) fn matches(&self, key: &Value) -> bool {
        match self {
            Self::Text(wanted) => {
                let is_wanted = |value: &Value| {
                    value.as_str().map_or_else(|| value.to_string().as_str() == wanted.as_str(), |text| text == wanted)
                };
                is_wanted(key) || key.as_object().is_some_and(|fields| fields.values().any(is_wanted))
            }
            Self::Fields(wanted) => wanted.iter().all(|(name, value)| key.get(name) == Some(value)),
        }
    }
}

/// Writes a record as one line: time, partition and offset, key, change.
pub(super) fn print_line(output: &mut Output, shown: &Value) -> io::Result<()> {
    let at = shown["timestamp"].as_i64().and_then(DateTime::from_timestamp_millis);
    let at = at.map_or_else(|| "-".to_owned(), |at| at.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string());
    let place = format!("{}:{}", shown["partition"], shown["offset"]);
    let line = match Change::of(&shown["value"]) {
        Some(Change { kind, subject, what, seen_by, .. }) => format!("{kind:<14} {subject:<14} {what}  ({seen_by})"),
        None => format!("{} {}", key_text(shown), value_text(shown)),
    };
    output.line(&format!("{at}  {place:<9} {}", escaped(&line)))?;
    output.flush()
}

fn key_text(shown: &Value) -> String {
    match &shown["key"] {
        Value::Object(fields) => {
            let parts = fields.values().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
            parts.collect::<Vec<_>>().join("/")
        }
        Value::String(text) => text.clone(),
        Value::Null => shown["key_error"].as_str().map_or_else(|| "-".to_owned(), |error| format!("[{error}]")),
        other => other.to_string(),
    }
}

fn value_text(shown: &Value) -> String {
    match (shown.get("value"), shown["value_error"].as_str()) {
        (_, Some(error)) => format!("[{error}]"),
        (None | Some(Value::Null), None) => "tombstone".to_owned(),
        (Some(Value::Object(fields)), None) => {
            // Metadata fields are left out of the line.
            let told = |(name, value): &(&String, &Value)| !value.is_null() && !name.starts_with("__");
            let mut known: Map<_, _> = fields.iter().filter(told).map(|(k, v)| (k.clone(), v.clone())).collect();
            if fields.get("__deleted").is_some_and(|deleted| deleted == "true") {
                known.insert("__deleted".to_owned(), true.into());
            }
            Value::Object(known).to_string()
        }
        (Some(other), None) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_key_is_found_by_any_of_its_fields_or_by_some_of_them() {
        let key = json!({ "org": "acme", "device_id": "SIM1" });
        assert!(KeyFilter::new("SIM1").matches(&key));
        assert!(!KeyFilter::new("SIM").matches(&key));
        assert!(KeyFilter::new(r#"{"org": "acme", "device_id": "SIM1"}"#).matches(&key));
        assert!(!KeyFilter::new(r#"{"org": "other"}"#).matches(&key));
        assert!(KeyFilter::new("plain").matches(&json!("plain")));
    }

    #[test]
    fn headers_are_texts_and_what_is_no_text_is_base64() {
        let list = Headers::new().with("ce_type", "x".as_bytes().to_vec()).with("raw", vec![0xff, 0x00]);
        assert_eq!(headers(&list), json!({ "ce_type": "x", "raw": "/wA=" }));
    }
}
