//! From a source record to contributions, withdrawals and a link: the map step, pure.

use std::sync::Arc;

use windfall_schemas::contribution::{Contribution, ContributionKey};
use windfall_schemas::link::{Link, LinkKey};

use crate::event::SourceEvent;
use crate::links::{Follow, SourcePosition, follow};
use crate::mapping::{Mapped, Program};

/// A source record, decoded.
#[derive(Debug, Clone)]
pub struct SourceRecord {
    /// The source table, without prefix.
    pub source: Arc<str>,
    /// The fields of its key, joined by `/`.
    pub source_key: String,
    /// Where it stands.
    pub at: SourcePosition,
    /// The event; `None` is a tombstone.
    pub event: Option<SourceEvent>,
}

impl SourceRecord {
    /// The key of the record's link.
    pub fn link_key(&self) -> LinkKey {
        LinkKey { source: self.source.to_string(), source_key: self.source_key.clone() }
    }
}

/// The outcome of mapping a source record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// It contributes to an asset.
    Mapped,
    /// It was mapped before.
    Stale,
    /// It was deleted; what it contributed is withdrawn.
    Withdrawn,
    /// The mapping's `where` leaves it out; what it contributed is withdrawn.
    Filtered,
    /// It has no identifier that can be used.
    NoIdentifier,
}

impl Outcome {
    /// The outcome as metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mapped => "ok",
            Self::Stale => "stale",
            Self::Withdrawn => "withdrawn",
            Self::Filtered => "filtered",
            Self::NoIdentifier => "no_identifier",
        }
    }
}

/// What follows from a source record, in the order in which it is to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct MapStep {
    /// Contributions that are withdrawn.
    pub withdrawals: Vec<ContributionKey>,
    /// The contribution that is made.
    pub contribution: Option<Contribution>,
    /// The link, where it changes.
    pub link: Option<Link>,
    /// What became of the record.
    pub outcome: Outcome,
}

/// Maps a source record, given the link that is known of it.
#[must_use]
pub fn map(program: &Program, known: Option<&Link>, record: SourceRecord) -> MapStep {
    let key = record.link_key();
    let SourceRecord { source: _, source_key: _, at, event } = record;
    let (mapped, mut outcome) = evaluate(program, event);
    let asset = mapped.as_ref().and_then(|(mapped, event)| Some((mapped.identity.as_ref()?, event.ts_ms)));
    let follow = follow(&key, known, &at, asset.map(|(identity, ts_ms)| (identity.asset_id.as_str(), ts_ms)));
    let Follow::Go { withdrawn, claimed_ms, link } = follow else {
        outcome = Outcome::Stale;
        return MapStep { withdrawals: Vec::new(), contribution: None, link: None, outcome };
    };
    let withdrawals = withdrawn
        .into_iter()
        .map(|asset_id| ContributionKey { asset_id, source: key.source.clone(), source_key: key.source_key.clone() })
        .collect();
    let contribution = mapped.and_then(|(mapped, event)| contribution(program, key, &at, mapped, event, claimed_ms));
    MapStep { withdrawals, contribution, link, outcome }
}

type Evaluated = Option<(Mapped, SourceEvent)>;

fn evaluate(program: &Program, event: Option<SourceEvent>) -> (Evaluated, Outcome) {
    let Some(mut event) = event.filter(|event| event.op != "d") else { return (None, Outcome::Withdrawn) };
    let Some(after) = event.after.take() else { return (None, Outcome::Withdrawn) };
    match program.evaluate(program.table.row(after)) {
        None => (None, Outcome::Filtered),
        Some(mapped) if mapped.identity.is_none() => (None, Outcome::NoIdentifier),
        Some(mapped) => (Some((mapped, event)), Outcome::Mapped),
    }
}

fn contribution(
    program: &Program,
    key: LinkKey,
    at: &SourcePosition,
    mapped: Mapped,
    event: SourceEvent,
    claimed_ms: i64,
) -> Option<Contribution> {
    let Mapped { values, identity, released } = mapped;
    let identity = identity?;
    let SourceEvent { after: _, ts_ms, org, op, kind, event_id, fingerprint } = event;
    Some(Contribution {
        asset_id: identity.asset_id,
        source: key.source,
        source_key: key.source_key,
        fields: values,
        released,
        op: Some(op),
        kind,
        org: Some(org),
        source_ts_ms: Some(ts_ms),
        claimed_ms: Some(claimed_ms),
        event_id,
        fingerprint,
        source_partition: Some(at.partition),
        source_offset: Some(at.offset),
        identifier: Some(identity.field),
        mapping: Some(program.version.clone()),
    })
}
