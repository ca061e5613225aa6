//! Drops clients whose destructors block in threads of their own, never on the async threads.

use std::ops::Deref;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use tracing::warn;

/// Drops `client` in a thread of its own: destructors of librdkafka wait for brokers, and some have been seen to hang.
///
/// The receiver hangs up when the thread has ended; nobody has to wait for it, and it does not keep the process alive.
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

/// A client that is dropped by [`retire`].
pub(crate) struct Retiring<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> Retiring<T> {
    pub(crate) fn new(client: T) -> Self {
        Self(Some(client))
    }
}

impl<T: Send + 'static> Deref for Retiring<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().unwrap_or_else(|| unreachable!("the client is taken by drop alone"))
    }
}

impl<T: Send + 'static> Drop for Retiring<T> {
    fn drop(&mut self) {
        if let Some(client) = self.0.take() {
            retire("client", client);
        }
    }
}
