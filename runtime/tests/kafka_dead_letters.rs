//! Dead letters of what strangers write, against a real broker.

use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use windfall_runtime::kafka::dead_letters::{Refusal, RefusedAt, dead_letter};
use windfall_runtime::kafka::publisher::{Publisher, Transaction};
use windfall_runtime::kafka::sender::Sender;
use windfall_runtime::kafka::table::{self, FoldRequest};
use windfall_runtime::kafka::{Connection, Record};

use crate::kafka_support::*;

/// Five times what a broker takes, and compressed next to nothing.
const LONG: usize = 5 * 1024 * 1024;

async fn records_of(connection: &Connection, topic: &str) -> Vec<Record> {
    let request = FoldRequest::whole(topic, [0]);
    let folded = table::fold(connection, request, Vec::new(), |records, record| {
        records.push(record);
        Ok(())
    });
    folded.await.expect("topic is read").state
}

/// Writes as any program may that compresses and has raised its own limit.
async fn write_as_a_stranger(connection: &Connection, topic: &str, value: &[u8]) {
    let mut settings = ClientConfig::new();
    settings.set("bootstrap.servers", connection.config().bootstrap_servers.join(","));
    settings.set("compression.type", "zstd").set("message.max.bytes", "20000000");
    let producer: FutureProducer = settings.create().unwrap();
    let record = FutureRecord::to(topic).partition(0).key("k").payload(value);
    producer.send(record, PATIENCE).await.expect("the broker takes it");
}

fn refusal() -> Refusal {
    Refusal {
        stage: RefusedAt::Value,
        service: "windfall-map-devices".into(),
        instance: "one".into(),
        component: "map".into(),
        kind: "too_long".into(),
        message: "value is too long".into(),
        attempts: 1,
        first_failed_ms: 0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dead_letter_of_a_value_that_no_letter_can_hold_is_delivered_without_it() {
    let connection = connection();
    let (topic, dlq) = (topic(&connection, "t", 1).await, topic(&connection, "t.dlq", 1).await);
    write_as_a_stranger(&connection, &topic, &vec![b'x'; LONG]).await;
    let refused = records_of(&connection, &topic).await.remove(0);
    assert_eq!(refused.value.as_ref().map(bytes::Bytes::len), Some(LONG));
    let letter = dead_letter(&refused, &dlq, &refusal());
    // A loop writes its letters in its transaction, a sink by themselves.
    let mut publisher = Publisher::start(&connection, &connection.prefixed("p")).await.unwrap();
    publisher.commit(Transaction { derived: vec![letter.clone()], ..Transaction::default() }).await.unwrap();
    Sender::new(&connection).unwrap().send(&[letter]).await.unwrap();
    let letters = records_of(&connection, &dlq).await;
    assert_eq!(letters.len(), 2);
    for letter in letters {
        assert_eq!((letter.key, letter.value), (refused.key.clone(), None));
        let said = [
            ("__connect.errors.topic", topic.as_str()),
            ("__connect.errors.partition", "0"),
            ("__connect.errors.offset", "0"),
            ("windfall.errors.value_bytes", "5242880"),
            ("windfall.errors.value_sha256", "dba67a476fa78973aabb087f214a1010f3bebca053674e0af50dfe5a582112be"),
        ];
        for (name, value) in said {
            assert_eq!(letter.headers.text(name), Some(value), "{name}");
        }
    }
}
