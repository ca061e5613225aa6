//! Asks the brokers which topics exist. When none answers, the errors that the client has met say why.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaErrorCode as Code;
use tracing::warn;

use super::client::{make, passing};

/// One try; between tries the reason is logged.
const TRY: Duration = Duration::from_secs(2);
/// One try of a client that gives up when all brokers refuse a connection, which they do at once.
const SHORT_TRY: Duration = Duration::from_millis(500);
/// Errors come through the client's own queue, whose thread may be a moment late.
const SERVE: Duration = Duration::from_millis(10);

/// At most this many events are served after one try; the others wait for the next.
const MOST_HEARD: usize = 1_000;

/// Why nobody answered.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) source: KafkaError,
    /// In the client's words, with the broker it is about.
    pub(super) reason: Option<String>,
}

/// Keeps the last error of a broker, and whether all of them are down.
#[derive(Default)]
struct Hearing {
    last: Mutex<Option<(Code, String)>>,
    all_down: AtomicBool,
}

impl ClientContext for Hearing {
    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(Code::AllBrokersDown) => self.all_down.store(true, Ordering::SeqCst),
            Some(code) => {
                // How long it took and how often is different each time.
                let reason = reason.split_once(" (after ").map_or(reason, |(reason, _)| reason);
                *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((code, reason.to_owned()));
            }
            None => {}
        }
    }
}

impl ConsumerContext for Hearing {}

/// A client that asks what topics there are.
pub(super) struct Asker {
    client: BaseConsumer<Hearing>,
    at_once: bool,
}

impl Asker {
    /// Makes a client, which gives up `at_once` when no broker takes a connection.
    pub(super) fn new(settings: &ClientConfig, at_once: bool) -> KafkaResult<Self> {
        Ok(Self { client: make(settings, Hearing::default())?, at_once })
    }

    /// Returns how many partitions each topic has, or the one that is asked for; tries on until the limit is over.
    ///
    /// A broker that refuses who we are is not asked again: another try would lock the account sooner than help.
    pub(super) fn partitions(&self, topic: Option<&str>, limit: Duration) -> Result<BTreeMap<String, i32>, Unanswered> {
        let deadline = Instant::now() + limit;
        let one_try = if self.at_once { SHORT_TRY } else { TRY };
        let mut told = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let source = match self.client.fetch_metadata(topic, left.min(one_try)) {
                Ok(metadata) => {
                    let existing = metadata.topics().iter().filter(|topic| topic.error().is_none());
                    let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
                    return Ok(existing.map(|it| (it.name().to_owned(), count(it.partitions().len()))).collect());
                }
                Err(source) => source,
            };
            let heard = self.hear();
            let reason = heard.as_ref().map(|(_, reason)| reason.clone());
            if let Some((code @ Code::Authentication, _)) = heard {
                return Err(Unanswered { source: KafkaError::MetadataFetch(code), reason });
            }
            let refused = self.at_once && self.client.context().all_down.load(Ordering::SeqCst);
            if refused || Instant::now() >= deadline || !source.rdkafka_error_code().is_some_and(passing) {
                return Err(Unanswered { source, reason });
            }
            if told != reason {
                warn!(reason, "no broker has answered yet, trying on");
                told = reason;
            }
        }
    }

    /// Lists the brokers.
    pub(super) fn brokers(&self, limit: Duration) -> KafkaResult<Vec<i32>> {
        // The metadata of one topic is less than that of all; which one does not matter.
        let metadata = self.client.fetch_metadata(Some("__transaction_state"), limit)?;
        Ok(metadata.brokers().iter().map(|broker| broker.id()).collect())
    }

    /// Asks once, and says what is wrong where nobody answers within `limit`.
    pub(super) fn answers(&self, limit: Duration) -> Result<(), String> {
        let answer = self.brokers(limit);
        let heard = self.hear();
        match answer {
            Ok(_) => Ok(()),
            Err(source) => Err(heard.map_or_else(|| source.to_string(), |(_, reason)| reason)),
        }
    }

    /// Serves the client's events and returns the last error.
    fn hear(&self) -> Option<(Code, String)> {
        for _ in 0..MOST_HEARD {
            if self.client.poll(SERVE).is_none() {
                break;
            }
        }
        self.client.context().last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
