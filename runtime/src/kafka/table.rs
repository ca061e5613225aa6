//! Reads topics to their ends: every stage rebuilds its memory this way.
//!
//! The end is asked of a `read_uncommitted` client, since one that reads committed records is shown the last *stable* offset. It
//! is reached when the position is at or past it. A reader that comes to an end below it meets the open transaction of somebody
//! else, which hides what follows: it waits until that transaction has ended, and says where.
//!
//! The log's last batch is never compacted away (it stands in the active segment), so a position does reach the end.

mod error;
mod keyed;
mod reading;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use error::TableError;
pub use keyed::{Keys, Own, fold_keyed};

use super::client::{ASK_TIMEOUT, PlainContext, ask, passing, retried};
use super::connection::Connection;
use super::consumer::Start;
use super::record::Record;
use crate::registry::RegistryError;
use reading::FoldReader;

/// Which part of a topic is to be folded.
#[derive(Debug, Clone)]
pub struct FoldRequest {
    /// The topic's full name.
    pub topic: String,
    /// The partitions, and where to begin in each: at the beginning, or at what an earlier fold has reached.
    pub from: BTreeMap<i32, Start>,
    /// Where progress is reported, for `/status`.
    pub progress: Option<watch::Sender<FoldProgress>>,
    /// Ends before the first open transaction instead of waiting for it: never for a state that something is computed from.
    visible_only: bool,
    /// Where to end in partitions that are not read to their ends.
    up_to: BTreeMap<i32, i64>,
}

impl FoldRequest {
    /// Asks for partitions from their beginning.
    pub fn whole(topic: impl Into<String>, partitions: impl IntoIterator<Item = i32>) -> Self {
        Self::begin(topic, partitions.into_iter().map(|partition| (partition, Start::Beginning)))
    }

    /// Asks for what has come since an earlier fold.
    pub fn tail(topic: impl Into<String>, next_offsets: &BTreeMap<i32, i64>) -> Self {
        Self::begin(topic, next_offsets.iter().map(|(partition, offset)| (*partition, Start::At(*offset))))
    }

    fn begin(topic: impl Into<String>, from: impl Iterator<Item = (i32, Start)>) -> Self {
        Self { topic: topic.into(), from: from.collect(), progress: None, visible_only: false, up_to: BTreeMap::new() }
    }

    /// Ends partitions before these offsets.
    #[must_use]
    pub fn up_to(mut self, offsets: BTreeMap<i32, i64>) -> Self {
        self.up_to = offsets;
        self
    }

    /// Reports progress to this channel.
    #[must_use]
    pub fn reporting(mut self, progress: watch::Sender<FoldProgress>) -> Self {
        self.progress = Some(progress);
        self
    }
}

/// How far a fold has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoldProgress {
    /// The topic's full name.
    pub topic: String,
    /// Records folded so far.
    pub records: u64,
    /// Offsets still to be passed, markers included.
    pub remaining: u64,
    /// Partitions whose tail an open transaction hides.
    pub hidden: Vec<Hidden>,
}

/// A tail that an open transaction hides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hidden {
    /// The partition.
    pub partition: i32,
    /// Where reading stands: the transaction's first offset, or what follows the last visible record.
    pub position: i64,
    /// The end to be reached.
    pub end: i64,
    /// How long it has been so.
    pub waited: Duration,
}

/// The result of a fold.
#[derive(Debug)]
pub struct Folded<S> {
    /// The state, with every record folded in.
    pub state: S,
    /// The next offset of each partition: from here a later fold goes on.
    pub next_offsets: BTreeMap<i32, i64>,
    /// How many records were folded.
    pub records: u64,
}

/// Reads partitions of a topic to their ends, and folds each committed record into `state` in the order of its partition.
///
/// To be called after the own producer has fenced its predecessors. The callback runs on a thread of its own; tombstones are
/// records without a value. Dropping the future ends the thread. On an error the state is gone: fold anew.
///
/// # Errors
/// See [`TableError`]; the callback fails when the registry does not tell a record's schema.
pub async fn fold<S: Send + 'static>(
    connection: &Connection,
    request: FoldRequest,
    state: S,
    on_record: impl FnMut(&mut S, Record) -> Result<(), RegistryError> + Send + 'static,
) -> Result<Folded<S>, TableError> {
    let reader = connection.reader();
    // The end that a `read_committed` client is told is the last stable offset.
    let asker = if request.visible_only { reader.clone() } else { connection.asker() };
    let mut ends = ends_as(asker, &request.topic, request.from.keys().copied()).await?;
    for (at, offset) in &request.up_to {
        ends.entry(*at).and_modify(|extent| extent.end = extent.end.min(*offset));
    }
    let stop = CancellationToken::new();
    let (stopped, _stop_on_drop) = (stop.clone(), stop.drop_guard());
    let topic = request.topic.clone();
    let work = move || FoldReader::new(&reader, request, &ends, stopped)?.run(state, on_record);
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(TableError::Stopped { topic }))
}

/// Returns the first and the end offset of each partition, hidden records included.
///
/// # Errors
/// [`TableError::Ask`] when no broker answers.
pub async fn ends(
    connection: &Connection,
    topic: &str,
    partitions: impl IntoIterator<Item = i32>,
) -> Result<BTreeMap<i32, Extent>, TableError> {
    ends_as(connection.asker(), topic, partitions).await
}

