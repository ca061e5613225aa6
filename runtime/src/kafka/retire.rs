//! Ends clients whose destructors block, off the async threads.

use std::thread;

use tracing::warn;

/// Drops `client` in a thread of its own: destructors of librdkafka wait for brokers, and some have been seen to hang.
///
/// Nobody waits for the thread; a process that ends takes it along.
pub(crate) fn retire<T: Send + 'static>(what: &'static str, client: T) {
    let spawned = thread::Builder::new().name(format!("retire-{what}")).spawn(move || drop(client));
    if let Err(error) = spawned {
        warn!(%error, what, "client dropped in place, no thread could be started");
    }
}
