//! What the polling thread and the run loop exchange: rebalances, batches, failures, and which partitions may be read.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use super::Event;
use super::batch::Batch;
use super::error::ConsumerError;
use crate::kafka::connection::SESSION_TIMEOUT;
use crate::kafka::record::TopicPartition;

/// Two batches wait while a third is processed: enough to keep both sides busy.
const QUEUED_BATCHES: usize = 2;

/// A member that has not polled for so long may have been expelled from its group without knowing it.
const PAUSE: Duration = SESSION_TIMEOUT.checked_div(2).unwrap();

/// The partitions that may be read, by topic, each with the offset from which.
pub(super) type Live = HashMap<Arc<str>, HashMap<i32, i64>>;

/// Partitions that this member now has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Tells this assignment from every other of this consumer.
    pub id: u64,
    /// The partitions; none when there are more members than partitions.
    pub partitions: Vec<TopicPartition>,
}

/// Partitions that this member loses; the group goes on when this is answered or dropped.
pub struct Revoked {
    /// The partitions.
    pub partitions: Vec<TopicPartition>,
    /// Whether they may belong to another member already.
    pub lost: bool,
    /// Hangs up when it is dropped, which is an answer too.
    pub(super) ack: SyncSender<()>,
}

impl Revoked {
    /// Lets the group go on.
    pub fn ack(self) {
        // The thread may have stopped waiting; then the answer is of no use.
        let _ = self.ack.try_send(());
    }
}

impl fmt::Debug for Revoked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Revoked").field("partitions", &self.partitions).field("lost", &self.lost).finish()
    }
}

/// What came of waiting for the polling thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It has begun a new poll.
    Taken,
    /// The assignment is gone, and an event tells of it.
    Gone,
    /// The time is up and the assignment stands: no event is coming.
    Late,
}

/// What may be read as of one moment.
#[derive(Debug)]
pub(super) struct View {
    pub(super) revision: u64,
    pub(super) epoch: u64,
    pub(super) live: Live,
}

#[derive(Debug, Default)]
struct Mail {
    /// The assignment that stands, if any.
    assignment: Option<u64>,
    live: Live,
    rebalances: VecDeque<Event>,
    batches: VecDeque<Batch>,
    failure: Option<ConsumerError>,
    /// The last turn asked for, and the last one that the polling thread has taken.
    asked: u64,
    taken: u64,
    polled_at: Option<Instant>,
    /// The newest poll that came after a pause.
    resumed_at: Option<Instant>,
}

/// What passes between the polling thread and the run loop.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    state: Mutex<Mail>,
    /// Read by the polling thread after every poll; changed under the lock only.
    epoch: AtomicU64,
    /// Counts every change of what may be read, new epochs and partitions given up.
    revision: AtomicU64,
    stopped: AtomicBool,
    arrived: Notify,
    /// An epoch has ended.
    ended: Notify,
    changed: Condvar,
    /// Held while partitions are paused, sought and resumed; the polling thread only tries it.
    flow: Mutex<()>,
    /// Whether the partitions are paused until the loop has taken a batch.
    paused: watch::Sender<bool>,
}

impl Mailbox {
    fn state(&self) -> MutexGuard<'_, Mail> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a new epoch: nothing read before it is delivered, nothing is read until [`Mailbox::open`].
    fn advance(&self, state: &mut Mail) -> u64 {
        state.live.clear();
        state.batches.clear();
        self.changed.notify_all();
        self.ended.notify_waiters();
        self.revision.fetch_add(1, Ordering::SeqCst);
        self.epoch.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.changed.notify_all();
    }

    pub(super) fn stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    // The polling thread's side.

    pub(super) fn assigned(&self, partitions: Vec<TopicPartition>) {
        let mut state = self.state();
        let id = self.advance(&mut state);
        state.assignment = Some(id);
        state.rebalances.push_back(Event::Assigned(Assignment { id, partitions }));
        self.arrived.notify_one();
    }

    pub(super) fn revoked(&self, revoked: Revoked) {
        let mut state = self.state();
        self.advance(&mut state);
        state.assignment = None;
        state.rebalances.push_back(Event::Revoked(revoked));
        self.arrived.notify_one();
    }

    pub(super) fn fail(&self, error: ConsumerError) {
        let mut state = self.state();
        self.advance(&mut state);
        state.assignment = None;
        state.failure = Some(error);
        self.arrived.notify_one();
    }

    /// Takes the turn: polls that begin from here on see what was done before it was asked for.
    pub(super) fn take_turn(&self) {
        let now = Instant::now();
        let mut state = self.state();
        if state.polled_at.replace(now).is_some_and(|before| now - before >= PAUSE) {
            state.resumed_at = Some(now);
        }
        if state.taken != state.asked {
            state.taken = state.asked;
            self.changed.notify_all();
        }
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision.load(Ordering::SeqCst)
    }

