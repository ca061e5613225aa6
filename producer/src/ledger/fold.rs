//! The take-over's reading: our own output, to the ends asked before.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use windfall_runtime::kafka::Record;
use windfall_runtime::kafka::table::{self, FoldFailure, FoldProgress, FoldRequest, Folded};
use windfall_schemas::device::{DeviceKey, DeviceValue};
use windfall_schemas::envelope::Envelope;
use windfall_schemas::scan::{ScanKey, ScanPart, ScanValue};
use windfall_schemas::server::{ServerKey, ServerValue};
use windfall_schemas::topic::{CHANGE_PARTITIONS, SINGLE_PARTITION};

use super::{Cluster, LedgerError};
use crate::checkpoint::{Claim, Owner, Part, Scans, Writer};
use crate::fleet::{Event, Fleet, Servers};
use crate::memory::Memory;

/// What a take-over has read.
pub(super) struct Read {
    pub(super) memory: Memory,
    /// The ends of the devices' topic.
    pub(super) ends: BTreeMap<i32, i64>,
    /// Up to where `abm.scans` was read.
    pub(super) read_to: i64,
}

/// Reads the fleet, the servers and the scan state of one organization.
pub(super) async fn memory(
    cluster: &Cluster,
    org: &str,
    report: impl Fn(String) + Send + Sync + Clone + 'static,
) -> Result<Read, LedgerError> {
    let names = &cluster.names;
    let owner = org.to_owned();
    let fold_device = move |fleet: &mut Fleet, key: DeviceKey, value: Option<Envelope<Arc<DeviceValue>>>| {
        if key.org == owner {
            fleet.apply(&key.device_id, value.map(Event::from));
        }
    };
    let fleet =
        read(cluster, &names.devices(), CHANGE_PARTITIONS, Fleet::default(), fold_device, report.clone()).await?;
    let owner = org.to_owned();
    let fold_server = move |servers: &mut Servers, key: ServerKey, value: Option<Envelope<Arc<ServerValue>>>| {
        if key.org == owner {
            servers.apply(&key.server_id, value.map(Event::from));
        }
    };
    let servers =
        read(cluster, &names.servers(), SINGLE_PARTITION, Servers::default(), fold_server, report.clone()).await?;
    let scans = folded_scans(cluster, org, report).await?;
    let read_to = scans.next_offsets.get(&0).copied().unwrap_or(0);
    let memory = Memory { fleet: fleet.state, servers: servers.state, scans: scans.state };
    Ok(Read { memory, ends: fleet.next_offsets, read_to })
}

/// Reads the scan state of one organization.
pub(crate) async fn scans(
    cluster: &Cluster,
    org: &str,
    report: impl Fn(String) + Send + Sync + 'static,
) -> Result<Scans, LedgerError> {
    Ok(folded_scans(cluster, org, report).await?.state)
}

async fn folded_scans(
    cluster: &Cluster,
    org: &str,
    report: impl Fn(String) + Send + Sync + 'static,
) -> Result<Folded<Scans>, LedgerError> {
    let owner = org.to_owned();
    let fold = move |scans: &mut Scans, key: ScanKey, value: Option<ScanValue>| {
        if key.org == owner {
            scans.apply(&Part { key, value });
        }
    };
    let names = &cluster.names;
    read(cluster, &names.scans(), SINGLE_PARTITION, Scans::default(), fold, report).await
}

/// Reads the scan state of every organization.
pub(crate) async fn all_scans(cluster: &Cluster) -> Result<BTreeMap<String, Scans>, LedgerError> {
    let fold = |all: &mut BTreeMap<String, Scans>, key: ScanKey, value: Option<ScanValue>| {
        all.entry(key.org.clone()).or_default().apply(&Part { key, value });
    };
    Ok(read(cluster, &cluster.names.scans(), SINGLE_PARTITION, BTreeMap::new(), fold, |_| ()).await?.state)
}

