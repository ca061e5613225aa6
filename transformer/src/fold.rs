//! Memory by partition, folded from a topic of ours: whole at first, the tail alone when a partition returns.
//!
//! The topics are ours, but others may be able to write into them. What cannot be read stops nothing and is never taken for
//! a statement of ours:
//!
//! | what cannot be read | what it hides | what becomes of it |
//! | --- | --- | --- |
//! | the key | nothing: it names nothing of ours | passed over, counted, shown |
//! | the value under a key of ours | what that key says now | the memory is told, and knows how to mend or to hold it |

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tracing::warn;
use windfall_runtime::kafka::consumer::Start;
use windfall_runtime::kafka::table::{self, FoldProgress, FoldRequest, TableError};
use windfall_runtime::kafka::{Connection, Record};
use windfall_runtime::reader::Decoder;
use windfall_schemas::wire::{SchemaReference, unframe};

use crate::error::TransformerError;

/// What is known of a partition, and how far the topic was read for it.
#[derive(Debug)]
pub(crate) struct Cached<S> {
    pub(crate) state: S,
    /// Everything below is in `state`.
    pub(crate) next_offset: i64,
    read_at: Instant,
    keys: Keys,
}

/// The keys of a partition.
#[derive(Debug, Default, Clone, Copy)]
struct Keys {
    /// The newest that can be read.
    read: Option<Newest>,
    /// The newest that names a schema and cannot be read.
    foreign: Option<Newest>,
    /// How many cannot be read.
    passed_over: u64,
}

/// Where a key stands, and the schema that it was written with.
#[derive(Debug, Clone, Copy)]
struct Newest {
    timestamp_ms: Option<i64>,
    offset: i64,
    schema: Option<u32>,
}

impl Keys {
    fn note(&mut self, record: &Record, readable: bool) {
        let Record { timestamp_ms, offset, .. } = *record;
        let newest = Some(Newest { timestamp_ms, offset, schema: key_schema(record) });
        if readable {
            self.read = newest;
            return;
        }
        self.passed_over += 1;
        if key_schema(record).is_some() {
            self.foreign = newest;
        }
    }
}

impl<S: Default> Default for Cached<S> {
    fn default() -> Self {
        Self { state: S::default(), next_offset: 0, read_at: Instant::now(), keys: Keys::default() }
    }
}

/// A tail holds every change only as long as the topic keeps deletions whole; a day is far within.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// Where a fold tells how far it has come.
pub(crate) type FoldReport = watch::Sender<FoldProgress>;

/// A topic of ours, and the schema id that its keys have when we write them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Own<'a> {
    pub(crate) topic: &'a str,
    pub(crate) key_schema: u32,
}

/// What a fold reads with, and where it tells of it.
#[derive(Clone, Copy)]
pub(crate) struct Folding<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) decoder: &'a Decoder,
    pub(crate) report: &'a FoldReport,
}

/// Folds the partitions of a topic to their ends, beginning where `cache` left off; `take` gets the records whose keys can be read.
///
/// Refuses a topic whose keys have another schema id than ours: equal keys would lie in other partitions. What is dropped
/// half-way is forgotten: the partitions are folded from the beginning next time.
pub(crate) async fn partitions<S: Default + Send + 'static, K: DeserializeOwned>(
    folding: Folding<'_>,
    own: Own<'_>,
    numbers: BTreeSet<i32>,
    cache: &mut BTreeMap<i32, Cached<S>>,
    take: impl FnMut(&mut S, K, &Record) + Clone + Send + 'static,
) -> Result<(), TransformerError> {
    let topic = own.topic;
    let mut taken: BTreeMap<i32, Cached<S>> = BTreeMap::new();
    for number in &numbers {
        let cached = cache.remove(number).filter(|cached| cached.read_at.elapsed() < KEPT);
        taken.insert(*number, cached.unwrap_or_default());
    }
    let folded = match run(folding, topic, taken, take.clone()).await {
        Err(TableError::Truncated { .. } | TableError::OtherLog(_)) => {
            warn!(topic, "memory is older than its topic, reading the whole");
            let fresh = numbers.iter().map(|number| (*number, Cached::default())).collect();
            run(folding, topic, fresh, take).await?
        }
        folded => folded?,
    };
    check_keys(own, &folded)?;
    cache.extend(folded);
    Ok(())
}

