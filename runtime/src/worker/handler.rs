//! What the worker asks of a stage.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::error::Failure;
use crate::kafka::TopicPartition;
use crate::kafka::consumer::{Assignment, Batch, Group, Start};

/// What is in flight when partitions go or the process stops may still end within this time: a group waits five seconds for
/// the answer to a revocation, and a process ends ten seconds after its signal.
pub const GRACE: Duration = Duration::from_secs(4);

/// Where the input of each partition begins.
pub type Starts = BTreeMap<TopicPartition, Start>;

/// What a stage does with its partitions and their records.
///
/// The worker calls [`Handler::take_over`] after each assignment and after each failure that may pass, then
/// [`Handler::process`] batch by batch, and [`Handler::revoke`] when the partitions go or the batches of an assignment end.
/// Every call may be dropped half-way; the handler is taken over again before it is asked for anything else.
pub trait Handler: Send {
    /// Why a call failed.
    type Error: Failure;

    /// How long a take-over may go on once its partitions are gone. A handler that reserves something elsewhere needs some time:
    /// a reservation that arrives late would shut out the next member.
    const FINISHES_WITHIN: Duration = Duration::ZERO;

    /// Shuts out whoever had the partitions before, reads what must be known, and says where the input begins.
    fn take_over(
        &mut self,
        group: &Group,
        assignment: &Assignment,
    ) -> impl Future<Output = Result<Taken, Self::Error>> + Send;

    /// Makes a batch durable: what follows from its records, together with the position behind them.
    ///
    /// The first batch after a take-over has no records; so has one every ten seconds, for what is to be done without any.
    fn process(&mut self, session: &Session, batch: Batch) -> impl Future<Output = Result<Done, Self::Error>> + Send;

    /// Forgets the partitions; what was read of them may stay as a cache.
    fn revoke(&mut self);
}

/// How a take-over ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// Input is read from here on. A partition that is not named is not read.
    From(Starts),
    /// Nothing may be done yet, for this reason; the partitions are taken over again after ten seconds.
    Held(String),
}

/// What became of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Done {
    /// Records that were put into dead letters.
    pub dead_letters: u64,
    /// Partitions that another process has taken over: they are read no more until they are taken over again.
    pub given_up: Vec<TopicPartition>,
}

/// The time between a take-over and the end of its batches.
#[derive(Debug, Clone)]
pub struct Session {
    /// The membership.
    pub group: Group,
    /// The epoch of its batches.
    pub epoch: u64,
    /// Where reading of each partition began.
    pub starts: BTreeMap<TopicPartition, i64>,
    pub(super) stop: CancellationToken,
}

impl Session {
    /// Says whether the partitions have gone or the process is to stop: nothing new is to be begun.
    pub fn is_over(&self) -> bool {
        self.stop.is_cancelled() || !self.group.current(self.epoch)
    }

    /// Waits for `work`; `None` when the session is over and the work did not end within [`GRACE`] after that.
    pub(super) async fn finish<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.finish_within(GRACE, work).await
    }

    pub(super) async fn finish_within<T>(&self, grace: Duration, work: impl Future<Output = T>) -> Option<T> {
        let overdue = async {
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = self.group.over(self.epoch) => {}
            }
            tokio::time::sleep(grace).await;
        };
        tokio::select! {
            biased;
            done = work => Some(done),
            () = overdue => None,
        }
    }
}
