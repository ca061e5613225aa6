//! Merges the contributions to an asset into one record: a pure function of the set of contributions.
//!
//! It uses no clock, no order of arrival and no earlier record, so that the same contributions always give the same record.
//!
//! | rule of a field | what it takes |
//! | --- | --- |
//! | none | the first in rank, empties too |
//! | `prefer` | the first of the preferred sources, then the others, each in rank; a source whose contribution is older than the newest by more than `stale_after` comes last |
//! | `take: newest` | the first in rank that is not blank |
//! | `take: first` | the earliest claim that is not blank |
//! | `take: max` | the greatest value, of the live contributions if there are any |
//! | `take: union` | all values of these, sorted, without repeats |
//! | `agree` | the earliest claim of these; another value is a conflict |
//!
//! Rank: not released, newer `__source_ts_ms`, smaller source key.
//!
//! Two records of one source that are two devices and name one asset are a conflict, too: its subject is `asset_id`, and the
//! first in rank of them gives the record as before. They are two devices when one organization has both, or when their ids
//! differ in case alone.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use windfall_schemas::asset::{AssetMeta, AssetRecord, FieldValue};
use windfall_schemas::conflict::Conflict;
use windfall_schemas::contribution::Contribution;

use crate::collection::CompiledCollection;
use crate::mapping::JOINED_BY;

/// How one field is merged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MergeRule {
    /// Sources in the order of preference: `abm`, or `abm.devices`.
    pub prefer: Vec<String>,
    /// A contribution older than the newest one by more than this is no longer preferred.
    pub stale_after_ms: Option<i64>,
    /// A blank does not win: the next contribution that has a value keeps it.
    pub keep_over_blank: bool,
    /// What is taken where no source is preferred.
    pub choice: Choice,
    /// The sources are expected to agree; that they do not is a conflict.
    pub agree: bool,
}

/// What is taken of several values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// The first in rank.
    #[default]
    Rank,
    /// The first in rank that is not blank.
    Newest,
    /// The earliest claim that is not blank.
    First,
    /// The greatest value.
    Max,
    /// All values.
    Union,
}

/// What the contributions of one asset amount to.
#[derive(Debug, Clone, PartialEq)]
pub struct Merged {
    /// A value for each field of the collection, in its order.
    pub fields: Vec<FieldValue>,
    /// Provenance, of the contribution first in rank; `ts_ms` is left out.
    pub meta: AssetMeta,
    /// The open conflicts: those of fields in their order, then that of the asset itself.
    pub conflicts: Vec<Conflict>,
}

impl Merged {
    /// Makes the record of an asset.
    #[must_use]
    pub fn record(&self, asset_id: &str, version: i64) -> AssetRecord {
        let Self { fields, meta, conflicts: _ } = self;
        let (fields, meta) = (fields.clone(), meta.clone());
        AssetRecord { asset_id: asset_id.to_owned(), fields, deleted: false, version, meta }
    }
}

/// Merges the contributions of one asset; `None` when there are none.
#[must_use]
pub fn merge<'a>(
    collection: &CompiledCollection,
    contributions: impl IntoIterator<Item = &'a Contribution>,
) -> Option<Merged> {
    let mut ranked: Vec<&Contribution> = contributions.into_iter().collect();
    ranked.sort_by(|a, b| rank(a, b));
    let first = *ranked.first()?;
    let mut fields = Vec::with_capacity(collection.merge.len());
    let mut sources = BTreeMap::new();
    let mut conflicts = Vec::new();
    for (position, rule) in collection.merge.iter().enumerate() {
        let chosen = match rule {
            None => Chosen { value: value(first, position).clone(), source_key: None },
            Some(rule) => choose(rule, &ranked, position),
        };
        let name = &collection.schema.fields()[position].name;
        if let Some(source_key) = chosen.source_key.filter(|source_key| *source_key != first.source_key) {
            sources.insert(name.as_str(), source_key);
        }
        if rule.as_ref().is_some_and(|rule| rule.agree) {
            conflicts.extend(disagreement(&ranked, position, name, &chosen.value));
        }
        fields.push(chosen.value);
    }
    conflicts.extend(mistaken(&ranked));
    Some(Merged { fields, meta: meta(first, &sources), conflicts })
}

fn rank(a: &Contribution, b: &Contribution) -> Ordering {
    let order = |c: &Contribution| (c.released, Reverse(c.source_ts_ms));
    order(a).cmp(&order(b)).then_with(|| (&a.source_key, &a.source).cmp(&(&b.source_key, &b.source)))
}

