//! The take-over's reading: our own output, to the ends asked before.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use windfall_runtime::kafka::Record;
use windfall_runtime::kafka::table::{self, FoldProgress, FoldRequest};
use windfall_runtime::reader::Decoder;
use windfall_schemas::device::{DeviceKey, DeviceValue};
use windfall_schemas::envelope::Envelope;
use windfall_schemas::scan::{ScanKey, ScanValue};
use windfall_schemas::server::{ServerKey, ServerValue};
use windfall_schemas::topic::SINGLE_PARTITION;

use super::unreadable::{self, Place, UnreadableRecords};
use super::{Cluster, Found, LedgerError};
use crate::checkpoint::{Header, ScanRecord, ScanState, Scans};
use crate::fleet::{Event, Fleet, Known, Servers};
use crate::memory::Memory;

/// Reads the fleet, the servers and the scan state of one organization; returns the ends of the devices' topic with it.
pub(crate) async fn memory(
    cluster: &Cluster,
    org: &str,
    report: impl Fn(&FoldProgress),
) -> Result<(Found, BTreeMap<i32, i64>), LedgerError> {
    let topics = &cluster.topics;
    let devices = topics.devices.take(cluster, org, &report).await?;
    let servers = topics.servers.take(cluster, org, &report).await?;
    let scans = topics.scans.take(cluster, org, &report).await?;
    let unreadable = UnreadableRecords {
        devices: devices.state.unreadable,
        servers: servers.state.unreadable,
        parts: scans.state.unreadable,
        passed_over: devices.passed_over + servers.passed_over + scans.passed_over,
    };
    let records = devices.records + servers.records + scans.records;
    let memory = Memory { fleet: devices.state.known, servers: servers.state.known, scans: scans.state.known };
    let (known, seen) =
        (memory.fleet.len() + unreadable.devices.len(), memory.scans.devices.as_ref().map_or(0, written));
    let known = u64::try_from(known).unwrap_or(u64::MAX);
    if has_lost(known, seen) {
        return Err(LedgerError::Lost { topic: cluster.names.devices(), org: org.to_owned(), known, seen });
    }
    if known > 0 && memory.scans.devices.is_none() && unreadable.parts.is_empty() && unreadable.passed_over == 0 {
        return Err(LedgerError::LostScans { topic: cluster.names.scans(), org: org.to_owned(), known });
    }
    Ok((Found { memory, unreadable, records }, devices.next_offsets))
}

/// How many devices the topic held when the header was written. A complete scan has also counted those that it wrote itself; an
/// incomplete one may have counted some twice.
fn written(header: &Header) -> u64 {
    let counted = if header.state == ScanState::Complete { header.devices.saturating_sub(header.rejects) } else { 0 };
    header.known.max(counted)
}

/// Tells whether a fleet lacks more devices, of those that the last scan has seen, than some rejects can explain: more than ten
/// and more than 5 %. Each of them has had a record before the header that counts it.
fn has_lost(known: u64, seen: u64) -> bool {
    /// That many may be missing for other reasons.
    const FEW: u64 = 10;
    known + FEW.max(seen / 20) < seen
}

/// Reads the scan state of every organization.
pub(crate) async fn all_scans(cluster: &Cluster) -> Result<BTreeMap<String, Scans>, LedgerError> {
    let request = FoldRequest::whole(cluster.names.scans(), 0..SINGLE_PARTITION);
    let decoder = cluster.codecs.decoder.clone();
    let on_record = move |taken: &mut BTreeMap<String, Taken<Scans>>, key: ScanKey, record: &Record| {
        taken.entry(key.org.clone()).or_default().take(&decoder, key, record);
    };
    let empty = (BTreeMap::new(), BTreeMap::new());
    let folded = table::fold_keyed(&cluster.connection, &cluster.codecs.decoder, request, empty, on_record).await?;
    Ok(folded.state.0.into_iter().map(|(org, taken)| (org, taken.known)).collect())
}

/// What a topic is folded into, for one organization.
pub(super) trait Folds: Default + Send + 'static {
    type Key: DeserializeOwned;
    type Value: DeserializeOwned;
    /// Returns the organization and the id that a key names.
    fn names(key: &Self::Key) -> (&str, String);
    fn take(&mut self, key: Self::Key, value: Option<Self::Value>);
    /// Notes a value that cannot be read: what is known stands, and the event it may have been took a number.
    fn keep(&mut self, _id: &str, _place: &Place) {}
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

    fn keep(&mut self, id: &str, place: &Place) {
        let stands = standing(self.get(id).as_ref(), place);
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

    fn keep(&mut self, id: &str, place: &Place) {
        let stands = standing(self.get(id), place);
        self.apply(id, Some(stands));
    }
}

/// Makes an event that leaves an unreadable record as it last was, under a number that no event of it can have had.
fn standing<V>(known: Option<&Known<V>>, place: &Place) -> Event<V> {
    Event {
        after: known.map(|known| Arc::clone(&known.value)),
        number: place.number(),
        made_at: known.map_or(0, |known| known.observed_at),
        told_at: known.map_or(0, |known| known.told_at),
        channel: None,
    }
}

impl Folds for Scans {
    type Key = ScanKey;
    type Value = ScanValue;

    fn names(key: &ScanKey) -> (&str, String) {
        (&key.org, format!("{}/{}", key.table, key.part))
    }

    fn take(&mut self, key: ScanKey, value: Option<ScanValue>) {
        self.apply(&ScanRecord { key, value });
    }
}

/// What was folded for one organization, and what could not be.
#[derive(Default)]
pub(super) struct Taken<S> {
    pub(super) known: S,
    pub(super) unreadable: BTreeMap<String, Place>,
}

impl<S: Folds> Taken<S> {
    /// Folds a record; see [`super::unreadable`] for what becomes of one that cannot be read.
    pub(super) fn take(&mut self, decoder: &Decoder, key: S::Key, record: &Record) {
        let (_, id) = S::names(&key);
        match decoder.value::<S::Value>(record) {
            Ok(value) => {
                self.unreadable.remove(&id);
                self.known.take(key, value);
            }
            Err(error) => {
                unreadable::tell(record, &id, &error);
                let place = Place::of(record);
                self.known.keep(&id, &place);
                self.unreadable.insert(id, place);
            }
        }
    }
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
