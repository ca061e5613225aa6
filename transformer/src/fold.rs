//! Memory by partition, folded from a topic of ours: whole at first, the tail alone when a partition returns.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::warn;
use windfall_runtime::kafka::consumer::Start;
use windfall_runtime::kafka::table::{self, FoldFailure, FoldProgress, FoldRequest, TableError};
use windfall_runtime::kafka::{Connection, Record};
use windfall_schemas::wire::{SchemaReference, unframe};

use crate::error::TransformerError;

/// What is known of a partition, and how far the topic was read for it.
#[derive(Debug)]
pub(crate) struct Cached<S> {
    pub(crate) state: S,
    /// Everything below is in `state`.
    pub(crate) next_offset: i64,
    read_at: Instant,
    /// The newest record that has a key.
    newest: Option<Newest>,
}

/// The schema that the newest key was written with, and where that key stands.
#[derive(Debug, Clone, Copy)]
struct Newest {
    timestamp_ms: Option<i64>,
    offset: i64,
    schema: Option<u32>,
}

impl<S: Default> Default for Cached<S> {
    fn default() -> Self {
        Self { state: S::default(), next_offset: 0, read_at: Instant::now(), newest: None }
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

/// Folds the partitions of a topic to their ends, beginning where `cache` left off.
///
/// Refuses a topic whose newest key has another schema id than ours: equal keys would lie in other partitions. What is
/// dropped half-way is forgotten: the partitions are folded from the beginning next time.
pub(crate) async fn partitions<S: Default + Send + 'static>(
    connection: &Connection,
    own: Own<'_>,
    numbers: BTreeSet<i32>,
    cache: &mut BTreeMap<i32, Cached<S>>,
    report: &FoldReport,
    fold: impl FnMut(&mut S, Record) -> Result<(), FoldFailure> + Clone + Send + 'static,
) -> Result<(), TransformerError> {
    let topic = own.topic;
    let mut taken: BTreeMap<i32, Cached<S>> = BTreeMap::new();
    for number in &numbers {
        let cached = cache.remove(number).filter(|cached| cached.read_at.elapsed() < KEPT);
        taken.insert(*number, cached.unwrap_or_default());
    }
    let folded = match run(connection, topic, taken, report, fold.clone()).await {
        Err(TableError::Truncated { partition, .. } | TableError::Recreated { partition, .. }) => {
            warn!(topic, partition, "memory is older than its topic, reading the whole");
            let fresh = numbers.iter().map(|number| (*number, Cached::default())).collect();
            run(connection, topic, fresh, report, fold).await?
        }
        folded => folded?,
    };
    check_keys(own, &folded)?;
    cache.extend(folded);
    Ok(())
}

fn check_keys<S>(own: Own<'_>, folded: &BTreeMap<i32, Cached<S>>) -> Result<(), TableError> {
    let newest = folded.iter().filter_map(|(number, cached)| Some((*number, cached.newest?)));
    match newest.max_by_key(|(_, newest)| (newest.timestamp_ms, newest.offset)) {
        Some((partition, newest)) if newest.schema != Some(own.key_schema) => {
            let (topic, ours) = (own.topic.to_owned(), own.key_schema);
            Err(TableError::KeySchema { topic, partition, offset: newest.offset, found: newest.schema, ours })
        }
        Some(_) | None => Ok(()),
    }
}

fn key_schema(key: &[u8]) -> Option<u32> {
    match unframe(key, None) {
        Ok((SchemaReference::Id(id), _)) => Some(id),
        Ok((SchemaReference::Guid(_), _)) | Err(_) => None,
    }
}

async fn run<S: Default + Send + 'static>(
    connection: &Connection,
    topic: &str,
    taken: BTreeMap<i32, Cached<S>>,
    report: &FoldReport,
    mut fold: impl FnMut(&mut S, Record) -> Result<(), FoldFailure> + Send + 'static,
) -> Result<BTreeMap<i32, Cached<S>>, TableError> {
    let start = |cached: &Cached<S>| match cached.next_offset {
        0 => Start::Beginning,
        offset => Start::At(offset),
    };
    let from: BTreeMap<i32, Start> = taken.iter().map(|(number, cached)| (*number, start(cached))).collect();
    let mut request = FoldRequest::whole(topic, []).reporting(report.clone());
    request.from = from;
    let each = move |state: &mut BTreeMap<i32, Cached<S>>, record: Record| {
        let cached = state.entry(record.partition).or_default();
        if let Some(key) = &record.key {
            let (timestamp_ms, offset) = (record.timestamp_ms, record.offset);
            cached.newest = Some(Newest { timestamp_ms, offset, schema: key_schema(key) });
        }
        fold(&mut cached.state, record)
    };
    let folded = table::fold(connection, request, taken, each).await?;
    let mut state = folded.state;
    for (number, next_offset) in folded.next_offsets {
        let cached = state.entry(number).or_default();
        cached.next_offset = next_offset;
        cached.read_at = Instant::now();
    }
    Ok(state)
}
