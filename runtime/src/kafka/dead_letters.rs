//! A refused record with the reason, in the form of Kafka Connect.

use std::borrow::Cow;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::record::{Headers, MAX_RECORD_BYTES, Outgoing, Record};

/// An Avro error can print a whole schema; readers of dead letters want its beginning.
pub const MAX_MESSAGE_BYTES: usize = 1024;

/// What the lengths of a header's name and value take on the wire at most, beside these.
const HEADER_FRAME_BYTES: usize = 10;

/// Where in its way a record was refused, by the names of Connect's `Stage`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedAt {
    /// Its key could not be read.
    Key,
    /// Its value could not be read.
    Value,
    /// It could not be mapped or merged.
    Transformation,
    /// The store refused it.
    Store,
}

impl RefusedAt {
    fn name(self) -> &'static str {
        match self {
            Self::Key => "KEY_CONVERTER",
            Self::Value => "VALUE_CONVERTER",
            Self::Transformation => "TRANSFORMATION",
            Self::Store => "TASK_PUT",
        }
    }
}

/// Why and by whom a record was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Where in its way.
    pub stage: RefusedAt,
    /// Who refused it: `windfall-sink-assets`.
    pub service: String,
    /// Which instance of it.
    pub instance: String,
    /// The component: `postgres`, `mapping`.
    pub component: String,
    /// The kind of the error, a name that can be counted by.
    pub kind: String,
    /// What went wrong, with its causes; cut to [`MAX_MESSAGE_BYTES`].
    pub message: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it first failed, in milliseconds since 1970.
    pub first_failed_ms: i64,
}

/// Makes the dead letter of a record: key, value and headers as they came, then Connect's headers and ours.
///
/// Headers of an earlier refusal stay in front, and readers take the last of a name. The letter goes to any partition its key names.
///
/// A record may be larger than a letter: who wrote it compressed it, and a letter carries its reason beside it. Then the largest
/// part is left out whole, and headers tell what is missing; the record stays where `__connect.errors.offset` points.
///
/// | left out | headers instead |
/// | --- | --- |
/// | value | `windfall.errors.value_bytes`, `windfall.errors.value_sha256` |
/// | key | `windfall.errors.key_bytes`, `windfall.errors.key_sha256` |
/// | headers that came | `windfall.errors.headers_bytes`, `windfall.errors.headers_count` |
#[must_use]
pub fn dead_letter(record: &Record, topic: &str, refusal: &Refusal) -> Outgoing {
    let mut notes = notes(record, refusal);
    let Record { key, value, headers, .. } = record.clone();
    let mut letter = Outgoing { topic: topic.into(), partition: None, key, value, headers };
    while letter.size() + frames(&letter.headers) + notes.size() + frames(&notes) > MAX_RECORD_BYTES {
        if !leave_out_largest(&mut letter, &mut notes) {
            break;
        }
    }
    for (name, value) in notes.iter() {
        letter.headers.push_nullable(name.to_owned(), value.map(Bytes::copy_from_slice));
    }
    letter
}

/// What is said of a refusal and of where the record stands.
fn notes(record: &Record, refusal: &Refusal) -> Headers {
    let Refusal { stage, service, instance, component, kind, message, attempts, first_failed_ms } = refusal;
    let mut notes = Headers::new();
    note(&mut notes, "__connect.errors.topic", &record.topic);
    note(&mut notes, "__connect.errors.partition", record.partition);
    note(&mut notes, "__connect.errors.offset", record.offset);
    note(&mut notes, "__connect.errors.connector.name", service);
    note(&mut notes, "__connect.errors.task.id", instance);
    note(&mut notes, "__connect.errors.stage", stage.name());
    note(&mut notes, "__connect.errors.class.name", component);
    note(&mut notes, "__connect.errors.exception.class.name", kind);
    note(&mut notes, "__connect.errors.exception.message", cut(message));
    note(&mut notes, "windfall.errors.attempts", attempts);
    note(&mut notes, "windfall.errors.first_failed_at", timestamp(*first_failed_ms));
    notes
}

fn note(notes: &mut Headers, name: impl Into<Cow<'static, str>>, value: impl ToString) {
    notes.push(name, value.to_string().into_bytes());
}

/// Leaves out what takes most of what came, and notes what it was; answers whether anything was left to leave out.
fn leave_out_largest(letter: &mut Outgoing, notes: &mut Headers) -> bool {
    let length = |part: &Option<Bytes>| part.as_ref().map_or(0, Bytes::len);
    let (key, value) = (length(&letter.key), length(&letter.value));
    let headers = letter.headers.size() + frames(&letter.headers);
    let largest = value.max(headers).max(key);
    if largest == 0 {
        return false;
    }
    if value == largest {
        note_part(notes, "value", letter.value.take());
    } else if headers == largest {
        note(notes, "windfall.errors.headers_bytes", letter.headers.size());
        note(notes, "windfall.errors.headers_count", letter.headers.iter().count());
        letter.headers = Headers::new();
    } else {
        note_part(notes, "key", letter.key.take());
    }
    true
}

/// Notes the size of a part that was left out, and by what it can be known again.
fn note_part(notes: &mut Headers, part: &str, bytes: Option<Bytes>) {
    let bytes = bytes.unwrap_or_default();
    note(notes, format!("windfall.errors.{part}_bytes"), bytes.len());
    note(notes, format!("windfall.errors.{part}_sha256"), format!("{:x}", Sha256::digest(&bytes)));
}

