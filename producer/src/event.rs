//! From a change to the record that readers get: the envelope, its key and its headers.

use std::sync::Arc;

use chrono::{DateTime, SecondsFormat};
use windfall_runtime::kafka::Headers;
use windfall_schemas::device::DeviceValue;
use windfall_schemas::envelope::{Channel, Envelope, Op, Snapshot, Source};
use windfall_schemas::fingerprint::{event_id, sequence};
use windfall_schemas::server::ServerValue;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::diff::{Change, Last};

/// Version of the API whose paths we ask.
const API_VERSION: &str = "v1";

/// What all events of one organization have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Alias of the organization.
    pub org: String,
    /// Topic prefix without its dot, `windfall` when it is empty.
    pub name: String,
    /// `business` or `school`.
    pub api: String,
}

/// The scan and the page on which a change was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanPage {
    /// Id of the scan.
    pub scan_id: String,
    /// When the scan began.
    pub started_at: i64,
    /// Number of the page, from 1; `None` for what was read beside the pages.
    pub page: Option<u32>,
}

/// Where and when a change was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Which channel saw it.
    pub channel: Channel,
    /// The scan, where one saw it or led to it.
    pub scan: Option<ScanPage>,
    /// When the answer was read, in epoch milliseconds.
    pub read_at: i64,
    /// When the event is made, in epoch milliseconds.
    pub made_at: i64,
    /// Apple's id of the request.
    pub request_id: Option<String>,
    /// Path of the resource.
    pub url: Option<String>,
}

/// A record whose changes are published: what an event must know of it.
pub trait Recorded {
    /// Name of its table.
    const TABLE: &'static str;
    /// Word for it in `ce_type`.
    const NOUN: &'static str;
    /// Returns its id.
    fn id(&self) -> &str;
    /// Returns Apple's time of its last change.
    fn updated_at(&self) -> Option<i64>;
    /// Returns the hash of its fields that are present.
    fn fingerprint(&self) -> String;
}

impl Recorded for DeviceValue {
    const TABLE: &'static str = "devices";
    const NOUN: &'static str = "device";

    fn id(&self) -> &str {
        &self.device_id
    }

    fn updated_at(&self) -> Option<i64> {
        self.updated_date_time
    }

    fn fingerprint(&self) -> String {
        DeviceValue::fingerprint(self)
    }
}

impl Recorded for ServerValue {
    const TABLE: &'static str = "servers";
    const NOUN: &'static str = "server";

    fn id(&self) -> &str {
        &self.server_id
    }

    fn updated_at(&self) -> Option<i64> {
        self.updated_date_time
    }

    fn fingerprint(&self) -> String {
        ServerValue::fingerprint(self)
    }
}

/// How a change is published.
#[derive(Debug, Clone, PartialEq)]
pub struct Telling {
    /// Which snapshot mark the event carries; anything but `false` makes it an `r`.
    pub snapshot: Snapshot,
    /// Place on the page, from 0.
    pub page_index: Option<u32>,
    /// What the change rests on.
    pub evidence: Vec<String>,
    /// Whether Apple showed the record as it is after the change; if not, the change has the time of the reading.
    pub shown: bool,
}

impl Telling {
    /// Tells a change that Apple showed, outside a snapshot.
    pub fn shown() -> Self {
        Self { snapshot: Snapshot::False, page_index: None, evidence: Vec::new(), shown: true }
    }

    /// Tells a change that was inferred: its time is the time of the reading.
    pub fn inferred(evidence: Vec<String>) -> Self {
        Self { evidence, shown: false, ..Self::shown() }
    }
}

/// Makes the envelope of a change.
#[must_use]
pub fn envelope<V: Recorded>(origin: &Origin, seen: &Seen, change: Change<V>, telling: Telling) -> Envelope<Arc<V>> {
    let Change { kind, changed, before, after, number, fingerprint, last } = change;
    let op = match (&before, &after) {
        (_, None) => Op::Delete,
        (None, Some(_)) if telling.snapshot == Snapshot::False => Op::Create,
        (None, Some(_)) => Op::Read,
        (Some(_), Some(_)) => Op::Update,
    };
    let record = after.as_deref().or(before.as_deref());
    let id = record.map_or("", Recorded::id);
    let updated_at = record.and_then(Recorded::updated_at).filter(|_| telling.shown);
    let event_id = event_id(&origin.org, V::TABLE, id, number, &fingerprint);
    let source = source::<V>(origin, seen, number, happened_at(updated_at, seen.read_at, last), &telling);
    Envelope {
        event_id: Some(event_id),
        source,
        op,
        ts_ms: Some(seen.made_at),
        ts_us: Some(seen.made_at * 1000),
        ts_ns: None,
        transaction: None,
        kind: Some(kind),
        changed: changed.into_iter().map(str::to_owned).collect(),
        fingerprint: Some(fingerprint),
        evidence: telling.evidence,
        before,
        after,
    }
}

