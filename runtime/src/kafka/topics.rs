//! Topics are created from one declared list and verified when they exist; never by auto-creation.

mod error;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

pub use error::{Difference, TopicError};
pub use windfall_schemas::topic::TopicSpec;
use windfall_schemas::topic::{Fit, min_insync_replicas};

use super::asking::{Asker, Unanswered};
use super::client::{PlainContext, make};
use super::config::ManageTopics;
use super::connection::Connection;
use super::retire::Retiring;
use crate::clock::{Clock, SystemClock};
use crate::diagnose::{Kind, of_kafka};
use crate::health::STALLED_AFTER;
use crate::retry::Quiet;

/// A controller that has not answered by then is out of reach.
const ASK_TIMEOUT: Duration = Duration::from_secs(30);

/// The topic in which brokers keep the state of transactions.
const TRANSACTIONS: &str = "__transaction_state";
/// What our clients put into one batch at most, before it is compressed.
const MAX_BATCH_BYTES: usize = 1_000_000;

/// When brokers take longer to show a new topic, a warning is logged.
const SHOWN_WITHIN: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What was done and found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicReport {
    /// Topics that were created.
    pub created: Vec<String>,
    /// Topics that were there as they must be.
    pub verified: Vec<String>,
    /// Topics that do not exist.
    pub missing: Vec<String>,
    /// What differs from the declaration and can stay so, a sentence each.
    pub warnings: Vec<String>,
}

/// Creates and verifies topics, as `manage` says. The verdict on a topic is the same whoever has made it.
///
/// # Errors
/// [`TopicError::Different`] lists everything that a promise rests on, of every topic; what else differs is logged.
pub async fn ensure(
    connection: &Connection,
    specs: &[TopicSpec],
    manage: ManageTopics,
) -> Result<TopicReport, TopicError> {
    if manage == ManageTopics::Simulated {
        return Ok(TopicReport::default());
    }
    let admin = Admin::connect(connection)?;
    let mut found = admin.partitions(None).await?;
    let mut created = Vec::new();
    if manage == ManageTopics::Create {
        let missing = missing(specs, &found)?;
        created = admin.create(&missing).await?;
        found = shown(&missing, found, &SystemClock::new(), || admin.partitions(None)).await?;
    }
    let mut report = admin.judge(specs, &found).await?;
    if !report.missing.is_empty() {
        let missing = report.missing.into_iter().map(|topic| Difference::new(topic, "existence", "present", None));
        return Err(TopicError::Different(missing.collect()));
    }
    for warning in &report.warnings {
        warn!("{warning}");
    }
    report.verified.retain(|topic| !created.contains(topic));
    Ok(TopicReport { created, ..report })
}

/// Judges topics without making any; those that are missing could be created.
///
/// # Errors
/// As [`ensure`], but for what is missing.
pub async fn examine(connection: &Connection, specs: &[TopicSpec]) -> Result<TopicReport, TopicError> {
    let admin = Admin::connect(connection)?;
    let found = admin.partitions(None).await?;
    missing(specs, &found)?;
    admin.judge(specs, &found).await
}

/// Says whether the brokers can keep the state of transactions, where that shows without beginning one.
///
/// # Errors
/// [`TopicError::Transactions`] names the setting that is too large for the cluster.
pub async fn transactions(connection: &Connection) -> Result<(), TopicError> {
    let admin = Admin::connect(connection)?;
    // Once it exists the brokers have been able to make it.
    if admin.partitions(Some(TRANSACTIONS)).await?.contains_key(TRANSACTIONS) {
        return Ok(());
    }
    let brokers = admin.brokers().await?;
    let Some(broker) = brokers.first() else { return Ok(()) };
    let options = AdminOptions::new().request_timeout(Some(ASK_TIMEOUT));
    let described = admin.client.describe_configs(&[ResourceSpecifier::Broker(*broker)], &options).await;
    // Many clusters show their settings to nobody.
    let Some(Ok(settings)) = described.ok().and_then(|mut described| described.pop()) else { return Ok(()) };
    let number = |name: &str| settings.get(name).and_then(|entry| entry.value.as_ref()?.parse::<usize>().ok());
    let (factor, isr) = ("transaction.state.log.replication.factor", "transaction.state.log.min.isr");
    let too_large = |setting, most, of| {
        let value = number(setting).filter(|value| *value > most)?;
        Some(TopicError::Transactions { setting, value, most, of })
    };
    let refused = too_large(factor, brokers.len(), "brokers")
        .or_else(|| too_large(isr, number(factor)?, "copies of each partition"));
    refused.map_or(Ok(()), Err)
}

