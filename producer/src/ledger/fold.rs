//! The take-over's reading: our own output, to the ends asked before.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use windfall_runtime::kafka::Record;
use windfall_runtime::kafka::table::{self, FoldProgress, FoldRequest, Folded};
use windfall_runtime::reader::Decoder;
use windfall_runtime::registry::RegistryError;
use windfall_schemas::device::{DeviceKey, DeviceValue};
use windfall_schemas::envelope::Envelope;
use windfall_schemas::scan::{ScanKey, ScanPart, ScanValue};
use windfall_schemas::server::{ServerKey, ServerValue};
use windfall_schemas::topic::{CHANGE_PARTITIONS, SINGLE_PARTITION};

use super::hidden::{self, Hidden, Place};
use super::{Cluster, LedgerError};
use crate::checkpoint::{Claim, Owner, Part, Scans, Writer};
use crate::fleet::{Event, Fleet, Known, Servers};
use crate::memory::Memory;

/// What a take-over has read.
pub(super) struct Read {
    pub(super) memory: Memory,
    pub(super) hidden: Hidden,
    /// When the newest record of `abm.scans` was written, by the broker's clock.
    pub(super) newest_at: Option<i64>,
    /// The ends of the devices' topic.
    pub(super) ends: BTreeMap<i32, i64>,
    /// Up to where `abm.scans` was read.
    pub(super) read_to: i64,
}

/// Reads the fleet, the servers and the scan state of one organization.
pub(super) async fn memory(
    cluster: &Cluster,
    org: &str,
    report: impl Fn(&FoldProgress) + Send + Sync + Clone + 'static,
) -> Result<Read, LedgerError> {
    let names = &cluster.names;
    let (devices, device_ends) =
        read::<Fleet>(cluster, Some(org), &names.devices(), CHANGE_PARTITIONS, report.clone()).await?;
    let (servers, _) = read::<Servers>(cluster, Some(org), &names.servers(), SINGLE_PARTITION, report.clone()).await?;
    let (scans, scan_ends) = read::<OneScans>(cluster, Some(org), &names.scans(), SINGLE_PARTITION, report).await?;
    let hidden = Hidden {
        devices: devices.hidden,
        servers: servers.hidden,
        parts: scans.hidden,
        passed_over: devices.passed_over + servers.passed_over + scans.passed_over,
    };
    let memory = Memory { fleet: devices.state, servers: servers.state, scans: scans.state.0 };
    let read_to = scan_ends.get(&0).copied().unwrap_or(0);
    Ok(Read { memory, hidden, newest_at: scans.newest_at, ends: device_ends, read_to })
}

/// Reads the scan state of one organization.
pub(crate) async fn scans(cluster: &Cluster, org: &str) -> Result<Scans, LedgerError> {
    let read = read::<OneScans>(cluster, Some(org), &cluster.names.scans(), SINGLE_PARTITION, |_| ()).await;
    Ok(read?.0.state.0)
}

/// Reads the scan state of every organization.
pub(crate) async fn all_scans(cluster: &Cluster) -> Result<BTreeMap<String, Scans>, LedgerError> {
    let read = read::<AllScans>(cluster, None, &cluster.names.scans(), SINGLE_PARTITION, |_| ()).await;
    Ok(read?.0.state.0)
}

/// What a topic is folded into.
trait Folds: Default + Send + 'static {
    type Key: DeserializeOwned;
    type Value: DeserializeOwned;
    /// Returns the organization and the id that a key names.
    fn names(key: &Self::Key) -> (&str, String);
    fn take(&mut self, key: Self::Key, value: Option<Self::Value>);
    /// Notes a value that cannot be read: what is known stands, and the event it may have been took a number.
    fn hide(&mut self, _id: &str, _place: &Place) {}
}

impl Folds for Fleet {
    type Key = DeviceKey;
    type Value = Envelope<Arc<DeviceValue>>;

    fn names(key: &DeviceKey) -> (&str, String) {
        (&key.org, key.device_id.clone())
    }

    fn take(&mut self, key: DeviceKey, value: Option<Self::Value>) {
        self.apply(&key.device_id, value.map(Event::from));
    }

    fn hide(&mut self, id: &str, place: &Place) {
        let stands = standing(self.get(id), place);
        self.apply(id, Some(stands));
    }
}

impl Folds for Servers {
    type Key = ServerKey;
    type Value = Envelope<Arc<ServerValue>>;

    fn names(key: &ServerKey) -> (&str, String) {
        (&key.org, key.server_id.clone())
    }

    fn take(&mut self, key: ServerKey, value: Option<Self::Value>) {
        self.apply(&key.server_id, value.map(Event::from));
    }

    fn hide(&mut self, id: &str, place: &Place) {
        let stands = standing(self.get(id), place);
        self.apply(id, Some(stands));
    }
}

