//! A refused record with the reason, in the form of Kafka Connect.

use bytes::Bytes;

use super::record::{Headers, Outgoing, Record};

/// An Avro error can print a whole schema; readers of dead letters want its beginning.
pub const MAX_MESSAGE_BYTES: usize = 1024;

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
#[must_use]
pub fn dead_letter(record: &Record, topic: &str, refusal: &Refusal) -> Outgoing {
    let Refusal { stage, service, instance, component, kind, message, attempts, first_failed_ms } = refusal;
    let mut headers: Headers =
        record.headers.iter().map(|(name, value)| (name.to_owned(), value.map(Bytes::copy_from_slice))).collect();
    let mut put = |name: &str, value: &str| headers.push(name, Bytes::copy_from_slice(value.as_bytes()));
    put("__connect.errors.topic", &record.topic);
    put("__connect.errors.partition", &record.partition.to_string());
    put("__connect.errors.offset", &record.offset.to_string());
    put("__connect.errors.connector.name", service);
    put("__connect.errors.task.id", instance);
    put("__connect.errors.stage", stage.name());
    put("__connect.errors.class.name", component);
    put("__connect.errors.exception.class.name", kind);
    put("__connect.errors.exception.message", cut(message));
    put("windfall.errors.attempts", &attempts.to_string());
    put("windfall.errors.first_failed_at", &timestamp(*first_failed_ms));
    Outgoing { topic: topic.into(), partition: None, key: record.key.clone(), value: record.value.clone(), headers }
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

    #[test]
    fn a_refused_tombstone_stays_a_tombstone() {
        let tombstone = Record { value: None, ..record() };
        assert_eq!(dead_letter(&tombstone, "t", &refusal("no")).value, None);
    }
}
