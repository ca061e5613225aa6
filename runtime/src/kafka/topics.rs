//! Topics are created from one declared list and verified when they exist; never by auto-creation.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use tracing::info;
pub use windfall_schemas::topic::TopicSpec;
use windfall_schemas::topic::min_insync_replicas;

use super::asking::{Asker, Unanswered};
use super::client::{PlainContext, make};
use super::config::ManageTopics;
use super::connection::Connection;
use super::retire::retire;
use crate::diagnose::{Diagnose, Diagnosis, Kind, of_kafka};
use crate::retry::Retry;

/// A controller that has not answered by then is out of reach.
const ASK_TIMEOUT: Duration = Duration::from_secs(30);

const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What was done and found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicReport {
    /// Topics that were created.
    pub created: Vec<String>,
    /// Topics that were there as declared.
    pub verified: Vec<String>,
}

/// How a topic differs from its declaration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The topic.
    pub topic: String,
    /// What differs: `partitions`, `existence` or a setting's name.
    pub what: String,
    /// As declared.
    pub declared: String,
    /// As found.
    pub found: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, what, declared, found } = self;
        write!(formatter, "`{topic}`: {what} is {found}, declared {declared}")
    }
}

/// What can go wrong with topics.
#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    /// No broker could be asked.
    #[error("topics were not read from `{servers}`{}", said(reason.as_deref()))]
    Ask {
        /// The brokers.
        servers: String,
        /// What the client has heard of them, where it has.
        reason: Option<Box<str>>,
        /// What librdkafka says.
        source: KafkaError,
    },
    /// A topic was not created.
    #[error("topic `{topic}` was not created: {reason}")]
    Create {
        /// The topic.
        topic: String,
        /// What the broker says.
        reason: String,
        /// Its code, where it gave one.
        code: Option<RDKafkaErrorCode>,
    },
    /// Topics differ from their declaration.
    #[error("{} topics differ from what is declared: {}", count(.0), list(.0))]
    Different(Vec<Difference>),
}

impl Diagnose for TopicError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Ask { source, .. } => source
                .diagnosis()
                .retry(Retry::Backoff)
                .or_help("check `kafka.bootstrap_servers`, and `kafka.properties` for TLS and SASL"),
            Self::Create { code, .. } => code.map_or(Kind::Refused, of_kafka).help(
                "check `kafka.replication_factor` against the number of brokers, and that this client may create topics",
            ).retry(Retry::Never),
            Self::Different(_) => Kind::Refused.help(
                "run `windfall topics create` for what is missing, set settings by `kafka-configs.sh --alter`; partitions cannot be changed, take another `topic_prefix`",
            ),
        }
    }
}

fn said(reason: Option<&str>) -> String {
    reason.map(|reason| format!(": {reason}")).unwrap_or_default()
}

fn count(differences: &[Difference]) -> usize {
    let mut topics: Vec<&str> = differences.iter().map(|difference| difference.topic.as_str()).collect();
    topics.dedup();
    topics.len()
}