/// Asks the ends as the client of `settings` is told them.
async fn ends_as(
    settings: ClientConfig,
    topic: &str,
    partitions: impl IntoIterator<Item = i32>,
) -> Result<BTreeMap<i32, Extent>, TableError> {
    let name = topic.to_owned();
    let partitions: Vec<i32> = partitions.into_iter().collect();
    let watermarks = move |client: &BaseConsumer<PlainContext>| {
        let deadline = Instant::now() + ASK_TIMEOUT * 3;
        let extent = |partition: i32| {
            let watermarks = || client.fetch_watermarks(&name, partition, ASK_TIMEOUT);
            retried(deadline, passing, watermarks).map(|(first, end)| (partition, Extent { first, end }))
        };
        partitions.into_iter().map(extent).collect()
    };
    ask(settings, watermarks).await.map_err(|source| TableError::Ask { topic: topic.to_owned(), source })
}

/// What a partition holds: offsets from `first` up to, not including, `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The first offset that is still there.
    pub first: i64,
    /// The offset that the next record will get.
    pub end: i64,
}

/// Reads the newest visible record of each partition that has one; what an open transaction hides is not waited for.
///
/// # Errors
/// As [`fold`].
pub async fn newest(
    connection: &Connection,
    topic: &str,
    partitions: impl IntoIterator<Item = i32>,
) -> Result<Vec<Record>, TableError> {
    let extents = ends_as(connection.reader(), topic, partitions).await?;
    let keep = |newest: &mut BTreeMap<i32, Record>, record: Record| drop(newest.insert(record.partition, record));
    look_back(connection, topic, extents, keep).await
}

/// Reads of each partition, among the records below an offset, the newest one that no tombstone of its key follows.
///
/// # Errors
/// As [`fold`].
pub async fn newest_live(
    connection: &Connection,
    topic: &str,
    below: &BTreeMap<i32, i64>,
) -> Result<Vec<Record>, TableError> {
    let mut extents = ends_as(connection.reader(), topic, below.keys().copied()).await?;
    for (at, extent) in &mut extents {
        extent.end = below.get(at).map_or(extent.end, |below| extent.end.min(*below));
    }
    let keep = |live: &mut BTreeMap<(i32, Option<Bytes>), Record>, record: Record| {
        let key = (record.partition, record.key.clone());
        match record.value {
            Some(_) => drop(live.insert(key, record)),
            None => drop(live.remove(&key)),
        }
    };
    look_back(connection, topic, extents, keep).await
}

/// Reads back from the end of each extent until `keep` has kept a record of it, and returns the last one kept of each.
async fn look_back<K: Ord + Send + 'static>(
    connection: &Connection,
    topic: &str,
    mut extents: BTreeMap<i32, Extent>,
    keep: impl Fn(&mut BTreeMap<K, Record>, Record) + Send + Copy + 'static,
) -> Result<Vec<Record>, TableError> {
    /// The first look back; raised until something is found, since markers and aborted records are no records.
    const LOOK_BACK: i64 = 16;
    extents.retain(|_, extent| extent.first < extent.end);
    let mut found: BTreeMap<i32, Record> = BTreeMap::new();
    let mut look_back = LOOK_BACK;
    while !extents.is_empty() {
        let starts = extents.iter().map(|(at, extent)| (*at, (extent.end - look_back).max(extent.first))).collect();
        let ends = extents.iter().map(|(at, extent)| (*at, extent.end)).collect();
        let request = FoldRequest { visible_only: true, ..FoldRequest::tail(topic, &starts) }.up_to(ends);
        let folded = fold(connection, request, BTreeMap::new(), move |kept, record| {
            keep(kept, record);
            Ok(())
        });
        for record in folded.await?.state.into_values() {
            let last = found.get(&record.partition).is_none_or(|last| last.offset < record.offset);
            if last {
                found.insert(record.partition, record);
            }
        }
        extents.retain(|at, extent| !found.contains_key(at) && extent.end - look_back > extent.first);
        look_back *= 16;
    }
    Ok(found.into_values().collect())
}

/// Refuses a topic whose newest key was written with another schema id than ours: equal keys would have other bytes, and so
/// stand in other partitions.
///
/// # Errors
/// [`TableError::KeySchema`] with both ids; else as [`fold`].
pub async fn check_key_schema(
    connection: &Connection,
    topic: &str,
    partitions: impl IntoIterator<Item = i32>,
    ours: u32,
) -> Result<(), TableError> {
    let records = newest(connection, topic, partitions).await?;
    let newest =
        records.iter().filter(|record| record.key.is_some()).max_by_key(|record| (record.timestamp_ms, record.offset));
    let Some(record) = newest else { return Ok(()) };
    let framed = record.key.as_deref().and_then(|key| match key {
        [0, id @ ..] if id.len() >= 4 => Some(u32::from_be_bytes([id[0], id[1], id[2], id[3]])),
        _ => None,
    });
    match framed {
        Some(found) if found == ours => Ok(()),
        found => {
            let (partition, offset) = (record.partition, record.offset);
            Err(TableError::KeySchema { topic: topic.to_owned(), partition, offset, found, ours })
        }
    }
}
