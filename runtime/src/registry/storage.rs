//! Where the embedded registry keeps its entries: a compacted topic, or memory.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use tracing::warn;
use uuid::Uuid;

use super::catalogue::Entry;
use super::error::RegistryError;
use crate::kafka::consumer::Start;
use crate::kafka::sender::Sender;
use crate::kafka::table::{self, FoldRequest};
use crate::kafka::{Connection, Outgoing};

/// The one partition.
const PARTITION: i32 = 0;

/// Where entries are kept, in one order that all processes see.
pub(super) enum Storage {
    /// For tests and the demo.
    Memory(Mutex<Vec<Entry>>),
    /// In Kafka, for several processes and for ever.
    Topic(TopicStorage),
    /// In memory, read when a test lets it.
    #[cfg(test)]
    Gated(Gate),
}

/// What stands between a test's entries and those who read them.
#[cfg(test)]
pub(super) struct Gate {
    entries: Mutex<Vec<Entry>>,
    permits: tokio::sync::Semaphore,
    pub(super) reads: std::sync::atomic::AtomicUsize,
    pub(super) fail: std::sync::atomic::AtomicBool,
}

#[cfg(test)]
impl Gate {
    /// Lets so many readings through.
    pub(super) fn open(&self, readings: usize) {
        self.permits.add_permits(readings);
    }

    async fn read(&self, from: i64) -> Result<(Vec<Entry>, i64), RegistryError> {
        use std::sync::atomic::Ordering;
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.permits.acquire().await.unwrap().forget();
        if self.fail.load(Ordering::SeqCst) {
            return Err(RegistryError::Storage { topic: "gated".to_owned(), source: "the gate is shut".into() });
        }
        Ok(tail(&self.entries, from))
    }
}

#[cfg(test)]
impl Storage {
    pub(super) fn gated() -> Self {
        let permits = tokio::sync::Semaphore::new(0);
        Self::Gated(Gate { entries: Mutex::default(), permits, reads: 0.into(), fail: false.into() })
    }

    pub(super) fn gate(&self) -> &Gate {
        match self {
            Self::Gated(gate) => gate,
            Self::Memory(_) | Self::Topic(_) => panic!("no gate stands there"),
        }
    }
}

/// Entries in a topic.
pub(super) struct TopicStorage {
    connection: Connection,
    topic: String,
    sender: Sender,
}

impl Storage {
    pub(super) fn memory() -> Self {
        Self::Memory(Mutex::new(Vec::new()))
    }

    pub(super) fn topic(connection: &Connection, topic: String) -> Result<Self, RegistryError> {
        let sender = Sender::new(connection)
            .map_err(|source| RegistryError::Storage { topic: topic.clone(), source: Box::new(source) })?;
        Ok(Self::Topic(TopicStorage { connection: connection.clone(), topic, sender }))
    }

    /// Adds an entry at the end; it counts when it is read back.
    pub(super) async fn append(&self, entry: &Entry) -> Result<(), RegistryError> {
        match self {
            Self::Memory(entries) => {
                entries.lock().unwrap_or_else(PoisonError::into_inner).push(entry.clone());
                Ok(())
            }
            Self::Topic(storage) => storage.append(entry).await,
            #[cfg(test)]
            Self::Gated(gate) => {
                gate.entries.lock().unwrap().push(entry.clone());
                Ok(())
            }
        }
    }

    /// Reads the entries from a position up to the present end, and returns the position to go on from.
    pub(super) async fn read(&self, from: i64) -> Result<(Vec<Entry>, i64), RegistryError> {
        match self {
            Self::Memory(entries) => Ok(tail(entries, from)),
            Self::Topic(storage) => storage.read(from).await,
            #[cfg(test)]
            Self::Gated(gate) => gate.read(from).await,
        }
    }

    /// Tells those who waited for a reading why it failed.
    pub(super) fn failed_before(&self, cause: &str) -> RegistryError {
        let topic = match self {
            Self::Memory(_) => "memory",
            Self::Topic(storage) => &storage.topic,
            #[cfg(test)]
            Self::Gated(_) => "gated",
        };
        RegistryError::Storage { topic: topic.to_owned(), source: cause.into() }
    }
}

/// Returns what lies from a position on, and the end.
fn tail(entries: &Mutex<Vec<Entry>>, from: i64) -> (Vec<Entry>, i64) {
    let entries = entries.lock().unwrap_or_else(PoisonError::into_inner);
    let start = usize::try_from(from).unwrap_or(0).min(entries.len());
    (entries[start..].to_vec(), i64::try_from(entries.len()).unwrap_or(i64::MAX))
}

impl TopicStorage {
    fn failed(&self, source: impl std::error::Error + Send + Sync + 'static) -> RegistryError {
        RegistryError::Storage { topic: self.topic.clone(), source: Box::new(source) }
    }

    async fn append(&self, entry: &Entry) -> Result<(), RegistryError> {
        let value = serde_json::to_vec(entry).map_err(|source| self.failed(source))?;
        let record = Outgoing::new(self.topic.as_str(), key_of(entry), Bytes::from(value)).to_partition(PARTITION);
        self.sender.send(&[record]).await.map_err(|source| self.failed(source))?;
        Ok(())
    }

    async fn read(&self, from: i64) -> Result<(Vec<Entry>, i64), RegistryError> {
        let mut request = FoldRequest::whole(self.topic.as_str(), [PARTITION]);
        if from > 0 {
            request.from.insert(PARTITION, Start::At(from));
        }
        let folded = table::fold(&self.connection, request, Vec::new(), |entries, record| {
            match record.value.as_deref().map(serde_json::from_slice::<Entry>) {
                Some(Ok(entry)) => entries.push(entry),
                Some(Err(error)) => {
                    warn!(offset = record.offset, %error, "entry of the schema topic is not readable, left out")
                }
                None => {}
            }
            Ok(())
        });
        let folded = folded.await.map_err(|source| self.failed(source))?;
        let next = folded.next_offsets.get(&PARTITION).copied().unwrap_or(from);
        Ok((folded.state, next))
    }
}

/// The key by which the topic is compacted.
///
/// A version's is unique: compaction keeps the *last* of equal keys, and a repeated entry would move its version behind later ones.
/// A level's is its subject, for there the last counts.
fn key_of(entry: &Entry) -> Bytes {
    let key = match entry {
        Entry::Version { subject, schema: _, after: _ } => {
            serde_json::json!({"kind": "version", "subject": subject, "entry": Uuid::now_v7()})
        }
        Entry::Config { subject, compatibility: _ } => serde_json::json!({"kind": "config", "subject": subject}),
    };
    Bytes::from(key.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compaction_keeps_every_version_where_it_stands_and_the_last_level_only() {
        let version = Entry::Version { subject: "s".into(), schema: "\"string\"".into(), after: None };
        assert_ne!(key_of(&version), key_of(&version), "a repeated entry must not take the place of the first");
        let level = |name: &str| Entry::Config { subject: Some("s".into()), compatibility: name.into() };
        assert_eq!(key_of(&level("FULL")), key_of(&level("NONE")));
        assert_ne!(key_of(&level("FULL")), key_of(&Entry::Config { subject: None, compatibility: "FULL".into() }));
    }
}
