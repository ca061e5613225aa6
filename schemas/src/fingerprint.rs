//! Fingerprints, event ids and the text form of an event's number.

use std::{borrow::Cow, ops::Range};

use serde_json::Value as Json;
use xxhash_rust::xxh3::xxh3_128;

use crate::timestamp;

/// Collects the attributes of one record that are present, and hashes them in the order of their names.
///
/// Absent, empty text and empty list are one thing and are left out, so a field that is added to the schema changes no
/// fingerprint. Nor does an attribute that moves from `unmapped` into a field of its own: both are hashed under the
/// field's name and in one form.
#[derive(Debug, Default)]
pub struct Attributes {
    /// Each name with the place of its entry in `bytes`.
    entries: Vec<Entry>,
    /// The entries as they are hashed: the name and the value, each behind its length.
    bytes: Vec<u8>,
}

type Entry = (Cow<'static, str>, Range<usize>);

/// The bytes of a length.
const LENGTH: usize = size_of::<u64>();

/// Tags keep values of different types apart: the text `true` is not the boolean.
const TEXT: u8 = b's';
const LIST: u8 = b'l';
const TIME: u8 = b't';
const BOOLEAN: u8 = b'b';
const NUMBER: u8 = b'n';
const OBJECT: u8 = b'o';

impl Attributes {
    /// Makes an empty collection with room for so many attributes.
    pub fn with_capacity(attributes: usize) -> Self {
        // A name and a value of some sixteen bytes each, and their lengths.
        Self { entries: Vec::with_capacity(attributes), bytes: Vec::with_capacity(attributes * 48) }
    }

    /// Adds a text, unless it is absent or empty.
    pub fn text(&mut self, name: impl Into<Cow<'static, str>>, value: Option<&str>) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.push(name, TEXT, value.as_bytes());
        }
    }

    /// Adds a list of texts, unless it is absent or empty.
    pub fn list(&mut self, name: impl Into<Cow<'static, str>>, value: Option<&[String]>) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.entry(name, LIST, |bytes| value.iter().for_each(|item| append(bytes, item.as_bytes())));
        }
    }

    /// Adds an instant in epoch milliseconds, unless it is absent.
    pub fn time(&mut self, name: impl Into<Cow<'static, str>>, value: Option<i64>) {
        if let Some(value) = value {
            self.push(name, TIME, &value.to_be_bytes());
        }
    }

    /// Adds a boolean, unless it is absent.
    pub fn boolean(&mut self, name: impl Into<Cow<'static, str>>, value: Option<bool>) {
        if let Some(value) = value {
            self.push(name, BOOLEAN, &[u8::from(value)]);
        }
    }

    /// Adds each entry of a JSON object by itself, under the name that its field would have.
    ///
    /// Text that is no JSON object is added whole, under `unmapped`.
    pub fn unmapped(&mut self, text: Option<&str>) {
        let Some(text) = text.filter(|text| !text.is_empty()) else { return };
        match serde_json::from_str::<Json>(text) {
            Ok(Json::Object(entries)) => {
                for (name, value) in &entries {
                    self.json(snake_case(name), value);
                }
            }
            _ => self.text("unmapped", Some(text)),
        }
    }

    /// Adds a JSON value in the form that a field of its type would have.
    fn json(&mut self, name: String, value: &Json) {
        match value {
            Json::Null => {}
            Json::Bool(value) => self.boolean(name, Some(*value)),
            Json::Number(number) => self.push(name, NUMBER, number.to_string().as_bytes()),
            Json::String(text) => match timestamp::parse_millis(text) {
                Ok(millis) if name.ends_with("_date_time") => self.time(name, Some(millis)),
                _ => self.text(name, Some(text)),
            },
            Json::Array(items) => {
                let texts: Option<Vec<String>> = items.iter().map(|item| item.as_str().map(str::to_owned)).collect();
                match texts {
                    Some(texts) => self.list(name, Some(&texts)),
                    None => self.push(name, OBJECT, canonical(value).as_bytes()),
                }
            }
            Json::Object(entries) if entries.is_empty() => {}
            Json::Object(_) => self.push(name, OBJECT, canonical(value).as_bytes()),
        }
    }

    fn push(&mut self, name: impl Into<Cow<'static, str>>, tag: u8, value: &[u8]) {
        self.entry(name, tag, |bytes| bytes.extend_from_slice(value));
    }

    fn entry(&mut self, name: impl Into<Cow<'static, str>>, tag: u8, write: impl FnOnce(&mut Vec<u8>)) {
        let (name, bytes) = (name.into(), &mut self.bytes);
        let start = bytes.len();
        append(bytes, name.as_bytes());
        let length = bytes.len();
        bytes.extend_from_slice(&[0; LENGTH]);
        bytes.push(tag);
        write(bytes);
        let value = (bytes.len() - length - LENGTH) as u64;
        bytes[length..length + LENGTH].copy_from_slice(&value.to_be_bytes());
        self.entries.push((name, start..self.bytes.len()));
    }

    /// Hashes what was added; the order of adding does not matter, and that of the names is the quickest.
    pub fn fingerprint(self) -> String {
        let Self { mut entries, bytes } = self;
        let value = |(name, entry): &Entry| &bytes[entry.start + 2 * LENGTH + name.len()..entry.end];
        let order = |a: &Entry, b: &Entry| a.0.cmp(&b.0).then_with(|| value(a).cmp(value(b)));
        if entries.is_sorted_by(|a, b| order(a, b).is_le()) {
            return hex(&bytes);
        }
        entries.sort_by(order);
        hex(&entries.iter().flat_map(|(_, entry)| &bytes[entry.clone()]).copied().collect::<Vec<_>>())
    }
}

