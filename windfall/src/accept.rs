//! `windfall topics accept`: lets all readers of a topic that was deleted and recreated go on with the new topic.

use chrono::Utc;
use serde_json::json;
use windfall_producer::ledger::{Cluster, LedgerError};
use windfall_producer::run::connect;
use windfall_producer::scans;
use windfall_runtime::diagnose::Kind;
use windfall_runtime::log_identity::ACCEPTED;
use windfall_runtime::telemetry::chain;
use windfall_sink::SinkConfig;

use crate::cli::Global;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::output::{Output, table};
use crate::remap::{GroupOffsets, start};
use crate::scans::confirmed;
use crate::scope::Scope;

/// All sources, groups and sinks whose stored positions belong to the former topic.
struct Readers {
    cluster: Cluster,
    sources: Vec<(String, LedgerError)>,
    groups: Vec<GroupOffsets>,
    sinks: Vec<SinkConfig>,
}

impl Readers {
    async fn find(context: &Context, topic: &str) -> crate::Result<Self> {
        let names = &context.names;
        let is = |full: &str| full == topic || names.topic(topic) == full;
        let connection = context.tool_connection("topics");
        let cluster = connect(&connection, context.registry(&connection).await?).await?;
        let (mut sources, mut groups, mut sinks) = (Vec::new(), Vec::new(), Vec::new());
        if is(&names.devices()) || is(&names.scans()) {
            for source in &context.config.sources {
                let lost = scans::lost(&cluster, &source.name).await?;
                let ours = lost.filter(|lost| match lost {
                    LedgerError::Lost { topic, .. } | LedgerError::LostScans { topic, .. } => is(topic),
                    _ => false,
                });
                sources.extend(ours.map(|lost| (source.name.clone(), lost)));
            }
        }
        for loaded in &context.collections {
            let collection = loaded.collection.name.as_str();
            for source in loaded.sources().into_iter().map(|source| names.topic(source)).filter(|source| is(source)) {
                groups.push(GroupOffsets::of(context, names.map_group(collection), source).await?);
            }
            let contributions = names.contributions(collection);
            if is(&contributions) {
                groups.push(GroupOffsets::of(context, names.merge_group(collection), contributions).await?);
            }
            if is(&names.assets(collection)) {
                sinks.extend(context.config.sinks.iter().filter(|sink| sink.collection == collection).cloned());
            }
            if is(&names.links(collection)) {
                let failure = Failure::new(Kind::Refused, "links are written anew and not accepted");
                return Err(failure.help(format!("run `windfall remap {collection}`")).into());
            }
        }
        if sources.is_empty() && groups.is_empty() && sinks.is_empty() {
            let failure =
                Failure::new(Kind::NotFound, format!("no source, transformer or sink has to accept `{topic}`"));
            return Err(failure.help("`windfall topics list` shows the topics").into());
        }
        Ok(Self { cluster, sources, groups, sinks })
    }

    /// Lists how far each reader had read the former topic.
    fn rows(&self) -> Vec<Vec<String>> {
        let row = |reader: String, read: String| vec![reader, read, "-".to_owned(), "-".to_owned()];
        let sources = self.sources.iter().map(|(name, lost)| row(format!("source {name}"), chain(lost).to_string()));
        let sinks =
            self.sinks.iter().map(|sink| row(format!("sink {}", sink.name), "all that it has written".to_owned()));
        sources.chain(self.groups.iter().flat_map(GroupOffsets::rows)).chain(sinks).collect()
    }

    /// Resets each reader to the start of the new topic; returns each reader and what it does next.
    async fn accept(&self, context: &Context) -> crate::Result<Vec<[String; 2]>> {
        let mut follows = Vec::new();
        for (name, lost) in &self.sources {
            scans::accept(&self.cluster, name, lost, Utc::now().timestamp_millis()).await?;
            follows.push([format!("source {name}"), "scans anew and keeps no plan and no suspect".to_owned()]);
        }
        for group in &self.groups {
            group.commit(|_| Some(start(Some(ACCEPTED)))).await?;
            follows.push([group.group.clone(), "reads the topic from its start".to_owned()]);
        }
        for sink in &self.sinks {
            let collection = &context.collection(&sink.collection)?.schema;
            windfall_sink::accept(sink, collection, &context.names).await?;
            let what = "reads the topic from its start, and every row counts as older".to_owned();
            follows.push([format!("sink {}", sink.name), what]);
        }
        Ok(follows)
    }
}

/// Shows the readers, asks for confirmation, and resets each of them to the start of the new topic.
pub(crate) async fn accept(global: &Global, topic: &str) -> crate::Result<Exit> {
    let mut context = Context::load(global, &Scope::Shared)?;
    let readers = Readers::find(&context, topic).await?;
    if !readers.sinks.is_empty() {
        context = Context::load(global, &Scope::Sinks)?;
    }
    eprintln!("{}", table(&["READER", "HAS READ", "TO", "GREATEST TIME"], readers.rows(), false));
    let question = format!("Forget how far `{topic}` was read, and go on with it as it is now?");
    if !confirmed(global, &question)? {
        return Err(Failure::new(Kind::Refused, format!("`{topic}` was not accepted")).into());
    }
    // The first load left out the secrets of the sinks' addresses.
    let sinks = context.config.sinks.iter().filter(|sink| readers.sinks.iter().any(|wanted| wanted.name == sink.name));
    let readers = Readers { sinks: sinks.cloned().collect(), ..readers };
    let follows = readers.accept(&context).await?;
    let answer: Vec<_> = follows.iter().map(|[reader, what]| json!({ "reader": reader, "follows": what })).collect();
    let rows = follows.into_iter().map(Vec::from).collect();
    Output::new(global.output).answer(&answer, &["READER", "WHAT FOLLOWS"], rows)?;
    Ok(Exit::Success)
}
