//! Memory by partition, folded from a topic of ours: whole at first, the tail alone when a partition returns.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::warn;
use windfall_runtime::kafka::consumer::Start;
use windfall_runtime::kafka::table::{self, FoldFailure, FoldProgress, FoldRequest, TableError};
use windfall_runtime::kafka::{Connection, Record};

use crate::error::TransformerError;

/// What is known of a partition, and how far the topic was read for it.
#[derive(Debug)]
pub(crate) struct Cached<S> {
    pub(crate) state: S,
    /// Everything below is in `state`.
    pub(crate) next_offset: i64,
    read_at: Instant,
}

impl<S: Default> Default for Cached<S> {
    fn default() -> Self {
        Self { state: S::default(), next_offset: 0, read_at: Instant::now() }
    }
}

/// A tail holds every change only as long as the topic keeps deletions whole; a day is far within.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// Where a fold tells how far it has come.
pub(crate) type FoldReport = watch::Sender<FoldProgress>;

/// Folds the partitions of a topic to their ends, beginning where `cache` left off.
///
/// What is dropped half-way is forgotten: the partitions are folded from the beginning next time.
pub(crate) async fn partitions<S: Default + Send + 'static>(
    connection: &Connection,
    topic: &str,
    numbers: BTreeSet<i32>,
    cache: &mut BTreeMap<i32, Cached<S>>,
    report: &FoldReport,
    fold: impl FnMut(&mut S, Record) -> Result<(), FoldFailure> + Clone + Send + 'static,
) -> Result<(), TransformerError> {
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
    cache.extend(folded);
    Ok(())
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
    let from = taken.iter().map(|(number, cached)| (*number, start(cached))).collect();
    let request = FoldRequest { topic: topic.to_owned(), from, progress: None }.reporting(report.clone());
    let each = move |state: &mut BTreeMap<i32, Cached<S>>, record: Record| {
        let cached = state.entry(record.partition).or_default();
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
