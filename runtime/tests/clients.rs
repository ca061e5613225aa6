//! Clients come from one place, which tells no value of a setting: a password may stand under a name that was misspelt.

use std::path::{Path, PathBuf};

use windfall_runtime::kafka::config::{KafkaConfig, ManageTopics, SchemaRegistryConfig};
use windfall_runtime::kafka::consumer::{BatchLimits, GroupConsumer, GroupOptions};
use windfall_runtime::kafka::publisher::Publisher;
use windfall_runtime::kafka::sender::Sender;
use windfall_runtime::kafka::{Connection, Membership, table, topics};
use windfall_runtime::registry::RegistryClient;
use windfall_runtime::secret::{Secret, TextOrSecret};
use windfall_runtime::telemetry::chain;

const CANARY: &str = "canary-7f3a";

/// Nobody answers there, and nothing needs to.
fn connection(setting: &str, value: TextOrSecret) -> Connection {
    let mut config = KafkaConfig::new("127.0.0.1:1", SchemaRegistryConfig::embedded(None));
    config.properties.insert(setting.to_owned(), value);
    Connection::new(&config, "test", "one")
}

fn told(error: &(dyn std::error::Error + 'static)) -> String {
    format!("{} {error:?}", chain(error))
}

/// What each kind of client says about a setting that it refuses.
async fn refusals(connection: &Connection) -> Vec<String> {
    let options = GroupOptions {
        group: "g".to_owned(),
        topics: vec!["t".to_owned()],
        membership: Membership::Dynamic,
        limits: BatchLimits::default(),
    };
    vec![
        told(&connection.open_reader().map(drop).unwrap_err()),
        told(&Sender::new(connection).map(drop).unwrap_err()),
        told(&Publisher::start(connection, "t").await.map(drop).unwrap_err()),
        told(&GroupConsumer::start(connection, options).map(drop).unwrap_err()),
        told(&topics::ensure(connection, &[], ManageTopics::Verify).await.unwrap_err()),
        told(&table::ends(connection, "t", 0..1).await.unwrap_err()),
        told(&RegistryClient::connect(connection).await.map(drop).unwrap_err()),
    ]
}

#[tokio::test]
async fn no_client_tells_the_value_of_a_setting_that_it_refuses() {
    let secret = || TextOrSecret::Secret(Secret::new(CANARY));
    for (setting, value) in [
        ("sasl.pasword", TextOrSecret::Text(CANARY.to_owned())),
        ("sasl.pasword", secret()),
        ("security.protocol", secret()),
        ("debug", TextOrSecret::Text(format!("generic,{CANARY}"))),
    ] {
        for refusal in refusals(&connection(setting, value.clone())).await {
            assert!(refusal.contains(setting) && !refusal.contains(CANARY), "{refusal}");
        }
    }
}

#[test]
fn a_connection_shows_no_value_of_its_settings() {
    let connection = connection("ssl.key.pem", TextOrSecret::Secret(Secret::new(CANARY)));
    let shown = format!("{connection:?} {connection:#?} {:?}", connection.config());
    assert!(shown.contains("ssl.key.pem") && !shown.contains(CANARY), "{shown}");
}

/// All sources of the workspace, tests left out: they make clients of their own.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn no_other_place_makes_settings_of_clients() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = Vec::new();
    for member in ["schemas", "runtime", "producer", "transformer", "sink", "simulator", "windfall"] {
        sources(&root.join(member).join("src"), &mut found);
    }
    let ours = root.join("runtime/src/kafka");
    let others = found.iter().filter(|path| !path.starts_with(&ours));
    let strays: Vec<_> = others
        .filter(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            text.contains("rdkafka::ClientConfig")
                || text.contains("rdkafka::config")
                || text.contains("FromClientConfig")
        })
        .collect();
    assert!(found.len() > 100, "only {} files were looked at", found.len());
    assert!(strays.is_empty(), "clients are opened by `kafka::Connection`: {strays:?}");
}
