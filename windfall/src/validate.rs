//! `windfall validate`: checks configuration, collections and mappings, and compares field types with the registry if it answers.

use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;
use windfall_runtime::telemetry::chain;

use crate::cli::Global;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Output;
use crate::scope::Scope;

/// How long the registry may take; a configuration is valid without an answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// Loads the configuration with its collections and mappings, runs the tests in the mappings, and compares field types with the
/// registry if it can be reached. Secrets are read if they exist, but none is required.
pub(crate) async fn run(global: &Global) -> crate::Result<Exit> {
    let context = Context::load(global, &Scope::IfThere)?;
    context.test_mappings()?;
    let not_compared = compare(&context).await?;
    let config = &context.config;
    let answer = json!({
        "valid": true,
        "file": global.config.display().to_string(),
        "instance": context.instance,
        "sources": config.sources.iter().map(|source| &source.name).collect::<Vec<_>>(),
        "collections": config.collection_names(),
        "sinks": config.sinks.iter().map(|sink| &sink.name).collect::<Vec<_>>(),
        "topics": context.topics().len(),
        "secrets_not_read": context.withheld,
        "types_not_compared": not_compared,
    });
    let row = |what: &str, names: Vec<&str>| vec![what.to_owned(), names.len().to_string(), names.join(", ")];
    let mut rows = vec![
        row("sources", config.sources.iter().map(|source| source.name.as_str()).collect()),
        row("collections", config.collection_names()),
        row("sinks", config.sinks.iter().map(|sink| sink.name.as_str()).collect()),
    ];
    if !context.withheld.is_empty() {
        rows.push(row("secrets not read", context.withheld.iter().map(String::as_str).collect()));
    }
    if let Some(why) = not_compared {
        rows.push(vec!["types not compared".to_owned(), String::new(), why]);
    }
    Output::new(global.output).answer(&answer, &["VALID", "", ""], rows)?;
    Ok(Exit::Success)
}

/// Compares field types with the registered schemas; returns the reason if no comparison was possible.
async fn compare(context: &Context) -> crate::Result<Option<String>> {
    if let Some(path) = context.withheld.iter().find(|path| path.starts_with("kafka")) {
        return Ok(Some(format!("the secret of `{path}` was not read")));
    }
    let connection = context.tool_connection("validate").at_once();
    let compared = async { context.compare_types(&context.registry_to_look(&connection).await?).await };
    match timeout(ANSWERS_WITHIN, compared).await {
        Ok(Ok(())) => Ok(None),
        Ok(Err(error)) if !error.faults().is_empty() => Err(error),
        Ok(Err(error)) => Ok(Some(chain(&error).to_string())),
        Err(_) => Ok(Some(format!("no answer within {} s", ANSWERS_WITHIN.as_secs()))),
    }
}