/// Lists the topics that are to be created, and refuses those that the brokers would.
fn missing<'a>(specs: &'a [TopicSpec], found: &BTreeMap<String, i32>) -> Result<Vec<&'a TopicSpec>, TopicError> {
    let metric = |name: &str| name.replace('.', "_");
    let missing: Vec<&TopicSpec> = specs.iter().filter(|spec| !found.contains_key(&spec.name)).collect();
    for spec in &missing {
        if let Some(other) = found.keys().find(|other| metric(other) == metric(&spec.name)) {
            return Err(TopicError::Collides { topic: spec.name.clone(), other: other.clone() });
        }
    }
    Ok(missing)
}

/// Says what differs in few words: the same difference of many topics is one sentence.
fn warnings(differences: &[Difference]) -> Vec<String> {
    let mut grouped: BTreeMap<(&str, &str, &str), Vec<&str>> = BTreeMap::new();
    for Difference { topic, what, declared, found } in differences {
        let found = found.as_deref().unwrap_or_default();
        grouped.entry((what, declared, found)).or_default().push(topic);
    }
    let sentence = |((what, declared, found), topics): ((&str, &str, &str), Vec<&str>)| match topics[..] {
        [topic] => format!("`{what}` of topic `{topic}` is {found}, declared is {declared}"),
        _ => format!("`{what}` of {} topics such as `{}` is {found}, declared is {declared}", topics.len(), topics[0]),
    };
    grouped.into_iter().map(sentence).collect()
}

/// Returns how many partitions each topic of the cluster has.
///
/// # Errors
/// [`TopicError::Ask`] when no broker answers.
pub async fn partition_counts(connection: &Connection) -> Result<BTreeMap<String, i32>, TopicError> {
    Admin::connect(connection)?.partitions(None).await
}

/// Returns how many partitions `topic` has, or `None` when it does not exist.
///
/// # Errors
/// [`TopicError::Ask`] when no broker answers.
pub async fn partition_count(connection: &Connection, topic: &str) -> Result<Option<i32>, TopicError> {
    Ok(Admin::connect(connection)?.partitions(Some(topic)).await?.remove(topic))
}

/// Waits until brokers show what their controller has created: some milliseconds, or minutes where they have much else to do.
async fn shown<A: Future<Output = Result<BTreeMap<String, i32>, TopicError>>>(
    specs: &[&TopicSpec],
    mut found: BTreeMap<String, i32>,
    clock: &dyn Clock,
    ask: impl Fn() -> A,
) -> Result<BTreeMap<String, i32>, TopicError> {
    let began = clock.elapsed();
    let mut quiet = Quiet::new();
    while let Some(missing) = specs.iter().find(|spec| !found.contains_key(&spec.name)) {
        let waited = clock.elapsed() - began;
        if waited >= STALLED_AFTER {
            let reason = format!("it was created, and no broker has shown it for {} s", waited.as_secs());
            return Err(TopicError::Create { topic: missing.name.clone(), reason, code: None });
        }
        if waited >= SHOWN_WITHIN && quiet.tell(waited).is_some() {
            warn!(topic = missing.name, waited_s = waited.as_secs(), "topic was created, and no broker shows it yet");
        }
        clock.sleep(LOOK_AGAIN).await;
        found = ask().await?;
    }
    Ok(found)
}

/// The clients that administer topics and ask for them.
struct Admin {
    client: Retiring<AdminClient<PlainContext>>,
    asker: Arc<Retiring<Asker>>,
    servers: String,
    replication: i32,
}

