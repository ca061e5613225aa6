//! `windfall run`: runs stages in one process until a signal or, with `--once`, until the present input is processed.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use windfall_runtime::clock::SystemClock;
use windfall_runtime::config::suggestion;
use windfall_runtime::diagnose::{Diagnosed, Kind};
use windfall_runtime::health::{self, StatusRegistry};
use windfall_runtime::http::{self, Shown};
use windfall_runtime::kafka::reach;
use windfall_runtime::kafka::topics::ensure;
use windfall_runtime::metrics;
use windfall_runtime::patience::until_it_passes;
use windfall_runtime::shutdown::{self, Crew, Next};
use windfall_runtime::telemetry::chain;
use windfall_sink::SinkConfig;

use crate::cli::{Global, RunArgs, StageArgs, StageName};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::report::report;
use crate::scope::Scope;
use crate::stages::Stages;

/// The limit that the status shows for a part that has not begun yet; such a part is not ready in any case.
const BEGINNING: Duration = Duration::from_secs(60);

/// The stages to run.
struct Plan {
    producer: bool,
    transformer: bool,
    sinks: Vec<SinkConfig>,
}

/// Runs the stages that the command line names.
pub(crate) async fn run(global: &Global, args: &RunArgs) -> crate::Result<Exit> {
    let context = Context::load(global, &Scope::of(&args.what)?)?;
    for warning in &context.warnings {
        warn!(configuration = %global.config.display(), "{warning}");
    }
    context.test_mappings()?;
    let plan = plan(&context, &args.what)?;
    let stop = shutdown::on_signal()?;
    let begun = tokio::select! {
        biased;
        // Nothing is in flight yet, so the future can be dropped.
        () = stop.cancelled() => None,
        stages = begin(global, args.once, context, &plan, &stop) => stages?,
    };
    let exit = match begun {
        None => Exit::Success,
        Some(stages) if args.once => once(global, stages, &plan).await,
        Some(stages) => serve_all(global, stages, plan).await,
    };
    info!(exit = exit as u8, "stopped");
    Ok(if args.once && stop.is_cancelled() { Exit::Interrupted } else { exit })
}

/// Creates the topics and connects to the registry, so that no stage starts before its topics exist.
async fn begin(
    global: &Global,
    once: bool,
    context: Context,
    plan: &Plan,
    stop: &CancellationToken,
) -> crate::Result<Option<Stages>> {
    let status = StatusRegistry::new(&context.instance, SystemClock::shared());
    let parts = announce(&context, plan, &status);
    // A single run ends by itself and is not scraped, unless `--http` names an address.
    if !once || global.http.is_some() {
        serve(context.listen.as_deref(), &status, stop).await?;
    }
    if !once {
        reach::watch(&context.connection("reach"), &status, SystemClock::shared(), stop.clone())
            .map_err(Failure::of)?;
    }
    let prepare = || async {
        ensure(&context.connection("topics"), &context.topics(), context.config.kafka.manage_topics).await?;
        let registry = context.registry(&context.connection("registry")).await?;
        context.compare_types(&registry).await?;
        Ok(registry)
    };
    // A single run fails at once, since its scheduler tries again.
    let prepared = match once {
        true => prepare().await.map(Some),
        false => until_it_passes("process", &parts, stop, Diagnosed::diagnosis, prepare).await,
    };
    let Some(registry) = prepared? else { return Ok(None) };
    info!(instance = context.instance, sinks = plan.sinks.len(), once, "started");
    Ok(Some(Stages {
        context: Arc::new(context),
        registry,
        clock: SystemClock::shared(),
        status,
        dynamic: once,
        stop: stop.child_token(),
    }))
}

fn plan(context: &Context, args: &StageArgs) -> crate::Result<Plan> {
    let all = args.stage == StageName::All;
    let sinks = match (&args.name, args.stage) {
        (Some(name), _) => vec![named_sink(context, name)?],
        (None, StageName::Sink | StageName::All) => context.config.sinks.clone(),
        (None, _) => Vec::new(),
    };
    let producer = all || args.stage == StageName::Producer;
    if producer && !all && context.config.sources.is_empty() {
        let failure = Failure::new(Kind::Configuration, "no source is configured, so there is nothing to read");
        return Err(failure.help("name an organization under `sources:`").into());
    }
    if args.stage == StageName::Sink && sinks.is_empty() {
        let failure = Failure::new(Kind::Configuration, "no sink is configured, so there is nothing to write");
        return Err(failure.help("name a store under `sinks:`").into());
    }
    let producer = producer && !context.config.sources.is_empty();
    Ok(Plan { producer, transformer: all || args.stage == StageName::Transformer, sinks })
}

/// Finds the sink of this name.
pub(crate) fn named_sink(context: &Context, name: &str) -> crate::Result<SinkConfig> {
    let sinks = &context.config.sinks;
    if let Some(sink) = sinks.iter().find(|sink| sink.name == name) {
        return Ok(sink.clone());
    }
    let known: Vec<_> = sinks.iter().map(|sink| sink.name.as_str()).collect();
    Err(Failure::new(Kind::NotFound, format!("no sink is called `{name}`")).help(suggestion(name, &known)).into())
}

/// Registers the status of every part before any of them starts, so that the process is not ready until all have started.
///
/// Each stage later registers its part again, with its own limit.
fn announce(context: &Context, plan: &Plan, status: &StatusRegistry) -> Vec<health::StatusPart> {
    let mut names = Vec::new();
    if plan.producer {
        names.extend(context.config.sources.iter().map(|source| format!("producer {}", source.name)));
    }
    if plan.transformer {
        let collections = context.collections.iter().map(|loaded| loaded.collection.name.as_str());
        names.extend(collections.flat_map(|name| [format!("map {name}"), format!("merge {name}")]));
    }
    names.extend(plan.sinks.iter().map(|sink| format!("sink {}", sink.name)));
    names.into_iter().map(|name| status.part(name, BEGINNING)).collect()
}

