//! `windfall validate`: everything that can be known without a network.

use serde_json::json;

use crate::cli::Global;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Output;
use crate::part::Part;

/// Loads the configuration with its collections and mappings, and runs the mappings' own tests. Secrets are looked at where they
/// are there, and not needed.
pub(crate) fn run(global: &Global) -> crate::Result<Exit> {
    let context = Context::load(global, &Part::IfThere)?;
    context.test_mappings()?;
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
    Output::new(global.output).answer(&answer, &["VALID", "", ""], rows)?;
    Ok(Exit::Success)
}
