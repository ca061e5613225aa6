//! The Kafka side of one organization: its topics are read into memory at the take-over and written in transactions.
//!
//! The order of a take-over is fixed: fence the writer before us, ask the ends of our own output, read it to there, and only
//! then compute. Each transaction carries the membership by which this process holds the source, so that one that does not
//! hold it any more cannot commit. A ledger whose commit has failed is dead: it is dropped, and the source is taken over again
//! when its group assigns it again.

mod codecs;
mod error;
mod fold;
mod shared;
mod unreadable;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use metrics::histogram;
use serde::Serialize;
use windfall_runtime::kafka::publisher::{Input, Publisher, Transaction};
use windfall_runtime::kafka::record::Delivered;
use windfall_runtime::kafka::table::FoldProgress;
use windfall_runtime::kafka::{Connection, Headers, Outgoing};
use windfall_runtime::metrics::{TRANSACTION_SECONDS, label};
use windfall_schemas::device::DeviceValue;
use windfall_schemas::envelope::Envelope;
use windfall_schemas::server::ServerValue;
use windfall_schemas::topic::Names;
use windfall_schemas::wire::Codec;

pub use codecs::Codecs;
pub use error::LedgerError;
pub(crate) use fold::{all_scans, describe, memory};
pub use shared::Topics;
pub use unreadable::{Place, UnreadableRecords};

use crate::event::{self, Recorded};
use crate::memory::Memory;
use crate::step::{Step, Unwritable};

/// What all organizations of a process share of Kafka.
#[derive(Clone)]
pub struct Cluster {
    /// The brokers and how to reach them.
    pub connection: Connection,
    /// Names of all topics.
    pub names: Names,
    /// The schemas, with the ids that the registry gave them.
    pub codecs: Arc<Codecs>,
    /// What was read for sources that are not taken over yet.
    pub topics: Arc<Topics>,
}

/// What a take-over has found.
#[derive(Debug)]
pub struct Found {
    /// What is known.
    pub memory: Memory,
    /// What could not be read.
    pub unreadable: UnreadableRecords,
    /// How many records were read for it; what another source's take-over has read for both is not counted.
    pub records: u64,
}

/// The writer of one organization.
pub struct Ledger {
    cluster: Cluster,
    publisher: Publisher,
    ends: BTreeMap<i32, i64>,
    /// What each transaction carries: the membership, and where it stands. None where no group shares the source out.
    input: Option<Input>,
}

impl Ledger {
    /// Takes an organization over: fences whoever wrote before, then reads what is known.
    ///
    /// # Errors
    /// See [`LedgerError`]; nothing is left behind but the fence.
    pub async fn take_over(
        cluster: &Cluster,
        org: &str,
        input: Option<Input>,
        report: impl Fn(&FoldProgress),
    ) -> Result<(Self, Found), LedgerError> {
        let transactional_id = cluster.names.producer_group(org);
        let publisher = Publisher::start(&cluster.connection, &transactional_id).await?;
        let (found, ends) = memory(cluster, org, report).await?;
        Ok((Self { cluster: cluster.clone(), publisher, ends, input }, found))
    }

    /// Accepts the topics of an organization as they are, as [`Scans::accept`](crate::checkpoint::Scans::accept) says: fences
    /// whoever writes, and takes the scans back to their beginning.
    pub(crate) async fn accept(cluster: &Cluster, org: &str, known: bool, at: i64) -> Result<(), LedgerError> {
        let publisher = Publisher::start(&cluster.connection, &cluster.names.producer_group(org)).await?;
        let scans = all_scans(cluster).await?.remove(org).unwrap_or_default();
        let parts = scans.accept(org, known, at);
        let mut ledger = Self { cluster: cluster.clone(), publisher, ends: BTreeMap::new(), input: None };
        ledger.commit(&Step { parts, ..Step::default() }).await.map(drop)
    }

    /// Returns whether this process was paused at some time since `moment`, so that it may hold the source no more.
    pub fn paused_since(&self, moment: Instant) -> bool {
        self.input.as_ref().is_some_and(|input| input.group.paused_since(moment))
    }

