//! A producer without transactions, for records that may be written twice: the dead letters of sinks.

use std::sync::Arc;

use rdkafka::error::KafkaError;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::util::Timeout;

use super::client::{CLIENT_HELP, DELIVERY_HELP, PlainContext, make};
use super::connection::{Connection, MESSAGE_TIMEOUT};
use super::record::{Delivered, Outgoing};
use super::retire::Retiring;
use crate::diagnose::{Diagnose, Diagnosis, Kind};

/// What can go wrong for a sender.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The settings make no producer.
    #[error("producer cannot be made")]
    Client(#[source] KafkaError),
    /// The record was not delivered.
    #[error("record for `{topic}` was not delivered")]
    Delivery {
        /// Its topic.
        topic: String,
        /// What librdkafka says.
        source: KafkaError,
    },
}

impl Diagnose for SendError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Client(_) => Kind::Configuration.help(CLIENT_HELP),
            Self::Delivery { source, .. } => source.diagnosis().or_help(DELIVERY_HELP),
        }
    }
}

/// An idempotent producer; a record that is sent again after an error may be written twice.
pub struct Sender {
    producer: Retiring<FutureProducer<PlainContext>>,
}

impl Sender {
    /// Makes a sender; asks nothing of the network.
    ///
    /// # Errors
    /// [`SendError::Client`] when the settings make no producer.
    pub fn new(connection: &Connection) -> Result<Self, SendError> {
        let settings = connection.idempotent();
        let producer = make::<_, FutureProducer<PlainContext>>(&settings, PlainContext).map_err(SendError::Client)?;
        Ok(Self { producer: Retiring::new(producer) })
    }

    /// Sends records and waits until all are delivered.
    ///
    /// # Errors
    /// [`SendError::Delivery`] with the first that was not; the others may stand in the topic.
    pub async fn send(&self, records: &[Outgoing]) -> Result<Vec<Delivered>, SendError> {
        let sent = records.iter().map(|record| deliver(&self.producer, record));
        futures_util::future::try_join_all(sent).await
    }

    /// Returns whether the producer is beyond repair and a new one is needed.
    pub fn is_dead(&self) -> bool {
        self.producer.client().fatal_error().is_some()
    }
}

async fn deliver(producer: &FutureProducer<PlainContext>, record: &Outgoing) -> Result<Delivered, SendError> {
    let Outgoing { topic, partition, key, value, headers } = record;
    let native: FutureRecord<'_, [u8], [u8]> = FutureRecord {
        topic,
        partition: *partition,
        payload: value.as_deref(),
        key: key.as_deref(),
        timestamp: None,
        headers: headers.to_native(),
    };
    match producer.send(native, Timeout::After(MESSAGE_TIMEOUT)).await {
        Ok(delivery) => {
            let timestamp_ms = delivery.timestamp.to_millis();
            Ok(Delivered {
                topic: Arc::clone(topic),
                partition: delivery.partition,
                offset: delivery.offset,
                timestamp_ms,
            })
        }
        Err((source, _)) => Err(SendError::Delivery { topic: topic.to_string(), source }),
    }
}