    /// Returns what may be read, with the epoch it belongs to.
    pub(super) fn view(&self) -> View {
        let state = self.state();
        View { revision: self.revision(), epoch: self.epoch(), live: state.live.clone() }
    }

    /// Hands a batch over, waiting at most `patience` for room; gives it back when there is none.
    ///
    /// A batch of an epoch that has passed is taken and dropped.
    pub(super) fn offer(&self, batch: Batch, patience: Duration) -> Result<(), Batch> {
        let full =
            |state: &mut Mail| state.batches.len() >= QUEUED_BATCHES && self.epoch() == batch.epoch && !self.stopped();
        let (mut state, timed_out) = self
            .changed
            .wait_timeout_while(self.state(), patience, full)
            .map(|(state, timeout)| (state, timeout.timed_out()))
            .unwrap_or_else(|poisoned| (poisoned.into_inner().0, false));
        if timed_out {
            return Err(batch);
        }
        if self.epoch() == batch.epoch {
            state.batches.push_back(batch);
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Holds off pausing, seeking and resuming by others; `None` while somebody is at it.
    pub(super) fn try_flow(&self) -> Option<MutexGuard<'_, ()>> {
        self.flow.try_lock().ok()
    }

    pub(super) fn set_paused(&self, paused: bool) {
        self.paused.send_replace(paused);
    }

    // The run loop's side.

    pub(super) fn watch_paused(&self) -> watch::Receiver<bool> {
        self.paused.subscribe()
    }

    pub(super) async fn next(&self, batches: bool) -> Event {
        loop {
            if let Some(event) = self.pop(batches) {
                return event;
            }
            self.arrived.notified().await;
        }
    }

    fn pop(&self, batches: bool) -> Option<Event> {
        let mut state = self.state();
        if let Some(rebalance) = state.rebalances.pop_front() {
            return Some(rebalance);
        }
        if let Some(error) = state.failure.take() {
            return Some(Event::Failed(error));
        }
        let batch = state.batches.pop_front_if(|_| batches)?;
        self.changed.notify_all();
        Some(Event::Batch(batch))
    }

    /// Returns whether `epoch` is the present one and partitions are assigned.
    pub(super) fn current(&self, epoch: u64) -> bool {
        self.state().assignment.is_some() && self.epoch() == epoch
    }

    /// Ends when `epoch` is no longer the present one.
    pub(super) async fn over(&self, epoch: u64) {
        loop {
            let ended = self.ended.notified();
            if !self.current(epoch) {
                return;
            }
            ended.await;
        }
    }

    /// Returns whether that assignment still stands.
    pub(super) fn current_assignment(&self, assignment: u64) -> bool {
        self.state().assignment == Some(assignment)
    }

    /// Waits for whoever holds the flow of partitions.
    pub(super) fn flow(&self) -> MutexGuard<'_, ()> {
        self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops the flow of `assignment` in a new epoch; false when it is not the one that stands.
    pub(super) fn shut(&self, assignment: u64) -> bool {
        let mut state = self.state();
        if state.assignment != Some(assignment) {
            return false;
        }
        self.advance(&mut state);
        true
    }

    /// Waits until the polling thread has begun a poll after this call.
    pub(super) fn await_turn(&self, assignment: u64, deadline: Instant) -> Turn {
        let mut state = self.state();
        state.asked += 1;
        let asked = state.asked;
        let waiting = |state: &mut Mail| state.taken < asked && state.assignment == Some(assignment) && !self.stopped();
        let patience = deadline.saturating_duration_since(Instant::now());
        let state = self.changed.wait_timeout_while(state, patience, waiting);
        let state = state.map(|(state, _)| state).unwrap_or_else(|poisoned| poisoned.into_inner().0);
        if state.assignment != Some(assignment) || self.stopped() {
            return Turn::Gone;
        }
        if state.taken >= asked { Turn::Taken } else { Turn::Late }
    }

    /// Lets `live` be read and returns the epoch in which it is; `None` when the assignment is gone.
    pub(super) fn open(&self, assignment: u64, live: Live) -> Option<u64> {
        let mut state = self.state();
        if state.assignment != Some(assignment) {
            return None;
        }
        let epoch = self.advance(&mut state);
        state.live = live;
        Some(epoch)
    }

    /// Returns whether the polling thread has stood still for [`PAUSE`] at some time since `moment`.
    pub(super) fn paused_since(&self, moment: Instant) -> bool {
        let state = self.state();
        let stands_still = state.polled_at.is_some_and(|at| at.max(moment).elapsed() >= PAUSE);
        stands_still || state.resumed_at.is_some_and(|at| at > moment)
    }

    /// Takes partitions out of what may be read, within the epoch.
    pub(super) fn give_up(&self, partitions: &[TopicPartition]) {
        let mut state = self.state();
        for partition in partitions {
            if let Some(live) = state.live.get_mut(&partition.topic) {
                live.remove(&partition.partition);
            }
        }
        self.revision.fetch_add(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    const NOW: Duration = Duration::from_millis(1);

    fn batch(epoch: u64) -> Batch {
        Batch { epoch, records: Vec::new(), reached: Vec::new() }
    }

    fn assigned() -> (Mailbox, u64) {
        let mailbox = Mailbox::default();
        mailbox.assigned(vec![TopicPartition::new("t", 0)]);
        let Some(Event::Assigned(assignment)) = mailbox.pop(true) else { panic!("an assignment was put in") };
        (mailbox, assignment.id)
    }

    fn opened() -> (Mailbox, u64, u64) {
        let (mailbox, assignment) = assigned();
        assert!(mailbox.shut(assignment));
        let epoch = mailbox.open(assignment, Live::new()).unwrap();
        (mailbox, assignment, epoch)
    }

    #[test]
    fn a_third_batch_waits_until_one_is_taken() {
        let (mailbox, _, epoch) = opened();
        mailbox.offer(batch(epoch), NOW).unwrap();
        mailbox.offer(batch(epoch), NOW).unwrap();
        assert_eq!(mailbox.offer(batch(epoch), NOW), Err(batch(epoch)));
        assert!(matches!(mailbox.pop(true), Some(Event::Batch(_))));
        mailbox.offer(batch(epoch), NOW).unwrap();
    }

    #[test]
    fn a_rebalance_comes_before_batches_and_ends_their_epoch() {
        let (mailbox, assignment, epoch) = opened();
        mailbox.offer(batch(epoch), NOW).unwrap();
        assert!(mailbox.current(epoch));
        let (ack, acked) = sync_channel(1);
        mailbox.revoked(Revoked { partitions: Vec::new(), lost: false, ack });
        assert!(!mailbox.current(epoch));
        let Some(Event::Revoked(revoked)) = mailbox.pop(true) else { panic!("the revocation comes first") };
        assert!(mailbox.pop(true).is_none(), "the batch of the ended epoch is gone");
        mailbox.offer(batch(epoch), NOW).unwrap();
        assert!(mailbox.pop(true).is_none(), "and one that was on its way as well");
        assert_eq!(mailbox.open(assignment, Live::new()), None);
        assert!(!mailbox.shut(assignment));
        revoked.ack();
        assert_eq!(acked.recv(), Ok(()));
    }

    #[test]
    fn a_dropped_revocation_is_an_answer() {
        let (ack, acked) = sync_channel(1);
        drop(Revoked { partitions: Vec::new(), lost: true, ack });
        assert!(acked.recv().is_err());
    }

    #[test]
    fn a_turn_is_had_only_by_a_poll_that_begins_later() {
        let (mailbox, assignment) = assigned();
        mailbox.take_turn();
        let early = mailbox.await_turn(assignment, Instant::now() + NOW);
        assert_eq!(early, Turn::Late, "the turn was taken before it was asked for");
        let mailbox = Arc::new(mailbox);
        let polling = Arc::clone(&mailbox);
        let thread = std::thread::spawn(move || {
            while polling.state().asked < 2 {
                std::thread::yield_now();
            }
            polling.take_turn();
        });
        assert_eq!(mailbox.await_turn(assignment, Instant::now() + Duration::from_secs(10)), Turn::Taken);
        thread.join().unwrap();
    }

    #[test]
    fn a_turn_that_does_not_come_is_told_from_an_assignment_that_is_gone() {
        let (mailbox, assignment) = assigned();
        assert_eq!(mailbox.await_turn(assignment, Instant::now()), Turn::Late);
        mailbox.assigned(Vec::new());
        assert_eq!(mailbox.await_turn(assignment, Instant::now() + Duration::from_secs(10)), Turn::Gone);
    }

    #[test]
    fn what_is_given_up_is_told_within_the_epoch() {
        let (mailbox, assignment) = assigned();
        let live = Live::from([("t".into(), HashMap::from([(0, 7), (1, 8)]))]);
        let epoch = mailbox.open(assignment, live).unwrap();
        let before = mailbox.revision();
        mailbox.give_up(&[TopicPartition::new("t", 0)]);
        assert!(mailbox.revision() > before);
        let view = mailbox.view();
        assert_eq!((view.epoch, &view.live["t"]), (epoch, &HashMap::from([(1, 8)])));
    }

    #[test]
    fn a_pause_is_told_until_something_was_confirmed_after_it() {
        let (mailbox, _) = assigned();
        let before = Instant::now();
        mailbox.take_turn();
        assert!(!mailbox.paused_since(before));
        let back = |duration| Instant::now().checked_sub(duration).unwrap();
        mailbox.state().polled_at = Some(back(PAUSE));
        assert!(!mailbox.paused_since(before), "it was asked for the time since a moment ago");
        assert!(mailbox.paused_since(back(PAUSE)), "it still stands still");
        mailbox.take_turn();
        assert!(mailbox.paused_since(before), "it has polled again, and nobody knows what has become of its place");
        assert!(!mailbox.paused_since(Instant::now()), "what was confirmed since counts");
    }
}
