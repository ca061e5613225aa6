//! Asks regularly whether the brokers answer, so that readiness is true also while there is nothing to read or write.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::KafkaResult;
use tokio_util::sync::CancellationToken;

use super::Connection;
use super::asking::Asker;
use super::client;
use crate::clock::SharedClock;
use crate::health::StatusRegistry;

/// How often the brokers are asked.
const EVERY: Duration = Duration::from_secs(5);
/// How long they have to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// After so long without an answer the process is not ready.
const SILENCE: Duration = Duration::from_secs(20);

/// Asks the brokers every five seconds until `stop` is cancelled, and reports as the part `kafka` when they last answered.
///
/// # Errors
/// When the settings make no client.
pub fn watch(
    connection: &Connection,
    status: &StatusRegistry,
    clock: SharedClock,
    stop: CancellationToken,
) -> KafkaResult<()> {
    let asker = Arc::new(Asker::new(&connection.reader(), false)?);
    let part = status.part("kafka", SILENCE);
    tokio::spawn(async move {
        loop {
            let asker = Arc::clone(&asker);
            match tokio::task::spawn_blocking(move || asker.answers(PATIENCE)).await {
                Ok(Ok(())) => {
                    part.progress();
                    client::log_return();
                }
                Ok(Err(why)) => part.detail("reason", format!("no broker answers: {why}")),
                Err(_) => return,
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = clock.sleep(EVERY) => {}
            }
        }
    });
    Ok(())
}
