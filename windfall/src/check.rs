//! `windfall check`: probes everything that the configuration names; one line each, with cause and remedy.

use serde::Serialize;
use windfall_producer::apple::client::AppleDirectory;
use windfall_producer::apple::{DirectoryError, Lookup};
use windfall_producer::budget::LimiterState;
use windfall_producer::config::{RateLimitConfig, ScanConfig, SourceConfig};
use windfall_runtime::clock::SystemClock;
use windfall_runtime::config::Period;
use windfall_runtime::diagnose::{Diagnose, Diagnosis, Kind};
use windfall_runtime::health::Snapshot;
use windfall_runtime::kafka::config::{KafkaConfig, ManageTopics};
use windfall_runtime::kafka::topics::{self, TopicReport};
use windfall_runtime::telemetry::chain;
use windfall_schemas::identifiers::DeviceId;
use windfall_schemas::topic::value_subject;
use windfall_sink::SinkConfig;

use crate::cli::{Global, StageArgs};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::run::named_sink;
use crate::scope::Scope;
use crate::status;

/// A check makes three reads, one second apart. Unlike a producer it does not wait for reads of an earlier process.
const THREE_READS: RateLimitConfig = RateLimitConfig { requests: 3, per: Period::from_secs(3), share: 1.0 };

/// The result of one probe.
#[derive(Debug, Serialize)]
struct Line {
    what: String,
    ok: bool,
    /// What answered, or why not.
    detail: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
    #[serde(skip)]
    exit: Exit,
}

impl Line {
    fn new(what: String, answer: crate::Result<String>) -> Self {
        match answer {
            Ok(detail) => Self { what, ok: true, detail, warnings: Vec::new(), help: None, exit: Exit::Success },
            Err(error) => {
                let Diagnosis { kind, help, retry: _ } = error.diagnosis();
                let told =
                    std::iter::once(chain(&error).to_string()).chain(error.faults().iter().map(ToString::to_string));
                let (detail, help) = (told.collect::<Vec<_>>().join("; "), help.map(Into::into));
                Self { what, ok: false, detail, warnings: Vec::new(), help, exit: kind.into() }
            }
        }
    }
}

/// Runs all probes concurrently and prints their results in the order of the pipeline. The worst result decides the exit code.
pub(crate) async fn run(global: &Global, args: &StageArgs) -> crate::Result<Exit> {
    let scope = Scope::of(args)?;
    let context = Context::load(global, &scope)?;
    context.test_mappings()?;
    if let Scope::Sink(name) = &scope {
        named_sink(&context, name)?;
    }
    let running = match &context.listen {
        Some(listen) => status::ask(listen).await.ok(),
        None => None,
    };
    let sources = context.config.sources.iter().filter(|_| scope.producer());
    let sources = sources.map(|source| source_line(source, running.as_ref()));
    let sinks = context.config.sinks.iter().filter(|sink| scope.sink(&sink.name));
    let sinks = sinks.map(|sink| sink_line(&context, sink));
    let (kafka, registry, sources, sinks) = tokio::join!(
        kafka_line(&context),
        registry_line(&context),
        futures_util::future::join_all(sources),
        futures_util::future::join_all(sinks),
    );
    let file = Line::new(format!("configuration {}", global.config.display()), Ok("can be used".to_owned()));
    let file = Line { warnings: context.warnings.clone(), ..file };
    let lines: Vec<Line> = [file, kafka, registry].into_iter().chain(sources).chain(sinks).collect();
    let worst = lines.iter().fold(Exit::Success, |worst, line| worst.worse(line.exit));
    let rows = lines.iter().flat_map(rows).collect();
    Output::new(global.output).answer(&lines, &["", "WHAT", "ANSWER"], rows)?;
    Ok(worst)
}

fn rows(line: &Line) -> Vec<Vec<String>> {
    let state = if line.ok { "ok" } else { "FAILED" };
    let row = |state: &str, what: &str, detail: &str| vec![state.to_owned(), what.to_owned(), detail.to_owned()];
    let mut rows = vec![row(state, &line.what, &line.detail)];
    rows.extend(line.warnings.iter().map(|warning| row("", "", &format!("warning: {warning}"))));
    rows.extend(line.help.iter().map(|help| row("", "", &format!("help: {help}"))));
    rows
}

async fn kafka_line(context: &Context) -> Line {
    warned(&context.config.kafka, kafka(context).await)
}

/// Makes the line of Kafka from the probe's result and the warnings about settings and topics.
fn warned(config: &KafkaConfig, answer: crate::Result<(String, Vec<String>)>) -> Line {
    let (answer, found) = match answer {
        Ok((detail, warnings)) => (Ok(detail), warnings),
        Err(error) => (Err(error), Vec::new()),
    };
    let line = Line::new(format!("kafka {}", config.bootstrap_servers.join(",")), answer);
    Line { warnings: config.warnings().into_iter().chain(found).collect(), ..line }
}

async fn kafka(context: &Context) -> crate::Result<(String, Vec<String>)> {
    let connection = context.tool_connection("check").at_once();
    let TopicReport { verified, missing, warnings, created: _ } =
        topics::examine(&connection, &context.topics()).await?;
    topics::transactions(&connection).await?;
    let present = verified.len();
    match (missing.is_empty(), context.config.kafka.manage_topics) {
        (true, _) => Ok((format!("all {present} topics are as declared"), warnings)),
        (false, ManageTopics::Create) => {
            let told =
                format!("{present} topics are as declared, {} will be created at the first start", missing.len());
            Ok((told, warnings))
        }
        (false, ManageTopics::Verify | ManageTopics::None | ManageTopics::Simulated) => {
            let failure = Failure::new(Kind::NotFound, format!("topics are missing: {}", missing.join(", ")));
            Err(failure.help("make them with `windfall topics create`, or set `kafka.manage_topics: create`").into())
        }
    }
}

