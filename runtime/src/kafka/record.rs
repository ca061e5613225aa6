//! Records as they came and as they go, detached from the client's memory.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message, OwnedHeaders};

/// No record that is published may be larger, by [`Outgoing::size`]: librdkafka refuses more than `message.max.bytes` (1,000,000)
/// with framing, brokers take a little more.
pub const MAX_RECORD_BYTES: usize = 990_000;

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic's full name.
    pub topic: Arc<str>,
    /// The partition's number.
    pub partition: i32,
}

impl TopicPartition {
    /// Names a partition.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.topic, self.partition)
    }
}

/// A record's headers, in order; a name may come twice and a value may be null.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(Cow<'static, str>, Option<Bytes>)>);

impl Headers {
    /// Makes an empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a header at the end.
    pub fn push(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Bytes>) {
        self.0.push((name.into(), Some(value.into())));
    }

    /// Adds a header at the end and returns the list.
    #[must_use]
    pub fn with(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Bytes>) -> Self {
        self.push(name, value);
        self
    }

    /// Adds a header whose value may be null.
    pub fn push_nullable(&mut self, name: impl Into<Cow<'static, str>>, value: Option<Bytes>) {
        self.0.push((name.into(), value));
    }

    /// Returns the value of the last header of that name, as Kafka's own readers do.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().rev().find(|(known, _)| known == name).and_then(|(_, value)| value.as_deref())
    }

    /// Returns the value of the last header of that name where it is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// Goes through the headers in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        self.0.iter().map(|(name, value)| (&**name, value.as_deref()))
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns how many bytes names and values take.
    pub fn size(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Bytes::len)).sum()
    }

    pub(crate) fn to_native(&self) -> Option<OwnedHeaders> {
        if self.0.is_empty() {
            return None;
        }
        let native = self.0.iter().fold(OwnedHeaders::new_with_capacity(self.0.len()), |native, (name, value)| {
            native.insert(Header { key: name, value: value.as_deref() })
        });
        Some(native)
    }
}

impl FromIterator<(Cow<'static, str>, Option<Bytes>)> for Headers {
    fn from_iter<I: IntoIterator<Item = (Cow<'static, str>, Option<Bytes>)>>(headers: I) -> Self {
        Self(headers.into_iter().collect())
    }
}

/// A record read from a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The topic's full name.
    pub topic: Arc<str>,
    /// The partition it stands in.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// The broker's time stamp in milliseconds since 1970, where there is one.
    pub timestamp_ms: Option<i64>,
    /// The key as it came.
    pub key: Option<Bytes>,
    /// The value as it came; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// The headers as they came.
    pub headers: Headers,
}

impl Record {
    /// Returns where the record stands, without its offset.
    pub fn topic_partition(&self) -> TopicPartition {
        TopicPartition { topic: Arc::clone(&self.topic), partition: self.partition }
    }

    /// Returns how many bytes key, value and headers take.
    pub fn size(&self) -> usize {
        size(self.key.as_ref(), self.value.as_ref(), &self.headers)
    }

    /// Copies a message out of librdkafka's memory; `topic` is its topic's name.
    pub fn detach(message: &BorrowedMessage<'_>, topic: Arc<str>) -> Self {
        let headers = message.headers().map_or_else(Headers::new, |headers| {
            headers
                .iter()
                .map(|header| (header.key.to_owned().into(), header.value.map(Bytes::copy_from_slice)))
                .collect()
        });
        Self {
            topic,
            partition: message.partition(),
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis(),
            key: message.key().map(Bytes::copy_from_slice),
            value: message.payload().map(Bytes::copy_from_slice),
            headers,
        }
    }
}

/// A record to be published; the broker sets its time stamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The topic's full name.
    pub topic: Arc<str>,
    /// The partition; left out, it is murmur2 of the key as Java's default partitioner has it (any partition without a key).
    pub partition: Option<i32>,
    /// The framed key.
    pub key: Option<Bytes>,
    /// The framed value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// The headers.
    pub headers: Headers,
}

impl Outgoing {
    /// Makes a record whose partition follows from its key.
    pub fn new(topic: impl Into<Arc<str>>, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        let (key, value) = (Some(key.into()), Some(value.into()));
        Self { topic: topic.into(), partition: None, key, value, headers: Headers::new() }
    }

    /// Makes a tombstone whose partition follows from its key.
    pub fn tombstone(topic: impl Into<Arc<str>>, key: impl Into<Bytes>) -> Self {
        Self { topic: topic.into(), partition: None, key: Some(key.into()), value: None, headers: Headers::new() }
    }

    /// Sends the record to a partition of its own.
    #[must_use]
    pub fn to_partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Gives the record headers.
    #[must_use]
    pub fn with_headers(mut self, headers: Headers) -> Self {
        self.headers = headers;
        self
    }

    /// Returns how many bytes key, value and headers take.
    pub fn size(&self) -> usize {
        size(self.key.as_ref(), self.value.as_ref(), &self.headers)
    }
}

/// Where a published record has come to stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// The topic's full name.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The offset there.
    pub offset: i64,
    /// When a broker appended it, by that broker's clock, in epoch milliseconds.
    pub timestamp_ms: Option<i64>,
}

fn size(key: Option<&Bytes>, value: Option<&Bytes>, headers: &Headers) -> usize {
    key.map_or(0, Bytes::len) + value.map_or(0, Bytes::len) + headers.size()
}