/// Serves health, metrics and status until the process ends, also during the drain. Without an address no metrics are collected.
async fn serve(listen: Option<&str>, status: &StatusRegistry, stop: &CancellationToken) -> crate::Result<()> {
    let (draining, registry) = (stop.clone(), status.clone());
    tokio::spawn(async move {
        draining.cancelled().await;
        registry.drain();
    });
    let Some(listen) = listen else { return Ok(()) };
    let handle = metrics::install().map_err(Failure::of)?;
    let (address, listener) = http::bind(listen).await?;
    info!(%address, "serving health, metrics and status");
    let shown = Shown { status: status.clone(), metrics: Some(handle) };
    tokio::spawn(async move {
        if let Err(error) = http::serve(listener, shown, CancellationToken::new()).await {
            warn!(%error, "health, metrics and status are not served any more");
        }
    });
    Ok(())
}

/// Runs the stages concurrently until all have ended, and returns the worst exit code. The failure of a stage is reported at once and
/// shown in the status; the other stages go on.
///
/// A stage that does not stop in time is abandoned, and the exit code is `Interrupted` or worse.
async fn serve_all(global: &Global, stages: Stages, plan: Plan) -> Exit {
    let (stop, status) = (stages.stop.clone(), stages.status.clone());
    let mut crew = Crew::new(&stop);
    if plan.producer {
        crew.spawn("producer", stages.clone().producer());
    }
    if plan.transformer {
        crew.spawn("transformer", stages.clone().transformer());
    }
    for sink in plan.sinks {
        crew.spawn(format!("sink {}", sink.name), stages.clone().sink(sink));
    }
    all_ended(crew, |stage, error| {
        let parts = if stage == "transformer" { vec!["map", "merge"] } else { vec![stage] };
        parts.into_iter().for_each(|part| status.gave_up(part, &chain(&error).to_string()));
        report(&error, global)
    })
    .await
}

/// Waits until all stages have ended, and returns the worst exit code. Calls `failed` as soon as a stage fails.
async fn all_ended(mut crew: Crew<crate::Result<Exit>>, mut failed: impl FnMut(&str, Diagnosed) -> Exit) -> Exit {
    let mut worst = Exit::Success;
    loop {
        worst = worst.worse(match crew.next().await {
            Next::Ended(_, Ok(exit)) => exit,
            Next::Ended(stage, Err(error)) => failed(&stage, error),
            Next::Gone => return worst,
            Next::Late(_) => return worst.worse(Exit::Interrupted),
        });
    }
}

/// Runs the stages one after the other. The failure of a stage is reported, and the next stage still processes its input.
async fn once(global: &Global, stages: Stages, plan: &Plan) -> Exit {
    let stop = stages.stop.clone();
    let told = |name: &str, ended: Option<crate::Result<Exit>>| match ended {
        Some(Ok(exit)) => report_undone(name, exit),
        Some(Err(error)) => report(&error, global),
        None => Exit::Interrupted,
    };
    let mut worst = Exit::Success;
    if plan.producer {
        let ended = shutdown::in_time("producer", &stop, stages.clone().producer_once()).await;
        worst = worst.worse(told("producer", ended));
    }
    if plan.transformer && !stop.is_cancelled() {
        let ended = shutdown::in_time("transformer", &stop, stages.clone().transformer_once()).await;
        worst = worst.worse(told("transformer", ended));
    }
    for sink in &plan.sinks {
        if !stop.is_cancelled() {
            let name = format!("sink {}", sink.name);
            let ended = shutdown::in_time(&name, &stop, stages.clone().sink_once(sink.clone())).await;
            worst = worst.worse(told(&name, ended));
        }
    }
    worst
}

/// Logs, at level error so that `--quiet` shows it too, where to find what a stage left undone.
fn report_undone(stage: &str, exit: Exit) -> Exit {
    match (exit, stage) {
        (Exit::Held, _) => error!(
            stage,
            help = "see the plans with `windfall scans list`, and let them through with `windfall scans approve PLAN`",
            "something is held until somebody approves it"
        ),
        (Exit::Incomplete, "producer") => error!(
            stage,
            help = "see why with `windfall scans list`; the next run makes up for it",
            "something was left out"
        ),
        (Exit::Incomplete, _) => error!(
            stage,
            help = "see the records with `windfall tap TOPIC --until-end`; `windfall topics list` names the topics ending in `.dlq`",
            "records were refused and are dead letters now"
        ),
        _ => {}
    }
    exit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stage_that_fails_is_told_at_once_and_ends_no_other() {
        let stop = CancellationToken::new();
        let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let mut crew = Crew::new(&stop);
        let failure = || Failure::new(Kind::Refused, "too many dead letters").into();
        crew.spawn("sink a", async move { Err(failure()) });
        crew.spawn("sink b", async move {
            // It goes on until it has heard that the other one has failed.
            let stage: Option<String> = heard.recv().await;
            assert_eq!(stage.as_deref(), Some("sink a"));
            Ok(Exit::Success)
        });
        let exit = all_ended(crew, |stage, _| {
            told.send(stage.to_owned()).unwrap();
            Exit::Failure
        });
        assert_eq!(exit.await, Exit::Failure, "the worst of all");
        assert!(!stop.is_cancelled());
    }
}
