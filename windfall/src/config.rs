//! The configuration file, which holds the configuration of all stages.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::Deserialize;
use windfall_producer::config::SourceConfig;
use windfall_runtime::config::{Violations, plain_name, suggestion};
use windfall_runtime::kafka::config::KafkaConfig;
use windfall_runtime::secret::{SecretBackend, SecretBackendKind};
use windfall_sink::config::{SinkConfig, SinkKind};
use windfall_transformer::CollectionConfig;
use windfall_transformer::catalog::DEFAULT_COLLECTION;

/// The only version of the configuration format.
pub const VERSION: u32 = 1;
/// Loopback, so that health and metrics are served to other hosts only where the configuration says so.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:9644";

/// Configuration of Windfall: one file for all stages and for all commands.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Version of the configuration's form: 1.
    pub version: u32,
    /// Where secrets are kept, by name; `SECRET[NAME.x]` is the file `x` there, `SECRET[env.X]` always the variable `X`.
    #[serde(default)]
    pub secrets: BTreeMap<String, SecretBackend>,
    /// Which Kafka cluster and schema registry to use.
    pub kafka: KafkaConfig,
    /// Where health, metrics and status are served.
    #[serde(default)]
    pub http: HttpConfig,
    /// Name of this process among its peers, one a host; the host's name when left out.
    #[serde(default)]
    pub instance: Option<String>,
    /// Organizations to read.
    #[serde(default)]
    pub sources: Vec<SourceConfig>,
    /// Collections of assets; the shipped collection `devices` when left out.
    #[serde(default)]
    pub collections: Vec<CollectionConfig>,
    /// Stores to write.
    #[serde(default)]
    pub sinks: Vec<SinkConfig>,
}

/// Where health, metrics and status are served.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Address, `host:port`; `off` for nowhere.
    pub listen: String,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { listen: DEFAULT_LISTEN.to_owned() }
    }
}

impl Config {
    /// Returns all violations with their paths. Uses no network.
    #[must_use]
    pub fn violations(&self) -> Violations {
        let mut all = Violations::new();
        all.require(self.version == VERSION, "version", format!("must be {VERSION}, the only version so far"));
        self.secret_violations(&mut all);
        all.within("kafka", self.kafka.violations());
        if let Some(what) = listen_fault(&self.http.listen) {
            all.push_with_help("http.listen", what, format!("write `{DEFAULT_LISTEN}`, or `off`"));
        }
        if self.instance.as_deref().is_some_and(|name| !instance_name(name)) {
            all.push("instance", "may hold letters, digits, `.`, `_` and `-`, at most 64 of them");
        }
        for (index, source) in self.sources.iter().enumerate() {
            all.within(&format!("sources[{index}]"), source.violations());
        }
        unique(&mut all, "sources", self.sources.iter().map(|source| source.name.as_str()));
        self.account_violations(&mut all);
        all.extend(windfall_transformer::config::violations(&self.collections));
        self.sink_violations(&mut all);
        all
    }

    /// Refuses two sources with one account: each has its own limiter and token budget, but Apple counts by account.
    fn account_violations(&self, all: &mut Violations) {
        let mut holders = BTreeMap::new();
        for (index, source) in self.sources.iter().enumerate() {
            let Some(account) = source.account() else { continue };
            if let Some(other) = holders.insert((account.token_url.to_string(), account.client_id), &source.name) {
                let what =
                    format!("must be an account of its own, `{}` uses that of the source `{other}`", source.name);
                let help = "leave one of the two out, or make a second API account in Apple's portal: each source spends a request \
                            budget of its own, and Apple counts by account";
                all.push_with_help(format!("sources[{index}].client_id"), what, help);
            }
        }
    }

    fn secret_violations(&self, all: &mut Violations) {
        for (name, backend) in &self.secrets {
            let path = format!("secrets.{name}");
            let SecretBackend { kind, path: folder, allow_exposed: _ } = backend;
            all.require(plain_name(name), &path, format!("must match [a-z][a-z0-9_]*, `{name}` does not"));
            all.require(name != "env", &path, "must not be called `env`: that is the environment");
            match kind {
                SecretBackendKind::Directory => {
                    all.require(folder.is_some(), format!("{path}.path"), "must name the directory");
                }
            }
        }
    }

    fn sink_violations(&self, all: &mut Violations) {
        let collections = self.collection_names();
        let mut targets = BTreeMap::new();
        for (index, sink) in self.sinks.iter().enumerate() {
            let path = format!("sinks[{index}]");
            all.within(&path, sink.violations());
            if !collections.contains(&sink.collection.as_str()) {
                let what = format!("must name a collection, `{}` is none", sink.collection);
                all.push_with_help(format!("{path}.collection"), what, suggestion(&sink.collection, &collections));
            }
            let store = match sink.kind {
                SinkKind::Postgres => sink.url.as_ref().map(|url| url.expose().to_owned()),
                SinkKind::Sqlite => sink.path.as_ref().map(|path| path.display().to_string()),
            };
            if let Some(store) = store
                && let Some(other) = targets.insert((store, sink.table.clone()), &sink.name)
            {
                let what = format!("must be a table of its own, `{}` is filled by the sink `{other}`", sink.table);
                all.push(format!("{path}.table"), what);
            }
        }
        unique(all, "sinks", self.sinks.iter().map(|sink| sink.name.as_str()));
    }

    /// Returns the names of the collections, the shipped one when none is configured.
    pub fn collection_names(&self) -> Vec<&str> {
        match self.collections.as_slice() {
            [] => vec![DEFAULT_COLLECTION],
            collections => collections.iter().map(|collection| collection.name.as_str()).collect(),
        }
    }
}

fn unique<'a>(all: &mut Violations, list: &str, names: impl Iterator<Item = &'a str>) {
    let mut seen = Vec::new();
    for (index, name) in names.enumerate() {
        all.require(
            !seen.contains(&name),
            format!("{list}[{index}].name"),
            format!("must be unique, `{name}` stands twice"),
        );
        seen.push(name);
    }
}

/// Returns what is wrong with a listen address; `off` is valid.
pub(crate) fn listen_fault(listen: &str) -> Option<String> {
    let (host, port) = match listen.rsplit_once(':') {
        _ if listen == "off" => return None,
        Some(parts) => parts,
        None => return Some(format!("must be `host:port`, is `{listen}`")),
    };
    let valid = listen.parse::<SocketAddr>().is_ok()
        || (!host.is_empty() && !host.contains(':') && port.parse::<u16>().is_ok());
    (!valid).then(|| format!("must be `host:port`, is `{listen}`"))
}

/// Returns whether a name can be part of client ids and transactional ids.
pub(crate) fn instance_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !name.is_empty() && name.len() <= 64 && name.chars().all(fits)
}
