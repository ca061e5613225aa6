//! The writer thread.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::util::Timeout;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::starting::Turn;
use super::{Committed, Input, PublishError, Transaction};
use crate::kafka::client::{log_error, make};
use crate::kafka::connection::MESSAGE_TIMEOUT;
use crate::kafka::groups::CommittedOffset;
use crate::kafka::record::{Delivered, MAX_RECORD_BYTES, Outgoing};
use crate::kafka::retire::retire;
use crate::telemetry::chain;

/// A broker that just started, or loads its transactions, answers retriably for some seconds. Whoever starts a producer shows
/// the reason after this time, and tries again.
const START_DEADLINE: Duration = Duration::from_secs(15);
/// One try of a call that the deadline lets repeat.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// One try of a start, which takes up where the one before was: short, so that one that was given up ends soon.
const START_TIMEOUT: Duration = Duration::from_secs(2);
/// A producer that could not start is gone by then, unless its destructor hangs.
const RETIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// A call that is still answered retriably after the transaction's own time-out will not come through.
const CALL_DEADLINE: Duration = Duration::from_secs(30);
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// rdkafka's `poll` waits its whole time-out even when all is delivered, so this is what each phase costs at least.
const DELIVERY_POLL: Duration = Duration::from_millis(1);
/// How often an idle producer's events are served.
const IDLE_POLL: Duration = Duration::from_secs(1);

/// One transaction to commit, and where its end is told.
pub(super) struct Command {
    pub(super) transaction: Transaction,
    pub(super) answer: oneshot::Sender<Result<Committed, PublishError>>,
}

type Outcome = Option<Result<(i32, i64, Option<i64>), KafkaError>>;

/// Collects the deliveries of the phase under way, by each record's place in it.
#[derive(Default)]
pub(super) struct Deliveries(Mutex<Vec<Outcome>>);

impl ClientContext for Deliveries {
    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, place: usize) {
        let outcome = match result {
            Ok(message) => Ok((message.partition(), message.offset(), message.timestamp().to_millis())),
            Err((error, _)) => Err(error.clone()),
        };
        if let Some(slot) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(place) {
            *slot = Some(outcome);
        }
    }
}

impl Deliveries {
    fn expect(&self, records: usize) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = vec![None; records];
    }

    fn take(&self) -> Vec<Outcome> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

pub(super) struct Writer {
    producer: BaseProducer<Deliveries>,
    transactional_id: Arc<str>,
    abandoned: CancellationToken,
}

impl Writer {
    /// Starts the thread, and returns when its producer is initialised.
    pub(super) async fn spawn(
        settings: &ClientConfig,
        transactional_id: Arc<str>,
        abandoned: CancellationToken,
    ) -> Result<Sender<Command>, PublishError> {
        let (commands, received) = channel();
        let (ready, started) = oneshot::channel();
        let settings = settings.clone();
        let id = Arc::clone(&transactional_id);
        let run = move || match Self::init(&settings, id, abandoned) {
            Ok(writer) => {
                let _ = ready.send(Ok(()));
                writer.run(&received);
            }
            Err(error) => {
                let _ = ready.send(Err(error));
            }
        };
        let spawned = thread::Builder::new().name("kafka-writer".to_owned()).spawn(run);
        spawned.map_err(|source| PublishError::Thread { source })?;
        match started.await {
            Ok(Ok(())) => Ok(commands),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(PublishError::Dead {
                transactional_id: transactional_id.to_string(),
                why: "the writer thread ended while it started".to_owned(),
            }),
        }
    }