/// Makes of a record that is hidden what it last was, under a number that no event of it can have had.
fn standing<V>(known: Option<&Known<V>>, place: &Place) -> Event<V> {
    Event {
        after: known.map(|known| Arc::clone(&known.value)),
        number: place.number(),
        fingerprint: known.map(|known| known.fingerprint.clone()).unwrap_or_default(),
        made_at: known.map_or(0, |known| known.observed_at),
        told_at: known.map_or(0, |known| known.told_at),
        channel: None,
    }
}

/// The scan state of one organization.
#[derive(Default)]
struct OneScans(Scans);

impl Folds for OneScans {
    type Key = ScanKey;
    type Value = ScanValue;

    fn names(key: &ScanKey) -> (&str, String) {
        (&key.org, format!("{}/{}", key.table, key.part))
    }

    fn take(&mut self, key: ScanKey, value: Option<ScanValue>) {
        self.0.apply(&Part { key, value });
    }
}

/// The scan state of each organization.
#[derive(Default)]
struct AllScans(BTreeMap<String, Scans>);

impl Folds for AllScans {
    type Key = ScanKey;
    type Value = ScanValue;

    fn names(key: &ScanKey) -> (&str, String) {
        OneScans::names(key)
    }

    fn take(&mut self, key: ScanKey, value: Option<ScanValue>) {
        self.0.entry(key.org.clone()).or_default().apply(&Part { key, value });
    }
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
    let decoder = cluster.codecs.decoder.clone();
    let owner_of = org.to_owned();
    let folded = table::fold(&cluster.connection, request, Vec::new(), move |claims, record: Record| {
        decoder.learn_blocking(&record)?;
        // What cannot be read may never have been committed, and is no take-over.
        let Ok(key) = decoder.key::<ScanKey>(&record) else { return Ok(()) };
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
    let decoder = cluster.codecs.decoder.clone();
    let folded = table::fold(&cluster.connection, request, Vec::new(), move |written, record: Record| {
        decoder.learn_blocking(&record)?;
        if decoder.key::<ScanKey>(&record).is_ok_and(|key| key.org == org) {
            written.push(record.offset);
        }
        Ok(())
    });
    let folded = folded.await?;
    Ok((folded.state, folded.next_offsets.get(&0).copied().unwrap_or(from)))
}

/// What was folded, and what could not be.
#[derive(Default)]
struct Taken<S> {
    state: S,
    hidden: BTreeMap<String, Place>,
    passed_over: u64,
    newest_at: Option<i64>,
}

impl<S: Folds> Taken<S> {
    /// Folds a record of `org`, or of any organization; see [`super::hidden`] for what becomes of one that cannot be read.
    fn take(&mut self, decoder: &Decoder, org: Option<&str>, record: &Record) -> Result<(), RegistryError> {
        self.newest_at = record.timestamp_ms.max(self.newest_at);
        decoder.learn_blocking(record)?;
        let Ok(key) = decoder.key::<S::Key>(record) else {
            self.passed_over += 1;
            return Ok(());
        };
        let (of, id) = S::names(&key);
        if org.is_some_and(|org| org != of) {
            return Ok(());
        }
        match decoder.value::<S::Value>(record) {
            Ok(value) => {
                self.hidden.remove(&id);
                self.state.take(key, value);
            }
            Err(error) => {
                hidden::tell(record, &id, &error);
                let place = Place::of(record);
                self.state.hide(&id, &place);
                self.hidden.insert(id, place);
            }
        }
        Ok(())
    }
}

async fn read<S: Folds>(
    cluster: &Cluster,
    org: Option<&str>,
    topic: &str,
    partitions: i32,
    report: impl Fn(&FoldProgress) + Send + Sync + 'static,
) -> Result<(Taken<S>, BTreeMap<i32, i64>), LedgerError> {
    let (told, mut progress) = tokio::sync::watch::channel(FoldProgress::default());
    let request = FoldRequest::whole(topic, 0..partitions).reporting(told);
    let (decoder, org) = (cluster.codecs.decoder.clone(), org.map(str::to_owned));
    let on_record = move |taken: &mut Taken<S>, record: Record| taken.take(&decoder, org.as_deref(), &record);
    let telling = tokio::spawn(async move {
        while progress.changed().await.is_ok() {
            report(&progress.borrow_and_update());
        }
    });
    let folded = table::fold(&cluster.connection, request, Taken::default(), on_record).await;
    telling.abort();
    let Folded { state, next_offsets, records: _ } = folded?;
    Ok((state, next_offsets))
}

/// Says how far a fold has come, and which open transaction of another's hides records from it.
pub(crate) fn describe(progress: &FoldProgress) -> String {
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