/// Says when a change happened, as nearly as it is known.
///
/// | Apple's time of the last update | the time of the change |
/// | --- | --- |
/// | later than the last reading of the record, not later than this one | Apple's |
/// | any other: something changed that Apple's time does not tell | that of this reading |
///
/// It never lies before that of the record's last event.
fn happened_at(updated_at: Option<i64>, read_at: i64, last: Option<Last>) -> i64 {
    let Last { read_at: known_at, told_at } = last.unwrap_or(Last { read_at: i64::MIN, told_at: i64::MIN });
    updated_at.filter(|at| known_at < *at && *at <= read_at).unwrap_or(read_at).max(told_at)
}

fn source<V: Recorded>(origin: &Origin, seen: &Seen, number: u64, ts_ms: i64, telling: &Telling) -> Source {
    Source {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        connector: "abm".to_owned(),
        name: origin.name.clone(),
        ts_ms,
        snapshot: telling.snapshot.clone(),
        db: origin.org.clone(),
        sequence: Some(sequence(number)),
        ts_us: Some(ts_ms * 1000),
        ts_ns: None,
        table: V::TABLE.to_owned(),
        api: Some(origin.api.clone()),
        api_version: Some(API_VERSION.to_owned()),
        scan_id: seen.scan.as_ref().map(|scan| scan.scan_id.clone()),
        scan_started_ms: seen.scan.as_ref().map(|scan| scan.started_at),
        page: seen.scan.as_ref().and_then(|scan| scan.page).and_then(|page| i32::try_from(page).ok()),
        page_index: telling.page_index.and_then(|index| i32::try_from(index).ok()),
        request_id: seen.request_id.clone(),
        url: seen.url.clone(),
        channel: Some(seen.channel.clone()),
        actor_type: None,
        actor_id: None,
        actor_name: None,
        audit_event_id: None,
    }
}

/// Makes the CloudEvents headers of an event; the tombstone behind it carries the same but the content type.
#[must_use]
pub fn headers<V: Recorded>(envelope: &Envelope<Arc<V>>, traceparent: &str, tombstone: bool) -> Headers {
    let id = envelope.after.as_deref().or(envelope.before.as_deref()).map_or("", Recorded::id);
    let kind = envelope.kind.as_ref().map_or("", |kind| kind.as_str());
    let mut headers = Headers::new()
        .with("ce_specversion", "1.0")
        .with("ce_id", envelope.event_id.clone().unwrap_or_default())
        .with("ce_type", format!("abm.{}.{kind}", V::NOUN))
        .with("ce_source", format!("/abm/{}/{}", envelope.source.db, V::TABLE))
        .with("ce_subject", id.to_owned())
        .with("ce_time", rfc3339(envelope.source.ts_ms));
    if !tombstone {
        headers.push("content-type", "application/avro");
    }
    headers.with("traceparent", traceparent.to_owned())
}

/// Names the span of a page: one for all of its records, the same when the page is sent again.
pub fn traceparent(scan_id: &str, span: &str) -> String {
    // Either id of all zeros is forbidden; a set bit keeps clear of it.
    let trace = xxh3_128(scan_id.as_bytes()) | 1;
    let span = xxh3_64(format!("{scan_id}/{span}").as_bytes()) | 1;
    format!("00-{trace:032x}-{span:016x}-01")
}

/// Writes epoch milliseconds as RFC 3339 in UTC.
pub fn rfc3339(millis: i64) -> String {
    DateTime::from_timestamp_millis(millis)
        .map_or_else(|| millis.to_string(), |at| at.to_rfc3339_opts(SecondsFormat::Millis, true))
}
