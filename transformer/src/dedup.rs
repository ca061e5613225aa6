//! What is to be published of an asset, given its last record and what its contributions amount to now.

use windfall_schemas::asset::AssetRecord;
use windfall_schemas::conflict::Conflict;

use crate::merge::{CLOSED, Merged};

/// What happens to the record of an asset.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Nothing differs; nothing is published.
    Unchanged,
    /// The record is published.
    Publish(AssetRecord),
    /// The asset has no contribution left: its last fields once more with `__deleted`, then a tombstone.
    Delete(AssetRecord),
    /// The `__deleted` record stands already, its tombstone is missing.
    Tombstone,
}

/// Decides what is to be published.
///
/// `cause` is the offset of the contribution that made us look, `version` the last version known of the asset. Records are
/// equal when fields, `__deleted` and chosen sources are; times, offsets and the event's names are not compared.
#[must_use]
pub fn step(
    asset_id: &str,
    last: Option<&AssetRecord>,
    merged: Option<&Merged>,
    cause: i64,
    version: i64,
    now_ms: i64,
) -> Step {
    let version = cause.max(version.saturating_add(1));
    let Some(merged) = merged else {
        return match last {
            None => Step::Unchanged,
            Some(last) if last.deleted => Step::Tombstone,
            Some(last) => Step::Delete(deleted(last, version, now_ms)),
        };
    };
    let mut record = merged.record(asset_id, version);
    record.meta.ts_ms = Some(now_ms);
    match last {
        Some(last) if same(last, &record) => Step::Unchanged,
        _ => Step::Publish(record),
    }
}

fn deleted(last: &AssetRecord, version: i64, now_ms: i64) -> AssetRecord {
    let mut record = AssetRecord { deleted: true, version, ..last.clone() };
    record.meta.ts_ms = Some(now_ms);
    record
}

fn same(a: &AssetRecord, b: &AssetRecord) -> bool {
    let sources =
        |record: &AssetRecord| (record.meta.org.clone(), record.meta.device_id.clone(), record.meta.sources.clone());
    a.deleted == b.deleted && a.fields == b.fields && sources(a) == sources(b)
}

/// Decides which conflict records are to be published: those that opened or changed, and those that ended.
#[must_use]
pub fn conflicts(known: &[Conflict], merged: Option<&Merged>) -> Vec<Conflict> {
    let now = merged.map_or(&[][..], |merged| &merged.conflicts);
    let mut records: Vec<Conflict> =
        now.iter().filter(|conflict| !known.iter().any(|known| same_conflict(known, conflict))).cloned().collect();
    let ended = known
        .iter()
        .filter(|known| known.state != CLOSED && !now.iter().any(|conflict| conflict.subject == known.subject));
    for known in ended {
        let seen_at = merged.and_then(|merged| merged.meta.source_ts_ms);
        records.push(Conflict { state: CLOSED.to_owned(), seen_at, ..known.clone() });
    }
    records
}

fn same_conflict(a: &Conflict, b: &Conflict) -> bool {
    (&a.subject, &a.state, &a.held, &a.candidates) == (&b.subject, &b.state, &b.held, &b.candidates)
}
