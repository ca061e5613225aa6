//! What clients tell beside their answers.

use rdkafka::client::ClientContext;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use tracing::warn;

/// Logs what librdkafka calls an error: most are brokers that come and go, which it sees to by itself.
///
/// The end of a partition comes this way too, and is none.
pub(super) fn log_error(error: &KafkaError, reason: &str) {
    if !matches!(error, KafkaError::PartitionEOF(_)) {
        warn!(%error, reason, "kafka client met an error");
    }
}

/// A client without callbacks of its own.
pub(super) struct PlainContext;

impl ClientContext for PlainContext {
    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl ConsumerContext for PlainContext {}
