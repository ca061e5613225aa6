//! Response bodies that note in the journal whether they were sent to their end.

use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::stream::{self, Stream};
use tokio_util::sync::CancellationToken;

use super::socket::Breaker;
use crate::handle::Handle;
use crate::journal::{Record, Response};

const CHUNK: usize = 32 * 1024;
/// Time for the first part of a body to leave before its connection is reset.
const FLUSH: Duration = Duration::from_millis(20);

/// The journal's line of an answer on its way: written when the last byte leaves, or when it breaks off.
#[derive(Debug)]
pub(crate) struct Sending {
    record: Option<Box<Response>>,
    handle: Handle,
}

impl Sending {
    /// Begins to send.
    pub(crate) fn new(record: Response, handle: Handle) -> Self {
        Self { record: Some(Box::new(record)), handle }
    }

    /// Notes that the last byte is about to leave: a client that has read it all finds its line in the journal.
    fn complete(&mut self) {
        self.note(true);
    }

    fn note(&mut self, complete: bool) {
        if let Some(mut record) = self.record.take() {
            record.complete = complete;
            self.handle.shared.journal.write(Record::Response(record));
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.note(false);
    }
}

/// Sends a body as fast as it is read.
pub(crate) fn whole(body: Vec<u8>, sending: Sending) -> Body {
    Body::from_stream(chunks(Bytes::from(body), CHUNK, sending))
}

/// Sends so many bytes a second.
pub(crate) fn drip(body: Vec<u8>, bytes: usize, sending: Sending, stop: CancellationToken) -> Body {
    let left = (Bytes::from(body), sending);
    Body::from_stream(stream::unfold(left, move |(mut left, mut sending)| {
        let stop = stop.clone();
        async move {
            if left.is_empty() || stop.is_cancelled() {
                return None;
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
                () = stop.cancelled() => return None,
            }
            let chunk = left.split_to(bytes.min(left.len()));
            if left.is_empty() {
                sending.complete();
            }
            Some((Ok::<_, io::Error>(chunk), (left, sending)))
        }
    }))
}

/// Sends white space first.
pub(crate) fn padded(body: Vec<u8>, spaces: u64, sending: Sending) -> Body {
    let space = Bytes::from_static(&[b' '; CHUNK]);
    let count = spaces / CHUNK as u64;
    let padding = stream::unfold(0, move |sent| {
        let space = space.clone();
        async move { (sent < count).then(|| (Ok(space), sent + 1)) }
    });
    Body::from_stream(futures_util::StreamExt::chain(padding, chunks(Bytes::from(body), CHUNK, sending)))
}

/// Sends a first part, then resets the connection.
pub(crate) fn reset(body: Vec<u8>, at: usize, sending: Sending, breaker: Breaker) -> Body {
    let first = Bytes::from(body).slice(..at);
    Body::from_stream(stream::unfold((Some(first), sending), move |(first, sending)| {
        let breaker = breaker.clone();
        async move {
            match first {
                Some(first) => Some((Ok::<_, io::Error>(first), (None, sending))),
                None => {
                    tokio::time::sleep(FLUSH).await;
                    breaker.trip();
                    Some((Err(io::ErrorKind::ConnectionReset.into()), (None, sending)))
                }
            }
        }
    }))
}

fn chunks(body: Bytes, size: usize, sending: Sending) -> impl Stream<Item = io::Result<Bytes>> {
    stream::unfold((Some(body), sending), move |(left, mut sending)| async move {
        let mut left = left?;
        let chunk = left.split_to(size.min(left.len()));
        if left.is_empty() {
            sending.complete();
            return Some((Ok(chunk), (None, sending)));
        }
        Some((Ok(chunk), (Some(left), sending)))
    })
}