    fn init(
        settings: &ClientConfig,
        transactional_id: Arc<str>,
        abandoned: CancellationToken,
    ) -> Result<Self, PublishError> {
        let refused = |source| PublishError::Start { transactional_id: transactional_id.to_string(), source };
        let Some(_turn) = Turn::take(&transactional_id, &abandoned) else {
            let why = "given up before it started".to_owned();
            return Err(PublishError::Dead { transactional_id: transactional_id.to_string(), why });
        };
        let producer: BaseProducer<Deliveries> = make(settings, Deliveries::default()).map_err(refused)?;
        let deadline = Instant::now() + START_DEADLINE;
        let initialised = repeat(deadline, &abandoned, || producer.init_transactions(START_TIMEOUT));
        match initialised {
            Ok(()) => Ok(Self { producer, transactional_id, abandoned }),
            Err(source) => {
                let error = refused(source);
                // Its request may still be on the way, and would fence the next.
                let _ = retire("producer", producer).recv_timeout(RETIRE_TIMEOUT);
                Err(error)
            }
        }
    }

    fn run(self, commands: &Receiver<Command>) {
        loop {
            match commands.recv_timeout(IDLE_POLL) {
                Ok(Command { transaction, answer }) => {
                    let result = self.commit(&transaction);
                    let over = result.as_ref().is_err_and(PublishError::is_deadly);
                    if let Err(error) = &result {
                        debug!(transactional_id = %self.transactional_id, error = %chain(error), "transaction failed");
                    }
                    let _ = answer.send(result);
                    if over {
                        break;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.producer.poll(Duration::ZERO);
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        // The destructor waits for brokers; this thread is nobody's to wait for.
        drop(self);
    }

    fn commit(&self, transaction: &Transaction) -> Result<Committed, PublishError> {
        let Transaction { derived, follow_up, checkpoint, input } = transaction;
        measure(derived.iter().chain(follow_up).chain(checkpoint))?;
        if let Some(input) = input {
            input.group.metadata(input.epoch).map_err(PublishError::Reassigned)?;
        }
        let began_at = Instant::now();
        self.producer.begin_transaction().map_err(|source| self.step_failed("begin", source))?;
        let derived = self.deliver(derived)?;
        let follow_up = self.deliver(follow_up)?;
        let checkpoint = self.deliver(checkpoint)?;
        crate::failpoint!("publisher.produce.after");
        if let Some(input) = input {
            crate::failpoint!("publisher.offsets.before");
            self.send_offsets(input)?;
            crate::failpoint!("publisher.offsets.after");
        }
        self.still_wanted("commit")?;
        crate::failpoint!("publisher.commit.before");
        self.end()?;
        crate::failpoint!("publisher.commit.after");
        Ok(Committed { derived, follow_up, checkpoint, took: began_at.elapsed() })
    }

    /// Sends the records of one phase and waits until each is delivered.
    fn deliver(&self, records: &[Outgoing]) -> Result<Vec<Delivered>, PublishError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        self.still_wanted("produce")?;
        self.producer.context().expect(records.len());
        for (place, record) in records.iter().enumerate() {
            self.send(place, record)?;
        }
        // Every record ends by itself within its time-out; the margin is for a machine that stands still.
        let deadline = Instant::now() + MESSAGE_TIMEOUT * 2;
        while self.producer.in_flight_count() > 0 && Instant::now() < deadline {
            self.producer.poll(DELIVERY_POLL);
        }
        let outcomes = self.producer.context().take();
        records.iter().zip(outcomes).map(|(record, outcome)| self.delivered(record, outcome)).collect()
    }

    fn send(&self, place: usize, record: &Outgoing) -> Result<(), PublishError> {
        let deadline = Instant::now() + MESSAGE_TIMEOUT;
        loop {
            let Outgoing { topic, partition, key, value, headers } = record;
            let native: BaseRecord<'_, [u8], [u8], usize> = BaseRecord {
                topic,
                partition: *partition,
                payload: value.as_deref(),
                key: key.as_deref(),
                timestamp: None,
                headers: headers.to_native(),
                delivery_opaque: place,
            };
            match self.producer.send(native) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) if Instant::now() < deadline => {
                    self.producer.poll(Duration::from_millis(5));
                }
                Err((source, _)) => return Err(self.undelivered(topic, source)),
            }
        }
    }

