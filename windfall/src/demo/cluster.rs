//! librdkafka's cluster in this process, made quickly: a demo has five seconds to show something.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use rdkafka::error::KafkaError;
use rdkafka::mocking::MockCluster;
use windfall_schemas::topic::TopicSpec;

/// Requests to the cluster's thread that follow each other at once lose a wake-up now and then, and each that is lost
/// costs a second: fourteen topics in a row took 1.0 to 3.0 s, and 0.14 s with this pause between them.
const PAUSE: Duration = Duration::from_millis(10);

/// A cluster of one broker that ends with this value.
pub(super) struct Cluster {
    pub(super) bootstrap_servers: String,
    /// Hangs up when it is dropped, which ends the cluster's thread.
    _keep: Sender<()>,
}

impl Cluster {
    /// Starts the cluster with the declared topics; waits, so not to be called where others must go on.
    pub(super) fn start(specs: &[TopicSpec]) -> anyhow::Result<Self> {
        let topics: Vec<_> = specs.iter().map(|spec| (spec.name.clone(), spec.partitions)).collect();
        let (keep, dropped) = channel();
        let (ready, started) = channel();
        // The cluster may not leave the thread that made it.
        let hold = move || hold(&topics, &ready, &dropped);
        thread::Builder::new().name("kafka-demo".to_owned()).spawn(hold)?;
        let bootstrap_servers = started.recv().context("the thread of the in-process Kafka ended")?;
        let bootstrap_servers = bootstrap_servers.context("the in-process Kafka was not started")?;
        Ok(Self { bootstrap_servers, _keep: keep })
    }
}

fn hold(topics: &[(String, i32)], ready: &Sender<Result<String, KafkaError>>, dropped: &Receiver<()>) {
    match made(topics) {
        Ok(cluster) => {
            let _ = ready.send(Ok(cluster.bootstrap_servers()));
            // Ends when the sender is gone.
            let _ = dropped.recv();
        }
        Err(error) => {
            let _ = ready.send(Err(error));
        }
    }
}

fn made(
    topics: &[(String, i32)],
) -> Result<MockCluster<'static, rdkafka::producer::DefaultProducerContext>, KafkaError> {
    let cluster = MockCluster::new(1)?;
    for (topic, partitions) in topics {
        cluster.create_topic(topic, *partitions, 1)?;
        thread::sleep(PAUSE);
    }
    Ok(cluster)
}
