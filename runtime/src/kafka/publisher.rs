//! The writer: a thread that owns a transactional producer and commits what the run loop hands it, one transaction at a time.
//!
//! A transaction is opened when everything to be written lies in memory, and its order is fixed:
//!
//! ```text
//! begin ─▶ derived, delivered ─▶ follow-up, delivered ─▶ checkpoint, delivered ─▶ input offsets ─▶ commit
//! ```
//!
//! An instance that has aborted, failed a delivery or met any error not marked retriable is dead and never used again:
//! librdkafka re-sends EndTxn by itself and answers OK while the first copy may still end a *later* transaction of the same instance.
//! A new one is started, which fences late copies; then the take-over is run from the beginning.

mod error;
mod starting;
mod writer;

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use error::PublishError;

use super::connection::Connection;
use super::consumer::Group;
use super::record::{Delivered, Outgoing, TopicPartition};
use crate::log_identity::Position;
use crate::telemetry::chain;
use writer::{Command, Writer};

/// Everything that one transaction writes, in the order of its fields.
#[derive(Debug, Default)]
pub struct Transaction {
    /// What is derived, first.
    pub derived: Vec<Outgoing>,
    /// What follows from it: ids seen, suspects, links.
    pub follow_up: Vec<Outgoing>,
    /// The checkpoint, last and alone.
    pub checkpoint: Vec<Outgoing>,
    /// The input that all this was made from, moved with it.
    pub input: Option<Input>,
}

impl Transaction {
    /// Returns whether there is nothing to write and nothing to move.
    pub fn is_empty(&self) -> bool {
        self.derived.is_empty()
            && self.follow_up.is_empty()
            && self.checkpoint.is_empty()
            && self.input.as_ref().is_none_or(|input| input.positions.is_empty())
    }
}

/// The input of a transaction: the offsets to commit with it, for records of one epoch.
#[derive(Debug, Clone)]
pub struct Input {
    /// The membership; its metadata is fetched anew at the moment of the commit.
    pub group: Group,
    /// The epoch the records were read in.
    pub epoch: u64,
    /// How far each partition was read; the time is kept beside the offset.
    pub positions: Vec<(TopicPartition, Position)>,
    /// The identity of the program that has read it, kept beside the offset as well.
    pub program: Option<String>,
}

/// A transaction that is durable, and where its records stand: in the order they were given.
#[derive(Debug, Default)]
pub struct Committed {
    /// Where the derived records stand.
    pub derived: Vec<Delivered>,
    /// Where the follow-up records stand.
    pub follow_up: Vec<Delivered>,
    /// Where the checkpoint stands.
    pub checkpoint: Vec<Delivered>,
    /// From its beginning to the end of its commit.
    pub took: Duration,
}

/// A handle on the writer thread.
///
/// Dropping it ends the thread and its producer off the async threads. An open transaction is given up unless its commit was
/// already sent.
#[derive(Debug)]
pub struct Publisher {
    transactional_id: Arc<str>,
    commands: Sender<Command>,
    /// Why the instance is used up. It is, too, when a commit was begun and its future dropped: nobody knows how it ended.
    used_up: Option<String>,
    _abandons: DropGuard,
}

impl Publisher {
    /// Makes a producer and fences every earlier one with that id: what they had open is aborted.
    ///
    /// Dropping the future gives the start up; the next start of that id in this process waits until this one has ended.
    ///
    /// # Errors
    /// [`PublishError::Start`] when the brokers refuse or do not answer, after retries of 15 s.
    pub async fn start(connection: &Connection, transactional_id: &str) -> Result<Self, PublishError> {
        let transactional_id: Arc<str> = transactional_id.into();
        let abandoned = CancellationToken::new();
        // Dropping this future abandons the start.
        let guard = abandoned.clone().drop_guard();
        let settings = connection.transactional(&transactional_id);
        let commands = Writer::spawn(&settings, Arc::clone(&transactional_id), abandoned).await?;
        Ok(Self { transactional_id, commands, used_up: None, _abandons: guard })
    }

    /// Returns the transactional id.
    pub fn transactional_id(&self) -> &str {
        &self.transactional_id
    }

    /// Returns whether the instance is used up, so that only a new one helps.
    pub fn is_dead(&self) -> bool {
        self.used_up.is_some()
    }

    /// Writes and commits one transaction; `Ok` means that all of it is durable and nothing of it is written twice.
    ///
    /// An empty transaction is no transaction: nothing is opened. After an error other than [`PublishError::TooLarge`] and
    /// [`PublishError::Reassigned`] before anything was written, the instance is dead: drop it, start a new one, take over again. So it is when
    /// the returned future is dropped before it ends, since nobody knows what became of the commit.
    ///
    /// # Errors
    /// See [`PublishError`]; [`Publisher::is_dead`] tells whether the instance can go on.
    pub async fn commit(&mut self, transaction: Transaction) -> Result<Committed, PublishError> {
        if let Some(why) = &self.used_up {
            return Err(self.dead(why));
        }
        if transaction.is_empty() {
            return Ok(Committed::default());
        }
        self.used_up = Some("an earlier commit was not awaited to its end".to_owned());
        let (answer, answered) = oneshot::channel();
        let sent = self.commands.send(Command { transaction, answer });
        let result = match sent {
            Ok(()) => answered.await.unwrap_or_else(|_| Err(self.dead("the writer thread has ended"))),
            Err(_) => Err(self.dead("the writer thread has ended")),
        };
        let deadly = result.as_ref().err().filter(|error| error.is_deadly());
        self.used_up = deadly.map(|error| chain(error).to_string());
        result
    }

    fn dead(&self, why: &str) -> PublishError {
        PublishError::Dead { transactional_id: self.transactional_id.to_string(), why: why.to_owned() }
    }
}
