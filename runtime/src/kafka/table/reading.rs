//! The thread that reads partitions up to the ends asked before.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{Extent, FoldProgress, FoldRequest, Folded, Hidden, TableError};
use crate::kafka::client::{PlainContext, make};
use crate::kafka::consumer::Start;
use crate::kafka::record::{Record, TopicPartition};
use crate::kafka::retire::retire;
use crate::log_identity::{Found, Position, judge};
use crate::registry::RegistryError;

/// How long a poll waits; also how often a hidden tail is looked at.
const POLL: Duration = Duration::from_millis(100);
/// How often progress is told while records flow.
const REPORT_EVERY: Duration = Duration::from_millis(500);
/// Our own transactions end within their time-out of 15 s; one that hides a tail for this long is somebody's fault.
const HANGING_AFTER: Duration = Duration::from_secs(60);

struct Partition {
    end: i64,
    /// Since when its end was seen without having been reached.
    hidden_since: Option<Instant>,
    position: i64,
}

pub(super) struct FoldReader {
    consumer: BaseConsumer<PlainContext>,
    topic: Arc<str>,
    request: FoldRequest,
    /// The partitions that still have something to read.
    open: HashMap<i32, Partition>,
    next_offsets: BTreeMap<i32, i64>,
    stopped: CancellationToken,
    records: u64,
    reported_at: Instant,
    warned: bool,
}

impl FoldReader {
    pub(super) fn new(
        reader: &ClientConfig,
        request: FoldRequest,
        ends: &BTreeMap<i32, Extent>,
        stopped: CancellationToken,
    ) -> Result<Self, TableError> {
        let read = |source| TableError::Read { topic: request.topic.clone(), source };
        let (mut open, mut next_offsets) = (HashMap::new(), BTreeMap::new());
        let mut list = TopicPartitionList::new();
        for (number, start) in &request.from {
            let Some(extent) = ends.get(number) else { continue };
            let from = begin(&request.topic, *number, *start, *extent)?;
            next_offsets.insert(*number, from);
            if from < extent.end {
                list.add_partition_offset(&request.topic, *number, Offset::Offset(from)).map_err(read)?;
                open.insert(*number, Partition { end: extent.end, hidden_since: None, position: from });
            }
        }
        let consumer = make::<_, BaseConsumer<PlainContext>>(reader, PlainContext).map_err(read)?;
        if !open.is_empty() {
            consumer.assign(&list).map_err(read)?;
        }
        let topic = request.topic.as_str().into();
        let reported_at = Instant::now();
        Ok(Self { consumer, topic, request, open, next_offsets, stopped, records: 0, reported_at, warned: false })
    }

    pub(super) fn run<S>(
        mut self,
        state: S,
        on_record: impl FnMut(&mut S, Record) -> Result<(), RegistryError>,
    ) -> Result<Folded<S>, TableError> {
        let began_at = Instant::now();
        let result = self.read(state, on_record);
        if result.is_ok() {
            let elapsed_ms = u64::try_from(began_at.elapsed().as_millis()).unwrap_or(u64::MAX);
            debug!(topic = %self.topic, records = self.records, elapsed_ms, "topic folded");
        }
        self.report();
        let folded = result.map(|state| Folded { state, next_offsets: self.next_offsets, records: self.records });
        retire("fold", self.consumer);
        folded
    }

