//! librdkafka's cluster in this process: for the demo, which needs no Kafka.
//!
//! It shows flow, and proves nothing: it has no admin API, stores no transactional offsets, shows aborted records to everybody,
//! keeps 5 MB of each partition, and a group join takes it 3 s.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use rdkafka::error::KafkaError;
use rdkafka::mocking::MockCluster;

use super::topics::TopicSpec;

/// Requests to the cluster's thread that follow each other at once lose a wake-up now and then, and each that is lost
/// costs a second: fourteen topics in a row took 1.0 to 3.0 s, and 0.14 s with this pause between them.
const PAUSE: Duration = Duration::from_millis(10);

/// What can go wrong with a cluster in this process.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// librdkafka refuses.
    #[error("in-process cluster was not started")]
    Start(#[from] KafkaError),
    /// The machine gives no thread, or the thread ended.
    #[error("thread of the in-process cluster was not started")]
    Thread,
}

/// A cluster of one broker that ends with this value.
#[derive(Debug)]
pub struct DemoCluster {
    bootstrap_servers: String,
    /// Hangs up when it is dropped, which ends the cluster's thread.
    _keep: Sender<()>,
}

impl DemoCluster {
    /// Starts the cluster with the declared topics; their settings do not matter to it. Waits, so not to be called where others
    /// must go on.
    ///
    /// # Errors
    /// [`DemoError`], when librdkafka or the machine refuses.
    pub fn start(specs: &[TopicSpec]) -> Result<Self, DemoError> {
        let topics: Vec<(String, i32)> = specs.iter().map(|spec| (spec.name.clone(), spec.partitions)).collect();
        let (keep, dropped) = channel();
        let (ready, started) = channel();
        // The cluster may not leave the thread that made it.
        let run = move || hold(&topics, &ready, &dropped);
        thread::Builder::new().name("kafka-demo".to_owned()).spawn(run).map_err(|_| DemoError::Thread)?;
        let bootstrap_servers = started.recv().map_err(|_| DemoError::Thread)??;
        Ok(Self { bootstrap_servers, _keep: keep })
    }

    /// Returns its address, `host:port`.
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }
}

fn hold(topics: &[(String, i32)], ready: &Sender<Result<String, KafkaError>>, dropped: &Receiver<()>) {
    let started = MockCluster::new(1).and_then(|cluster| {
        for (topic, partitions) in topics {
            cluster.create_topic(topic, *partitions, 1)?;
            thread::sleep(PAUSE);
        }
        Ok(cluster)
    });
    match started {
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
