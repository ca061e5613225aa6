//! The part of the configuration that says which Kafka and which schema registry to use.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::client::without_value;
use super::connection::Connection;
use crate::config::Violations;
use crate::secret::{Secret, TextOrSecret};

/// Three copies survive the loss of one broker while another is being restarted.
pub const DEFAULT_REPLICATION_FACTOR: u16 = 3;

/// Which Kafka cluster to use and how.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KafkaConfig {
    /// Brokers to ask first, `host:port`.
    pub bootstrap_servers: Vec<String>,
    /// Where the schemas are registered.
    pub schema_registry: SchemaRegistryConfig,
    /// Put in front of every topic, subject, group and transactional id as it is; usually ends in a dot.
    #[serde(default)]
    pub topic_prefix: String,
    /// Copies of each partition of the topics that are created.
    #[serde(default = "default_replication_factor")]
    pub replication_factor: u16,
    /// Whether topics are created, only verified, or left alone.
    #[serde(default)]
    pub manage_topics: ManageTopics,
    /// How records are compressed on their way and on disk.
    #[serde(default)]
    pub compression: Compression,
    /// Settings of librdkafka for TLS, SASL and the network; those that Windfall owns are refused.
    #[serde(default)]
    pub properties: BTreeMap<String, TextOrSecret>,
}

fn default_replication_factor() -> u16 {
    DEFAULT_REPLICATION_FACTOR
}

/// What to do about the declared topics at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ManageTopics {
    /// Create those that are missing and verify the others.
    #[default]
    Create,
    /// Verify all; a missing one is an error.
    Verify,
    /// Verify all, as `verify` does; for clusters whose topics are somebody else's matter.
    None,
    /// Neither create nor look at them: the demo's cluster knows no settings of topics.
    #[serde(skip)]
    Simulated,
}

/// How records are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Smallest by far on these records.
    #[default]
    Zstd,
    /// For readers without zstd.
    Lz4,
    /// For readers without zstd.
    Gzip,
    /// For readers without zstd.
    Snappy,
    /// Not at all.
    None,
}

impl Compression {
    pub(crate) fn as_property(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::None => "none",
        }
    }
}

/// Where the schemas are registered: another's registry by `url`, or our own by `embedded`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SchemaRegistryConfig {
    /// Base URL of a registry that speaks Confluent's API; several, separated by commas, are tried in order. With a password, plain
    /// http for loopback only.
    #[serde(default)]
    pub url: Option<String>,
    /// The embedded registry, whose schemas lie in the compacted topic `_windfall_schemas`.
    #[serde(default)]
    pub embedded: Option<EmbeddedRegistryConfig>,
    /// Whether a schema that is missing is registered; false where a process of its own does that.
    #[serde(default = "default_register")]
    pub register: bool,
    /// User name for basic authentication.
    #[serde(default)]
    pub username: Option<String>,
    /// Password for basic authentication, by reference: `SECRET[files.registry-password]`.
    #[serde(default)]
    pub password: Option<Secret>,
}

fn default_register() -> bool {
    true
}

/// The embedded registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EmbeddedRegistryConfig {
    /// Address to serve other readers on, `host:port`; left out, it serves this process alone.
    #[serde(default)]
    pub listen: Option<String>,
}

