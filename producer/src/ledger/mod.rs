//! The Kafka side of one organization: its topics are read into memory at the take-over and written in transactions.
//!
//! The order of a take-over is fixed: fence the writer before us and say so in `abm.scans`, ask the ends of our own output,
//! read it to there, and only then compute. A ledger whose commit has failed is dead: it is dropped and the take-over runs
//! again, unless another process has taken over meanwhile ([`Ledger::overtaken_by`]).

mod codecs;
mod error;
mod fold;
mod hidden;
mod keys;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use metrics::histogram;
use windfall_runtime::kafka::publisher::{Publisher, Timing, Transaction};
use windfall_runtime::kafka::record::Delivered;
use windfall_runtime::kafka::table::FoldProgress;
use windfall_runtime::kafka::{Connection, Headers, Outgoing, table};
use windfall_runtime::metrics::{TRANSACTION_SECONDS, label};
use windfall_schemas::topic::Names;
use windfall_schemas::wire::WireError;

pub use codecs::Codecs;
pub use error::LedgerError;
pub(crate) use fold::{all_scans, describe, scans};
pub use hidden::{Hidden, Place};
pub(crate) use keys::check as check_keys;

use crate::checkpoint::{Owner, Part, Writer, overtaken_by};
use crate::event::{self, Recorded};
use crate::memory::Memory;
use crate::step::{Step, Unwritable};

/// A broker ends an open transaction 15 s after it was left, and looks every 10 s: a look beyond that is in vain.
const LOOK_WITHIN: Duration = Duration::from_secs(30);

/// What all organizations of a process share of Kafka.
#[derive(Clone)]
pub struct Cluster {
    /// The brokers and how to reach them.
    pub connection: Connection,
    /// Names of all topics.
    pub names: Names,
    /// The schemas, with the ids that the registry gave them.
    pub codecs: Arc<Codecs>,
}

/// What stands in `abm.scans` of one organization since the last look.
#[derive(Debug)]
pub struct Surroundings {
    written: Vec<i64>,
    end: i64,
}

/// What a take-over has found.
#[derive(Debug)]
pub struct Found {
    /// What is known.
    pub memory: Memory,
    /// What could not be read.
    pub hidden: Hidden,
    /// When the claim of the take-over was written, by the broker's clock in epoch milliseconds.
    pub newest_at: Option<i64>,
}

/// The writer of one organization.
pub struct Ledger {
    cluster: Cluster,
    publisher: Publisher,
    ends: BTreeMap<i32, i64>,
    /// Up to where nobody but us has written of the organization into `abm.scans`, as far as we know.
    alone_to: i64,
    /// Where our own records stand from there on.
    own: BTreeSet<i64>,
}

impl Ledger {
    /// Takes an organization over: fences whoever wrote before, says so at once by `claim`, then reads what is known.
    ///
    /// # Errors
    /// See [`LedgerError`]; nothing is left behind but the fence and the claim.
    pub async fn take_over(
        cluster: &Cluster,
        transactional_id: &str,
        org: &str,
        claim: Part,
        report: impl Fn(&FoldProgress) + Send + Sync + Clone + 'static,
    ) -> Result<(Self, Found), LedgerError> {
        let publisher = Publisher::start(&cluster.connection, transactional_id).await?;
        let (ends, own) = (BTreeMap::new(), BTreeSet::new());
        let mut ledger = Self { cluster: cluster.clone(), publisher, ends, alone_to: 0, own };
        ledger.commit(&Step { parts: vec![claim], ..Step::default() }).await?;
        let fold::Read { memory, hidden, newest_at, ends, read_to } = fold::memory(cluster, org, report).await?;
        (ledger.ends, ledger.alone_to) = (ends, read_to);
        Ok((ledger, Found { memory, hidden, newest_at }))
    }

