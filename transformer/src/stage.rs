//! What a loop's driver asks of the map and of the merge.

use std::collections::BTreeMap;
use std::future::Future;

use windfall_runtime::kafka::consumer::{Committed, Start};
use windfall_runtime::kafka::publisher;
use windfall_runtime::kafka::{Outgoing, Record, TopicPartition};

use crate::error::TransformerError;

/// What a stage shows of itself, by name.
pub(crate) type Details = Vec<(&'static str, Option<serde_json::Value>)>;

/// Where the input of each partition begins.
pub(crate) type Starts = BTreeMap<TopicPartition, Start>;

/// What a stage does within the loop.
pub(crate) trait Stage: Send {
    /// What moves the stage's memory, once it is durable.
    type Effects: Send;

    /// Name in metrics and logs: `map`, `merge`.
    fn name(&self) -> &'static str;

    /// Reads what is to be known of the partitions, and says where their input begins and what must be published first.
    ///
    /// May be dropped half-way; what was read is then forgotten and read again.
    fn take_over(
        &mut self,
        partitions: &[TopicPartition],
        committed: &BTreeMap<TopicPartition, Option<Committed>>,
    ) -> impl Future<Output = Result<Starts, TransformerError>> + Send;

    /// Names what an earlier writer left undone in the partitions, after a bounded look at them; `None` when all is done.
    fn heal(&mut self) -> Result<Option<Work<Self::Effects>>, TransformerError>;

    /// Computes what follows from records. Memory stays as it is.
    fn compute(
        &mut self,
        records: Vec<Record>,
    ) -> impl Future<Output = Result<Work<Self::Effects>, TransformerError>> + Send;

    /// Moves memory: the work is durable.
    fn settle(&mut self, effects: Self::Effects, committed: &publisher::Committed);

    /// Tells what an operator should know, for `/status`; `None` where there is nothing to tell.
    fn details(&self) -> Details;

    /// A place for a test to interfere, before the commit.
    fn before_commit(&self);

    /// A place for a test to interfere, after the commit.
    fn after_commit(&self);
}

/// What is to be written, and what follows from it for memory.
#[derive(Debug)]
pub(crate) struct Work<E> {
    pub(crate) derived: Vec<Outgoing>,
    pub(crate) follow_up: Vec<Outgoing>,
    /// Input positions that move although no record of a batch says so.
    pub(crate) next_offsets: Vec<(TopicPartition, i64)>,
    pub(crate) dead_letters: u64,
    pub(crate) effects: E,
}

impl<E: Default> Work<E> {
    pub(crate) fn empty() -> Self {
        Self {
            derived: Vec::new(),
            follow_up: Vec::new(),
            next_offsets: Vec::new(),
            dead_letters: 0,
            effects: E::default(),
        }
    }
}

impl<E> Work<E> {
    /// Adds a dead letter.
    pub(crate) fn refuse(&mut self, letter: Outgoing) {
        self.derived.push(letter);
        self.dead_letters += 1;
    }

    /// Says whether there is nothing to write and nothing to move.
    pub(crate) fn is_empty(&self) -> bool {
        self.derived.is_empty() && self.follow_up.is_empty() && self.next_offsets.is_empty()
    }
}