/// The order in which claims count: earlier, then the smaller source key.
fn seniority(a: &Contribution, b: &Contribution) -> Ordering {
    // A claim without a time is the youngest.
    let time = |c: &Contribution| c.claimed_ms.unwrap_or(i64::MAX);
    time(a).cmp(&time(b)).then_with(|| (&a.source_key, &a.source).cmp(&(&b.source_key, &b.source)))
}

fn value(contribution: &Contribution, position: usize) -> &FieldValue {
    contribution.fields.get(position).unwrap_or(&FieldValue::Null)
}

/// The live contributions, or all where none is live.
fn of_best_class<'a>(ranked: &[&'a Contribution]) -> Vec<&'a Contribution> {
    let live = ranked.iter().any(|contribution| !contribution.released);
    ranked.iter().copied().filter(|contribution| !contribution.released || !live).collect()
}

struct Chosen {
    value: FieldValue,
    /// `None` for a value that nobody gave.
    source_key: Option<String>,
}

impl Chosen {
    fn of(contribution: Option<&Contribution>, position: usize) -> Self {
        let value = contribution.map_or(FieldValue::Null, |contribution| value(contribution, position).clone());
        let source_key = contribution.filter(|_| !value.is_null()).map(|contribution| contribution.source_key.clone());
        Self { value, source_key }
    }
}

fn choose(rule: &MergeRule, ranked: &[&Contribution], position: usize) -> Chosen {
    let filled = |contribution: &&Contribution| !value(contribution, position).is_null();
    if rule.agree {
        let found = of_best_class(ranked).into_iter().filter(filled).min_by(|a, b| seniority(a, b));
        return Chosen::of(found, position);
    }
    match rule.choice {
        Choice::Rank => {
            let order = preferred(rule, ranked);
            let found = order.iter().copied().find(|contribution| !rule.keep_over_blank || filled(contribution));
            Chosen::of(found, position)
        }
        Choice::Newest => Chosen::of(ranked.iter().copied().find(filled), position),
        Choice::First => {
            let first = ranked
                .iter()
                .copied()
                .filter(filled)
                .min_by(|a, b| a.released.cmp(&b.released).then_with(|| seniority(a, b)));
            Chosen::of(first, position)
        }
        Choice::Max => {
            // Of equal values the first in rank is named, which `max_by` finds from the back.
            let best = of_best_class(ranked).into_iter().filter(filled).rev();
            Chosen::of(best.max_by(|a, b| order(value(a, position), value(b, position))), position)
        }
        Choice::Union => union(&of_best_class(ranked), position),
    }
}

/// The contributions in the order of preference: live before released, fresh before stale, preferred sources first.
fn preferred<'a>(rule: &MergeRule, ranked: &[&'a Contribution]) -> Vec<&'a Contribution> {
    let newest = ranked.iter().filter_map(|contribution| contribution.source_ts_ms).max();
    let stale = |contribution: &Contribution| match (rule.stale_after_ms, newest, contribution.source_ts_ms) {
        (Some(limit), Some(newest), Some(time)) => newest.saturating_sub(time) > limit,
        _ => false,
    };
    let place = |contribution: &Contribution| {
        let found = rule.prefer.iter().position(|name| names(name, &contribution.source));
        found.unwrap_or(rule.prefer.len())
    };
    let mut order = ranked.to_vec();
    order.sort_by_key(|contribution| (contribution.released, stale(contribution), place(contribution)));
    order
}

/// Says whether `name` means the source: itself, or the family before its dot.
fn names(name: &str, source: &str) -> bool {
    source == name || source.split_once('.').is_some_and(|(family, _)| family == name)
}

fn union(contributions: &[&Contribution], position: usize) -> Chosen {
    let mut items = BTreeSet::new();
    let mut source_keys = Vec::new();
    for contribution in contributions {
        if let FieldValue::String(text) = value(contribution, position) {
            let before = items.len();
            items.extend(text.split(JOINED_BY.trim()).map(str::trim).filter(|item| !item.is_empty()));
            if items.len() > before {
                source_keys.push(contribution.source_key.as_str());
            }
        }
    }
    if items.is_empty() {
        return Chosen { value: FieldValue::Null, source_key: None };
    }
    let text = items.into_iter().collect::<Vec<_>>().join(JOINED_BY);
    Chosen { value: FieldValue::String(text), source_key: Some(source_keys.join(JOINED_BY)) }
}

/// Orders two values of one type; values of different types never meet, as a field has one.
fn order(a: &FieldValue, b: &FieldValue) -> Ordering {
    match (a, b) {
        (FieldValue::String(a), FieldValue::String(b)) => a.cmp(b),
        (FieldValue::Integer(a), FieldValue::Integer(b)) | (FieldValue::Timestamp(a), FieldValue::Timestamp(b)) => {
            a.cmp(b)
        }
        (FieldValue::Decimal(a), FieldValue::Decimal(b)) => a.total_cmp(b),
        (FieldValue::Boolean(a), FieldValue::Boolean(b)) => a.cmp(b),
        _ => a.is_null().cmp(&b.is_null()).reverse(),
    }
}

