//! The windfall command: one binary that holds all stages, and the only place that knows them all.
//!
//! Each verb is one file. Data goes to standard output, everything else to standard error; every error says what, where,
//! why, and what to do ([`exit`] has the codes). [`main`] is a function, so that another binary can be the same command with
//! other features.

mod accept;
mod change;
mod check;
mod cli;
pub mod config;
mod config_command;
mod context;
mod demo;
pub mod exit;
mod output;
pub mod reference;
mod remap;
mod report;
mod run;
mod scans;
mod scope;
mod sim;
mod stages;
mod status;
mod tap;
mod topics;
mod validate;
mod version;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use windfall_runtime::diagnose::Diagnosed;
use windfall_runtime::lines::Lines;
use windfall_runtime::telemetry::{self, LogFormat, LogOptions};

use crate::cli::{Cli, Global, LogForm, Verb};
use crate::exit::{Exit, Failure};

/// The result of a command. Its error carries a diagnosis: kind, retry and advice.
type Result<T, E = Diagnosed> = std::result::Result<T, E>;

/// Runs the command of this process's arguments to its end.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let ended = begin(&cli).unwrap_or_else(|error| report::report(&error, &cli.global));
    if let Ok(lines) = Lines::stderr() {
        lines.finish();
    }
    ended.into()
}

/// Returns the declared command line: verbs, options and their help.
pub fn command_line() -> clap::Command {
    Cli::command()
}

fn begin(cli: &Cli) -> Result<Exit> {
    let logs = log_options(&cli.global, &cli.verb);
    // The demo draws on the terminal, so its logs go into a file.
    if !matches!(cli.verb, Verb::Demo(_)) {
        telemetry::install(&logs).map_err(Failure::of)?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(dispatch(cli, &logs));
    // Client threads may still wait for a broker that does not answer.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    ended
}

async fn dispatch(cli: &Cli, logs: &LogOptions) -> Result<Exit> {
    let global = &cli.global;
    match &cli.verb {
        Verb::Demo(args) => demo::run(global, args, logs).await,
        Verb::Run(args) => run::run(global, args).await,
        Verb::Check(args) => check::run(global, args).await,
        Verb::Sim(args) => sim::run(global, args).await,
        Verb::Validate => validate::run(global).await,
        Verb::Status(args) => status::run(global, args).await,
        Verb::Topics(args) => topics::run(global, &args.action).await,
        Verb::Scans(args) => scans::run(global, &args.action).await,
        Verb::Remap(args) => remap::remap(global, &args.collection).await,
        Verb::Tap(args) => tap::run(global, args).await,
        Verb::Config(args) => config_command::run(global, &args.action),
        Verb::Version => version::run(global),
    }
}

/// Returns the log level: `info` for the commands that run stages, `warn` for all others, unless a flag says otherwise.
fn log_options(global: &Global, verb: &Verb) -> LogOptions {
    let level = match (global.quiet, global.verbose) {
        (true, _) => "error",
        (false, 0) if matches!(verb, Verb::Run(_) | Verb::Sim(_) | Verb::Demo(_)) => "info",
        (false, 0) => "warn",
        (false, 1) => "debug",
        (false, _) => "trace",
    };
    let filter = std::env::var("WINDFALL_LOG").ok().filter(|filter| !filter.is_empty());
    let format = match global.log_format {
        LogForm::Text => LogFormat::Text,
        LogForm::Json => LogFormat::Json,
    };
    LogOptions { format, filter: filter.unwrap_or_else(|| level.to_owned()), colour: report::colour(global) }
}
