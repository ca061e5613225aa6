//! `windfall status`: shows the state that a running process reports.

use std::time::Duration;

use windfall_runtime::diagnose::Kind;
use windfall_runtime::health::{PartStatus, Snapshot};
use windfall_runtime::telemetry::chain;

use crate::cli::{Global, StatusArgs};
use crate::context::load_config;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::scope::Scope;

/// How long a process on this host may take to answer before it is called stuck.
const PATIENCE: Duration = Duration::from_secs(3);

/// Prints the state of the process; with `--ready` prints nothing and returns it as the exit code.
pub(crate) async fn run(global: &Global, args: &StatusArgs) -> crate::Result<Exit> {
    let address = address(global)?;
    let snapshot = match ask(&address).await {
        Ok(snapshot) => snapshot,
        Err(_) if args.ready => return Ok(Exit::Failure),
        Err(error) => return Err(error),
    };
    if args.ready {
        return Ok(if snapshot.ready { Exit::Success } else { Exit::Failure });
    }
    let heads = ["PART", "STATE", "READY", "SILENT", "DETAILS"];
    let rows = snapshot.parts.iter().map(|(name, part)| row(name, part)).collect();
    Output::new(global.output).answer(&snapshot, &heads, rows)?;
    Ok(Exit::Success)
}

/// Fetches `/status` from the process that serves at `address`.
pub(crate) async fn ask(address: &str) -> crate::Result<Snapshot> {
    let url = format!("http://{}/status", reachable(address));
    // The status address is local, so it is never reached through a proxy.
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().map_err(Failure::of)?;
    let answer = async { client.get(&url).send().await?.error_for_status()?.json().await };
    answer.await.map_err(|error: reqwest::Error| {
        let what = format!("no windfall answers at `{address}`: {}", chain(&error.without_url()));
        Failure::new(Kind::Refused, what)
            .help("start it with `windfall run`, or name its address with `--http ADDR`")
            .into()
    })
}

/// Returns the address to connect to: the loopback address if the process listens on all interfaces.
fn reachable(address: &str) -> String {
    match address.rsplit_once(':') {
        Some(("0.0.0.0", port)) => format!("127.0.0.1:{port}"),
        Some(("[::]", port)) => format!("[::1]:{port}"),
        _ => address.to_owned(),
    }
}

fn address(global: &Global) -> crate::Result<String> {
    let listen = match &global.http {
        Some(listen) => listen.clone(),
        None => load_config(&global.config, &Scope::Nothing)?.config.http.listen,
    };
    if listen == "off" {
        let failure = Failure::new(Kind::Refused, "the process serves no status: `http.listen` is `off`");
        return Err(failure.help("set `http.listen`, or run it with `--http ADDR`").into());
    }
    Ok(listen)
}

fn row(name: &str, part: &PartStatus) -> Vec<String> {
    let ready = if part.ready { "yes" } else { "no" };
    vec![name.to_owned(), part.state.name().to_owned(), ready.to_owned(), format!("{}s", part.silent_s), details(part)]
}

fn details(part: &PartStatus) -> String {
    let mut said = Vec::new();
    if let Some(progress) = &part.progress {
        let total = progress.total.map_or_else(|| "?".to_owned(), |total| total.to_string());
        let left = part.eta_s.map(|seconds| format!(", {seconds} s left")).unwrap_or_default();
        said.push(format!("{} {}/{total}{left}", progress.job, progress.done));
    }
    for (name, value) in &part.details {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        said.push(format!("{name}: {value}"));
    }
    said.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_listens_everywhere_is_asked_on_this_host() {
        assert_eq!(reachable("0.0.0.0:9644"), "127.0.0.1:9644");
        assert_eq!(reachable("[::]:9644"), "[::1]:9644");
        assert_eq!(reachable("10.0.0.1:9644"), "10.0.0.1:9644");
    }
}