fn list(differences: &[Difference]) -> String {
    differences.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Creates and verifies topics, as `manage` says.
///
/// # Errors
/// [`TopicError::Different`] lists every difference of every topic.
pub async fn ensure(
    connection: &Connection,
    specs: &[TopicSpec],
    manage: ManageTopics,
) -> Result<TopicReport, TopicError> {
    if manage == ManageTopics::None {
        return Ok(TopicReport::default());
    }
    let admin = Admin::connect(connection)?;
    let mut found = admin.partitions(None).await?;
    let mut report = TopicReport::default();
    if manage == ManageTopics::Create {
        let missing: Vec<&TopicSpec> = specs.iter().filter(|spec| !found.contains_key(&spec.name)).collect();
        report.created = admin.create(&missing).await?;
        found = admin.shown(&missing, found).await?;
    }
    let existing: Vec<&TopicSpec> = specs.iter().filter(|spec| !report.created.contains(&spec.name)).collect();
    let differences = admin.differences(&existing, &found).await?;
    if !differences.is_empty() {
        return Err(TopicError::Different(differences));
    }
    report.verified = existing.iter().map(|spec| spec.name.clone()).collect();
    Ok(report)
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

struct Admin {
    client: Option<std::sync::Arc<AdminClient<PlainContext>>>,
    asker: Option<std::sync::Arc<Asker>>,
    servers: String,
    replication: i32,
}

impl Admin {
    fn connect(connection: &Connection) -> Result<Self, TopicError> {
        let config = connection.config();
        let servers = config.bootstrap_servers.join(",");
        let made = make::<_, AdminClient<PlainContext>>(&connection.admin(), PlainContext)
            .and_then(|client| Ok((client, Asker::new(&connection.reader())?)));
        match made {
            Ok((client, asker)) => {
                let (client, asker) = (Some(std::sync::Arc::new(client)), Some(std::sync::Arc::new(asker)));
                Ok(Self { client, asker, servers, replication: i32::from(config.replication_factor) })
            }
            Err(source) => Err(TopicError::Ask { servers, reason: None, source }),
        }
    }

    fn client(&self) -> std::sync::Arc<AdminClient<PlainContext>> {
        self.client.clone().unwrap_or_else(|| unreachable!("the client is taken by drop alone"))
    }

    fn ask(&self, source: KafkaError) -> TopicError {
        TopicError::Ask { servers: self.servers.clone(), reason: None, source }
    }

    async fn partitions(&self, topic: Option<&str>) -> Result<BTreeMap<String, i32>, TopicError> {
        let asker = self.asker.clone().unwrap_or_else(|| unreachable!("the asker is taken by drop alone"));
        let topic = topic.map(str::to_owned);
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
        let results = self.client().create_topics(&topics, &options).await.map_err(|source| self.ask(source))?;
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

    /// Waits until brokers show what their controller has created, which takes them some milliseconds.
    async fn shown(
        &self,
        specs: &[&TopicSpec],
        mut found: BTreeMap<String, i32>,
    ) -> Result<BTreeMap<String, i32>, TopicError> {
        let deadline = Instant::now() + ASK_TIMEOUT;
        while let Some(missing) = specs.iter().find(|spec| !found.contains_key(&spec.name)) {
            if Instant::now() >= deadline {
                let reason = "it was created, and no broker shows it".to_owned();
                return Err(TopicError::Create { topic: missing.name.clone(), reason, code: None });
            }
            tokio::time::sleep(LOOK_AGAIN).await;
            found = self.partitions(None).await?;
        }
        Ok(found)
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

    async fn differences(
        &self,
        specs: &[&TopicSpec],
        found: &BTreeMap<String, i32>,
    ) -> Result<Vec<Difference>, TopicError> {
        let mut differences = Vec::new();
        let mut existing = Vec::new();
        for spec in specs {
            let differs = |what: &str, declared: String, found: String| Difference {
                topic: spec.name.clone(),
                what: what.to_owned(),
                declared,
                found,
            };
            match found.get(&spec.name) {
                None => differences.push(differs("existence", "present".to_owned(), "missing".to_owned())),
                Some(partitions) => {
                    if *partitions != spec.partitions {
                        differences.push(differs("partitions", spec.partitions.to_string(), partitions.to_string()));
                    }
                    existing.push(*spec);
                }
            }
        }
        differences.extend(self.setting_differences(&existing).await?);
        differences.sort_by(|a, b| (&a.topic, &a.what).cmp(&(&b.topic, &b.what)));
        Ok(differences)
    }

    async fn setting_differences(&self, specs: &[&TopicSpec]) -> Result<Vec<Difference>, TopicError> {
        if specs.is_empty() {
            return Ok(Vec::new());
        }
        let resources: Vec<ResourceSpecifier<'_>> =
            specs.iter().map(|spec| ResourceSpecifier::Topic(&spec.name)).collect();
        let options = AdminOptions::new().request_timeout(Some(ASK_TIMEOUT));
        let described =
            self.client().describe_configs(&resources, &options).await.map_err(|source| self.ask(source))?;
        let mut differences = Vec::new();
        for (spec, resource) in specs.iter().zip(described) {
            let resource = resource.map_err(|code| self.ask(KafkaError::AdminOp(code)))?;
            for (name, declared) in self.settings(spec) {
                let found = resource.get(name).and_then(|entry| entry.value.clone()).unwrap_or_default();
                if !same_setting(&declared, &found) {
                    let (topic, what) = (spec.name.clone(), name.to_owned());
                    differences.push(Difference { topic, what, declared, found });
                }
            }
        }
        Ok(differences)
    }
}

/// Numbers may be written in several ways (`0.1`, `0.10`); everything else is compared as text.
fn same_setting(declared: &str, found: &str) -> bool {
    declared == found || matches!((declared.parse::<f64>(), found.parse::<f64>()), (Ok(a), Ok(b)) if a == b)
}

impl Drop for Admin {
    fn drop(&mut self) {
        retire("admin", (self.client.take(), self.asker.take()));
    }
}
