//! `windfall topics`: lists, creates, verifies or accepts the declared topics.

use std::collections::BTreeMap;

use serde_json::json;
use windfall_runtime::kafka::config::ManageTopics;
use windfall_runtime::kafka::topics::{TopicReport, ensure};
use windfall_schemas::topic::{SubjectSchema, TopicSpec};

use crate::accept;
use crate::cli::{Global, TopicsAction};
use crate::context::Context;
use crate::exit::Exit;
use crate::output::Output;
use crate::scope::Scope;

/// Lists the declared topics, or creates or verifies them.
pub(crate) async fn run(global: &Global, action: &TopicsAction) -> crate::Result<Exit> {
    let context = Context::load(global, &Scope::Shared)?;
    let specs = context.topics();
    let manage = match action {
        TopicsAction::List => return list(global, &specs),
        TopicsAction::Accept { topic } => return accept::accept(global, topic).await,
        TopicsAction::Create => ManageTopics::Create,
        TopicsAction::Verify => ManageTopics::Verify,
    };
    let report = ensure(&context.connection("topics"), &specs, manage).await?;
    let schemas = schemas(&context, manage == ManageTopics::Create).await?;
    let TopicReport { created, verified, .. } = &report;
    let line = |topic: &String, what: &str| vec![topic.clone(), what.to_owned()];
    let rows = created
        .iter()
        .map(|topic| line(topic, "created"))
        .chain(verified.iter().map(|topic| line(topic, "as declared")))
        .chain(schemas.iter().map(|(subject, id)| line(subject, &format!("schema {id}"))));
    let answer = json!({ "created": created, "verified": verified, "schemas": schemas });
    Output::new(global.output).answer(&answer, &["TOPIC OR SUBJECT", "STATE"], rows.collect())?;
    Ok(Exit::Success)
}

/// Resolves the schemas of all topics, and registers those that are missing if `register` is set, whatever the configuration says.
async fn schemas(context: &Context, register: bool) -> crate::Result<BTreeMap<String, u32>> {
    let client = context.registry(&context.tool_connection("topics")).await?;
    let collections =
        context.collections.iter().flat_map(|loaded| context.names.collection_schemas(&loaded.collection.schema));
    let mut ids = BTreeMap::new();
    for SubjectSchema { subject, text } in context.names.base_schemas().into_iter().chain(collections) {
        let id = client.resolve(&subject, &text, register).await?;
        ids.insert(subject, id);
    }
    Ok(ids)
}

fn list(global: &Global, specs: &[TopicSpec]) -> crate::Result<Exit> {
    let settings = |spec: &TopicSpec| spec.settings().into_iter().collect::<BTreeMap<_, _>>();
    let answer = specs
        .iter()
        .map(|spec| json!({ "topic": spec.name, "partitions": spec.partitions, "settings": settings(spec) }));
    let answer: Vec<_> = answer.collect();
    let rows = specs
        .iter()
        .map(|spec| {
            let settings: Vec<_> = spec.settings().into_iter().map(|(name, value)| format!("{name}={value}")).collect();
            vec![spec.name.clone(), spec.partitions.to_string(), settings.join(" ")]
        })
        .collect();
    Output::new(global.output).answer(&answer, &["TOPIC", "PARTITIONS", "SETTINGS"], rows)?;
    Ok(Exit::Success)
}
