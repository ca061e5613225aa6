//! Reads `windfall.signals` continuously, on a thread of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc;
use tracing::warn;
use windfall_runtime::kafka::{Connection, Reader};
use windfall_runtime::telemetry::chain;
use windfall_schemas::signal::Signal;

/// The longest poll, and so how long the thread takes to notice that its receiver is gone.
const POLL: Duration = Duration::from_millis(250);
/// Signals that wait in the channel at most; signals are rare, and a full channel makes the thread wait.
const WAITING: usize = 16;

/// A signal and where the next one begins.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Received {
    pub(crate) signal: Signal,
    pub(crate) next_offset: i64,
}

/// The signals from an offset on, in their order.
pub(crate) struct SignalTail {
    received: mpsc::Receiver<Received>,
    stop: Arc<AtomicBool>,
}

impl SignalTail {
    /// Begins to read at `from`; where that is no longer there, at the oldest signal.
    pub(crate) fn start(connection: &Connection, topic: &str, from: i64) -> std::io::Result<Self> {
        let (send, received) = mpsc::channel(WAITING);
        let stop = Arc::new(AtomicBool::new(false));
        let (connection, topic, stopped) = (connection.clone(), topic.to_owned(), Arc::clone(&stop));
        std::thread::Builder::new().name("kafka-signals".to_owned()).spawn(move || {
            let read = || -> Result<(), KafkaError> {
                let consumer = connection.open_reader()?;
                assign(&consumer, &topic, Offset::Offset(from))?;
                follow(&consumer, &topic, &send, &stopped)
            };
            if let Err(error) = read() {
                warn!(error = %chain(&error), topic, "signals are not read");
            }
        })?;
        Ok(Self { received, stop })
    }

    /// Waits for the next signal; may be cancelled without losing any. Never ends.
    pub(crate) async fn next(&mut self) -> Received {
        match self.received.recv().await {
            Some(received) => received,
            None => std::future::pending().await,
        }
    }
}

impl Drop for SignalTail {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn assign(consumer: &Reader, topic: &str, offset: Offset) -> Result<(), KafkaError> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, offset)?;
    consumer.assign(&list)
}

fn follow(
    consumer: &Reader,
    topic: &str,
    send: &mpsc::Sender<Received>,
    stopped: &AtomicBool,
) -> Result<(), KafkaError> {
    while !stopped.load(Ordering::SeqCst) {
        match consumer.poll(POLL) {
            None | Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(Ok(message)) => {
                let next_offset = message.offset() + 1;
                match Signal::from_json(message.payload().unwrap_or_default()) {
                    Ok(signal) => {
                        if send.blocking_send(Received { signal, next_offset }).is_err() {
                            return Ok(());
                        }
                    }
                    Err(error) => {
                        warn!(error = %chain(&error), topic, offset = message.offset(), "signal is unreadable")
                    }
                }
            }
            Some(Err(error)) => {
                let code = error.rdkafka_error_code();
                if matches!(code, Some(RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::AutoOffsetReset)) {
                    assign(consumer, topic, Offset::Beginning)?;
                }
                warn!(error = %chain(&error), topic, "signals were not read, trying again");
            }
        }
    }
    Ok(())
}
