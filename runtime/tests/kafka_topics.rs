//! Topics created and verified, against a real broker.

use windfall_runtime::kafka::config::ManageTopics;
use windfall_runtime::kafka::topics::{self, TopicError, TopicSpec};
use windfall_schemas::topic::{Cleanup, CollectionTopics, Names};

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

#[tokio::test(flavor = "multi_thread")]
async fn every_difference_is_told_at_once_and_nothing_is_changed() {
    let connection = connection();
    let spec = |name: &str, partitions, cleanup| TopicSpec { name: connection.prefixed(name), partitions, cleanup };
    let as_made = [spec("a", 2, Cleanup::Compacted), spec("b", 1, Cleanup::Deleted { retention_ms: 60_000 })];
    topics::ensure(&connection, &as_made, ManageTopics::Create).await.unwrap();
    let declared = [
        spec("a", 12, Cleanup::Compacted),
        spec("b", 1, Cleanup::Deleted { retention_ms: 120_000 }),
        spec("c", 1, Cleanup::Compacted),
    ];
    let error = topics::ensure(&connection, &declared, ManageTopics::Verify).await.unwrap_err();
    let TopicError::Different(differences) = &error else { panic!("{error:?}") };
    let told: Vec<(String, String, String)> = differences
        .iter()
        .map(|difference| (difference.what.clone(), difference.declared.clone(), difference.found.clone()))
        .collect();
    let expected =
        [("partitions", "12", "2"), ("retention.ms", "120000", "60000"), ("existence", "present", "missing")];
    assert_eq!(told, expected.map(|(what, declared, found)| (what.to_owned(), declared.to_owned(), found.to_owned())));
    assert!(error.to_string().starts_with("3 topics differ"), "{error}");
    assert_eq!(topics::partition_count(&connection, &connection.prefixed("c")).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_that_are_not_ours_to_manage_are_not_even_looked_at() {
    let connection = connection_to("127.0.0.1:1");
    let spec = TopicSpec { name: "t".into(), partitions: 1, cleanup: Cleanup::Compacted };
    let report = topics::ensure(&connection, &[spec], ManageTopics::None).await.unwrap();
    assert!(report.created.is_empty() && report.verified.is_empty());
}