impl Admin {
    fn connect(connection: &Connection) -> Result<Self, TopicError> {
        let config = connection.config();
        let servers = config.bootstrap_servers.join(",");
        let made = make::<_, AdminClient<PlainContext>>(&connection.admin(), PlainContext)
            .and_then(|client| Ok((client, Asker::new(&connection.reader(), connection.gives_up_at_once())?)));
        match made {
            Ok((client, asker)) => {
                let (client, asker) = (Retiring::new(client), Arc::new(Retiring::new(asker)));
                Ok(Self { client, asker, servers, replication: i32::from(config.replication_factor) })
            }
            Err(source) => Err(TopicError::Ask { servers, reason: None, source }),
        }
    }

    fn ask(&self, source: KafkaError) -> TopicError {
        TopicError::Ask { servers: self.servers.clone(), reason: None, source }
    }

    async fn partitions(&self, topic: Option<&str>) -> Result<BTreeMap<String, i32>, TopicError> {
        let (asker, topic) = (Arc::clone(&self.asker), topic.map(str::to_owned));
        let work = move || asker.partitions(topic.as_deref(), ASK_TIMEOUT);
        let canceled = |_| Err(Unanswered { source: KafkaError::Canceled, reason: None });
        tokio::task::spawn_blocking(work).await.unwrap_or_else(canceled).map_err(|Unanswered { source, reason }| {
            TopicError::Ask { servers: self.servers.clone(), reason: reason.map(String::into_boxed_str), source }
        })
    }

