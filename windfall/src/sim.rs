//! `windfall sim`: a simulated organization with Apple's API.

use windfall_runtime::diagnose::Kind;
use windfall_runtime::shutdown;
use windfall_runtime::telemetry::chain;
use windfall_simulator::sim::{self, SimError, SimOptions};

use crate::cli::Global;
use crate::exit::{Exit, Failure};
use crate::output::Output;

/// Serves until a signal; prints the lines of a configuration that connect to it on standard output.
pub(crate) async fn run(global: &Global, options: &SimOptions) -> crate::Result<Exit> {
    let stop = shutdown::on_signal()?;
    let started = sim::start(options).await.map_err(|error| {
        let kind = match error {
            SimError::Faults(_) | SimError::TimeScale { .. } => Kind::Usage,
            _ => Kind::Refused,
        };
        Failure::new(kind, chain(&error).to_string()).help(error.help())
    })?;
    let mut output = Output::new(global.output);
    output.line(started.config_lines.trim_end())?;
    output.flush()?;
    drop(output);
    if !global.quiet {
        eprintln!(
            "serving {} devices at {}; the key is in {}; the lines above connect to it; Ctrl-C ends it",
            options.devices,
            started.running.url(),
            options.key_file.display(),
        );
    }
    stop.cancelled().await;
    shutdown::in_time("simulator", &stop, started.running.stop()).await;
    Ok(Exit::Success)
}
