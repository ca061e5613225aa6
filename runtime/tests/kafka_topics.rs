//! Topics created and verified, against a real broker.

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use windfall_runtime::diagnose::{Diagnose as _, Kind};
use windfall_runtime::kafka::Connection;
use windfall_runtime::kafka::config::ManageTopics;
use windfall_runtime::kafka::publisher::Publisher;
use windfall_runtime::kafka::topics::{self, TopicError, TopicSpec};
use windfall_schemas::topic::{Cleanup, CollectionTopics, Names};
use windfall_services::{Kafka, KafkaOptions};

use crate::kafka_support::*;

#[tokio::test(flavor = "multi_thread")]
async fn declared_topics_are_created_once_and_verified_after() {
    let connection = connection();
    let names = Names::new(connection.config().topic_prefix.as_str());
    let collection = CollectionTopics { collection: "devices", sources: vec!["abm.devices"], sinks: vec!["assets"] };
    let mut specs = names.declared_topics(&[collection]);
    specs.push(names.registry_topic());
    let created = topics::ensure(&connection, &specs, ManageTopics::Create).await.unwrap();
    assert_eq!(created.created.len(), specs.len());
    let verified = topics::ensure(&connection, &specs, ManageTopics::Create).await.unwrap();
    assert_eq!((verified.created.len(), verified.verified.len()), (0, specs.len()));
    let verified = topics::ensure(&connection, &specs, ManageTopics::Verify).await.unwrap();
    assert_eq!(verified.verified.len(), specs.len());
    assert_eq!(topics::partition_count(&connection, &names.devices()).await.unwrap(), Some(12));
}

fn told(error: &TopicError) -> Vec<(&str, &str, Option<&str>)> {
    let TopicError::Different(differences) = error else { panic!("{error:?}") };
    differences.iter().map(|it| (it.what.as_str(), it.declared.as_str(), it.found.as_deref())).collect()
}