fn frames(headers: &Headers) -> usize {
    headers.iter().count() * HEADER_FRAME_BYTES
}

fn timestamp(millis: i64) -> String {
    chrono::DateTime::from_timestamp_millis(millis)
        .map_or_else(|| millis.to_string(), |time| time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
}

/// Cuts a message at a character's edge.
fn cut(message: &str) -> &str {
    &message[..message.floor_char_boundary(MAX_MESSAGE_BYTES)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(message: &str) -> Refusal {
        Refusal {
            stage: RefusedAt::Store,
            service: "windfall-sink-assets".into(),
            instance: "host-a".into(),
            component: "postgres".into(),
            kind: "value_too_long".into(),
            message: message.into(),
            attempts: 2,
            first_failed_ms: 1_795_000_000_123,
        }
    }

    fn record() -> Record {
        Record {
            topic: "assets.devices".into(),
            partition: 3,
            offset: 42,
            timestamp_ms: Some(5),
            key: Some(Bytes::from_static(b"\x00key")),
            value: Some(Bytes::from_static(b"\x00\xff")),
            headers: Headers::new().with("ce_id", "1"),
        }
    }

    #[test]
    fn a_dead_letter_keeps_the_record_as_it_came_and_says_where_it_stood() {
        let letter = dead_letter(&record(), "assets.devices.windfall-sink-assets.dlq", &refusal("too long"));
        assert_eq!(letter.key, record().key);
        assert_eq!(letter.value, record().value);
        assert_eq!(letter.headers.text("ce_id"), Some("1"));
        let expected = [
            ("__connect.errors.topic", "assets.devices"),
            ("__connect.errors.partition", "3"),
            ("__connect.errors.offset", "42"),
            ("__connect.errors.connector.name", "windfall-sink-assets"),
            ("__connect.errors.task.id", "host-a"),
            ("__connect.errors.stage", "TASK_PUT"),
            ("__connect.errors.class.name", "postgres"),
            ("__connect.errors.exception.class.name", "value_too_long"),
            ("__connect.errors.exception.message", "too long"),
            ("windfall.errors.attempts", "2"),
            ("windfall.errors.first_failed_at", "2026-11-18T11:06:40.123Z"),
        ];
        for (name, value) in expected {
            assert_eq!(letter.headers.text(name), Some(value), "{name}");
        }
    }

    #[test]
    fn a_long_message_is_cut_at_a_characters_edge() {
        let letter = dead_letter(&record(), "t", &refusal(&format!("{}é{}", "x".repeat(1023), "y".repeat(9_000))));
        assert_eq!(letter.headers.text("__connect.errors.exception.message").map(str::len), Some(1023));
    }

    /// Asserts that the client takes a letter, and returns what it says of what was left out.
    fn left_out(record: &Record) -> Vec<String> {
        let letter = dead_letter(record, "t", &refusal("no"));
        assert!(letter.size() + frames(&letter.headers) <= MAX_RECORD_BYTES, "{} bytes", letter.size());
        assert_eq!(letter.headers.text("__connect.errors.offset"), Some("42"));
        let names = letter.headers.iter().map(|(name, _)| name.to_owned());
        let told = names.filter(|name| name.ends_with("_bytes")).collect::<Vec<_>>();
        assert_eq!(letter.value.is_none(), told.iter().any(|name| name.contains("value")), "{told:?}");
        assert_eq!(letter.key.is_none(), told.iter().any(|name| name.contains("key")), "{told:?}");
        assert_eq!(
            letter.headers.text("ce_id").is_none(),
            told.iter().any(|name| name.contains("headers")),
            "{told:?}"
        );
        told.iter().map(|name| format!("{name} {}", letter.headers.text(name).unwrap())).collect()
    }

    #[test]
    fn what_no_letter_can_hold_is_left_out_and_told_of_largest_first() {
        let long = || Some(Bytes::from(vec![b'x'; 1_100_000]));
        let headers = || (0..90_000).fold(Headers::new().with("ce_id", "1"), |headers, _| headers.with("a", "b"));
        let value = "windfall.errors.value_bytes 1100000";
        let key = "windfall.errors.key_bytes 1100000";
        let many = "windfall.errors.headers_bytes 180006";
        assert_eq!(left_out(&Record { value: long(), ..record() }), [value]);
        assert_eq!(left_out(&Record { key: long(), ..record() }), [key]);
        assert_eq!(left_out(&Record { headers: headers(), ..record() }), [many], "small ones take room on the wire");
        assert_eq!(
            left_out(&Record { key: long(), value: long(), headers: headers(), ..record() }),
            [value, key, many]
        );
    }

    #[test]
    fn a_value_is_left_out_only_where_the_letter_cannot_hold_it() {
        let with = |bytes| Record { value: Some(Bytes::from(vec![0; bytes])), ..record() };
        let letter = |bytes| dead_letter(&with(bytes), "t", &refusal("no"));
        let room = {
            let empty = letter(0);
            MAX_RECORD_BYTES - empty.size() - frames(&empty.headers)
        };
        assert_eq!(letter(room).value, with(room).value);
        assert_eq!(letter(room).headers.text("windfall.errors.value_bytes"), None);
        assert_eq!(letter(room + 1).value, None);
    }

    #[test]
    fn a_refused_tombstone_stays_a_tombstone() {
        let tombstone = Record { value: None, ..record() };
        assert_eq!(dead_letter(&tombstone, "t", &refusal("no")).value, None);
    }
}
