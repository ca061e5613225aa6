//! Creates the clients, retries requests that fail for a moment, and logs client errors.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaErrorCode as Code;
use tracing::{info, warn};

use super::record::TopicPartition;
use super::retire::retire;
use crate::retry::Quiet;

/// Brokers that have not answered by then are out of reach.
pub(super) const ASK_TIMEOUT: Duration = Duration::from_secs(10);
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// Longer than a client waits before it tries a broker again, which is ten seconds at most.
const CALM: Duration = Duration::from_secs(20);
/// One try of a question that is repeated: short enough that whoever gives up need not wait long.
const LONGEST_ASK: Duration = Duration::from_secs(2);
const SHORTEST_ASK: Duration = Duration::from_millis(50);

/// What an operator can do where librdkafka refuses the settings.
pub(super) const CLIENT_HELP: &str = "check `kafka.properties` and `kafka.bootstrap_servers`";
/// What an operator can do where a record is not delivered.
pub(super) const DELIVERY_HELP: &str =
    "check that the topic exists, that this client may write it, and that enough replicas are in sync";

/// Makes a client; what is wrong with a setting is told without its value.
pub(super) fn make<C: ClientContext, T: FromClientConfigAndContext<C>>(
    settings: &ClientConfig,
    context: C,
) -> KafkaResult<T> {
    T::from_config_and_context(settings, context).map_err(without_value)
}

/// Takes the value out of an error about a setting: a password may stand under a name that was misspelt.
pub(super) fn without_value(error: KafkaError) -> KafkaError {
    let KafkaError::ClientConfig(result, description, name, value) = error else { return error };
    let quoted = |description: String, part: &str| description.replace(&format!("\"{part}\""), "\"[not shown]\"");
    // librdkafka repeats what it does not understand, of a list the one part.
    let parts = std::iter::once(value.as_str()).chain(value.split(',').map(str::trim)).filter(|part| *part != name);
    let description = parts.fold(description, quoted);
    KafkaError::ClientConfig(result, description, name, "[value not shown]".to_owned())
}

/// Lets `work` ask the brokers by a client of its own, which is made, used and destroyed off the async threads.
pub(super) async fn ask<T: Send + 'static>(
    settings: ClientConfig,
    work: impl FnOnce(&BaseConsumer<PlainContext>) -> KafkaResult<T> + Send + 'static,
) -> KafkaResult<T> {
    let asked = move || {
        let client = make::<_, BaseConsumer<PlainContext>>(&settings, PlainContext)?;
        let answer = work(&client);
        retire("asker", client);
        answer
    };
    tokio::task::spawn_blocking(asked).await.unwrap_or(Err(KafkaError::Canceled))
}

/// Repeats a question that a broker answers with "not yet", as one that just started or a topic that was just created does.
pub(super) fn retried<T>(
    deadline: Instant,
    again: impl Fn(Code) -> bool,
    ask: impl Fn() -> KafkaResult<T>,
) -> KafkaResult<T> {
    loop {
        let error = match ask() {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        if Instant::now() >= deadline || !error.rdkafka_error_code().is_some_and(&again) {
            return Err(error);
        }
        thread::sleep(ASK_AGAIN);
    }
}

/// Returns whether an answer means "not yet" of a topic that is there.
pub(super) fn passing(code: Code) -> bool {
    matches!(
        code,
        Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::BrokerTransportFailure
            | Code::OperationTimedOut
            | Code::RequestTimedOut
    )
}

/// Returns the first offset of a partition that is known to exist, asking again while its brokers do not know it yet.
pub(super) fn first_offset<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    at: &TopicPartition,
    deadline: Instant,
    given_up: impl Fn() -> bool,
) -> KafkaResult<i64> {
    let unknown = |code| matches!(code, Code::UnknownPartition | Code::UnknownTopicOrPartition | Code::UnknownTopic);
    let again = |code| (passing(code) || unknown(code)) && !given_up();
    let ask = || {
        let left = deadline.saturating_duration_since(Instant::now());
        consumer.fetch_watermarks(&at.topic, at.partition, left.clamp(SHORTEST_ASK, LONGEST_ASK))
    };
    retried(deadline, again, ask).map(|(first, _)| first)
}

/// Returns an offset that is a number.
pub(super) fn number(offset: Offset) -> Option<i64> {
    match offset {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    }
}

/// The errors that the clients of this process have met and that have not passed yet.
#[derive(Default)]
struct Errors(BTreeMap<String, (Quiet, Duration)>);

impl Errors {
    const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Notes an error at the time `now` of any clock; says whether to log it, with how many were left out since the last time.
    fn met(&mut self, error: &str, now: Duration) -> Option<u64> {
        let (quiet, met_at) = self.0.entry(error.to_owned()).or_default();
        *met_at = now;
        quiet.tell(now)
    }

