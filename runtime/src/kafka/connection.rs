//! From our settings to those of each kind of client.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaResult;

use super::client::{PlainContext, make};
use super::config::KafkaConfig;

/// A member that is silent this long is replaced; a restarted static member is back well within it.
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
/// A member learns of a rebalance by its next heartbeat, and the whole group waits for it.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// A transaction whose writer died hides what follows it for at most this long.
pub const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(15);
/// A record that is not delivered within this time fails its transaction, which then still has time to be given up.
pub const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bounds what one consumer fetches ahead, in KiB: several stages share one small machine.
const PREFETCH_KIB: u32 = 16 * 1024;
/// Longest wait between two tries to reach a broker: it must be back in use well within a message's time-out.
const RECONNECT_WAIT_MS: u32 = 2_000;
/// A broker holds a fetch this long when there is nothing, and a partition that was sought waits for that fetch to return.
const FETCH_WAIT_MS: u32 = 100;
/// Lets records that are sent in one go share a batch, and costs one change alone next to nothing.
const LINGER_MS: u32 = 2;

/// How a consumer belongs to its group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Membership {
    /// Keeps its partitions over a restart; a second process with the same instance fences the first.
    Static {
        /// The `group.instance.id`.
        instance: String,
    },
    /// Leaves the group when it ends: for `--once` and the demo.
    Dynamic,
}

/// A consumer that assigns itself its partitions and sees committed records only.
pub type Reader = BaseConsumer<PlainContext>;

/// A cluster as one stage instance uses it: makes the settings of every kind of client.
///
/// The settings hold passwords, so they stay in here: clients are opened, and their errors tell no value.
#[derive(Debug, Clone)]
pub struct Connection {
    config: Arc<KafkaConfig>,
    client_id: String,
    at_once: bool,
}

impl Connection {
    /// Describes the cluster for a stage (`producer`, `map-devices`, `sink-assets`) of an instance.
    pub fn new(config: &KafkaConfig, stage: &str, instance: &str) -> Self {
        Self { config: Arc::new(config.clone()), client_id: format!("windfall-{stage}-{instance}"), at_once: false }
    }

    /// Gives up as soon as every broker has refused a connection, as a command does that only looks; a stage waits for brokers that
    /// are starting.
    #[must_use]
    pub fn at_once(self) -> Self {
        Self { at_once: true, ..self }
    }

    pub(super) fn gives_up_at_once(&self) -> bool {
        self.at_once
    }

    /// Returns the configuration this was made from.
    pub fn config(&self) -> &KafkaConfig {
        &self.config
    }

    /// Returns the client id, `windfall-<stage>-<instance>`.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// Returns `name` with the prefix of topics, groups and transactional ids in front.
    pub fn prefixed(&self, name: &str) -> String {
        format!("{}{name}", self.config.topic_prefix)
    }

    fn base(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        for (name, value) in &self.config.properties {
            client.set(name, value.expose());
        }
        client.set("bootstrap.servers", self.config.bootstrap_servers.join(","));
        client.set("client.id", &self.client_id);
        client.set("allow.auto.create.topics", "false");
        unless_set(&mut client, "reconnect.backoff.max.ms", RECONNECT_WAIT_MS);
        client
    }

    /// Opens a reader, which asks nothing of the network yet.
    ///
    /// # Errors
    /// When the settings make no client; it is named without its value.
    pub fn open_reader(&self) -> KafkaResult<Reader> {
        make(&self.reader(), PlainContext)
    }

    /// Settings of a client that administers; it is a producer to librdkafka, which warns of every setting of consumers.
    pub(super) fn admin(&self) -> ClientConfig {
        self.base()
    }

    /// Settings of a consumer that only asks for offsets; it sees the true end of a partition.
    pub(super) fn asker(&self) -> ClientConfig {
        let mut client = self.base();
        client.set("isolation.level", "read_uncommitted");
        client
    }

    /// Settings of a reader that assigns itself its partitions and sees committed records only.
    pub(super) fn reader(&self) -> ClientConfig {
        let mut client = self.base();
        client.set("isolation.level", "read_committed");
        client.set("auto.offset.reset", "error");
        client.set("enable.auto.commit", "false");
        client.set("enable.auto.offset.store", "false");
        client.set("enable.partition.eof", "true");
        unless_set(&mut client, "queued.max.messages.kbytes", PREFETCH_KIB);
        unless_set(&mut client, "fetch.wait.max.ms", FETCH_WAIT_MS);
        // The client wants a group id for its consumer queue; nothing is ever committed or joined under it.
        client.set("group.id", self.prefixed(&format!("{}-reader", self.client_id)));
        client
    }