    fn read<S>(
        &mut self,
        mut state: S,
        mut on_record: impl FnMut(&mut S, Record) -> Result<(), RegistryError>,
    ) -> Result<S, TableError> {
        while !self.open.is_empty() {
            if self.stopped.is_cancelled() {
                return Err(TableError::Stopped { topic: self.request.topic.clone() });
            }
            match self.consumer.poll(POLL) {
                None => self.look(None)?,
                Some(Ok(message)) => {
                    let record = Record::detach(&message, Arc::clone(&self.topic));
                    // What was written after the ends were asked is not ours to fold: the next fold begins at the end.
                    let Some(partition) = self.open.get(&record.partition) else { continue };
                    if record.offset < partition.end {
                        let (partition, offset) = (record.partition, record.offset);
                        on_record(&mut state, record).map_err(|source| TableError::Schema {
                            topic: self.request.topic.clone(),
                            partition,
                            offset,
                            source: Box::new(source),
                        })?;
                        self.records += 1;
                    }
                    self.passed(&message.partition(), message.offset() + 1);
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => self.look(Some(partition))?,
                Some(Err(error)) => self.judge(error)?,
            }
            if self.reported_at.elapsed() >= REPORT_EVERY {
                self.report();
            }
        }
        Ok(state)
    }

    /// Notes a position; a partition whose end is reached is closed there.
    fn passed(&mut self, number: &i32, position: i64) {
        let Some(partition) = self.open.get_mut(number) else { return };
        if position > partition.position {
            partition.position = position;
            partition.hidden_since = None;
        }
        if position >= partition.end {
            self.next_offsets.insert(*number, partition.end);
            self.open.remove(number);
        }
    }

    /// Asks the client for its positions, which pass markers and aborted records that no record shows.
    fn look(&mut self, ended: Option<i32>) -> Result<(), TableError> {
        let positions = self.consumer.position().map_err(|source| self.failed(source))?;
        for element in positions.elements() {
            if let Offset::Offset(position) = element.offset() {
                self.passed(&element.partition(), position);
            }
        }
        if let Some(partition) = ended.and_then(|number| self.open.get_mut(&number)) {
            partition.hidden_since.get_or_insert_with(Instant::now);
        }
        self.warn_of_hanging();
        Ok(())
    }

    fn judge(&self, source: KafkaError) -> Result<(), TableError> {
        let for_good = matches!(source, KafkaError::MessageConsumptionFatal(_))
            || matches!(
                source.rdkafka_error_code(),
                Some(
                    RDKafkaErrorCode::AutoOffsetReset
                        | RDKafkaErrorCode::OffsetOutOfRange
                        | RDKafkaErrorCode::UnknownTopicOrPartition
                        | RDKafkaErrorCode::UnknownTopic
                        | RDKafkaErrorCode::UnknownPartition
                        | RDKafkaErrorCode::TopicAuthorizationFailed
                        | RDKafkaErrorCode::Fatal
                )
            );
        if for_good {
            return Err(self.failed(source));
        }
        warn!(error = %source, topic = %self.topic, "reader met an error and goes on");
        Ok(())
    }

    fn failed(&self, source: KafkaError) -> TableError {
        TableError::Read { topic: self.request.topic.clone(), source }
    }

    fn hidden(&self) -> Vec<Hidden> {
        let mut hidden: Vec<Hidden> = self
            .open
            .iter()
            .filter_map(|(number, partition)| {
                let waited = partition.hidden_since?.elapsed();
                Some(Hidden { partition: *number, position: partition.position, end: partition.end, waited })
            })
            .collect();
        hidden.sort_by_key(|hidden| hidden.partition);
        hidden
    }

    fn warn_of_hanging(&mut self) {
        if self.warned {
            return;
        }
        for hidden in self.hidden().iter().filter(|hidden| hidden.waited >= HANGING_AFTER) {
            let Hidden { partition, position, end, waited: _ } = *hidden;
            warn!(
                topic = %self.topic,
                partition,
                position,
                end,
                "an open transaction hides the end of the topic; `kafka-transactions.sh find-hanging` names it"
            );
            self.warned = true;
        }
    }

    fn report(&mut self) {
        self.reported_at = Instant::now();
        let hidden = self.hidden();
        let remaining = self.open.values().map(|open| u64::try_from(open.end - open.position).unwrap_or(0)).sum();
        let progress = FoldProgress { topic: self.request.topic.clone(), records: self.records, remaining, hidden };
        if let Some(sender) = &self.request.progress {
            if !progress.hidden.is_empty() && sender.borrow().hidden.is_empty() {
                info!(topic = %self.topic, remaining, "an open transaction hides the end of the topic, waiting for it");
            }
            sender.send_replace(progress);
        }
    }
}

/// Returns the offset to begin at.
fn begin(topic: &str, partition: i32, start: Start, extent: Extent) -> Result<i64, TableError> {
    let Extent { first, end } = extent;
    match start {
        Start::Beginning => Ok(first),
        Start::At(from) if from < first => {
            Err(TableError::Truncated { topic: topic.to_owned(), partition, from, first })
        }
        Start::At(from) => {
            let found = Found { younger: None, end };
            judge(TopicPartition::new(topic, partition), Position::at(from), found).map_err(Box::new)?;
            Ok(from)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_that_lies_outside_of_the_topic_is_refused() {
        let extent = Extent { first: 5, end: 9 };
        assert_eq!(begin("t", 0, Start::Beginning, extent).unwrap(), 5);
        assert_eq!(begin("t", 0, Start::At(9), extent).unwrap(), 9);
        assert!(matches!(begin("t", 0, Start::At(10), extent), Err(TableError::OtherLog(_))));
        assert!(matches!(begin("t", 0, Start::At(4), extent), Err(TableError::Truncated { from: 4, first: 5, .. })));
    }
}