    /// Forgets all errors once the last of them is older than a client's longest wait between two tries, and says so.
    fn passed(&mut self, now: Duration) -> bool {
        let calm = self.0.values().all(|(_, met_at)| now.saturating_sub(*met_at) >= CALM);
        calm && !std::mem::take(&mut self.0).is_empty()
    }
}

static ERRORS: Mutex<Errors> = Mutex::new(Errors::new());
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Logs what librdkafka calls an error: most are brokers that come and go, which it sees to by itself.
///
/// Each kind of error is logged once a minute in the whole process: every client meets the same outage, several times a second.
/// The end of a partition comes this way too, and is none.
pub(super) fn log_error(error: &KafkaError, reason: &str) {
    if matches!(error, KafkaError::PartitionEOF(_)) {
        return;
    }
    let now = BEGAN.elapsed();
    let told = ERRORS.lock().unwrap_or_else(PoisonError::into_inner).met(&error.to_string(), now);
    if let Some(left_out) = told {
        warn!(%error, reason, left_out, "kafka client met an error");
    }
}

/// Logs once that the clients meet no errors any more; called while brokers answer.
pub(super) fn log_return() {
    if ERRORS.lock().unwrap_or_else(PoisonError::into_inner).passed(BEGAN.elapsed()) {
        info!("kafka clients meet no errors any more");
    }
}

/// A client without callbacks of its own: what goes wrong beside its answers is logged.
pub struct PlainContext;

impl ClientContext for PlainContext {
    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl ConsumerContext for PlainContext {}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn refusal(name: &str, value: &str) -> String {
        let mut settings = ClientConfig::new();
        settings.set("bootstrap.servers", "127.0.0.1:1").set(name, value);
        let error = make::<_, BaseConsumer<PlainContext>>(&settings, PlainContext).map(drop).unwrap_err();
        format!("{error} {error:?}")
    }

    #[test]
    fn a_setting_that_is_refused_is_named_without_its_value() {
        for name in ["sasl.pasword", "security.protocol", "debug", "enable.auto.commit"] {
            for value in ["hunter2", "generic,hunter2"] {
                let refusal = refusal(name, value);
                assert!(refusal.contains(name) && !refusal.contains("hunter2"), "{refusal}");
            }
        }
    }

    #[test]
    fn an_outage_is_logged_on_loss_once_a_minute_and_once_on_return() {
        let mut errors = Errors::new();
        let mut lines = Vec::new();
        for second in 0..200 {
            let now = Duration::from_secs(second);
            // Brokers refuse connections for 130 seconds, one of them until the end of it, and answer once in between.
            for error in ["refused", "all down"]
                .into_iter()
                .filter(|error| second < 130 && (*error == "refused" || second % 2 == 0))
            {
                lines.extend(errors.met(error, now).map(|left_out| format!("{second} {error} {left_out}")));
            }
            if second == 70 || second > 130 {
                lines.extend(errors.passed(now).then(|| format!("{second} passed")));
            }
        }
        assert_eq!(
            lines,
            [
                "0 refused 0",
                "0 all down 0",
                "60 refused 59",
                "60 all down 29",
                "120 refused 59",
                "120 all down 29",
                "149 passed"
            ]
        );
    }

    #[test]
    fn a_question_is_repeated_until_it_is_answered() {
        let asked = Cell::new(0);
        let ask = || {
            asked.set(asked.get() + 1);
            if asked.get() < 3 { Err(KafkaError::MetadataFetch(Code::NotLeaderForPartition)) } else { Ok(7) }
        };
        let answer = retried(Instant::now() + Duration::from_secs(60), passing, ask);
        assert_eq!((answer.unwrap(), asked.get()), (7, 3));
    }

    #[test]
    fn a_question_without_an_answer_ends_in_an_error() {
        let ask = |code| move || Err::<(), _>(KafkaError::MetadataFetch(code));
        let later = Instant::now() + Duration::from_secs(60);
        assert!(retried(Instant::now(), passing, ask(Code::NotLeaderForPartition)).is_err(), "the time is gone");
        assert!(retried(later, passing, ask(Code::TopicAuthorizationFailed)).is_err(), "it does not pass");
    }

    #[test]
    fn no_first_offset_is_assumed_where_nobody_answers() {
        let mut settings = ClientConfig::new();
        settings.set("bootstrap.servers", "127.0.0.1:1").set("group.id", "g");
        let consumer: BaseConsumer<PlainContext> = make(&settings, PlainContext).unwrap();
        let at = TopicPartition::new("t", 0);
        assert!(first_offset(&consumer, &at, Instant::now(), || false).is_err(), "the time is gone");
        let later = Instant::now() + Duration::from_secs(600);
        assert!(first_offset(&consumer, &at, later, || true).is_err(), "nobody wants to know");
    }
}