/// Settings of the client that Windfall's guarantees rest on, with what to use instead.
const OWNED: [(&str, &str); 36] = [
    ("bootstrap.servers", "use `kafka.bootstrap_servers`"),
    ("metadata.broker.list", "use `kafka.bootstrap_servers`"),
    ("client.id", "it follows from the stage and `instance`"),
    ("group.id", "it follows from the stage"),
    ("group.instance.id", "use `instance`"),
    ("group.protocol", CORRECTNESS),
    ("group.remote.assignor", CORRECTNESS),
    ("partition.assignment.strategy", CORRECTNESS),
    ("session.timeout.ms", CORRECTNESS),
    ("heartbeat.interval.ms", CORRECTNESS),
    ("max.poll.interval.ms", CORRECTNESS),
    ("isolation.level", CORRECTNESS),
    ("auto.offset.reset", CORRECTNESS),
    ("enable.auto.commit", CORRECTNESS),
    ("auto.commit.enable", CORRECTNESS),
    ("auto.commit.interval.ms", CORRECTNESS),
    ("enable.auto.offset.store", CORRECTNESS),
    ("enable.partition.eof", CORRECTNESS),
    ("allow.auto.create.topics", "topics are declared, see `kafka.manage_topics`"),
    ("transactional.id", "it follows from the stage and `instance`"),
    ("transaction.timeout.ms", CORRECTNESS),
    ("message.timeout.ms", CORRECTNESS),
    ("delivery.timeout.ms", CORRECTNESS),
    ("acks", CORRECTNESS),
    ("request.required.acks", CORRECTNESS),
    ("enable.idempotence", CORRECTNESS),
    ("enable.gapless.guarantee", CORRECTNESS),
    ("max.in.flight", CORRECTNESS),
    ("max.in.flight.requests.per.connection", CORRECTNESS),
    ("retries", CORRECTNESS),
    ("message.send.max.retries", CORRECTNESS),
    ("partitioner", "keys go where Java's default partitioner puts them"),
    ("linger.ms", CORRECTNESS),
    ("queue.buffering.max.ms", CORRECTNESS),
    ("compression.type", "use `kafka.compression`"),
    ("compression.codec", "use `kafka.compression`"),
];

/// Settings that hold a secret, which must not stand in the file.
const SECRET: [&str; 7] = [
    "sasl.password",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.config",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.password",
    "sasl.oauthbearer.assertion.private.key.pem",
];

/// Names that Java's clients know and librdkafka does not, with what to write instead.
const JAVA: [(&str, &str); 13] = [
    ("sasl.jaas.config", "write `sasl.username` and `sasl.password`"),
    ("sasl.login.callback.handler.class", "write `sasl.oauthbearer.method: oidc` and its settings"),
    ("sasl.client.callback.handler.class", "write `sasl.oauthbearer.method: oidc` and its settings"),
    ("sasl.login.class", "leave it out"),
    ("ssl.truststore.location", PEM_ROOTS),
    ("ssl.truststore.password", "leave it out: `ssl.ca.location` names a PEM file, which has no password"),
    ("ssl.truststore.type", "leave it out: `ssl.ca.location` names a PEM file"),
    ("ssl.truststore.certificates", "write `ssl.ca.pem`"),
    ("ssl.keystore.type", "leave it out: `ssl.keystore.location` names a PKCS#12 file"),
    ("ssl.keystore.key", "write `ssl.key.pem`"),
    ("ssl.keystore.certificate.chain", "write `ssl.certificate.pem`"),
    ("client.dns.lookup", "leave it out: all addresses of a name are tried"),
    ("request.timeout.ms", "write `socket.timeout.ms`"),
];
const PEM_ROOTS: &str = "write `ssl.ca.location` with a PEM file of the roots (`keytool -exportcert -rfc` writes one from a Java truststore)";

const CORRECTNESS: &str = "Windfall sets it, its guarantees rest on it";

impl KafkaConfig {
    /// Makes a configuration with the defaults: one broker list, a registry, everything else left out.
    pub fn new(bootstrap_servers: &str, schema_registry: SchemaRegistryConfig) -> Self {
        Self {
            bootstrap_servers: bootstrap_servers.split(',').map(str::to_owned).collect(),
            schema_registry,
            topic_prefix: String::new(),
            replication_factor: DEFAULT_REPLICATION_FACTOR,
            manage_topics: ManageTopics::default(),
            compression: Compression::default(),
            properties: BTreeMap::new(),
        }
    }

