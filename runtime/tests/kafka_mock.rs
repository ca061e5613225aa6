//! The demo's cluster in this process.

use windfall_runtime::kafka::mock::DemoCluster;
use windfall_runtime::kafka::publisher::{Publisher, Transaction};
use windfall_runtime::kafka::topics::TopicSpec;
use windfall_runtime::kafka::{Membership, sender::Sender};
use windfall_schemas::topic::Cleanup;

use crate::kafka_support::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_in_the_demo_is_folded_and_consumed() {
    let spec = TopicSpec { name: "t".into(), partitions: 2, cleanup: Cleanup::Compacted };
    let cluster = DemoCluster::start(&[spec]).unwrap();
    let connection = connection_to(cluster.bootstrap_servers());
    let mut publisher = Publisher::start(&connection, "p").await.unwrap();
    let derived = (0..2).flat_map(|partition| records("t", partition, 0..5)).collect();
    publisher.commit(Transaction { derived, ..Transaction::default() }).await.unwrap();
    Sender::new(&connection).unwrap().send(&records("t", 1, 5..6)).await.unwrap();
    assert_eq!(read(&connection, "t", 2).await.records, 11);
    let mut consumer = member(&connection, "t", Membership::Dynamic, 100);
    let assignment = assigned(&mut consumer).await;
    start_committed(&consumer, &assignment).await;
    assert_eq!(take(&mut consumer, 11).await.len(), 11);
    consumer.close().await;
}