async fn registry_line(context: &Context) -> Line {
    let registry = &context.config.kafka.schema_registry;
    let what = match &registry.embedded {
        Some(_) => "schema registry, embedded".to_owned(),
        None => format!("schema registry {}", registry.urls().join(", ")),
    };
    Line::new(what, ask_registry(context).await)
}

async fn ask_registry(context: &Context) -> crate::Result<String> {
    let client = context.registry_to_look(&context.tool_connection("check").at_once()).await?;
    context.compare_types(&client).await?;
    let subject = value_subject(&context.names.devices());
    Ok(match client.latest(&subject).await? {
        Some(found) => format!("`{subject}` is registered, version {}", found.version.unwrap_or_default()),
        None => "answers; the schemas will be registered at the first start".to_owned(),
    })
}

/// Reads one page of devices, the management services and one device, which tests the token and the rights with three requests.
///
/// If a running process polls the source, that process owns the request budget; its reported state is shown instead.
async fn source_line(config: &SourceConfig, running: Option<&Snapshot>) -> Line {
    let what = format!("source {}", config.name);
    if let Some(part) = running.and_then(|snapshot| snapshot.parts.get(&format!("producer {}", config.name))) {
        let reason = part.details.get("reason").and_then(|reason| reason.as_str()).unwrap_or("it is not ready");
        let answer = match part.ready {
            true => Ok("is being read by a running windfall, which is ready".to_owned()),
            false => {
                Err(Failure::new(Kind::Unavailable, format!("is being read by a running windfall: {reason}")).into())
            }
        };
        let single_reads = part.details.get("single_reads").and_then(|told| told.as_str());
        let warnings = single_reads.map(forbidden).into_iter().collect();
        return Line { warnings, ..Line::new(what, answer) };
    }
    let (answer, warnings) = match ask_apple(config).await {
        Ok((answer, warning)) => (Ok(answer), warning.into_iter().collect()),
        Err(error) => (Err(error), Vec::new()),
    };
    Line { warnings, ..Line::new(what, answer) }
}

fn forbidden(told: &str) -> String {
    format!("single reads are not allowed, so they confirm no release: {told}")
}

/// Returns what Apple answered, and a warning if the account may not read single devices.
async fn ask_apple(config: &SourceConfig) -> crate::Result<(String, Option<String>)> {
    let config =
        SourceConfig { scan: ScanConfig { page_size: 1, ..config.scan }, rate_limit: THREE_READS, ..config.clone() };
    let directory = AppleDirectory::connect(&config, LimiterState::default(), SystemClock::shared())?;
    let page = directory.page(None).await?;
    let devices = match page.total {
        Some(total) => format!("{total} devices"),
        None if page.items.is_empty() && page.rejected.is_empty() => "no devices".to_owned(),
        None => "devices are listed".to_owned(),
    };
    let servers = directory.servers(None).await?;
    let more = if servers.next.is_some() { " or more" } else { "" };
    let answer = format!("token given out; {devices}, {}{more} management services", servers.items.len());
    let single = match page.items.first().map(|item| DeviceId::parse(&item.value.device_id)) {
        Some(Ok(id)) => Some(directory.device(&id).await?),
        _ => None,
    };
    let warning = match single {
        Some(Lookup::Forbidden { refusal, .. }) => Some(forbidden(&DirectoryError::Forbidden(refusal).told())),
        _ => None,
    };
    Ok((answer, warning))
}

async fn sink_line(context: &Context, config: &SinkConfig) -> Line {
    let what = format!("sink {} ({})", config.name, config.kind.as_str());
    let answer = async {
        let collection = &context.collection(&config.collection)?.schema;
        let connection = context.tool_connection("check").at_once();
        let ddl = windfall_sink::check(config, collection, &context.names, &connection).await?;
        Ok(match ddl.is_empty() {
            true => format!("answers; table `{}` is ready", config.table),
            false => format!("answers; the sink will run at its start: {}", ddl.join("; ")),
        })
    };
    Line::new(what, answer.await)
}

#[cfg(test)]
mod tests {
    use windfall_runtime::kafka::config::SchemaRegistryConfig;
    use windfall_runtime::secret::TextOrSecret;

    use super::*;

    #[test]
    fn each_warning_has_a_line_of_its_own_whatever_was_answered() {
        let text = |(name, value): (&str, &str)| (name.to_owned(), TextOrSecret::Text(value.to_owned()));
        let open = [("security.protocol", "sasl_plaintext"), ("sasl.mechanism", "PLAIN")];
        let mut config = KafkaConfig::new("kafka:9092", SchemaRegistryConfig::embedded(None));
        (config.replication_factor, config.properties) = (1, open.into_iter().map(text).collect());
        for answer in
            [Ok(("answers".to_owned(), Vec::new())), Err(Failure::new(Kind::Unavailable, "does not answer").into())]
        {
            let line = warned(&config, answer);
            let told = rows(&line).into_iter().filter(|row| row[2].starts_with("warning: `kafka.")).count();
            assert_eq!(told, 2, "{line:?}");
            assert_eq!(serde_json::to_value(&line).unwrap()["warnings"].as_array().map(Vec::len), Some(2), "{line:?}");
        }
    }
}
