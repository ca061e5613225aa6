//! What is told of a scan in `windfall.notifications`, in Debezium's words.

use std::collections::BTreeMap;

use windfall_schemas::notification::Notification;
use windfall_schemas::signal::ApproveScan;

use crate::checkpoint::{Header, Plan};
use crate::event::Origin;
use crate::step::Answer;

/// What every notification of a scan is called; Debezium's tools know the name.
const AGGREGATE: &str = "Incremental Snapshot";
/// The same for the first scan of a table.
const FIRST_AGGREGATE: &str = "Initial Snapshot";

fn notification(header: &Header, kind: &str, facts: BTreeMap<String, String>, at: i64) -> Notification {
    let aggregate = if header.first_scan { FIRST_AGGREGATE } else { AGGREGATE };
    Notification {
        id: format!("{}-{}", header.scan_id, kind.to_lowercase()),
        kind: kind.to_owned(),
        aggregate_type: aggregate.to_owned(),
        additional_data: Some(facts),
        timestamp: at,
    }
}

fn facts(origin: &Origin, header: &Header) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("org".to_owned(), origin.org.clone()),
        ("table".to_owned(), crate::checkpoint::DEVICES.to_owned()),
        ("scan_id".to_owned(), header.scan_id.clone()),
        ("scan_number".to_owned(), header.number.to_string()),
        ("pages".to_owned(), header.page.to_string()),
        ("devices".to_owned(), header.devices.to_string()),
        ("requests".to_owned(), header.requests.to_string()),
    ])
}

/// Tells that a scan begins.
#[must_use]
pub fn started(origin: &Origin, header: &Header, at: i64) -> Notification {
    notification(header, "STARTED", facts(origin, header), at)
}

/// Tells that a page is done.
#[must_use]
pub fn in_progress(origin: &Origin, header: &Header, at: i64) -> Notification {
    let mut told = notification(header, "IN_PROGRESS", facts(origin, header), at);
    told.id = format!("{}-page-{}", header.scan_id, header.page);
    told
}

/// Tells how a scan has ended, with the count of each kind and the end of each partition: up to there it is complete.
#[must_use]
pub fn completed(origin: &Origin, header: &Header, ends: &BTreeMap<i32, i64>, at: i64) -> Notification {
    let mut facts = facts(origin, header);
    facts.insert("state".to_owned(), header.state.as_str().to_owned());
    for (kind, count) in &header.counts {
        facts.insert(format!("count.{kind}"), count.to_string());
    }
    for (partition, end) in ends {
        facts.insert(format!("end_offset.{partition}"), end.to_string());
    }
    notification(header, "COMPLETED", facts, at)
}

/// Tells that a scan has been given up.
#[must_use]
pub fn aborted(origin: &Origin, header: &Header, why: &str, at: i64) -> Notification {
    let mut facts = facts(origin, header);
    facts.insert("reason".to_owned(), why.to_owned());
    notification(header, "ABORTED", facts, at)
}

/// Tells that a plan waits for a person.
#[must_use]
pub fn held(origin: &Origin, header: &Header, plan: &Plan, reason: &str, at: i64) -> Notification {
    let mut facts = facts(origin, header);
    facts.insert("plan".to_owned(), plan.scan_id.clone());
    facts.insert("plan_hash".to_owned(), plan.hash());
    facts.insert("held".to_owned(), plan.len().to_string());
    facts.insert("reason".to_owned(), reason.to_owned());
    notification(header, "HELD", facts, at)
}

/// Answers an approval; the notification has the signal's id.
#[must_use]
pub fn answered(origin: &Origin, signal_id: &str, approval: &ApproveScan, answer: &Answer, at: i64) -> Notification {
    let mut facts = BTreeMap::from([
        ("org".to_owned(), origin.org.clone()),
        ("plan".to_owned(), approval.plan.clone()),
        ("plan_hash".to_owned(), approval.plan_hash.clone()),
    ]);
    let (kind, word, fact) = match answer {
        Answer::Approved { released } => ("COMPLETED", "approved", Some(("released", released.to_string()))),
        Answer::Stale { plan_hash } => ("SKIPPED", "stale", Some(("plan_hash_now", plan_hash.clone()))),
        Answer::Unknown => ("SKIPPED", "unknown", None),
    };
    facts.insert("answer".to_owned(), word.to_owned());
    facts.extend(fact.map(|(name, value)| (name.to_owned(), value)));
    Notification {
        id: signal_id.to_owned(),
        kind: kind.to_owned(),
        aggregate_type: "Approval".to_owned(),
        additional_data: Some(facts),
        timestamp: at,
    }
}