    /// Returns every fault of this section, by paths within it; asks nothing of the network.
    #[must_use]
    pub fn violations(&self) -> Violations {
        let mut violations = Violations::new();
        self.check_brokers(&mut violations);
        self.check_properties(&mut violations);
        violations.within("schema_registry", self.schema_registry.violations());
        if violations.is_empty()
            && let Err(error) = Connection::new(self, "validate", "validate").admin().create_native_config()
        {
            let error = without_value(error);
            violations.push("properties", format!("must be settings of librdkafka: {error}"));
        }
        violations
    }

    fn check_brokers(&self, violations: &mut Violations) {
        violations.require(!self.bootstrap_servers.is_empty(), "bootstrap_servers", "must name at least one broker");
        for (index, server) in self.bootstrap_servers.iter().enumerate() {
            let split = server.rsplit_once(':').filter(|(host, _)| !host.is_empty() && !host.contains("://"));
            let holds = split.is_some_and(|(_, port)| port.parse::<u16>().is_ok()) && !server.contains(',');
            violations.require(
                holds,
                format!("bootstrap_servers[{index}]"),
                format!("must be `host:port`, is `{server}`"),
            );
        }
        violations.require(self.replication_factor > 0, "replication_factor", "must be at least 1");
        let odd = self.topic_prefix.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '_' | '-'));
        if let Some(odd) = odd {
            violations.push("topic_prefix", format!("may hold letters, digits, `.`, `_` and `-`, not `{odd}`"));
        }
    }

    fn check_properties(&self, violations: &mut Violations) {
        for (name, value) in &self.properties {
            let path = format!("properties.{name}");
            if let Some((_, instead)) = OWNED.iter().find(|(owned, _)| owned == name) {
                violations.push(path, format!("must be left out: {instead}"));
            } else if let Some((_, instead)) = JAVA.iter().find(|(java, _)| java == name) {
                let what = "is a setting of Java's clients, and Windfall's client is librdkafka";
                violations.push_with_help(path, what, *instead);
            } else if name == "ssl.keystore.location" && value.expose().ends_with(".jks") {
                let help = "convert it to PKCS#12 (`keytool -importkeystore -deststoretype PKCS12`) and name that file";
                violations.push_with_help(path, "must name a PKCS#12 file: librdkafka reads no Java keystore", help);
            } else if SECRET.contains(&name.as_str()) && !value.secret() {
                let help = "write `SECRET[files.NAME]` or `SECRET[env.NAME]` and keep the value there";
                violations.push_with_help(path, "must be a reference to a secret", help);
            }
        }
        self.check_login(violations);
    }

    /// Refuses a login that librdkafka would never send: it takes the settings, and the broker closes the connection.
    fn check_login(&self, violations: &mut Violations) {
        let set = |name: &str| self.properties.get(name).map(|value| value.expose().to_ascii_uppercase());
        let Some(login) = ["sasl.username", "sasl.password"].into_iter().find(|name| set(name).is_some()) else {
            return;
        };
        let protocol = set("security.protocol").unwrap_or_else(|| "PLAINTEXT".to_owned());
        if set("sasl.mechanisms").or_else(|| set("sasl.mechanism")).is_none() {
            let help = "add `sasl.mechanisms: SCRAM-SHA-512`, or `PLAIN`, as the cluster has it";
            violations.push_with_help(format!("properties.{login}"), "is sent only with `sasl.mechanisms`", help);
        }
        if !protocol.starts_with("SASL_") {
            let what =
                format!("is sent only with `security.protocol: SASL_SSL` or `SASL_PLAINTEXT`, not with `{protocol}`");
            violations.push_with_help(format!("properties.{login}"), what, "add `security.protocol: SASL_SSL`");
        }
    }
}

