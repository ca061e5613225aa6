//! A TCP proxy in front of a broker: passes requests on, cuts, goes deaf, and holds one EndTxn back.
//!
//! Holding works as a network may: the *first copy* of the request is kept, the client's connection is cut, so that the client sends
//! a second copy by itself; the kept one reaches the broker later, inside the same owner's next transaction.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::ServiceError;

const PRODUCE: i16 = 0;
const END_TXN: i16 = 26;

/// Which way bytes flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the service.
    Up,
    /// From the service to the client.
    Down,
}

/// What an EndTxn request asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndTxn {
    /// True for a commit, false for an abort.
    pub commit: bool,
    /// The transaction's owner.
    pub transactional_id: String,
}

/// How far the held request has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// Nothing is to be held.
    Idle,
    /// The next commit (or abort) is to be held.
    Armed {
        /// What the transaction's owner is called, or a part of it.
        owner: String,
        /// Which of the two.
        commit: bool,
    },
    /// The first copy is kept; the client's second copy has not come yet.
    Kept(EndTxn),
    /// The second copy has passed; the first waits for the first record of its owner's next transaction.
    Waiting(EndTxn),
    /// The first copy was delivered; the broker's error code to it, -1 when it gave no answer.
    Delivered(EndTxn, i16),
}

#[derive(Debug, Default)]
struct State {
    held: Option<Held>,
    frame: Vec<u8>,
    connections: Vec<TcpStream>,
    deaf: Option<Direction>,
    /// Whose ends of transactions wait on their way.
    stall: Option<String>,
    stalled: usize,
}

#[derive(Debug)]
struct Shared {
    upstream: u16,
    state: Mutex<State>,
    changed: Condvar,
    stopped: AtomicBool,
}