/// Counts the records of partitions that were passed over because their keys cannot be read.
pub(crate) fn passed_over<S>(cache: &BTreeMap<i32, Cached<S>>) -> u64 {
    cache.values().map(|cached| cached.keys.passed_over).sum()
}

/// Refuses a topic as [`partitions`] does, without keeping anything of it; the newest keys alone mostly settle it.
pub(crate) async fn check_key_schema<K: DeserializeOwned>(
    folding: Folding<'_>,
    own: Own<'_>,
    numbers: BTreeSet<i32>,
) -> Result<(), TransformerError> {
    match table::check_key_schema(folding.connection, own.topic, numbers.iter().copied(), own.key_schema).await {
        Err(TableError::KeySchema { .. }) => {
            // Whether that is a stranger's key shows in what else stands there.
            let mut cache: BTreeMap<i32, Cached<()>> = BTreeMap::new();
            partitions(folding, own, numbers, &mut cache, |(), _: K, _| ()).await
        }
        checked => Ok(checked?),
    }
}

/// Judges by the newest key that can be read. Where none can, those that name a schema are what a registry leaves behind that
/// was changed or has lost its ids; beside keys of ours they are a stranger's.
fn check_keys<S>(own: Own<'_>, folded: &BTreeMap<i32, Cached<S>>) -> Result<(), TableError> {
    let newest = |of: fn(&Keys) -> Option<Newest>| {
        let found = folded.iter().filter_map(|(number, cached)| Some((*number, of(&cached.keys)?)));
        found.max_by_key(|(_, newest)| (newest.timestamp_ms, newest.offset))
    };
    match newest(|keys| keys.read).or_else(|| newest(|keys| keys.foreign)) {
        Some((partition, newest)) if newest.schema != Some(own.key_schema) => {
            let (topic, ours) = (own.topic.to_owned(), own.key_schema);
            Err(TableError::KeySchema { topic, partition, offset: newest.offset, found: newest.schema, ours })
        }
        Some(_) | None => Ok(()),
    }
}

fn key_schema(record: &Record) -> Option<u32> {
    match unframe(record.key.as_deref()?, None) {
        Ok((SchemaReference::Id(id), _)) => Some(id),
        Ok((SchemaReference::Guid(_), _)) | Err(_) => None,
    }
}

async fn run<S: Default + Send + 'static, K: DeserializeOwned>(
    folding: Folding<'_>,
    topic: &str,
    taken: BTreeMap<i32, Cached<S>>,
    mut take: impl FnMut(&mut S, K, &Record) + Send + 'static,
) -> Result<BTreeMap<i32, Cached<S>>, TableError> {
    let start = |cached: &Cached<S>| match cached.next_offset {
        0 => Start::Beginning,
        offset => Start::At(offset),
    };
    let from: BTreeMap<i32, Start> = taken.iter().map(|(number, cached)| (*number, start(cached))).collect();
    let before = passed_over(&taken);
    let mut request = FoldRequest::whole(topic, []).reporting(folding.report.clone());
    request.from = from;
    let decoder = folding.decoder.clone();
    let each = move |state: &mut BTreeMap<i32, Cached<S>>, record: Record| {
        decoder.learn_blocking(&record)?;
        let cached = state.entry(record.partition).or_default();
        let key = decoder.key::<K>(&record);
        cached.keys.note(&record, key.is_ok());
        if let Ok(key) = key {
            take(&mut cached.state, key, &record);
        }
        Ok(())
    };
    let folded = table::fold(folding.connection, request, taken, each).await?;
    let mut state = folded.state;
    for (number, next_offset) in folded.next_offsets {
        let cached = state.entry(number).or_default();
        cached.next_offset = next_offset;
        cached.read_at = Instant::now();
    }
    let records = passed_over(&state) - before;
    if records > 0 {
        warn!(topic, records, "records passed over whose keys cannot be read: they name nothing of ours");
    }
    Ok(state)
}
