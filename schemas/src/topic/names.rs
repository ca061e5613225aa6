use super::{
    CHANGE_PARTITIONS, Cleanup, REJECT_PARTITIONS, SIGNALS_RETENTION_MS, SINGLE_PARTITION, SubjectSchema, Table,
    TopicSpec, WHOLE_MS, subject::pair, value_subject,
};
use crate::asset::Collection;

/// What a collection needs topics for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectionTopics<'a> {
    /// Name of the collection.
    pub collection: &'a str,
    /// Topics without prefix that its mappings read, such as `abm.devices`.
    pub sources: Vec<&'a str>,
    /// Names of the sinks that read it.
    pub sinks: Vec<&'a str>,
}

/// All names under one prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    prefix: String,
}

impl Names {
    /// Takes `kafka.topic_prefix` as it is, so it usually ends in a dot.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into() }
    }

    /// The prefix as it is.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// `source.name` and the key of signals: the prefix without its dot, `windfall` when it is empty.
    pub fn source_name(&self) -> &str {
        match self.prefix.strip_suffix('.').unwrap_or(&self.prefix) {
            "" => "windfall",
            name => name,
        }
    }

    /// Full name of a topic that is known without prefix.
    pub fn topic(&self, bare: &str) -> String {
        format!("{}{bare}", self.prefix)
    }

    /// Name without prefix of a full topic name; `None` when it has another prefix.
    pub fn bare<'a>(&self, topic: &'a str) -> Option<&'a str> {
        topic.strip_prefix(&self.prefix)
    }

    /// `abm.devices`.
    pub fn devices(&self) -> String {
        self.topic("abm.devices")
    }

    /// `abm.servers`.
    pub fn servers(&self) -> String {
        self.topic("abm.servers")
    }

    /// `abm.scans`.
    pub fn scans(&self) -> String {
        self.topic("abm.scans")
    }

    /// `abm.rejects`.
    pub fn rejects(&self) -> String {
        self.topic("abm.rejects")
    }

    /// `windfall.signals`.
    pub fn signals(&self) -> String {
        self.topic("windfall.signals")
    }

    /// `windfall.notifications`.
    pub fn notifications(&self) -> String {
        self.topic("windfall.notifications")
    }

    /// `windfall.sources`: whoever holds its partition in a source's group polls that source. It stays empty.
    pub fn sources(&self) -> String {
        self.topic("windfall.sources")
    }

    /// Where the embedded registry keeps its schemas.
    pub fn registry(&self) -> String {
        self.topic("_windfall_schemas")
    }

    /// `assets.<collection>`: the flat records.
    pub fn assets(&self, collection: &str) -> String {
        format!("{}assets.{collection}", self.prefix)
    }

    /// What each source record contributes to.
    pub fn links(&self, collection: &str) -> String {
        format!("{}assets.{collection}.links", self.prefix)
    }

    /// What each source record says of an asset.
    pub fn contributions(&self, collection: &str) -> String {
        format!("{}assets.{collection}.contributions", self.prefix)
    }

    /// Who disagrees on an asset.
    pub fn conflicts(&self, collection: &str) -> String {
        format!("{}assets.{collection}.conflicts", self.prefix)
    }

    /// Dead letters of a group for one topic; both are full names, the prefix stands in front once.
    pub fn dead_letters(&self, topic: &str, group: &str) -> String {
        format!("{topic}.{}.dlq", self.bare(group).unwrap_or(group))
    }

    /// Group of a collection's map loop.
    pub fn map_group(&self, collection: &str) -> String {
        format!("{}windfall-map-{collection}", self.prefix)
    }

    /// Group of a collection's merge loop.
    pub fn merge_group(&self, collection: &str) -> String {
        format!("{}windfall-merge-{collection}", self.prefix)
    }

    /// Group of a sink.
    pub fn sink_group(&self, sink: &str) -> String {
        format!("{}windfall-sink-{sink}", self.prefix)
    }

    /// Group of a source's producers, and the transactional id of the one that holds the source.
    pub fn producer_group(&self, source: &str) -> String {
        format!("{}windfall-producer-{source}", self.prefix)
    }

    /// The topics that Apple's side needs, whatever collections there are.
    pub fn base_topics(&self) -> Vec<TopicSpec> {
        let mut specs: Vec<TopicSpec> = Table::ALL
            .into_iter()
            .map(|table| TopicSpec::new(self.topic(table.topic), table.partitions, Cleanup::Compacted))
            .collect();
        let deleted = |retention_ms| Cleanup::Deleted { retention_ms };
        specs.extend([
            TopicSpec::new(self.scans(), SINGLE_PARTITION, Cleanup::CompactedSoon),
            TopicSpec::new(self.rejects(), REJECT_PARTITIONS, deleted(WHOLE_MS)),
            TopicSpec::new(self.signals(), SINGLE_PARTITION, deleted(SIGNALS_RETENTION_MS)),
            TopicSpec::new(self.notifications(), SINGLE_PARTITION, deleted(WHOLE_MS)),
            TopicSpec::new(self.sources(), SINGLE_PARTITION, deleted(SIGNALS_RETENTION_MS)),
        ]);
        specs
    }

    /// The topics of a collection, with the dead letters of all that read or write it.
    pub fn collection_topics(&self, topics: &CollectionTopics<'_>) -> Vec<TopicSpec> {
        let CollectionTopics { collection, sources, sinks } = topics;
        let mut specs: Vec<TopicSpec> = [
            self.assets(collection),
            self.links(collection),
            self.contributions(collection),
            self.conflicts(collection),
        ]
        .map(|name| TopicSpec::new(name, CHANGE_PARTITIONS, Cleanup::Compacted))
        .into();
        let dead = |topic: &str, group: &str| {
            let cleanup = Cleanup::Deleted { retention_ms: WHOLE_MS };
            TopicSpec::new(self.dead_letters(topic, group), REJECT_PARTITIONS, cleanup)
        };
        specs.extend(sources.iter().map(|source| dead(&self.topic(source), &self.map_group(collection))));
        specs.push(dead(&self.contributions(collection), &self.merge_group(collection)));
        specs.extend(sinks.iter().map(|sink| dead(&self.assets(collection), &self.sink_group(sink))));
        specs
    }

    /// All declared topics but the registry's, which exists only where the registry is embedded.
    pub fn declared_topics(&self, collections: &[CollectionTopics<'_>]) -> Vec<TopicSpec> {
        let mut specs = self.base_topics();
        specs.extend(collections.iter().flat_map(|topics| self.collection_topics(topics)));
        specs
    }

    /// The topic in which the embedded registry keeps its schemas.
    pub fn registry_topic(&self) -> TopicSpec {
        TopicSpec::new(self.registry(), SINGLE_PARTITION, Cleanup::CompactedPlain)
    }

    /// The schemas that Apple's side writes.
    pub fn base_schemas(&self) -> Vec<SubjectSchema> {
        let mut schemas: Vec<SubjectSchema> = Table::ALL
            .into_iter()
            .flat_map(|table| pair(&self.topic(table.topic), table.key_schema, table.value_schema))
            .collect();
        schemas.extend(pair(&self.scans(), crate::scan::KEY_SCHEMA, crate::scan::VALUE_SCHEMA));
        schemas.push(SubjectSchema {
            subject: value_subject(&self.rejects()),
            text: crate::reject::VALUE_SCHEMA.to_owned(),
        });
        schemas.extend(pair(&self.notifications(), crate::notification::KEY_SCHEMA, crate::notification::VALUE_SCHEMA));
        schemas
    }

    /// The schemas of a collection: flat record, links, contributions, conflicts.
    pub fn collection_schemas(&self, collection: &Collection) -> Vec<SubjectSchema> {
        let name = collection.name();
        [
            pair(&self.assets(name), &collection.key_schema(), &collection.value_schema()),
            pair(&self.links(name), &collection.links_key_schema(), &collection.links_value_schema()),
            pair(
                &self.contributions(name),
                &collection.contributions_key_schema(),
                &collection.contributions_value_schema(),
            ),
            pair(&self.conflicts(name), &collection.conflicts_key_schema(), &collection.conflicts_value_schema()),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}
