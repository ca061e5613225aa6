//! `windfall sim`: a simulated organization with Apple's API.

use windfall_runtime::diagnose::Kind;
use windfall_runtime::shutdown;
use windfall_runtime::telemetry::chain;
use windfall_simulator::sim::{self, SimError, SimOptions};

use crate::cli::{Global, SimArgs};
use crate::exit::{Exit, Failure};
use crate::output::Output;

/// Serves until a signal; prints the lines of a configuration that connect to it on standard output.
pub(crate) async fn run(global: &Global, args: &SimArgs) -> crate::Result<Exit> {
    let stop = shutdown::on_signal()?;
    let options = options(args)?;
    let started = sim::start(&options).await.map_err(|error| {
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

fn options(args: &SimArgs) -> crate::Result<SimOptions> {
    let rate_limit = match args.rate_limit.as_str() {
        "off" => 0,
        number => number.parse().ok().filter(|limit| *limit > 0).ok_or_else(|| {
            Failure::new(
                Kind::Usage,
                format!("`--rate-limit {number}` is neither a number of reads a minute nor `off`"),
            )
        })?,
    };
    Ok(SimOptions {
        devices: args.devices,
        servers: args.servers,
        seed: args.seed,
        org: args.org.clone(),
        listen: args.listen,
        journal: args.journal.clone(),
        time_scale: args.time_scale,
        rate_limit,
        faults: args.faults.clone(),
        key_file: args.key_file.clone(),
        school: args.school,
        digests_only: args.digests_only,
        control: args.control,
    })
}
