//! Ends clients whose destructors block, off the async threads.

use std::sync::mpsc::{Receiver, channel};
use std::thread;

use tracing::warn;

/// Drops `client` in a thread of its own: destructors of librdkafka wait for brokers, and some have been seen to hang.
///
/// Nobody has to wait for the thread, a process that ends takes it along; whoever wants to is told when it has ended.
pub(crate) fn retire<T: Send + 'static>(what: &'static str, client: T) -> Receiver<()> {
    let (end, ended) = channel::<()>();
    let run = move || {
        drop(client);
        drop(end);
    };
    let spawned = thread::Builder::new().name(format!("retire-{what}")).spawn(run);
    if let Err(error) = spawned {
        warn!(%error, what, "client dropped in place, no thread could be started");
    }
    ended
}
