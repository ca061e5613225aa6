//! `windfall scans`: lists the last scan of each source and the release plans that wait for approval, and approves them.

use std::collections::BTreeSet;
use std::io::{self, BufRead, IsTerminal, Write};

use chrono::DateTime;
use serde_json::json;
use windfall_producer::ledger::Cluster;
use windfall_producer::run::connect;
use windfall_producer::scans::{self, PlanView, ScanLine};
use windfall_producer::step::Answer;

use windfall_runtime::diagnose::Kind;

use crate::cli::{Form, Global, ScansAction};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::{Output, table};
use crate::scope::Scope;

/// How many devices of a plan the table shows; `-o json` has all of them.
const SHOWN: usize = 20;

/// Lists scans, shows a plan, or approves one.
pub(crate) async fn run(global: &Global, action: &ScansAction) -> crate::Result<Exit> {
    let context = Context::load(global, &Scope::Shared)?;
    let connection = context.tool_connection("scans");
    let cluster = connect(&connection, context.registry(&connection).await?).await?;
    match action {
        ScansAction::List => list(global, &cluster).await,
        ScansAction::Show { plan } => {
            let plan = find(&cluster, plan).await?;
            Output::new(global.output).answer(&plan, &["HELD PLAN", &plan.plan], plan_rows(&plan))?;
            Ok(Exit::Success)
        }
        ScansAction::Approve { plan: Some(plan), .. } => {
            approve(global, &cluster, &[find(&cluster, plan).await?]).await
        }
        ScansAction::Approve { plan: None, .. } => approve(global, &cluster, &scans::held(&cluster).await?).await,
    }
}

async fn find(cluster: &Cluster, plan: &str) -> crate::Result<PlanView> {
    let held = scans::held(cluster).await?;
    held.into_iter().find(|held| held.plan == plan).ok_or_else(|| {
        let failure = Failure::new(Kind::NotFound, format!("no plan `{plan}` is held"));
        failure
            .help("`windfall scans list` shows the plans; one whose devices were all listed again ends by itself")
            .into()
    })
}

async fn list(global: &Global, cluster: &Cluster) -> crate::Result<Exit> {
    let lines = scans::list(cluster).await?;
    let heads = ["SOURCE", "SCAN", "STATE", "DEVICES", "PAGES", "REQUESTS", "STARTED", "SUSPECTS", "HELD"];
    Output::new(global.output).answer(&lines, &heads, lines.iter().map(row).collect())?;
    Ok(Exit::Success)
}

fn row(line: &ScanLine) -> Vec<String> {
    let mut state = line.state.clone();
    let unread = line.unread.iter().map(|(field, count)| format!("`{field}` not understood {count} times"));
    let notes: Vec<_> = line.reasons.iter().map(|reason| reason.why.clone()).chain(unread).collect();
    if !notes.is_empty() {
        state = format!("{state} ({})", notes.join("; "));
    }
    vec![
        line.source.clone(),
        line.scan_id.clone(),
        state,
        line.devices.to_string(),
        line.pages.to_string(),
        line.requests.to_string(),
        time(line.started_at),
        line.suspects.to_string(),
        line.held.join(", "),
    ]
}

fn plan_rows(plan: &PlanView) -> Vec<Vec<String>> {
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    let mut rows = vec![
        row("source", plan.source.clone()),
        row("reason", plan.reason.clone()),
        row("first missed by", format!("scan {}, which ended {}", plan.scan, time(plan.ended_at))),
        row("devices", plan.devices.len().to_string()),
        row("plan hash", plan.plan_hash.clone()),
    ];
    rows.extend(plan.devices.iter().take(SHOWN).map(|device| row("", device.clone())));
    if plan.devices.len() > SHOWN {
        rows.push(row("", format!("… and {} more; all of them with -o json", plan.devices.len() - SHOWN)));
    }
    rows
}

fn time(millis: i64) -> String {
    DateTime::from_timestamp_millis(millis)
        .map_or_else(|| millis.to_string(), |at| at.format("%Y-%m-%d %H:%M:%SZ").to_string())
}

/// Shows the plans, asks once, and approves each plan exactly as it was shown. Stops at the first plan that cannot be approved.
async fn approve(global: &Global, cluster: &Cluster, plans: &[PlanView]) -> crate::Result<Exit> {
    for plan in plans.iter().filter(|_| !global.quiet) {
        eprintln!("{}", table(&["HELD PLAN", &plan.plan], plan_rows(plan), io::stderr().is_terminal()));
    }
    let devices: usize = plans.iter().map(|plan| plan.devices.len()).sum();
    let whose: BTreeSet<String> = plans.iter().map(|plan| format!("`{}`", plan.source)).collect();
    let whose = whose.into_iter().collect::<Vec<_>>().join(", ");
    let question = format!("Publish the release of these {devices} devices of {whose}?");
    if plans.is_empty() {
        eprintln!("no plan is held");
    } else if !confirmed(global, &question)? {
        return Err(Failure::new(Kind::Refused, "nothing was approved").into());
    }
    for plan in plans {
        approve_one(global, cluster, plan).await?;
    }
    Ok(Exit::Success)
}

async fn approve_one(global: &Global, cluster: &Cluster, plan: &PlanView) -> crate::Result<()> {
    let id = format!("approve-{}-{}", plan.plan, uuid::Uuid::now_v7());
    let answer = scans::approve(cluster, plan, &id).await?;
    match &answer {
        Some(approved @ Answer::Approved { released }) => {
            told(global, plan, approved, &format!("approved: {released} devices are published as released"))
        }
        Some(Answer::Stale { .. }) => {
            let failure =
                Failure::new(Kind::Refused, format!("the plan `{}` has changed since it was shown", plan.plan));
            Err(failure.help(format!("look again: `windfall scans show {}`", plan.plan)).into())
        }
        Some(Answer::Unknown) => {
            let failure = Failure::new(Kind::NotFound, format!("the plan `{}` is not held any more", plan.plan));
            Err(failure.help("`windfall scans list` shows what is held").into())
        }
        None => {
            let what = format!("no producer answered within {} s", scans::ANSWER_WITHIN.as_secs());
            let help = "start the producer of this source: it obeys the approval when it comes up";
            Err(Failure::new(Kind::Refused, what).help(help).into())
        }
    }
}

fn told(global: &Global, plan: &PlanView, approval: &Answer, text: &str) -> crate::Result<()> {
    let mut output = Output::new(global.output);
    if global.output == Form::Table {
        output.line(text)?;
        output.flush()?;
        return Ok(());
    }
    output.answer(&json!({ "source": plan.source, "plan": plan.plan, "approval": approval }), &[], Vec::new())
}

/// Asks on the terminal. Without a terminal or with `--no-input`, only `--yes` confirms.
pub(crate) fn confirmed(global: &Global, question: &str) -> crate::Result<bool> {
    if global.yes {
        return Ok(true);
    }
    if global.no_input || !io::stdin().is_terminal() {
        let failure = Failure::new(Kind::Usage, format!("{question} Nobody can be asked here"));
        return Err(failure.help("add `--yes` once you have seen it").into());
    }
    eprint!("{question} [y/N] ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