    /// Returns where the take-overs that a process has not seen begin: the end of `abm.scans`, asked before it fences anybody.
    ///
    /// # Errors
    /// When no broker answers.
    pub async fn standpoint(cluster: &Cluster) -> Result<i64, LedgerError> {
        let ends = table::ends(&cluster.connection, &cluster.names.scans(), [0]).await?;
        Ok(ends.get(&0).map_or(0, |extent| extent.end))
    }

    /// Looks, without fencing anybody, who but `process` has taken an organization over since `standpoint`.
    ///
    /// As long as nobody else has even begun to, nothing is waited for: what our own writer left open hides nothing then. Else
    /// it counts only when it was committed, which is waited for.
    ///
    /// # Errors
    /// When `abm.scans` cannot be read to its end in time.
    pub async fn overtaken_by(
        cluster: &Cluster,
        org: &str,
        writer: Writer,
        process: &str,
        standpoint: i64,
    ) -> Result<Option<Owner>, LedgerError> {
        let look = async {
            let begun = fold::claims(cluster, org, writer, false).await?;
            if begun.iter().all(|claim| claim.offset < standpoint || claim.owner.process == process) {
                return Ok(None);
            }
            let committed = fold::claims(cluster, org, writer, true).await?;
            Ok(overtaken_by(&committed, standpoint, process).cloned())
        };
        let unseen = LedgerError::Unseen { seconds: LOOK_WITHIN.as_secs() };
        tokio::time::timeout(LOOK_WITHIN, look).await.unwrap_or(Err(unseen))
    }

    /// Writes a step and commits it; `Ok` means that all of it is durable.
    ///
    /// # Errors
    /// [`LedgerError::Unwritable`] names the events that cannot be encoded, all of them; the ledger goes on. After any other
    /// error it is dead.
    pub async fn commit(&mut self, step: &Step) -> Result<(), LedgerError> {
        let transaction = self.transaction(step)?;
        let committed = self.publisher.commit(transaction).await?;
        let Timing { delivery, offsets, commit } = committed.timing;
        histogram!(TRANSACTION_SECONDS, label::STAGE => "producer").record((delivery + offsets + commit).as_secs_f64());
        let (devices, scans) = (self.cluster.names.devices(), self.cluster.names.scans());
        let kept = committed.follow_up.iter().chain(&committed.checkpoint);
        self.own.extend(kept.filter(|delivered| *delivered.topic == *scans).map(|delivered| delivered.offset));
        for Delivered { topic, partition, offset } in committed.derived {
            if *topic == *devices {
                self.ends.insert(partition, offset + 1);
            }
        }
        Ok(())
    }

    /// Looks for what anybody else has written of the organization since the take-over, or since the last look.
    ///
    /// The future holds nothing of the ledger: hand what it says to [`Ledger::is_alone`].
    pub fn look_around(&self, org: &str) -> impl Future<Output = Result<Surroundings, LedgerError>> + use<> {
        let (cluster, org, from) = (self.cluster.clone(), org.to_owned(), self.alone_to);
        async move {
            let unseen = LedgerError::Unseen { seconds: LOOK_WITHIN.as_secs() };
            let written = tokio::time::timeout(LOOK_WITHIN, fold::written(&cluster, org, from)).await;
            let (written, end) = written.unwrap_or(Err(unseen))?;
            Ok(Surroundings { written, end })
        }
    }

    /// Tells whether all that was seen is our own.
    ///
    /// # Errors
    /// [`LedgerError::Outrun`] when it is not: memory is behind, and only a new take-over helps.
    pub fn is_alone(&mut self, Surroundings { written, end }: Surroundings) -> Result<(), LedgerError> {
        if written.iter().any(|offset| !self.own.contains(offset)) {
            return Err(LedgerError::Outrun);
        }
        self.alone_to = end;
        self.own = self.own.split_off(&end);
        Ok(())
    }

    /// Returns the end of each partition of the devices, as far as this ledger has read or written it.
    #[must_use]
    pub fn ends(&self) -> &BTreeMap<i32, i64> {
        &self.ends
    }