/// Makes a topic as somebody else would.
async fn make(connection: &Connection, name: &str, settings: &[(&str, &str)]) {
    let mut client = rdkafka::ClientConfig::new();
    client.set("bootstrap.servers", connection.config().bootstrap_servers.join(","));
    let admin: AdminClient<DefaultClientContext> = client.create().unwrap();
    let topic = NewTopic::new(name, 1, TopicReplication::Fixed(1));
    let topic = settings.iter().fold(topic, |topic, (name, value)| topic.set(name, value));
    admin.create_topics(&[topic], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_a_promise_rests_on_is_told_at_once_and_nothing_is_changed() {
    let connection = connection();
    let spec = |name: &str, partitions, cleanup| TopicSpec { name: connection.prefixed(name), partitions, cleanup };
    let as_made = [spec("a", 2, Cleanup::Compacted), spec("b", 1, Cleanup::CompactedSoon)];
    topics::ensure(&connection, &as_made, ManageTopics::Create).await.unwrap();
    let declared =
        [spec("a", 12, Cleanup::Compacted), spec("b", 1, Cleanup::Compacted), spec("c", 1, Cleanup::Compacted)];
    for manage in [ManageTopics::Verify, ManageTopics::None] {
        let error = topics::ensure(&connection, &declared, manage).await.unwrap_err();
        let lag = ("min.compaction.lag.ms", "2592000000", Some("0"));
        assert_eq!(told(&error), [("partitions", "12", Some("2")), lag, ("existence", "present", None)]);
        assert!(error.to_string().starts_with("3 topics are not as they must be"), "{error}");
    }
    assert_eq!(topics::partition_count(&connection, &connection.prefixed("c")).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_missing_is_an_error_in_words_whoever_manages_topics() {
    let connection = connection();
    let spec = TopicSpec { name: connection.prefixed("t"), partitions: 1, cleanup: Cleanup::Compacted };
    for manage in [ManageTopics::Verify, ManageTopics::None] {
        let error = topics::ensure(&connection, std::slice::from_ref(&spec), manage).await.unwrap_err();
        assert!(error.to_string().contains(&format!("`{}` does not exist", spec.name)), "{error}");
        assert_eq!(error.kind(), Kind::NotFound);
        assert!(error.help().unwrap().contains("topics create") && !error.may_pass());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_a_cluster_owns_are_warned_of_and_refuse_no_second_start() {
    let connection = connection();
    let name = connection.prefixed("t");
    let lag = TopicSpec { name: name.clone(), partitions: 1, cleanup: Cleanup::CompactedSoon };
    let owned = [
        ("cleanup.policy", "compact"),
        ("message.timestamp.type", "LogAppendTime"),
        ("min.cleanable.dirty.ratio", "0.5"),
        ("compression.type", "zstd"),
    ];
    make(&connection, &name, &owned).await;
    for manage in [ManageTopics::Create, ManageTopics::Verify, ManageTopics::None] {
        let report = topics::ensure(&connection, std::slice::from_ref(&lag), manage).await.unwrap();
        let warned = |setting: &str| report.warnings.iter().any(|warning| warning.starts_with(&format!("`{setting}`")));
        assert!(warned("min.cleanable.dirty.ratio") && warned("compression.type"), "{:?}", report.warnings);
        assert_eq!(report.verified, [name.as_str()]);
    }
    let examined = topics::examine(&connection, &[lag]).await.unwrap();
    assert!(!examined.warnings.is_empty(), "a check tells the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_takes_no_batch_of_ours_is_refused_at_the_start() {
    let connection = connection();
    let name = connection.prefixed("t");
    let settings = [
        ("cleanup.policy", "compact"),
        ("message.timestamp.type", "LogAppendTime"),
        ("min.compaction.lag.ms", "9999999999"),
        ("max.message.bytes", "20000"),
    ];
    make(&connection, &name, &settings).await;
    let spec = TopicSpec { name, partitions: 1, cleanup: Cleanup::Compacted };
    let error = topics::ensure(&connection, std::slice::from_ref(&spec), ManageTopics::Create).await.unwrap_err();
    let too_small = ("max.message.bytes", "at least 1000000", Some("20000"));
    assert_eq!(told(&error), [too_small], "a longer compaction lag is no fault");
    assert_eq!(told(&topics::examine(&connection, &[spec]).await.unwrap_err()), [too_small]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_whose_name_collides_in_the_brokers_metrics_is_told_with_the_other_one() {
    let connection = connection();
    let (ours, other) = (connection.prefixed("abm.devices"), connection.prefixed("abm_devices"));
    make(&connection, &other, &[]).await;
    let spec = TopicSpec { name: ours, partitions: 1, cleanup: Cleanup::Compacted };
    let specs = std::slice::from_ref(&spec);
    let at_start = topics::ensure(&connection, specs, ManageTopics::Create).await.unwrap_err();
    for error in [at_start, topics::examine(&connection, specs).await.unwrap_err()] {
        assert!(matches!(&error, TopicError::Collides { other: found, .. } if *found == other), "{error}");
        assert!(error.help().unwrap().contains(&other) && !error.help().unwrap().contains("replication"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_cannot_keep_transactions_are_told_by_the_setting_that_is_at_fault() {
    let options = KafkaOptions { no_transactions: true, ..KafkaOptions::default() };
    let broker = tokio::task::spawn_blocking(move || Kafka::start(&options).unwrap()).await.unwrap();
    let connection = connection_to(broker.bootstrap());
    let error = topics::transactions(&connection).await.unwrap_err();
    assert!(
        error.to_string().contains("`transaction.state.log.replication.factor` is 3, and there are 1 brokers"),
        "{error}"
    );
    let error = Publisher::start(&connection, "t").await.unwrap_err();
    assert!(error.may_pass(), "somebody may mend the brokers meanwhile");
    assert!(error.told().contains("transaction.state.log"), "{}", error.told());
    topics::transactions(&self::connection()).await.unwrap();
}
