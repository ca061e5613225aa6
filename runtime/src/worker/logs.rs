//! Is the input still the log that was read before?

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::error::WorkerError;
use crate::kafka::{Connection, TopicPartition, log};
use crate::log_identity::Position;

/// How often that is asked while a stage runs: the question costs one request a topic.
const ASK_EVERY: Duration = Duration::from_secs(60);

/// How far a stage has read its input, with what tells whether the input is still the same.
pub struct Logs {
    connection: Connection,
    /// The positions.
    pub positions: BTreeMap<TopicPartition, Position>,
    asked_at: Instant,
}

impl Logs {
    /// Knows of nothing that was read.
    pub fn new(connection: Connection) -> Self {
        Self { connection, positions: BTreeMap::new(), asked_at: Instant::now() }
    }

    /// Takes over how far the input was read, and tells for each partition up to where it was read once: beyond the position
    /// where reading was begun again at an earlier one.
    ///
    /// # Errors
    /// [`WorkerError::OtherLog`] when a partition is not the log that was read, [`WorkerError::Ends`] when no broker answers.
    pub async fn take(
        &mut self,
        positions: impl IntoIterator<Item = (TopicPartition, Position)>,
    ) -> Result<BTreeMap<TopicPartition, i64>, WorkerError> {
        self.positions = positions.into_iter().collect();
        let mut by_topic: BTreeMap<Arc<str>, BTreeMap<i32, Position>> = BTreeMap::new();
        for (at, position) in &self.positions {
            by_topic.entry(Arc::clone(&at.topic)).or_default().insert(at.partition, *position);
        }
        let mut read_once = BTreeMap::new();
        for (topic, positions) in by_topic {
            let found = log::check(&self.connection, &topic, &positions).await?;
            let at = |(partition, offset)| (TopicPartition::new(Arc::clone(&topic), partition), offset);
            read_once.extend(found.into_iter().map(at));
        }
        self.asked_at = Instant::now();
        Ok(read_once)
    }

    /// Asks again when the last answer is a minute old.
    ///
    /// # Errors
    /// As [`Logs::take`].
    pub async fn look(&mut self) -> Result<(), WorkerError> {
        if self.asked_at.elapsed() >= ASK_EVERY {
            let positions = std::mem::take(&mut self.positions);
            self.take(positions).await?;
        }
        Ok(())
    }

    /// Moves behind what was read, and returns it with the greatest time of all that was read of each partition.
    pub fn pass(&mut self, read: Vec<(TopicPartition, Position)>) -> Vec<(TopicPartition, Position)> {
        let passed = read.into_iter().map(|(at, Position { next_offset, log_time })| {
            let known = self.positions.get(&at).and_then(|known| known.log_time);
            (at, Position { next_offset, log_time: log_time.max(known) })
        });
        let passed: Vec<_> = passed.collect();
        self.positions.extend(passed.iter().cloned());
        passed
    }
}
