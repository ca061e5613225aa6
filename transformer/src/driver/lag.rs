//! How far a loop is behind, shown now and then.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::timeout;
use windfall_runtime::kafka::TopicPartition;
use windfall_runtime::kafka::consumer::{Event, Group, GroupConsumer, Start};
use windfall_runtime::kafka::table::{self, Extent};
use windfall_runtime::metrics::{self as names, label};

use super::{Driver, Step, Turn};
use crate::error::TransformerError;
use crate::stage::Stage;

/// Brokers that do not answer hold up an idle loop no longer than this.
const BEAT_WITHIN: Duration = Duration::from_secs(2);

impl<S: Stage> Driver<S> {
    /// Shows the lag for as long as nothing more important comes in between; a batch waits for it.
    pub(super) async fn beat(&mut self, consumer: &mut GroupConsumer, group: &Group) -> Step {
        let shutdown = self.shutdown.clone();
        let show = timeout(BEAT_WITHIN, self.show_lag(group));
        tokio::pin!(show);
        let mut batch = None;
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Step::Interrupted(Turn::Stop),
                _ = &mut show => break,
                event = consumer.next(), if batch.is_none() => match event {
                    event @ Event::Batch(_) => batch = Some(event),
                    event => return Step::Interrupted(Turn::Event(event)),
                },
            }
        }
        batch.map_or(Step::Done, |batch| Step::Interrupted(Turn::Event(batch)))
    }

    /// Shows the lag, reckoned by position. To be at the end is progress, or to have come nearer; to reach the brokers is none:
    /// a consumer that delivers nothing any more is not ready.
    async fn show_lag(&mut self, group: &Group) {
        let Some(held) = &self.held else { return };
        let partitions = held.assignment.partitions.clone();
        let (Ok(positions), Ok(extents)) = (group.position(), self.extents(&partitions).await) else { return };
        let Some(held) = &mut self.held else { return };
        // A partition of which nothing was delivered has no position: it stands where it was set.
        let position = |(at, extent): (&TopicPartition, &Extent)| match (positions.get(at), held.starts.get(at)) {
            (Some(position), _) | (None, Some(Start::At(position))) => *position,
            (None, Some(Start::Beginning) | None) => extent.first,
        };
        let lag: i64 = extents.iter().map(|at| (at.1.end - position(at)).max(0)).sum();
        let before = held.lag.replace(lag);
        self.part.detail("lag_records", lag);
        self.part.detail("partitions", partitions.len());
        #[allow(clippy::cast_precision_loss)] // A gauge is a float.
        metrics::gauge!(names::CONSUMER_LAG, label::STAGE => self.stage.name()).set(lag as f64);
        if lag == 0 || before.is_some_and(|before| lag < before) {
            self.part.progress();
        }
    }

    pub(super) async fn extents(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, Extent>, TransformerError> {
        let mut extents = BTreeMap::new();
        for topic in &self.options.topics {
            let of_topic = partitions.iter().filter(|at| *at.topic == **topic).map(|at| at.partition);
            for (partition, extent) in table::ends(&self.connection, topic, of_topic).await? {
                extents.insert(TopicPartition::new(topic.as_str(), partition), extent);
            }
        }
        Ok(extents)
    }
}