/// Names an event: the same when it is sent again, another one when the record flips back and forth.
///
/// `fingerprint` is that of the record after the event, of the one before it for a delete.
pub fn event_id(org: &str, table: &str, id: &str, number: u64, fingerprint: &str) -> String {
    let mut bytes = Vec::with_capacity(128);
    for part in [org, table, id] {
        append(&mut bytes, part.as_bytes());
    }
    bytes.extend_from_slice(&number.to_be_bytes());
    append(&mut bytes, fingerprint.as_bytes());
    hex(&bytes)
}

/// Writes the number of an event in its record's life, so that the order of the texts is that of the numbers.
pub fn sequence(number: u64) -> String {
    format!("[\"{number:020}\"]")
}

/// Reads what [`sequence`] wrote; `None` for any other text.
pub fn parse_sequence(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("[\"")?.strip_suffix("\"]")?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// Makes a field's name from Apple's: `addedToOrgDateTime` becomes `added_to_org_date_time`.
pub fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            if !snake.is_empty() {
                snake.push('_');
            }
            snake.push(letter.to_ascii_lowercase());
        } else {
            snake.push(letter);
        }
    }
    snake
}

/// Writes the length first, so that moving bytes from one part to the next changes the hash.
fn append(bytes: &mut Vec<u8>, part: &[u8]) {
    bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
    bytes.extend_from_slice(part);
}

fn hex(bytes: &[u8]) -> String {
    format!("{:032x}", xxh3_128(bytes))
}

/// JSON text with sorted keys, whatever order the parser keeps.
fn canonical(value: &Json) -> String {
    match value {
        Json::Object(entries) => {
            let mut sorted: Vec<_> = entries.iter().collect();
            sorted.sort_by_key(|(name, _)| *name);
            let parts: Vec<String> = sorted
                .iter()
                .map(|(name, value)| format!("{}:{}", Json::from(name.as_str()), canonical(value)))
                .collect();
            format!("{{{}}}", parts.join(","))
        }
        Json::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        scalar => scalar.to_string(),
    }
}