impl SchemaRegistryConfig {
    /// Uses a registry that runs already.
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: Some(url.into()), embedded: None, register: true, username: None, password: None }
    }

    /// Uses the embedded registry, for this process alone or served on an address.
    pub fn embedded(listen: Option<String>) -> Self {
        let embedded = Some(EmbeddedRegistryConfig { listen });
        Self { url: None, embedded, register: true, username: None, password: None }
    }

    /// Returns the URLs to try, in order.
    pub fn urls(&self) -> Vec<String> {
        let urls = self.url.as_deref().unwrap_or_default().split(',');
        urls.map(|url| url.trim().trim_end_matches('/').to_owned()).filter(|url| !url.is_empty()).collect()
    }

    fn violations(&self) -> Violations {
        let mut violations = Violations::new();
        match (&self.url, &self.embedded) {
            (Some(_), Some(_)) => violations.push("", "must have `url` or `embedded`, not both"),
            (None, None) => violations.push("", "must have `url` or `embedded`"),
            (Some(_), None) => self.check_urls(&mut violations),
            (None, Some(EmbeddedRegistryConfig { listen: None })) => {}
            (None, Some(EmbeddedRegistryConfig { listen: Some(listen) })) => violations.require(
                listen.parse::<std::net::SocketAddr>().is_ok(),
                "embedded.listen",
                format!("must be `address:port`, is `{listen}`"),
            ),
        }
        let both = self.username.is_some() == self.password.is_some();
        violations.require(both, "", "must have both `username` and `password`, or neither");
        if let Some(open) = self.open_address() {
            let what = format!(
                "must begin with `https://` where there is a password: `{open}` would have it cross the network for all to read; plain \
                 `http://` is for this machine alone (127.0.0.1, [::1], localhost)"
            );
            let help = "give the registry TLS and write `https://`, or leave `username` and `password` out";
            violations.push_with_help("url", what, help);
        }
        violations
    }

    fn check_urls(&self, violations: &mut Violations) {
        let urls = self.urls();
        violations.require(!urls.is_empty(), "url", "must name a registry");
        for url in urls {
            match url::Url::parse(&url) {
                Err(error) => violations.push("url", format!("must be a URL: {error}")),
                Ok(parsed) if !matches!(parsed.scheme(), "http" | "https") => {
                    violations.push("url", "must begin with `http://` or `https://`");
                }
                Ok(parsed) if !parsed.username().is_empty() || parsed.password().is_some() => {
                    violations.push("url", "must hold no user name and no password: use `username` and `password`");
                }
                Ok(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> KafkaConfig {
        KafkaConfig::new("127.0.0.1:9092", SchemaRegistryConfig::at("http://127.0.0.1:8081"))
    }

    fn violations(config: &KafkaConfig) -> Vec<String> {
        config.violations().into_iter().map(|violation| violation.to_string()).collect()
    }

    fn with_property(name: &str, value: TextOrSecret) -> KafkaConfig {
        KafkaConfig { properties: [(name.to_owned(), value)].into(), ..config() }
    }

    fn text(value: &str) -> TextOrSecret {
        TextOrSecret::Text(value.to_owned())
    }

    #[test]
    fn the_smallest_configuration_stands() {
        assert_eq!(violations(&config()), Vec::<String>::new());
    }

    #[test]
    fn a_setting_that_guarantees_rest_on_is_refused_with_what_to_use_instead() {
        let found = violations(&with_property("enable.auto.commit", text("true")));
        assert_eq!(
            found,
            ["`properties.enable.auto.commit` must be left out: Windfall sets it, its guarantees rest on it"]
        );
        let found = violations(&with_property("compression.type", text("gzip")));
        assert_eq!(found, ["`properties.compression.type` must be left out: use `kafka.compression`"]);
    }

    #[test]
    fn every_setting_that_our_clients_set_is_refused_from_the_file() {
        let connection = Connection::new(&config(), "s", "i");
        let membership = crate::kafka::Membership::Static { instance: "i".to_owned() };
        let ours = [connection.member("g", &membership), connection.transactional("t")];
        // These have a default of ours, which the file may replace: nothing rests on them.
        let free = ["queued.max.messages.kbytes", "fetch.wait.max.ms", "reconnect.backoff.max.ms"];
        let names =
            ours.iter().flat_map(|client| client.config_map().into_keys().map(str::to_owned).collect::<Vec<_>>());
        for name in names.filter(|name| !free.contains(&name.as_str())) {
            assert!(OWNED.iter().any(|(owned, _)| *owned == name), "{name} can be overridden");
        }
    }

    #[test]
    fn what_nothing_rests_on_can_be_set_in_the_file() {
        let reader = Connection::new(&with_property("fetch.wait.max.ms", text("7")), "s", "i").reader();
        assert_eq!(reader.get("fetch.wait.max.ms"), Some("7"));
    }

    #[test]
    fn a_password_must_come_from_a_reference() {
        let found = violations(&with_property("sasl.password", text("hunter2")));
        assert_eq!(found[0], "`properties.sasl.password` must be a reference to a secret");
        let secret = TextOrSecret::Secret(Secret::new("hunter2"));
        assert_eq!(violations(&with_property("ssl.key.password", secret)), Vec::<String>::new());
    }

    #[test]
    fn a_login_that_would_never_be_sent_is_refused() {
        let mut config = with_property("sasl.username", text("app"));
        let found = violations(&config);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("`properties.sasl.username` is sent only with `sasl.mechanisms`"), "{found:?}");
        assert!(found[1].contains("security.protocol: SASL_SSL"), "{found:?}");
        config.properties.insert("sasl.mechanism".to_owned(), text("PLAIN"));
        config.properties.insert("security.protocol".to_owned(), text("sasl_ssl"));
        assert_eq!(violations(&config), Vec::<String>::new());
    }

    #[test]
    fn a_name_that_only_java_knows_is_told_with_ours_and_its_value_is_not() {
        let jaas =
            "org.apache.kafka.common.security.plain.PlainLoginModule required username=\"u\" password=\"hunter2\";";
        for (name, value, ours) in [
            ("sasl.jaas.config", jaas, "sasl.username"),
            ("ssl.truststore.location", "/etc/roots.jks", "ssl.ca.location"),
            ("ssl.keystore.location", "/etc/key.jks", "PKCS#12"),
        ] {
            let faults: Vec<_> = with_property(name, text(value)).violations().into_iter().collect();
            assert_eq!(faults.len(), 1, "{faults:?}");
            assert!(faults[0].help.as_ref().unwrap().contains(ours), "{faults:?}");
            assert!(!format!("{faults:?}").contains("hunter2"), "{faults:?}");
        }
    }

    #[test]
    fn a_setting_that_librdkafka_does_not_know_is_refused() {
        let found = violations(&with_property("ssl.ca.locatoin", text("/x")));
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("ssl.ca.locatoin"), "{found:?}");
    }

    #[test]
    fn a_password_under_a_name_that_was_misspelt_is_not_shown() {
        let found = violations(&with_property("sasl.pasword", text("hunter2")));
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("sasl.pasword") && !found[0].contains("hunter2"), "{found:?}");
    }

    #[test]
    fn brokers_prefix_and_registry_are_looked_at() {
        let mut config = config();
        config.bootstrap_servers = vec!["kafka".into(), "http://kafka:9092".into(), "kafka:9092".into()];
        config.topic_prefix = "a/b".into();
        config.replication_factor = 0;
        config.schema_registry.embedded = Some(EmbeddedRegistryConfig::default());
        config.schema_registry.username = Some("u".into());
        let found: Vec<String> =
            config.violations().into_iter().map(|violation| violation.path.unwrap_or_default()).collect();
        let expected = [
            "bootstrap_servers[0]",
            "bootstrap_servers[1]",
            "replication_factor",
            "topic_prefix",
            "schema_registry",
            "schema_registry",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn several_registries_stand_in_one_line() {
        let registry = SchemaRegistryConfig::at("http://a:8081/, https://b:8081");
        assert_eq!(registry.urls(), ["http://a:8081", "https://b:8081"]);
        assert!(registry.violations().is_empty());
        assert!(!SchemaRegistryConfig::at("ftp://a").violations().is_empty());
        for named in ["http://u:p@a", "http://token@a", "https://:p@a"] {
            assert!(!SchemaRegistryConfig::at(named).violations().is_empty(), "{named}");
        }
    }
}