    async fn create(&self, specs: &[&TopicSpec]) -> Result<Vec<String>, TopicError> {
        if specs.is_empty() {
            return Ok(Vec::new());
        }
        let settings: Vec<Vec<(&'static str, String)>> = specs.iter().map(|spec| self.settings(spec)).collect();
        let topics: Vec<NewTopic<'_>> =
            specs.iter().zip(&settings).map(|(spec, settings)| self.new_topic(spec, settings)).collect();
        let options = AdminOptions::new().operation_timeout(Some(ASK_TIMEOUT)).request_timeout(Some(ASK_TIMEOUT));
        let results = self.client.create_topics(&topics, &options).await.map_err(|source| self.ask(source))?;
        let mut created = Vec::new();
        for result in results {
            match result {
                Ok(topic) => {
                    info!(topic, "topic created");
                    created.push(topic);
                }
                // Another process was quicker; its topic is verified like any other.
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => {
                    return Err(TopicError::Create { topic, reason: code.to_string(), code: Some(code) });
                }
            }
        }
        Ok(created)
    }

    fn settings(&self, spec: &TopicSpec) -> Vec<(&'static str, String)> {
        let mut settings = spec.settings();
        settings.push(("min.insync.replicas", min_insync_replicas(self.replication).to_string()));
        settings
    }

    fn new_topic<'a>(&self, spec: &'a TopicSpec, settings: &'a [(&'static str, String)]) -> NewTopic<'a> {
        let topic = NewTopic::new(&spec.name, spec.partitions, TopicReplication::Fixed(self.replication));
        settings.iter().fold(topic, |topic, (name, value)| topic.set(name, value))
    }

    async fn brokers(&self) -> Result<Vec<i32>, TopicError> {
        let asker = Arc::clone(&self.asker);
        let asked = tokio::task::spawn_blocking(move || asker.brokers(ASK_TIMEOUT)).await;
        asked.unwrap_or(Err(KafkaError::Canceled)).map_err(|source| self.ask(source))
    }

    /// Compares the topics that exist with their declarations.
    async fn judge(&self, specs: &[TopicSpec], found: &BTreeMap<String, i32>) -> Result<TopicReport, TopicError> {
        let (present, missing): (Vec<_>, Vec<_>) = specs.iter().partition(|spec| found.contains_key(&spec.name));
        let (mut broken, mut differing) = (Vec::new(), Vec::new());
        for spec in &present {
            let partitions = found[&spec.name];
            if partitions != spec.partitions {
                let declared = spec.partitions.to_string();
                broken.push(Difference::new(&spec.name, "partitions", declared, Some(partitions.to_string())));
            }
        }
        for (spec, settings) in present.iter().zip(self.settings_found(&present).await?) {
            let Some(settings) = settings else {
                differing.push(Difference::new(
                    &spec.name,
                    "settings",
                    "as listed",
                    Some("not shown to us".to_owned()),
                ));
                continue;
            };
            let value = |name: &str| settings.get(name).and_then(|entry| entry.value.clone()).unwrap_or_default();
            for (name, declared) in self.settings(spec) {
                let found = value(name);
                match TopicSpec::fit(name, &declared, &found) {
                    Fit::Fits => {}
                    Fit::Differs => differing.push(Difference::new(&spec.name, name, declared, Some(found))),
                    Fit::Breaks => broken.push(Difference::new(&spec.name, name, declared, Some(found))),
                }
            }
            let largest = value("max.message.bytes");
            if largest.parse::<usize>().is_ok_and(|largest| largest < MAX_BATCH_BYTES) {
                let declared = format!("at least {MAX_BATCH_BYTES}");
                broken.push(Difference::new(&spec.name, "max.message.bytes", declared, Some(largest)));
            }
        }
        if !broken.is_empty() {
            broken.extend(missing.iter().map(|spec| Difference::new(&spec.name, "existence", "present", None)));
            broken.sort_by(|a, b| (&a.topic, &a.what).cmp(&(&b.topic, &b.what)));
            return Err(TopicError::Different(broken));
        }
        let names = |specs: Vec<&TopicSpec>| specs.into_iter().map(|spec| spec.name.clone()).collect();
        let (verified, missing) = (names(present), names(missing));
        Ok(TopicReport { created: Vec::new(), verified, missing, warnings: warnings(&differing) })
    }

    /// Asks for the settings of topics that exist; `None` where we may not see them.
    async fn settings_found(&self, specs: &[&TopicSpec]) -> Result<Vec<Option<ConfigResource>>, TopicError> {
        if specs.is_empty() {
            return Ok(Vec::new());
        }
        let resources: Vec<ResourceSpecifier<'_>> =
            specs.iter().map(|spec| ResourceSpecifier::Topic(&spec.name)).collect();
        let options = AdminOptions::new().request_timeout(Some(ASK_TIMEOUT));
        let deadline = Instant::now() + ASK_TIMEOUT;
        loop {
            let described = self.client.describe_configs(&resources, &options).await;
            let described: Result<Vec<_>, RDKafkaErrorCode> = described
                .map_err(|source| self.ask(source))?
                .into_iter()
                .map(|resource| match resource {
                    Err(code) if of_kafka(code) == Kind::Permission => Ok(None),
                    resource => resource.map(Some),
                })
                .collect();
            match described {
                Ok(described) => return Ok(described),
                // A broker that was asked may not have heard yet of a topic that was just created.
                Err(RDKafkaErrorCode::UnknownTopicOrPartition) if Instant::now() < deadline => {
                    sleep(LOOK_AGAIN).await;
                }
                Err(code) => return Err(self.ask(KafkaError::AdminOp(code))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::atomic::{AtomicU64, Ordering};

    use chrono::{DateTime, Utc};
    use windfall_schemas::topic::Cleanup;

    use super::*;

    /// A clock that a wait moves on at once.
    #[derive(Default)]
    struct Waiting(AtomicU64);

    impl Clock for Waiting {
        fn now(&self) -> DateTime<Utc> {
            DateTime::UNIX_EPOCH + self.elapsed()
        }

        fn elapsed(&self) -> Duration {
            Duration::from_millis(self.0.load(Ordering::Relaxed))
        }

        fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
            self.0.fetch_add(u64::try_from(duration.as_millis()).unwrap(), Ordering::Relaxed);
            Box::pin(std::future::ready(()))
        }
    }

    #[tokio::test]
    async fn brokers_that_are_slow_to_show_a_topic_are_waited_for_and_not_for_ever() {
        let spec = TopicSpec { name: "t".to_owned(), partitions: 3, cleanup: Cleanup::Compacted };
        let show_after = async |seconds: u64| {
            let clock = Waiting::default();
            let ask = || {
                let there = clock.elapsed().as_secs() >= seconds;
                std::future::ready(Ok(there.then(|| ("t".to_owned(), 3)).into_iter().collect()))
            };
            shown(&[&spec], BTreeMap::new(), &clock, ask).await
        };
        assert_eq!(show_after(120).await.unwrap()["t"], 3);
        let error = show_after(u64::MAX).await.unwrap_err();
        assert!(error.to_string().contains("no broker has shown it for 300 s"), "{error}");
    }
}