    /// Settings of a member of a group.
    pub(super) fn member(&self, group: &str, membership: &Membership) -> ClientConfig {
        let mut client = self.reader();
        client.set("group.id", group);
        client.set("group.protocol", "classic");
        client.set("partition.assignment.strategy", "range");
        client.set("session.timeout.ms", SESSION_TIMEOUT.as_millis().to_string());
        client.set("heartbeat.interval.ms", HEARTBEAT_INTERVAL.as_millis().to_string());
        if let Membership::Static { instance } = membership {
            client.set("group.instance.id", instance);
        }
        client
    }

    /// Settings of a producer that writes each record once, in order.
    pub(super) fn idempotent(&self) -> ClientConfig {
        let mut client = self.base();
        client.set("enable.idempotence", "true");
        client.set("acks", "all");
        client.set("partitioner", "murmur2_random");
        client.set("compression.type", self.config.compression.as_property());
        client.set("linger.ms", LINGER_MS.to_string());
        client.set("message.timeout.ms", MESSAGE_TIMEOUT.as_millis().to_string());
        client
    }

    /// Settings of a producer that writes in transactions.
    pub(super) fn transactional(&self, transactional_id: &str) -> ClientConfig {
        let mut client = self.idempotent();
        client.set("transactional.id", transactional_id);
        client.set("transaction.timeout.ms", TRANSACTION_TIMEOUT.as_millis().to_string());
        client
    }
}

/// Sets what the file may set otherwise.
fn unless_set(client: &mut ClientConfig, name: &str, value: u32) {
    if client.get(name).is_none() {
        client.set(name, value.to_string());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use rdkafka::client::ClientContext;
    use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
    use rdkafka::consumer::{BaseConsumer, ConsumerContext};
    use rdkafka::producer::{BaseProducer, DeliveryResult, ProducerContext};

    use super::*;
    use crate::kafka::config::SchemaRegistryConfig;

    #[derive(Clone, Default)]
    struct Warnings(Arc<Mutex<Vec<String>>>);

    impl ClientContext for Warnings {
        fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
            if facility == "CONFWARN" {
                self.0.lock().unwrap().push(message.to_owned());
            }
        }
    }

    impl ConsumerContext for Warnings {}

    impl ProducerContext for Warnings {
        type DeliveryOpaque = ();

        fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
    }

    /// Logs come with polls; what is said of settings lies there from the beginning.
    fn of_producer(settings: &ClientConfig) -> Vec<String> {
        let warnings = Warnings::default();
        let producer = BaseProducer::from_config_and_context(settings, warnings.clone()).unwrap();
        (0..3).for_each(|_| producer.poll(Duration::from_millis(10)));
        std::mem::take(&mut *warnings.0.lock().unwrap())
    }

    fn of_consumer(settings: &ClientConfig) -> Vec<String> {
        let warnings = Warnings::default();
        let consumer = BaseConsumer::from_config_and_context(settings, warnings.clone()).unwrap();
        (0..3).for_each(|_| drop(consumer.poll(Duration::from_millis(10))));
        std::mem::take(&mut *warnings.0.lock().unwrap())
    }

    #[test]
    fn no_client_is_given_a_setting_of_another_kind() {
        // Nobody answers there, and nothing needs to.
        let config = KafkaConfig::new("127.0.0.1:1", SchemaRegistryConfig::embedded(None));
        let connection = Connection::new(&config, "s", "i");
        let membership = Membership::Static { instance: "i".to_owned() };
        let none: Vec<String> = Vec::new();
        assert_eq!(of_producer(&connection.admin()), none);
        assert_eq!(of_producer(&connection.idempotent()), none);
        assert_eq!(of_producer(&connection.transactional("t")), none);
        assert_eq!(of_consumer(&connection.asker()), none);
        assert_eq!(of_consumer(&connection.reader()), none);
        assert_eq!(of_consumer(&connection.member("g", &membership)), none);
        assert_ne!(of_producer(&connection.asker()), none, "the warning would be seen");
    }
}