    /// Writes a step and commits it; `Ok` means that all of it is durable, and that this process held the source when it began.
    /// An empty step tells just that. Returns when a broker appended the last record, by its clock in epoch milliseconds.
    ///
    /// # Errors
    /// [`LedgerError::Unwritable`] names the events that cannot be encoded, all of them; the ledger goes on. After any other
    /// error it is dead.
    pub async fn commit(&mut self, step: &Step) -> Result<Option<i64>, LedgerError> {
        let transaction = Transaction { input: self.input.clone(), ..self.transaction(step)? };
        let committed = self.publisher.commit(transaction).await?;
        histogram!(TRANSACTION_SECONDS, label::STAGE => "producer").record(committed.took.as_secs_f64());
        let devices = self.cluster.names.devices();
        for Delivered { topic, partition, offset, .. } in committed.derived {
            if *topic == *devices {
                self.ends.insert(partition, offset + 1);
            }
        }
        Ok(committed.checkpoint.last().or(committed.follow_up.last()).and_then(|last| last.timestamp_ms))
    }

    /// Returns the end of each partition of the devices, as far as this ledger has read or written it.
    pub fn ends(&self) -> &BTreeMap<i32, i64> {
        &self.ends
    }

    /// Derived records first, then progress and the parts of the scan, and the headers last.
    fn transaction(&self, step: &Step) -> Result<Transaction, LedgerError> {
        let Cluster { names, codecs, .. } = &self.cluster;
        let mut transaction = Transaction::default();
        let mut unwritable = Vec::new();
        let servers = Table { topic: names.servers().into(), key: &codecs.server_key, value: &codecs.server_value };
        servers.put(&mut transaction.derived, &step.servers, ServerValue::key, &step.traceparent, &mut unwritable);
        let devices = Table { topic: names.devices().into(), key: &codecs.device_key, value: &codecs.device_value };
        devices.put(&mut transaction.derived, &step.devices, DeviceValue::key, &step.traceparent, &mut unwritable);
        if !unwritable.is_empty() {
            return Err(LedgerError::Unwritable(unwritable));
        }
        let rejects: Arc<str> = names.rejects().into();
        for reject in &step.rejects {
            let value = codecs.reject_value.encode(reject)?;
            let headers = Headers::new().with("traceparent", step.traceparent.clone());
            let (topic, value) = (Arc::clone(&rejects), Some(value.into()));
            transaction.derived.push(Outgoing { topic, partition: None, key: None, value, headers });
        }
        let notifications: Arc<str> = names.notifications().into();
        for notification in &step.notifications {
            let key = codecs.notification_key.encode(&notification.key())?;
            let value = codecs.notification_value.encode(notification)?;
            transaction.follow_up.push(Outgoing::new(Arc::clone(&notifications), key, value));
        }
        let scans: Arc<str> = names.scans().into();
        for part in &step.parts {
            let (topic, key) = (Arc::clone(&scans), codecs.scan_key.encode(&part.key)?);
            let record = match &part.value {
                Some(value) => Outgoing::new(topic, key, codecs.scan_value.encode(value)?),
                None => Outgoing::tombstone(topic, key),
            };
            let header = part.key.part.is_empty();
            if header { &mut transaction.checkpoint } else { &mut transaction.follow_up }.push(record);
        }
        Ok(transaction)
    }
}

/// A change topic with its schemas.
struct Table<'a> {
    topic: Arc<str>,
    key: &'a Codec,
    value: &'a Codec,
}

impl Table<'_> {
    /// Adds events, each with the tombstone that follows a `d`; notes those that cannot be encoded.
    fn put<K: Serialize, V: Recorded + Serialize>(
        &self,
        records: &mut Vec<Outgoing>,
        events: &[Envelope<Arc<V>>],
        key: fn(&V) -> K,
        traceparent: &str,
        unwritable: &mut Vec<Unwritable>,
    ) {
        for envelope in events {
            let Some(value) = envelope.after.as_deref().or(envelope.before.as_deref()) else { continue };
            let encoded = self.key.encode(&key(value)).and_then(|key| Ok((key, self.value.encode(envelope)?)));
            let (key, encoded) = match encoded {
                Ok(encoded) => encoded,
                Err(error) => {
                    unwritable.push(Unwritable { id: value.id().to_owned(), error });
                    continue;
                }
            };
            let headers = event::headers(envelope, traceparent, false);
            records.push(Outgoing::new(Arc::clone(&self.topic), key.clone(), encoded).with_headers(headers));
            if envelope.after.is_none() {
                let headers = event::headers(envelope, traceparent, true);
                records.push(Outgoing::tombstone(Arc::clone(&self.topic), key).with_headers(headers));
            }
        }
    }
}
