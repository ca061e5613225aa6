//! A member of a consumer group: a thread that polls, and a handle for the run loop.
//!
//! The thread polls a `BaseConsumer` and queues up to two [`Batch`]es. While the queue is full the partitions are paused and
//! polling goes on, so that a slow stage stays in the group. Rebalances are delivered before batches.
//!
//! ```text
//! Assigned ──▶ nothing flows ──▶ Group::start_at(offsets) ──▶ batches of a new epoch ──▶ Revoked ──▶ nothing flows
//!                                     ▲                              │
//!                                     └───── again, to go back ──────┘
//! ```
//!
//! Every batch carries the epoch it was read in. An assignment, a revocation and every [`Group::start_at`] begin a new one, and what
//! was read before is dropped: nothing of it can reach the loop or a transaction.

mod batch;
mod error;
mod group;
mod mailbox;
mod polling;

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tracing::warn;

pub use batch::{Batch, BatchLimits, Reached};
pub use error::ConsumerError;
pub(super) use group::partition_list;
pub use group::{Group, Start};
pub use mailbox::{Assignment, Revoked};

use super::client::make;
use super::connection::{Connection, Membership};
use mailbox::Mailbox;
use polling::{GroupContext, Polling};

/// Leaving a group needs a broker that answers; after this long the thread is no longer waited for.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);

/// What a member reads and how.
#[derive(Debug, Clone)]
pub struct GroupOptions {
    /// The group's full name, with the prefix.
    pub group: String,
    /// The topics' full names.
    pub topics: Vec<String>,
    /// Whether the member keeps its place over a restart.
    pub membership: Membership,
    /// How batches are cut.
    pub limits: BatchLimits,
}

/// What a member is told, rebalances first.
#[derive(Debug)]
pub enum Event {
    /// Partitions were assigned; nothing flows until [`Group::start_at`].
    Assigned(Assignment),
    /// The partitions go; the group waits for the answer, at most five seconds.
    Revoked(Revoked),
    /// Records, and how far partitions have been read.
    Batch(Batch),
    /// The member has failed and delivers nothing any more; it is to be dropped.
    Failed(ConsumerError),
}

/// A member of a consumer group.
///
/// Dropping it stops the thread without waiting; [`GroupConsumer::close`] waits for it.
#[derive(Debug)]
pub struct GroupConsumer {
    mailbox: Arc<Mailbox>,
    group: Group,
    thread: Option<JoinHandle<()>>,
}

impl GroupConsumer {
    /// Joins the group; the first event is an assignment.
    ///
    /// # Errors
    /// [`ConsumerError::Client`] when the settings cannot make a client or the topics no subscription.
    pub fn start(connection: &Connection, options: GroupOptions) -> Result<Self, ConsumerError> {
        let settings = connection.member(&options.group, &options.membership);
        let mailbox = Arc::new(Mailbox::default());
        let consumer = Arc::new(subscribed(&settings, &options, Arc::clone(&mailbox))?);
        let group = Group::new(&options.group, Arc::downgrade(&consumer), Arc::clone(&mailbox));
        let polling = Polling::new(consumer, Arc::clone(&mailbox), options);
        let thread = thread::Builder::new()
            .name("kafka-consumer".to_owned())
            .spawn(move || polling.run())
            .map_err(|source| ConsumerError::Thread { source })?;
        Ok(Self { mailbox, group, thread: Some(thread) })
    }

    /// Waits for what comes next; may be cancelled without losing anything.
    pub async fn next(&mut self) -> Event {
        self.next_of(true).await
    }

    /// Waits for what comes next, a batch only if `batches`: without, batches stay in the queue, and a full queue pauses the
    /// reading.
    pub async fn next_of(&mut self, batches: bool) -> Event {
        self.mailbox.next(batches).await
    }

    /// Returns a handle for positions, seeks and commits.
    pub fn group(&self) -> Group {
        self.group.clone()
    }

    /// Stops the thread, which leaves the group (a static member keeps its place), and waits for it a few seconds.
    pub async fn close(mut self) {
        self.mailbox.stop();
        let Some(thread) = self.thread.take() else { return };
        let joined = tokio::task::spawn_blocking(move || thread.join());
        if tokio::time::timeout(CLOSE_DEADLINE, joined).await.is_err() {
            warn!(group = self.group.name(), "consumer not closed in time, left to itself");
        }
    }
}

impl Drop for GroupConsumer {
    fn drop(&mut self) {
        self.mailbox.stop();
    }
}

fn subscribed(
    settings: &ClientConfig,
    options: &GroupOptions,
    mailbox: Arc<Mailbox>,
) -> Result<BaseConsumer<GroupContext>, ConsumerError> {
    let context = GroupContext::new(options.group.clone(), mailbox);
    let client = |source| ConsumerError::Client { group: options.group.clone(), source };
    let consumer = make::<_, BaseConsumer<GroupContext>>(settings, context).map_err(client)?;
    let topics: Vec<&str> = options.topics.iter().map(String::as_str).collect();
    consumer.subscribe(&topics).map_err(client)?;
    Ok(consumer)
}