/// A running proxy; it ends when this is dropped.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Listens on loopback `port` (0: any) and passes everything to loopback `upstream`.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start(port: u16, upstream: u16) -> Result<Self, ServiceError> {
        let listener = TcpListener::bind(("127.0.0.1", port))
            .map_err(|e| ServiceError::new(format!("cannot listen on port {port}: {e}")))?;
        let port = listener.local_addr().map_err(|e| ServiceError::new(format!("no address: {e}")))?.port();
        let shared = Arc::new(Shared {
            upstream,
            state: Mutex::default(),
            changed: Condvar::new(),
            stopped: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if accepting.stopped.load(Ordering::SeqCst) {
                    break;
                }
                let _ = serve(&accepting, client);
            }
        });
        Ok(Self { port, shared })
    }

    /// Returns the port that clients connect to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Holds the first copy of the next commit (or abort) of an owner whose transactional id contains `owner`, and delivers it
    /// inside the transaction of the same owner that follows.
    pub fn hold_next_end(&self, owner: &str, commit: bool) {
        self.shared.lock().held = Some(Held::Armed { owner: owner.to_owned(), commit });
    }

    /// Returns how far the held request has come.
    #[must_use]
    pub fn held(&self) -> Held {
        self.shared.lock().held.clone().unwrap_or(Held::Idle)
    }

    /// Waits until the held request is as far as `wanted` says; false when `limit` is over.
    #[must_use]
    pub fn wait_held(&self, limit: Duration, wanted: impl Fn(&Held) -> bool) -> bool {
        let deadline = Instant::now() + limit;
        let mut state = self.shared.lock();
        loop {
            if state.held.as_ref().is_some_and(&wanted) {
                return true;
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return false };
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Delivers the kept first copy now, whatever the client is doing.
    pub fn deliver_now(&self) {
        deliver(&self.shared);
    }

    /// Lets ends of transactions wait on their way, until [`Proxy::release`], where `owner` is part of their owner's name.
    pub fn stall_ends(&self, owner: &str) {
        self.shared.lock().stall = Some(owner.to_owned());
    }

    /// Waits until an end of a transaction waits on its way; false when `limit` is over.
    #[must_use]
    pub fn wait_stalled(&self, limit: Duration) -> bool {
        let nobody = |state: &mut State| state.stalled == 0;
        let waited = self.shared.changed.wait_timeout_while(self.shared.lock(), limit, nobody);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Lets every end of a transaction go on that waits on its way.
    pub fn release(&self) {
        self.shared.lock().stall = None;
        self.shared.changed.notify_all();
    }

    /// Cuts every connection; new ones are served.
    pub fn cut(&self) {
        for connection in self.shared.lock().connections.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Swallows all bytes of one direction without closing anything, until called with `None`.
    pub fn deaf(&self, direction: Option<Direction>) {
        self.shared.lock().deaf = direction;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        self.release();
        self.cut();
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn serve(shared: &Arc<Shared>, client: TcpStream) -> io::Result<()> {
    let service = TcpStream::connect(("127.0.0.1", shared.upstream))?;
    client.set_nodelay(true)?;
    service.set_nodelay(true)?;
    shared.lock().connections.extend([client.try_clone()?, service.try_clone()?]);
    let (up_from, up_to) = (client.try_clone()?, service.try_clone()?);
    let up = Arc::clone(shared);
    std::thread::spawn(move || pump_up(&up, up_from, up_to));
    let down = Arc::clone(shared);
    std::thread::spawn(move || pump_down(&down, service, client));
    Ok(())
}

fn pump_down(shared: &Shared, mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0_u8; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if shared.lock().deaf == Some(Direction::Down) {
            continue;
        }
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    close(&from, &to);
}

/// Passes requests on frame by frame: Kafka's have their length in front.
fn pump_up(shared: &Shared, mut from: TcpStream, mut to: TcpStream) {
    loop {
        let mut length = [0_u8; 4];
        if from.read_exact(&mut length).is_err() {
            break;
        }
        let size = u32::from_be_bytes(length) as usize;
        let mut frame = length.to_vec();
        frame.resize(4 + size.min(128 * 1024 * 1024), 0);
        if from.read_exact(&mut frame[4..]).is_err() {
            break;
        }
        stall(shared, &frame);
        match decide(shared, &frame) {
            Verdict::Pass => {}
            Verdict::Swallow => continue,
            Verdict::KeepAndCut => break,
        }
        if to.write_all(&frame).is_err() {
            break;
        }
        let producer = transactional_producer(&frame);
        let met = match &shared.lock().held {
            Some(Held::Waiting(end)) => producer == Some(end.transactional_id.as_bytes()),
            _ => false,
        };
        if met {
            deliver(shared);
        }
    }
    close(&from, &to);
}

/// Waits with an end of a transaction for as long as such are stalled.
fn stall(shared: &Shared, frame: &[u8]) {
    let Some(end) = end_txn(frame) else { return };
    let mut state = shared.lock();
    if state.stall.as_ref().is_some_and(|owner| end.transactional_id.contains(owner)) {
        state.stalled += 1;
        shared.changed.notify_all();
        let stalled = |state: &mut State| state.stall.is_some();
        state = shared.changed.wait_while(state, stalled).unwrap_or_else(PoisonError::into_inner);
        state.stalled -= 1;
    }
}

enum Verdict {
    Pass,
    Swallow,
    KeepAndCut,
}

fn decide(shared: &Shared, frame: &[u8]) -> Verdict {
    let mut state = shared.lock();
    if state.deaf == Some(Direction::Up) {
        return Verdict::Swallow;
    }
    let Some(end) = end_txn(frame) else { return Verdict::Pass };
    match state.held.clone() {
        Some(Held::Armed { owner, commit }) if commit == end.commit && end.transactional_id.contains(&owner) => {
            state.held = Some(Held::Kept(end));
            state.frame = frame.to_vec();
            shared.changed.notify_all();
            Verdict::KeepAndCut
        }
        Some(Held::Kept(kept)) if kept == end => {
            state.held = Some(Held::Waiting(kept));
            shared.changed.notify_all();
            Verdict::Pass
        }
        _ => Verdict::Pass,
    }
}

fn deliver(shared: &Shared) {
    let (end, frame) = {
        let mut state = shared.lock();
        let (Some(Held::Kept(end) | Held::Waiting(end)), frame) =
            (state.held.clone(), std::mem::take(&mut state.frame))
        else {
            return;
        };
        (end, frame)
    };
    let code = send_alone(shared.upstream, &frame).unwrap_or(-1);
    shared.lock().held = Some(Held::Delivered(end, code));
    shared.changed.notify_all();
}

/// Sends a request on a connection of its own, as a packet that arrives late, and returns the error code of the answer.
fn send_alone(upstream: u16, frame: &[u8]) -> io::Result<i16> {
    let mut stream = TcpStream::connect(("127.0.0.1", upstream))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(frame)?;
    let mut length = [0_u8; 4];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0_u8; (u32::from_be_bytes(length) as usize).min(64 * 1024)];
    stream.read_exact(&mut answer)?;
    // Correlation id, throttle time, error code; one byte of tags more in between from version 3 on.
    let at = if frame_version(frame).is_some_and(|version| version >= 3) { 9 } else { 8 };
    answer
        .get(at..at + 2)
        .map(|code| i16::from_be_bytes([code[0], code[1]]))
        .ok_or_else(|| io::Error::other("short answer"))
}

fn close(one: &TcpStream, other: &TcpStream) {
    let _ = one.shutdown(Shutdown::Both);
    let _ = other.shutdown(Shutdown::Both);
}

fn frame_key(frame: &[u8]) -> Option<i16> {
    frame.get(4..6).map(|b| i16::from_be_bytes([b[0], b[1]]))
}

fn frame_version(frame: &[u8]) -> Option<i16> {
    frame.get(6..8).map(|b| i16::from_be_bytes([b[0], b[1]]))
}

/// Returns the part of a request behind its header: key, version, correlation id, client id.
fn body(frame: &[u8]) -> Option<&[u8]> {
    let client = frame.get(12..14).map(|b| i16::from_be_bytes([b[0], b[1]]))?;
    frame.get(14 + usize::try_from(client.max(0)).ok()?..)
}

fn end_txn(frame: &[u8]) -> Option<EndTxn> {
    if frame_key(frame) != Some(END_TXN) {
        return None;
    }
    let flexible = frame_version(frame)? >= 3;
    let body = body(frame)?;
    let (id, rest) = if flexible {
        // One byte of tags, then a compact string: fine up to 127 bytes, which our ids keep.
        let length = usize::from(*body.get(1)?).checked_sub(1)?;
        (body.get(2..2 + length)?, body.get(2 + length..)?)
    } else {
        let length = usize::try_from(i16::from_be_bytes([*body.first()?, *body.get(1)?])).ok()?;
        (body.get(2..2 + length)?, body.get(2 + length..)?)
    };
    // Producer id (8) and epoch (2) come before the flag.
    Some(EndTxn { commit: *rest.get(10)? != 0, transactional_id: String::from_utf8_lossy(id).into_owned() })
}

/// Returns the owner of the transaction to which a request adds records.
fn transactional_producer(frame: &[u8]) -> Option<&[u8]> {
    if frame_key(frame) != Some(PRODUCE) {
        return None;
    }
    let version = frame_version(frame)?;
    let body = body(frame)?;
    if version >= 9 {
        // As in `end_txn`: one byte of tags, then a compact string.
        let length = usize::from(*body.get(1)?).checked_sub(1)?;
        return body.get(2..2 + length).filter(|owner| !owner.is_empty());
    }
    if version < 3 {
        return None;
    }
    let length = usize::try_from(i16::from_be_bytes([*body.first()?, *body.get(1)?])).ok()?;
    body.get(2..2 + length).filter(|owner| !owner.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(key: i16, version: i16, body: &[u8]) -> Vec<u8> {
        let mut inner = key.to_be_bytes().to_vec();
        inner.extend(version.to_be_bytes());
        inner.extend(7_i32.to_be_bytes());
        inner.extend([0, 2, b'm', b'e']);
        inner.extend(body);
        let mut frame = u32::try_from(inner.len()).expect("a short frame").to_be_bytes().to_vec();
        frame.extend(inner);
        frame
    }

    fn old_body(id: &str, commit: bool) -> Vec<u8> {
        let mut body = u16::try_from(id.len()).expect("short").to_be_bytes().to_vec();
        body.extend(id.as_bytes());
        body.extend([0; 10]);
        body.push(u8::from(commit));
        body
    }

    #[test]
    fn an_end_of_a_transaction_is_read_with_its_owner_and_flag() {
        let commit = end_txn(&frame(END_TXN, 1, &old_body("windfall-producer-acme", true)));
        assert_eq!(commit, Some(EndTxn { commit: true, transactional_id: "windfall-producer-acme".into() }));
        assert_eq!(end_txn(&frame(END_TXN, 1, &old_body("x", false))).map(|end| end.commit), Some(false));
        assert_eq!(end_txn(&frame(PRODUCE, 7, &old_body("x", true))), None);
    }

    #[test]
    fn a_produce_request_tells_whose_transaction_it_adds_to() {
        assert_eq!(transactional_producer(&frame(PRODUCE, 7, &[0, 1, b'x', 0, 0])), Some(&b"x"[..]));
        assert_eq!(transactional_producer(&frame(PRODUCE, 9, &[0, 3, b'x', b'y', 0])), Some(&b"xy"[..]));
        assert_eq!(transactional_producer(&frame(PRODUCE, 7, &[0xff, 0xff, 0, 0])), None);
        assert_eq!(transactional_producer(&frame(PRODUCE, 9, &[0, 0, 0])), None);
        assert_eq!(transactional_producer(&frame(END_TXN, 1, &old_body("x", true))), None);
    }
}