    /// Derived records first, then progress and the parts of the scan, and the headers last.
    fn transaction(&self, step: &Step) -> Result<Transaction, LedgerError> {
        let Cluster { names, codecs, .. } = &self.cluster;
        let mut transaction = Transaction::default();
        let mut unwritable = Vec::new();
        let servers = Table { topic: names.servers().into(), key: &codecs.server_key, value: &codecs.server_value };
        for envelope in &step.servers {
            let Some(value) = envelope.after.as_ref().or(envelope.before.as_ref()) else { continue };
            if let Err(error) = servers.put(&mut transaction.derived, &value.key(), envelope, &step.traceparent) {
                unwritable.push(Unwritable { id: value.server_id.clone(), error });
            }
        }
        let devices = Table { topic: names.devices().into(), key: &codecs.device_key, value: &codecs.device_value };
        for envelope in &step.devices {
            let Some(value) = envelope.after.as_ref().or(envelope.before.as_ref()) else { continue };
            if let Err(error) = devices.put(&mut transaction.derived, &value.key(), envelope, &step.traceparent) {
                unwritable.push(Unwritable { id: value.device_id.clone(), error });
            }
        }
        if !unwritable.is_empty() {
            return Err(LedgerError::Unwritable(unwritable));
        }
        let rejects: Arc<str> = names.rejects().into();
        for reject in &step.rejects {
            let value = codecs.reject_value.encode(reject)?;
            let headers = Headers::new().with("traceparent", step.traceparent.clone());
            transaction.derived.push(Outgoing {
                topic: Arc::clone(&rejects),
                partition: None,
                key: None,
                value: Some(value.into()),
                headers,
            });
        }
        let notifications: Arc<str> = names.notifications().into();
        for notification in &step.notifications {
            let key = codecs.notification_key.encode(&notification.key())?;
            let value = codecs.notification_value.encode(notification)?;
            transaction.follow_up.push(Outgoing::new(Arc::clone(&notifications), key, value));
        }
        let scans: Arc<str> = names.scans().into();
        for part in &step.parts {
            let record = self.part(&scans, part)?;
            let header = part.key.part.is_empty();
            if header { &mut transaction.checkpoint } else { &mut transaction.follow_up }.push(record);
        }
        Ok(transaction)
    }

    fn part(&self, topic: &Arc<str>, part: &Part) -> Result<Outgoing, LedgerError> {
        let codecs = &self.cluster.codecs;
        let key = codecs.scan_key.encode(&part.key)?;
        Ok(match &part.value {
            Some(value) => Outgoing::new(Arc::clone(topic), key, codecs.scan_value.encode(value)?),
            None => Outgoing::tombstone(Arc::clone(topic), key),
        })
    }
}

/// A change topic with its schemas.
struct Table<'a> {
    topic: Arc<str>,
    key: &'a windfall_schemas::wire::Codec,
    value: &'a windfall_schemas::wire::Codec,
}

impl Table<'_> {
    /// Adds an event, and the tombstone that follows a `d`.
    fn put<K: serde::Serialize, V: Recorded + serde::Serialize>(
        &self,
        records: &mut Vec<Outgoing>,
        key: &K,
        envelope: &windfall_schemas::envelope::Envelope<Arc<V>>,
        traceparent: &str,
    ) -> Result<(), WireError> {
        let key = self.key.encode(key)?;
        let value = self.value.encode(envelope)?;
        let headers = native(event::headers(envelope, traceparent, false));
        records.push(Outgoing::new(Arc::clone(&self.topic), key.clone(), value).with_headers(headers));
        if envelope.after.is_none() {
            let headers = native(event::headers(envelope, traceparent, true));
            records.push(Outgoing::tombstone(Arc::clone(&self.topic), key).with_headers(headers));
        }
        Ok(())
    }
}

fn native(headers: event::Headers) -> Headers {
    headers.into_iter().map(|(name, value)| (name.to_owned(), Some(value.into()))).collect()
}
