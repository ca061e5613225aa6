//! What `windfall scans` shows and asks: scans, suspects and held plans, read from `abm.scans`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use windfall_runtime::diagnose::{Diagnose, Diagnosis};
use windfall_runtime::kafka::Outgoing;
use windfall_runtime::kafka::sender::{SendError, Sender};
use windfall_runtime::kafka::table::{self, FoldRequest};
use windfall_schemas::notification::Notification;
use windfall_schemas::signal::{ApproveScan, Signal};

use crate::checkpoint::{Header, Plan, Reason, Scans};
use crate::ledger::{self, Cluster, Ledger, LedgerError};
use crate::step::Answer;

/// How long an approval waits for its answer.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How often the answer is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// One scan, as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScanLine {
    /// Name of the source.
    pub source: String,
    /// Id of the scan.
    pub scan_id: String,
    /// running, complete, incomplete, held.
    pub state: String,
    /// Pages done.
    pub pages: u32,
    /// Devices seen.
    pub devices: u64,
    /// Requests made.
    pub requests: u64,
    /// When it began, in epoch milliseconds.
    pub started_at: i64,
    /// When it ended, in epoch milliseconds.
    pub finished_at: Option<i64>,
    /// Kind to number of events.
    pub counts: BTreeMap<String, u64>,
    /// Why it is not complete.
    pub reasons: Vec<Reason>,
    /// How often each field was not read, since its attribute had a value that could not be understood.
    pub unread: BTreeMap<String, u64>,
    /// Missing devices that no evidence has settled.
    pub suspects: usize,
    /// Names of the plans that wait for a person.
    pub held: Vec<String>,
}

/// One held plan, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlanView {
    /// Name of the source.
    pub source: String,
    /// Name of the plan.
    pub plan: String,
    /// Hash of the ids that it holds now; an approval must name it.
    pub plan_hash: String,
    /// Why they are held.
    pub reason: String,
    /// Number of the scan that first missed them.
    pub scan: u64,
    /// When that scan ended, in epoch milliseconds.
    pub ended_at: i64,
    /// The devices that would be released.
    pub devices: Vec<String>,
}

/// What can go wrong when scans are shown or approved.
#[derive(Debug, thiserror::Error)]
pub enum ScansError {
    /// The topic could not be read.
    #[error("scans were not read")]
    Read(#[from] LedgerError),
    /// The signal was not sent.
    #[error("approval was not sent")]
    Send(#[from] SendError),
}

impl Diagnose for ScansError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            ScansError::Read(error) => error.diagnosis(),
            ScansError::Send(error) => error.diagnosis(),
        }
    }
}

/// Lists the newest scan of each source, in the order of their names.
///
/// # Errors
/// When `abm.scans` cannot be read.
pub async fn list(cluster: &Cluster) -> Result<Vec<ScanLine>, ScansError> {
    let all = ledger::all_scans(cluster).await?;
    Ok(all.iter().filter_map(|(source, scans)| line(source, scans)).collect())
}

fn line(source: &str, scans: &Scans) -> Option<ScanLine> {
    let header: &Header = scans.devices.as_ref()?;
    Some(ScanLine {
        source: source.to_owned(),
        scan_id: header.scan_id.clone(),
        state: header.state.as_str().to_owned(),
        pages: header.page,
        devices: header.devices,
        requests: header.requests,
        started_at: header.started_at,
        finished_at: header.finished_at,
        counts: header.counts.clone(),
        reasons: header.reasons.clone(),
        unread: header.unread.clone(),
        suspects: scans.suspects.len(),
        held: scans.plans.keys().cloned().collect(),
    })
}

/// Says why a source refuses its topics as another log than it wrote: [`LedgerError::Lost`] or [`LedgerError::LostScans`].
///
/// # Errors
/// When a topic cannot be read.
pub async fn lost(cluster: &Cluster, source: &str) -> Result<Option<LedgerError>, ScansError> {
    match ledger::memory(cluster, source, |_| ()).await {
        Ok(_) => Ok(None),
        Err(lost @ (LedgerError::Lost { .. } | LedgerError::LostScans { .. })) => Ok(Some(lost)),
        Err(error) => Err(error.into()),
    }
}

