//! Reads a topic on a thread of its own, without a consumer group and with `read_committed`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc;
use tracing::warn;
use windfall_runtime::kafka::table::{self, Extent};
use windfall_runtime::kafka::{Connection, Reader, Record};

use super::Start;

/// How many records wait to be printed; a full queue blocks the consumer.
const QUEUE: usize = 512;
const POLL: Duration = Duration::from_millis(100);
/// How long the brokers may take to answer `offsets_for_times`.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an open transaction may hide the end of the topic before a warning is logged.
const HIDDEN_AFTER: Duration = Duration::from_secs(5);

type Read = Result<Record, KafkaError>;

/// The records of a topic, in the order in which they are read.
pub(crate) struct TopicReader {
    records: mpsc::Receiver<Read>,
}

impl TopicReader {
    /// Starts to read. With `until_end` the reader stops at the topic's present end, which counts records of open transactions.
    pub(crate) async fn begin(
        connection: &Connection,
        topic: &str,
        partitions: i32,
        from: Start,
        until_end: bool,
    ) -> crate::Result<Self> {
        let extents = table::ends(connection, topic, 0..partitions).await?;
        let (sender, records) = mpsc::channel(QUEUE);
        let consumer = connection.open_reader()?;
        let topic: Arc<str> = topic.into();
        let work = move || {
            if let Err(error) = read(&consumer, &topic, &extents, from, until_end, &sender) {
                let _ = sender.blocking_send(Err(error));
            }
        };
        std::thread::Builder::new().name("tap".to_owned()).spawn(work)?;
        Ok(Self { records })
    }

    /// Returns the next record, or `None` at the end.
    pub(crate) async fn next(&mut self) -> crate::Result<Option<Record>> {
        Ok(self.records.recv().await.transpose()?)
    }
}

fn read(
    consumer: &Reader,
    topic: &Arc<str>,
    extents: &BTreeMap<i32, Extent>,
    from: Start,
    until_end: bool,
    records: &mpsc::Sender<Read>,
) -> Result<(), KafkaError> {
    let starts = starts(consumer, topic, extents, from)?;
    let mut open: BTreeMap<i32, i64> = match until_end {
        true => extents.iter().map(|(at, extent)| (*at, extent.end)).filter(|(at, end)| starts[at] < *end).collect(),
        false => BTreeMap::new(),
    };
    let mut list = TopicPartitionList::new();
    for (partition, start) in &starts {
        list.add_partition_offset(topic, *partition, Offset::Offset(*start))?;
    }
    consumer.assign(&list)?;
    let begun = Instant::now();
    let mut warned = false;
    while !until_end || !open.is_empty() {
        match consumer.poll(POLL) {
            None => {}
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                if open.get(&partition).is_some_and(|end| position(consumer, topic, partition) >= *end) {
                    open.remove(&partition);
                }
                if !warned && begun.elapsed() > HIDDEN_AFTER && !open.is_empty() {
                    warned = true;
                    warn!(topic = &**topic, partitions = ?open.keys(), "an open transaction hides the end, waiting for it");
                }
            }
            Some(Err(error)) if passing(&error) => warn!(%error, "waiting for the cluster"),
            Some(Err(error)) => return Err(error),
            Some(Ok(message)) => {
                let beyond =
                    until_end && extents.get(&message.partition()).is_some_and(|extent| message.offset() >= extent.end);
                if !beyond && records.blocking_send(Ok(Record::detach(&message, Arc::clone(topic)))).is_err() {
                    return Ok(());
                }
            }
        }
        if records.is_closed() {
            return Ok(());
        }
    }
    Ok(())
}

fn position(consumer: &Reader, topic: &str, partition: i32) -> i64 {
    let positions = consumer.position().ok();
    match positions.as_ref().and_then(|list| list.find_partition(topic, partition)).map(|found| found.offset()) {
        Some(Offset::Offset(offset)) => offset,
        // No record was delivered, so the partition holds only markers and aborted records.
        _ => i64::MAX,
    }
}

fn starts(
    consumer: &Reader,
    topic: &str,
    extents: &BTreeMap<i32, Extent>,
    from: Start,
) -> Result<BTreeMap<i32, i64>, KafkaError> {
    let time = match from {
        Start::Beginning => return Ok(extents.iter().map(|(at, extent)| (*at, extent.first)).collect()),
        Start::End => return Ok(extents.iter().map(|(at, extent)| (*at, extent.end)).collect()),
        Start::Time(at) => at,
        Start::Ago(period) => chrono::Utc::now() - period.get(),
    };
    let mut asked = TopicPartitionList::new();
    for partition in extents.keys() {
        asked.add_partition_offset(topic, *partition, Offset::Offset(time.timestamp_millis()))?;
    }
    let found = consumer.offsets_for_times(asked, ASK_TIMEOUT)?;
    let start = |partition: i32, extent: &Extent| match found.find_partition(topic, partition).map(|at| at.offset()) {
        Some(Offset::Offset(offset)) if offset >= 0 => offset,
        // All records are older than the time, so reading starts at the end.
        _ => extent.end,
    };
    Ok(extents.iter().map(|(partition, extent)| (*partition, start(*partition, extent))).collect())
}

fn passing(error: &KafkaError) -> bool {
    use rdkafka::types::RDKafkaErrorCode as Code;
    let code = error.rdkafka_error_code();
    matches!(code, Some(Code::BrokerTransportFailure | Code::AllBrokersDown | Code::OperationTimedOut | Code::Resolve))
}
