//! What a loop remembers of a topic of ours, folded by partition: the whole topic at first, and only its tail when a partition
//! returns.
//!
//! The topics are ours, but others may be able to write into them. What cannot be read never stops a fold and is never taken for
//! a record of ours:
//!
//! | what cannot be read | what is not known | what is done |
//! | --- | --- | --- |
//! | the key | nothing: the record names nothing of ours | it is passed over, counted and shown |
//! | the value under a key of ours | what that key says now | the state is told, and repairs or holds what the key names |

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tracing::warn;
use windfall_runtime::kafka::Record;
use windfall_runtime::kafka::consumer::Start;
use windfall_runtime::kafka::record::Delivered;
use windfall_runtime::kafka::table::{self, FoldProgress, FoldRequest, Keys, TableError};

use crate::error::TransformerError;
use crate::own::OwnTopic;
use crate::parts::Parts;

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

/// Where a fold reports how far it has come.
pub(crate) type FoldReport = watch::Sender<FoldProgress>;

/// A topic of ours with the state of each partition; a partition that is assigned elsewhere stays as a cache.
pub(crate) struct TopicState<S> {
    topic: OwnTopic,
    pub(crate) partitions: BTreeMap<i32, Cached<S>>,
}

impl<S: Default + Send + 'static> TopicState<S> {
    pub(crate) fn new(topic: &OwnTopic) -> Self {
        Self { topic: topic.clone(), partitions: BTreeMap::new() }
    }

    pub(crate) fn get(&self, partition: i32) -> Option<&S> {
        self.partitions.get(&partition).map(|cached| &cached.state)
    }

    pub(crate) fn entry(&mut self, partition: i32) -> &mut S {
        &mut self.partitions.entry(partition).or_default().state
    }

    pub(crate) fn states(&self) -> impl Iterator<Item = &S> {
        self.partitions.values().map(|cached| &cached.state)
    }

    /// Notes that all below an offset is in the state of its partition.
    pub(crate) fn advance(&mut self, partition: i32, next_offset: i64) {
        let cached = self.partitions.entry(partition).or_default();
        cached.next_offset = cached.next_offset.max(next_offset);
    }

    /// Notes where records of this topic were written that are in the state already.
    pub(crate) fn delivered(&mut self, delivered: &[Delivered]) {
        let topic = self.topic.name.clone();
        for delivered in delivered.iter().filter(|delivered| *delivered.topic == *topic) {
            self.advance(delivered.partition, delivered.offset + 1);
        }
    }

    /// Counts the records that were passed over because their keys cannot be read.
    pub(crate) fn passed_over(&self) -> (&str, u64) {
        (&self.topic.name, passed_over(&self.partitions))
    }

    /// Folds partitions to their ends, beginning where the last fold ended; `take` gets the records whose keys can be read.
    ///
    /// Refuses a topic whose keys have another schema id than ours: equal keys would lie in other partitions. A fold that is
    /// dropped half-way is forgotten: the partitions are folded from the beginning next time.
    pub(crate) async fn fold<K: DeserializeOwned>(
        &mut self,
        parts: &Parts,
        numbers: &BTreeSet<i32>,
        take: impl FnMut(&mut S, K, &Record) + Clone + Send + 'static,
    ) -> Result<(), TransformerError> {
        let topic = &*self.topic.name;
        let mut taken: BTreeMap<i32, Cached<S>> = BTreeMap::new();
        for number in numbers {
            let cached = self.partitions.remove(number).filter(|cached| cached.read_at.elapsed() < KEPT);
            taken.insert(*number, cached.unwrap_or_default());
        }
        let folded = match run(parts, topic, taken, take.clone()).await {
            Err(TableError::Truncated { .. } | TableError::OtherLog(_)) => {
                warn!(topic, "memory is older than its topic, reading the whole");
                let fresh = numbers.iter().map(|number| (*number, Cached::default())).collect();
                run(parts, topic, fresh, take).await?
            }
            folded => folded?,
        };
        self.topic.keys().judge(folded.values().map(|cached| &cached.keys))?;
        self.partitions.extend(folded);
        Ok(())
    }
}

fn passed_over<S>(partitions: &BTreeMap<i32, Cached<S>>) -> u64 {
    partitions.values().map(|cached| cached.keys.passed_over).sum()
}

async fn run<S: Default + Send + 'static, K: DeserializeOwned>(
    parts: &Parts,
    topic: &str,
    taken: BTreeMap<i32, Cached<S>>,
    mut take: impl FnMut(&mut S, K, &Record) + Send + 'static,
) -> Result<BTreeMap<i32, Cached<S>>, TableError> {
    let start = |cached: &Cached<S>| match cached.next_offset {
        0 => Start::Beginning,
        offset => Start::At(offset),
    };
    let before = passed_over(&taken);
    let mut request = FoldRequest::whole(topic, []).reporting(parts.folding.clone());
    request.from = taken.iter().map(|(number, cached)| (*number, start(cached))).collect();
    let keys = taken.iter().map(|(number, cached)| (*number, cached.keys)).collect();
    let each = move |state: &mut BTreeMap<i32, Cached<S>>, key, record: &Record| {
        take(&mut state.entry(record.partition).or_default().state, key, record);
    };
    let folded = table::fold_keyed(&parts.connection, &parts.decoder, request, (taken, keys), each).await?;
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