/// Accepts what [`lost`] has found: the source goes on with its topics as they are, from its next start on.
///
/// # Errors
/// When a topic cannot be read or written; nothing has changed then.
pub async fn accept(cluster: &Cluster, source: &str, lost: &LedgerError, at: i64) -> Result<(), ScansError> {
    let known = matches!(lost, LedgerError::LostScans { .. });
    Ok(Ledger::accept(cluster, source, known, at).await?)
}

/// Shows every held plan, in the order of sources and names.
///
/// # Errors
/// When `abm.scans` cannot be read.
pub async fn held(cluster: &Cluster) -> Result<Vec<PlanView>, ScansError> {
    let all = ledger::all_scans(cluster).await?;
    let plans = all.iter().flat_map(|(source, scans)| scans.plans.iter().map(move |(name, plan)| (source, name, plan)));
    Ok(plans.map(|(source, name, plan)| view(source, name, plan)).collect())
}

fn view(source: &str, name: &str, plan: &Plan) -> PlanView {
    PlanView {
        source: source.to_owned(),
        plan: name.to_owned(),
        plan_hash: plan.hash(),
        reason: plan.origin.reason.clone(),
        scan: plan.origin.scan,
        ended_at: plan.origin.ended_at,
        devices: plan.ids().into_iter().collect(),
    }
}

/// Asks the producer to publish a plan as it was shown, and waits for its answer.
///
/// `signal_id` is chosen by the caller and carried by the answer. The plan is published only when it still holds the
/// devices of `plan.plan_hash`; approving twice does nothing. `None` means that no producer has answered in time: the signal
/// stays in its topic, and may still be obeyed.
///
/// # Errors
/// When a topic cannot be read or written.
pub async fn approve(cluster: &Cluster, plan: &PlanView, signal_id: &str) -> Result<Option<Answer>, ScansError> {
    let notifications = cluster.names.notifications();
    let ends = table::ends(&cluster.connection, &notifications, [0]).await.map_err(LedgerError::from)?;
    let mut from: BTreeMap<i32, i64> = ends.into_iter().map(|(partition, extent)| (partition, extent.end)).collect();
    let data = ApproveScan { source: plan.source.clone(), plan: plan.plan.clone(), plan_hash: plan.plan_hash.clone() };
    let signal = Signal::approve_scan(signal_id, &data);
    let key = cluster.names.source_name().as_bytes().to_vec();
    let record = Outgoing::new(cluster.names.signals(), key, signal.to_json());
    Sender::new(&cluster.connection)?.send(&[record]).await?;

    let deadline = tokio::time::Instant::now() + ANSWER_WITHIN;
    while tokio::time::Instant::now() < deadline {
        if let Some(answer) = answer(cluster, &notifications, &mut from, signal_id).await? {
            return Ok(Some(answer));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(None)
}

async fn answer(
    cluster: &Cluster,
    topic: &str,
    from: &mut BTreeMap<i32, i64>,
    signal_id: &str,
) -> Result<Option<Answer>, ScansError> {
    let request = FoldRequest::tail(topic, from);
    let (wanted, codec) = (signal_id.to_owned(), cluster.codecs.notification_value.clone());
    let folded = table::fold(&cluster.connection, request, None, move |found: &mut Option<Notification>, record| {
        // Others write here too; what is not readable is not our answer.
        if let Some(notification) = record.value.and_then(|value| codec.decode::<Notification>(&value).ok())
            && notification.id == wanted
        {
            *found = Some(notification);
        }
        Ok(())
    });
    let folded = folded.await.map_err(LedgerError::from)?;
    *from = folded.next_offsets;
    Ok(folded.state.map(|notification| read_answer(&notification)))
}

fn read_answer(notification: &Notification) -> Answer {
    let facts = notification.additional_data.clone().unwrap_or_default();
    let fact = |name: &str| facts.get(name).cloned().unwrap_or_default();
    match fact("answer").as_str() {
        "approved" => Answer::Approved { released: fact("released").parse().unwrap_or(0) },
        "stale" => Answer::Stale { plan_hash: fact("plan_hash_now") },
        _ => Answer::Unknown,
    }
}