/// Reads the take-overs of one organization by its writers of one kind, in the order of their offsets; of committed ones
/// alone, which may have to be waited for, or of all that were ever begun.
pub(super) async fn claims(
    cluster: &Cluster,
    org: &str,
    writer: Writer,
    committed: bool,
) -> Result<Vec<Claim>, LedgerError> {
    let request = FoldRequest::whole(cluster.names.scans(), 0..SINGLE_PARTITION);
    let request = if committed { request } else { request.uncommitted() };
    let decoder = cluster.codecs.decoder.blocking();
    let owner_of = org.to_owned();
    let folded = table::fold(&cluster.connection, request, Vec::new(), move |claims, record: Record| {
        // What is not readable may never have been committed, and is no take-over.
        let Ok(Some(key)) = decoder.key::<ScanKey>(&record) else { return Ok(()) };
        if key.org != owner_of || ScanPart::parse(&key.part) != writer.part() {
            return Ok(());
        }
        let value = decoder.value::<ScanValue>(&record).ok().flatten();
        if let Some(owner) = value.as_ref().and_then(Owner::read) {
            claims.push(Claim { offset: record.offset, owner });
        }
        Ok(())
    });
    Ok(folded.await?.state)
}

/// Lists the offsets of one organization's records from `from` on, committed or not, and tells where the topic ends.
pub(super) async fn written(cluster: &Cluster, org: String, from: i64) -> Result<(Vec<i64>, i64), LedgerError> {
    let request = FoldRequest::tail(cluster.names.scans(), &BTreeMap::from([(0, from)])).uncommitted();
    let decoder = cluster.codecs.decoder.blocking();
    let folded = table::fold(&cluster.connection, request, Vec::new(), move |written, record: Record| {
        if matches!(decoder.key::<ScanKey>(&record), Ok(Some(key)) if key.org == org) {
            written.push(record.offset);
        }
        Ok(())
    });
    let folded = folded.await?;
    Ok((folded.state, folded.next_offsets.get(&0).copied().unwrap_or(from)))
}

async fn read<S, K, V>(
    cluster: &Cluster,
    topic: &str,
    partitions: i32,
    state: S,
    mut apply: impl FnMut(&mut S, K, Option<V>) + Send + 'static,
    report: impl Fn(String) + Send + Sync + 'static,
) -> Result<Folded<S>, LedgerError>
where
    S: Send + 'static,
    K: DeserializeOwned,
    V: DeserializeOwned,
{
    let (told, mut progress) = tokio::sync::watch::channel(FoldProgress::default());
    let request = FoldRequest::whole(topic, 0..partitions).reporting(told);
    let decoder = cluster.codecs.decoder.blocking();
    let on_record = move |state: &mut S, record: Record| -> Result<(), FoldFailure> {
        let Some(key) = decoder.key::<K>(&record)? else { return Ok(()) };
        apply(state, key, decoder.value::<V>(&record)?);
        Ok(())
    };
    let telling = tokio::spawn(async move {
        while progress.changed().await.is_ok() {
            report(describe(&progress.borrow_and_update()));
        }
    });
    let folded = table::fold(&cluster.connection, request, state, on_record).await;
    telling.abort();
    Ok(folded?)
}

/// Says how far a fold has come, and which open transaction of another's hides records from it.
fn describe(progress: &FoldProgress) -> String {
    let FoldProgress { topic, records, remaining, hidden } = progress;
    match hidden.iter().max_by_key(|hidden| hidden.waited) {
        Some(hidden) => format!(
            "waiting {} s for another's open transaction in `{topic}`, partition {}, offset {} (end {}); \
             kafka-transactions.sh find-hanging names it",
            hidden.waited.as_secs(),
            hidden.partition,
            hidden.position,
            hidden.end
        ),
        None => format!("reading `{topic}`: {records} records read, {remaining} offsets to go"),
    }
}