fn disagreement(ranked: &[&Contribution], position: usize, name: &str, held: &FieldValue) -> Option<Conflict> {
    let mut claims = of_best_class(ranked);
    claims.retain(|contribution| !value(contribution, position).is_null());
    if claims.iter().all(|contribution| value(contribution, position) == held) {
        return None;
    }
    Some(conflict(claims, name, &held.to_json(), |contribution| value(contribution, position).to_json()))
}

/// Names the devices of one source that are taken for one asset.
fn mistaken(ranked: &[&Contribution]) -> Option<Conflict> {
    let mut claims = of_best_class(ranked);
    if claims.len() < 2 {
        return None;
    }
    let spelled = |claim: &Contribution| (claim.source.clone(), device_id(claim).to_lowercase());
    let mut of_org: BTreeMap<_, usize> = BTreeMap::new();
    let mut spellings: BTreeMap<_, BTreeSet<&str>> = BTreeMap::new();
    for claim in &claims {
        *of_org.entry((&claim.source, &claim.org)).or_default() += 1;
        spellings.entry(spelled(claim)).or_default().insert(device_id(claim));
    }
    claims.retain(|claim| of_org[&(&claim.source, &claim.org)] > 1 || spellings[&spelled(claim)].len() > 1);
    let asset_id = json!(claims.first()?.asset_id);
    Some(conflict(claims, ASSET_ID, &asset_id, |_| asset_id.clone()))
}

/// Makes the record of a conflict between claims, of which there is at least one.
fn conflict(
    mut claims: Vec<&Contribution>,
    subject: &str,
    held: &serde_json::Value,
    value: impl Fn(&Contribution) -> serde_json::Value,
) -> Conflict {
    claims.sort_by(|a, b| seniority(a, b));
    let seen_at = claims.iter().filter_map(|contribution| contribution.claimed_ms).max();
    let more = claims.len().saturating_sub(CANDIDATES);
    if more > 0 {
        // The earliest of each value come first: what is shown must be a disagreement.
        let mut values = BTreeSet::new();
        let (firsts, others): (Vec<_>, Vec<_>) =
            claims.into_iter().partition(|claim| values.insert(value(claim).to_string()));
        claims = [firsts, others].concat();
        claims.truncate(CANDIDATES);
        claims.sort_by(|a, b| seniority(a, b));
    }
    let mut candidates: Vec<serde_json::Value> = claims
        .iter()
        .map(|contribution| {
            json!({
                "claimed_ms": contribution.claimed_ms,
                "source": contribution.source,
                "source_key": contribution.source_key,
                "value": value(contribution),
            })
        })
        .collect();
    if more > 0 {
        candidates.push(json!({ "more": more }));
    }
    Conflict {
        asset_id: claims[0].asset_id.clone(),
        subject: subject.to_owned(),
        state: OPEN.to_owned(),
        held: Some(held.to_string()),
        candidates: Some(serde_json::Value::Array(candidates).to_string()),
        seen_at,
    }
}

/// Subject of a conflict between devices that are taken for one asset; no field of a collection has this name.
const ASSET_ID: &str = "asset_id";

/// Claims that a conflict names; how many there are beside them stands behind. A hundred are more than a person compares, and
/// thousands would make a record that is too large to be written.
const CANDIDATES: usize = 100;

/// State of a conflict while the sources disagree.
pub(crate) const OPEN: &str = "open";
/// State of a conflict when they agree again, or the asset is gone.
pub(crate) const CLOSED: &str = "closed";
/// State, in memory alone, of a conflict whose record cannot be read.
pub(crate) const UNREADABLE: &str = "unreadable";

/// The id of a device among those of its organization.
fn device_id(Contribution { source_key, org, .. }: &Contribution) -> &str {
    let of_org = source_key.strip_prefix(org.as_deref().unwrap_or_default());
    of_org.and_then(|rest| rest.strip_prefix('/')).unwrap_or(source_key)
}

fn meta(first: &Contribution, sources: &BTreeMap<&str, String>) -> AssetMeta {
    AssetMeta {
        op: first.op.clone(),
        kind: first.kind.clone(),
        org: first.org.clone(),
        device_id: Some(device_id(first).to_owned()),
        source_ts_ms: first.source_ts_ms,
        ts_ms: None,
        event_id: first.event_id.clone(),
        fingerprint: first.fingerprint.clone(),
        identifier: first.identifier.clone(),
        mapping: first.mapping.clone(),
        sources: (!sources.is_empty()).then(|| json!(sources).to_string()),
    }
}
