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
pub(crate) use windfall_runtime::kafka::table::Own;
use windfall_runtime::kafka::table::{self, FoldProgress, FoldRequest, Keys, TableError};
use windfall_runtime::kafka::{Connection, Record};
use windfall_runtime::reader::Decoder;

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

impl<S: Default> Default for Cached<S> {
    fn default() -> Self {
        Self { state: S::default(), next_offset: 0, read_at: Instant::now(), keys: Keys::default() }
    }
}

/// A tail holds every change only as long as the topic keeps deletions whole; a day is far within.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// Where a fold tells how far it has come.
pub(crate) type FoldReport = watch::Sender<FoldProgress>;

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
    own.judge(folded.values().map(|cached| &cached.keys))?;
    cache.extend(folded);
    Ok(())
}

/// Counts the records of partitions that were passed over because their keys cannot be read.
pub(crate) fn passed_over<S>(cache: &BTreeMap<i32, Cached<S>>) -> u64 {
    cache.values().map(|cached| cached.keys.passed_over).sum()
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
    let keys = taken.iter().map(|(number, cached)| (*number, cached.keys)).collect();
    let each = move |state: &mut BTreeMap<i32, Cached<S>>, key, record: &Record| {
        take(&mut state.entry(record.partition).or_default().state, key, record);
    };
    let folded = table::fold_keyed(folding.connection, folding.decoder, request, (taken, keys), each).await?;
    let (mut state, keys) = folded.state;
    for (number, next_offset) in folded.next_offsets {
        let cached = state.entry(number).or_default();
        cached.next_offset = next_offset;
        cached.read_at = Instant::now();
        cached.keys = keys.get(&number).copied().unwrap_or_default();
    }
    let records = passed_over(&state) - before;
    if records > 0 {
        warn!(topic, records, "records passed over whose keys cannot be read: they name nothing of ours");
    }
    Ok(state)
}
