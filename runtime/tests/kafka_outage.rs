//! A broker that dies and comes back, between and within transactions.

use std::collections::BTreeSet;

use windfall_runtime::kafka::consumer::{Event, Start};
use windfall_runtime::kafka::publisher::{PublishError, Publisher, Transaction};
use windfall_runtime::kafka::{Connection, Membership};
use windfall_services::{Kafka, KafkaOptions, free_port};

use crate::kafka_support::*;

/// A broker of its own whose data outlive it.
struct Broker {
    options: KafkaOptions,
    running: Option<Kafka>,
    _folder: tempfile::TempDir,
}

impl Broker {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options =
            KafkaOptions { port: Some(free_port()), folder: Some(folder.path().to_owned()), ..KafkaOptions::default() };
        let mut broker = Self { options, running: None, _folder: folder };
        broker.again().await;
        broker
    }

    fn connection(&self) -> Connection {
        connection_to(self.running.as_ref().unwrap().bootstrap())
    }

    fn kill(&mut self) {
        self.running.as_mut().unwrap().process().signal("KILL");
        let _ = self.running.as_mut().unwrap().process().wait();
        self.running = None;
    }

    async fn again(&mut self) {
        let options = self.options.clone();
        let started = tokio::task::spawn_blocking(move || Kafka::start(&options)).await.unwrap();
        self.running = Some(started.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_dies_and_comes_back_costs_a_writer_at_most() {
    let mut broker = Broker::start().await;
    let connection = broker.connection();
    let topic = topic(&connection, "t", 1).await;
    let id = connection.prefixed("p");
    let mut publisher = Publisher::start(&connection, &id).await.unwrap();
    let one = |text: &str| Transaction { derived: vec![record(&topic, 0, text)], ..Transaction::default() };
    publisher.commit(one("before")).await.unwrap();
    let mut consumer = member(&connection, &topic, Membership::Dynamic, 100);
    let assignment = assigned(&mut consumer).await;
    start_committed(&consumer, &assignment).await;
    assert_eq!(take(&mut consumer, 1).await.len(), 1);

    broker.kill();
    let (during, ()) = tokio::join!(publisher.commit(one("during")), broker.again());
    match &during {
        Ok(_) => assert!(!publisher.is_dead()),
        Err(error) => assert!(publisher.is_dead() && !matches!(error, PublishError::TooLarge { .. }), "{error:?}"),
    }
    drop(publisher);
    let mut publisher = Publisher::start(&connection, &id).await.unwrap();
    publisher.commit(one("after")).await.unwrap();

    let mut expected = vec!["before", "after"];
    if during.is_ok() {
        expected.insert(1, "during");
    }
    let mut seen = read(&connection, &topic, 1).await.state.remove(&0).unwrap();
    let unique: BTreeSet<&String> = seen.iter().collect();
    assert_eq!(unique.len(), seen.len(), "nothing is there twice: {seen:?}");
    // A commit that ended in an error may have come through all the same: then it shows, once.
    if during.is_err() {
        seen.retain(|text| text != "during");
    }
    assert_eq!(seen, expected);
    let wanted = expected.len() - 1;
    let more = tokio::time::timeout(PATIENCE, async {
        let mut texts = Vec::new();
        while texts.last().map(String::as_str) != Some("after") {
            match next(&mut consumer).await {
                Event::Batch(batch) => texts.extend(batch.records.iter().map(text)),
                Event::Revoked(revoked) => revoked.ack(),
                Event::Assigned(assignment) => {
                    let starts = [(at(&topic, 0), Start::At(2))].into();
                    texts.clear();
                    let _ = consumer.group().start_at(&assignment, starts).await;
                }
                Event::Failed(error) => panic!("{error:?}"),
            }
        }
        texts
    });
    let more = more.await.expect("the member goes on after the outage");
    assert!(more.len() >= wanted, "{more:?}");
    consumer.close().await;
}