    fn delivered(&self, record: &Outgoing, outcome: Outcome) -> Result<Delivered, PublishError> {
        let unknown = || Err(KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut));
        let (partition, offset, timestamp_ms) =
            outcome.unwrap_or_else(unknown).map_err(|source| self.undelivered(&record.topic, source))?;
        Ok(Delivered { topic: Arc::clone(&record.topic), partition, offset, timestamp_ms })
    }

    fn send_offsets(&self, input: &Input) -> Result<(), PublishError> {
        let mut offsets = TopicPartitionList::new();
        for (at, position) in &input.positions {
            let committed = CommittedOffset { position: *position, program: input.program.clone() };
            committed.add_to(&mut offsets, at).map_err(|source| self.offsets_refused(source))?;
        }
        self.still_wanted("offsets")?;
        // Fetched now and not earlier: a generation of before a rebalance would be refused, an empty one not even checked.
        let metadata = input.group.metadata(input.epoch).map_err(|source| PublishError::Offsets {
            transactional_id: self.transactional_id.to_string(),
            source: Box::new(source),
        })?;
        repeat(Instant::now() + CALL_DEADLINE, &self.abandoned, || {
            self.producer.send_offsets_to_transaction(&offsets, &metadata, CALL_TIMEOUT)
        })
        .map_err(|source| self.offsets_refused(source))
    }

    /// Commits; a retriable time-out repeats the same call, which takes up where it was.
    fn end(&self) -> Result<(), PublishError> {
        let never = CancellationToken::new();
        repeat(Instant::now() + CALL_DEADLINE, &never, || self.producer.commit_transaction(Timeout::Never))
            .map_err(|source| self.step_failed("commit", source))
    }

    fn still_wanted(&self, step: &'static str) -> Result<(), PublishError> {
        if self.abandoned.is_cancelled() {
            let why = format!("given up before `{step}`");
            return Err(PublishError::Dead { transactional_id: self.transactional_id.to_string(), why });
        }
        Ok(())
    }

    fn fenced(&self, source: &KafkaError) -> bool {
        let by_code = |code| {
            matches!(
                code,
                RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch
            )
        };
        source.rdkafka_error_code().is_some_and(by_code)
            || self.producer.client().fatal_error().is_some_and(|(code, _)| by_code(code))
    }

    /// Says what a failure means: `otherwise`, unless the epoch is no longer the newest.
    fn failed(&self, source: KafkaError, otherwise: impl FnOnce(String, KafkaError) -> PublishError) -> PublishError {
        let transactional_id = self.transactional_id.to_string();
        match self.fenced(&source) {
            true => PublishError::Fenced { transactional_id },
            false => otherwise(transactional_id, source),
        }
    }

    fn step_failed(&self, step: &'static str, source: KafkaError) -> PublishError {
        self.failed(source, |transactional_id, source| PublishError::Step { transactional_id, step, source })
    }

    fn undelivered(&self, topic: &str, source: KafkaError) -> PublishError {
        self.failed(source, |_, source| PublishError::Delivery { topic: topic.to_owned(), source })
    }

    fn offsets_refused(&self, source: KafkaError) -> PublishError {
        let refused = |transactional_id, source| PublishError::Offsets { transactional_id, source: Box::new(source) };
        self.failed(source, refused)
    }
}

fn measure<'a>(records: impl Iterator<Item = &'a Outgoing>) -> Result<(), PublishError> {
    for (index, record) in records.enumerate() {
        let bytes = record.size();
        if bytes > MAX_RECORD_BYTES {
            let topic = record.topic.to_string();
            return Err(PublishError::TooLarge { index, topic, bytes, limit: MAX_RECORD_BYTES });
        }
    }
    Ok(())
}

/// Repeats a call as long as it is answered retriably.
fn repeat(deadline: Instant, abandoned: &CancellationToken, call: impl Fn() -> KafkaResult<()>) -> KafkaResult<()> {
    loop {
        let error = match call() {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let retriable = matches!(&error, KafkaError::Transaction(cause) if cause.is_retriable() && !cause.is_fatal());
        if !retriable || Instant::now() >= deadline || abandoned.is_cancelled() {
            return Err(error);
        }
        warn!(%error, "transaction call answered retriably, repeating it");
        thread::sleep(RETRY_PAUSE);
    }
}
