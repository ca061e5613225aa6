//! The example under the public sink, against a real broker.

use std::path::Path;
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;
use windfall_example_json_lines::{JsonLines, Row};
use windfall_runtime::clock::SystemClock;
use windfall_runtime::health::StatusRegistry;
use windfall_runtime::kafka::config::{KafkaConfig, ManageTopics, SchemaRegistryConfig};
use windfall_runtime::kafka::publisher::{Publisher, Transaction};
use windfall_runtime::kafka::{Connection, Membership, Outgoing, topics};
use windfall_runtime::registry::RegistryClient;
use windfall_runtime::registry::embedded::EmbeddedRegistry;
use windfall_schemas::asset::{AssetKey, AssetRecord, Collection, Field, FieldType, FieldValue};
use windfall_schemas::topic::{CollectionTopics, Names};
use windfall_schemas::wire::Codec;
use windfall_sink::store::Identity;
use windfall_sink::table::{Table, TableName};
use windfall_sink::{Report, Sink, SinkSettings, Surroundings};

/// A cluster under a prefix of its own, with a collection of one field.
struct Fleet {
    connection: Connection,
    names: Names,
    collection: Collection,
    registry: RegistryClient,
    key: Codec,
    value: Codec,
}

impl Fleet {
    async fn new() -> Self {
        let bootstrap = tokio::task::spawn_blocking(windfall_services::kafka).await.unwrap();
        let mut config = KafkaConfig::new(bootstrap, SchemaRegistryConfig::embedded(None));
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros();
        config.topic_prefix = format!("jsonl_{}_{since}.", std::process::id());
        config.replication_factor = 1;
        let connection = Connection::new(&config, "sink-assets", "one");
        let names = Names::new(&*config.topic_prefix);
        let collection = Collection::new("devices", vec![Field::new("color", FieldType::String)]).unwrap();
        let declared = CollectionTopics { collection: "devices", sources: Vec::new(), sinks: vec!["assets"] };
        topics::ensure(&connection, &names.collection_topics(&declared), ManageTopics::Create).await.unwrap();
        let registry = RegistryClient::embedded(EmbeddedRegistry::in_memory(), true);
        let topic = names.assets("devices");
        let key = registry.codec(&format!("{topic}-key"), &collection.key_schema()).await.unwrap();
        let value = registry.codec(&format!("{topic}-value"), &collection.value_schema()).await.unwrap();
        Self { connection, names, collection, registry, key, value }
    }

    fn topic(&self) -> String {
        self.names.assets("devices")
    }

    fn asset(&self, asset_id: &str, color: &str) -> Outgoing {
        let record = AssetRecord {
            asset_id: asset_id.to_owned(),
            fields: vec![FieldValue::String(color.to_owned())],
            version: 1,
            ..AssetRecord::default()
        };
        let value = self.collection.encode_asset(&self.value, &record).unwrap();
        Outgoing::new(self.topic(), self.key(asset_id), value)
    }

    fn key(&self, asset_id: &str) -> Vec<u8> {
        self.key.encode(&AssetKey { asset_id: asset_id.to_owned() }).unwrap()
    }

    async fn publish(&self, records: Vec<Outgoing>) {
        let mut publisher = Publisher::start(&self.connection, &self.names.topic("merge")).await.unwrap();
        publisher.commit(Transaction { derived: records, ..Transaction::default() }).await.unwrap();
    }

    fn store(&self, path: &Path) -> JsonLines {
        let table = Table::of_collection(TableName::parse("assets").unwrap(), &self.collection).unwrap();
        let identity = Identity { sink: "assets".to_owned(), topic: self.topic() };
        JsonLines::new(path.to_owned(), identity, &table)
    }

    /// Writes all that the topic holds, as `windfall run sink assets --once` does for the stores that we ship.
    async fn once(&self, path: &Path) -> Report {
        let surroundings = Surroundings {
            connection: self.connection.clone(),
            collection: self.collection.clone(),
            registry: self.registry.clone(),
            clock: SystemClock::shared(),
            part: StatusRegistry::new("one", SystemClock::shared()).part("sink assets", Duration::from_secs(90)),
            instance: "one".to_owned(),
            membership: Membership::Dynamic,
        };
        let sink = Sink::new(SinkSettings::new("assets", "json-lines"), self.store(path), surroundings);
        sink.run_once(CancellationToken::new()).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_public_sink_writes_a_store_that_is_not_ours_and_goes_on_where_it_was() {
    let fleet = Fleet::new().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("assets.jsonl");
    fleet.publish((0..300).map(|number| fleet.asset(&format!("SIM{number:05}"), "red")).collect()).await;
    assert_eq!(fleet.once(&path).await.applied.applied, 300);
    let gone = Outgoing::tombstone(fleet.topic(), fleet.key("SIM00009"));
    fleet.publish(vec![fleet.asset("SIM00007", "blue"), gone]).await;
    let report = fleet.once(&path).await;
    assert_eq!((report.applied.applied, report.applied.deleted, report.dead_letters), (1, 1, 0));
    let rows = fleet.store(&path).rows().unwrap();
    let color = |row: &Row| row.fields["color"].as_str().map(str::to_owned);
    assert_eq!(rows.len(), 300);
    assert_eq!(color(&rows["SIM00007"]).as_deref(), Some("blue"));
    assert_eq!(color(&rows["SIM00008"]).as_deref(), Some("red"));
    assert!(rows["SIM00009"].deleted);
}
