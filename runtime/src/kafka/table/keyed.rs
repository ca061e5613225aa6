//! A topic of ours folded by its keys, and the guard that equal keys have equal bytes and so lie in one partition.
//!
//! The topic is ours, but others may be able to write into it. A key that cannot be read names nothing of ours: its record is
//! passed over and counted. What a value that cannot be read means is the caller's to say.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use windfall_schemas::wire::{SchemaReference, unframe};

use super::{FoldRequest, Folded, TableError, check_key_schema, fold};
use crate::kafka::connection::Connection;
use crate::kafka::record::Record;
use crate::reader::Decoder;

/// A topic of ours, and the schema id that its keys have when we write them.
#[derive(Debug, Clone, Copy)]
pub struct Own<'a> {
    /// The topic's full name.
    pub topic: &'a str,
    /// The id.
    pub key_schema: u32,
}

/// What was seen of the keys of a partition.
#[derive(Debug, Default, Clone, Copy)]
pub struct Keys {
    /// The newest that can be read.
    read: Option<Newest>,
    /// The newest that names a schema and cannot be read.
    foreign: Option<Newest>,
    /// How many cannot be read.
    pub passed_over: u64,
}

/// Where a key stands, and the schema that it was written with. Ordered by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Newest {
    timestamp_ms: Option<i64>,
    offset: i64,
    partition: i32,
    schema: Option<u32>,
}

impl Keys {
    fn note(&mut self, record: &Record, readable: bool) {
        let Record { timestamp_ms, offset, partition, .. } = *record;
        let schema = match record.key.as_deref().map(|key| unframe(key, None)) {
            Some(Ok((SchemaReference::Id(id), _))) => Some(id),
            Some(Ok((SchemaReference::Guid(_), _)) | Err(_)) | None => None,
        };
        let newest = Some(Newest { timestamp_ms, offset, partition, schema });
        if readable {
            self.read = newest;
            return;
        }
        self.passed_over += 1;
        if schema.is_some() {
            self.foreign = newest;
        }
    }
}

impl Own<'_> {
    /// Judges a topic by the newest key that can be read. Where none can be read, keys that name a schema are what a registry
    /// leaves behind that was changed or has lost its ids, and count as well; beside keys of ours they are a stranger's.
    ///
    /// # Errors
    /// [`TableError::KeySchema`] when that key was written with another schema id than ours.
    pub fn judge<'k>(&self, keys: impl Iterator<Item = &'k Keys> + Clone) -> Result<(), TableError> {
        let read = keys.clone().filter_map(|keys| keys.read).max();
        match read.or_else(|| keys.filter_map(|keys| keys.foreign).max()) {
            Some(Newest { offset, partition, schema: found, .. }) if found != Some(self.key_schema) => {
                let (topic, ours) = (self.topic.to_owned(), self.key_schema);
                Err(TableError::KeySchema { topic, partition, offset, found, ours })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Looks at the keys of a topic before anything is written into it; the newest one mostly settles it.
    ///
    /// # Errors
    /// As [`Own::judge`] and [`fold`].
    pub async fn guard<K: DeserializeOwned>(
        &self,
        connection: &Connection,
        decoder: &Decoder,
        partitions: impl Iterator<Item = i32> + Clone,
    ) -> Result<(), TableError> {
        match check_key_schema(connection, self.topic, partitions.clone(), self.key_schema).await {
            Err(TableError::KeySchema { .. }) => {}
            checked => return checked,
        }
        // Whether that is a stranger's key shows in what else stands there.
        let request = FoldRequest::whole(self.topic, partitions);
        let folded = fold_keyed(connection, decoder, request, ((), BTreeMap::new()), |(), _: K, _| ()).await?;
        self.judge(folded.state.1.values())
    }
}

/// Folds a topic as [`fold`] does; `take` gets the records whose keys can be read, and the keys of each partition are noted
/// beside the state.
///
/// # Errors
/// As [`fold`].
pub async fn fold_keyed<S: Send + 'static, K: DeserializeOwned>(
    connection: &Connection,
    decoder: &Decoder,
    request: FoldRequest,
    state: (S, BTreeMap<i32, Keys>),
    mut take: impl FnMut(&mut S, K, &Record) + Send + 'static,
) -> Result<Folded<(S, BTreeMap<i32, Keys>)>, TableError> {
    let decoder = decoder.clone();
    let on_record = move |(state, keys): &mut (S, BTreeMap<i32, Keys>), record: Record| {
        decoder.learn_blocking(&record)?;
        let key = decoder.key::<K>(&record);
        keys.entry(record.partition).or_default().note(&record, key.is_ok());
        if let Ok(key) = key {
            take(state, key, &record);
        }
        Ok(())
    };
    fold(connection, request, state, on_record).await
}
