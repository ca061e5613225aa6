//! A sink's part of the configuration.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windfall_runtime::config::{Period, Violations, plain_name};
use windfall_runtime::secret::TextOrSecret;

use crate::store::postgres::Address;
use crate::table::TableName;

/// The table that is filled when none is named.
pub const DEFAULT_TABLE: &str = "assets";

/// Records of a batch: where UNNEST is at its best, and small enough to be halved in ten steps.
const DEFAULT_COUNT: u32 = 1_000;
/// Most records of a batch; beyond it the server gains nothing and a lock is held long.
const MAX_COUNT: u32 = 10_000;
/// How long a batch waits for company: a change alone shall be in its row within tens of milliseconds.
const DEFAULT_PERIOD: Period = Period::from_millis(20);
/// Longest such wait: a group's member must answer sooner than this.
const MAX_PERIOD: Period = Period::from_secs(5);
/// Records looked back on when dead letters are counted.
const DEFAULT_NACK_WINDOW: u32 = 100;
/// Dead letters among these that are still taken for bad records; more of them are a bad sink.
const DEFAULT_NACK_THRESHOLD: u32 = 20;

/// One sink: a store that one collection is written into.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SinkConfig {
    /// Name of the sink, `[a-z][a-z0-9_]*`; it names the consumer group, the dead letters and the positions.
    pub name: String,
    /// What kind of store it is.
    #[serde(rename = "type")]
    pub kind: SinkKind,
    /// Address of the server, for `postgres`: `postgres://user@host:5432/database`. One with a password is a secret.
    #[serde(default)]
    pub url: Option<TextOrSecret>,
    /// The file, for `sqlite`, relative to the configuration file.
    #[serde(default)]
    pub path: Option<PathBuf>,
    /// The collection whose records are written.
    pub collection: String,
    /// The table, `table` or `schema.table`; made when it is missing.
    #[serde(default = "default_table")]
    pub table: String,
    /// What the sink may do to the tables of its store.
    #[serde(default)]
    pub schema: SchemaMode,
    /// How records are cut into batches.
    #[serde(default)]
    pub batch: BatchConfig,
    /// When records that the store refuses stop the sink.
    #[serde(default)]
    pub dlq: DlqConfig,
}

fn default_table() -> String {
    DEFAULT_TABLE.to_owned()
}

/// Kinds of stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SinkKind {
    /// A PostgreSQL server.
    Postgres,
    /// A SQLite file.
    Sqlite,
}

impl SinkKind {
    /// Returns the name as it stands in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Sqlite => "sqlite",
        }
    }
}

/// What a sink may do to the tables of its store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SchemaMode {
    /// Makes nothing and looks at nothing but the sink's own two tables, which must exist.
    None,
    /// Makes nothing, and refuses to start with the statements that are missing.
    Validate,
    /// Makes the tables and adds columns, each statement logged first; never changes or drops one.
    #[default]
    Evolve,
}

/// How records are cut into batches: whichever comes first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BatchConfig {
    /// This many records.
    pub count: NonZeroU32,
    /// This long after the first record.
    pub period: Period,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self { count: NonZeroU32::new(DEFAULT_COUNT).unwrap_or(NonZeroU32::MIN), period: DEFAULT_PERIOD }
    }
}

/// When records that the store refuses stop the sink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DlqConfig {
    /// How many of the last records are looked at.
    pub nack_window: NonZeroU32,
    /// More dead letters than this among them stop the sink, before the position moves.
    pub nack_threshold: u32,
}

impl Default for DlqConfig {
    fn default() -> Self {
        let nack_window = NonZeroU32::new(DEFAULT_NACK_WINDOW).unwrap_or(NonZeroU32::MIN);
        Self { nack_window, nack_threshold: DEFAULT_NACK_THRESHOLD }
    }
}

/// What a sink has to know beside its store, whatever that is.
#[derive(Debug, Clone)]
pub struct SinkSettings {
    /// Name of the sink, `[a-z][a-z0-9_]*`; it names the consumer group and the dead letters.
    pub name: String,
    /// Kind of the store, as the dead letters name it.
    pub store: String,
    /// How records are cut into batches.
    pub batch: BatchConfig,
    /// When records that the store refuses stop the sink.
    pub dlq: DlqConfig,
}

impl SinkSettings {
    /// Takes the defaults for a sink of this name over this kind of store.
    pub fn new(name: impl Into<String>, store: impl Into<String>) -> Self {
        let (batch, dlq) = (BatchConfig::default(), DlqConfig::default());
        Self { name: name.into(), store: store.into(), batch, dlq }
    }
}

impl From<SinkConfig> for SinkSettings {
    fn from(SinkConfig { name, kind, batch, dlq, .. }: SinkConfig) -> Self {
        Self { name, store: kind.as_str().to_owned(), batch, dlq }
    }
}

impl SinkConfig {
    /// Checks everything that can be checked without a network, paths relative to this sink.
    #[must_use]
    pub fn violations(&self) -> Violations {
        let mut violations = Violations::new();
        violations.require(
            plain_name(&self.name),
            "name",
            format!("must match [a-z][a-z0-9_]*, `{}` does not", self.name),
        );
        violations.require(plain_name(&self.collection), "collection", "must name a collection");
        if let Err(error) = TableName::parse(&self.table) {
            violations.refused("table", "must be `table` or `schema.table`", &error);
        }
        match self.kind {
            SinkKind::Postgres => self.postgres_violations(&mut violations),
            SinkKind::Sqlite => self.sqlite_violations(&mut violations),
        }
        let BatchConfig { count, period } = &self.batch;
        violations.require(count.get() <= MAX_COUNT, "batch.count", format!("must be at most {MAX_COUNT}"));
        violations.require(*period <= MAX_PERIOD, "batch.period", format!("must be at most {MAX_PERIOD}"));
        let DlqConfig { nack_window, nack_threshold } = &self.dlq;
        violations.require(
            *nack_threshold < nack_window.get(),
            "dlq.nack_threshold",
            format!("must be below `dlq.nack_window` ({nack_window})"),
        );
        violations
    }

    fn postgres_violations(&self, violations: &mut Violations) {
        violations.require(self.path.is_none(), "path", "is for `type: sqlite`");
        let Some(url) = &self.url else {
            let help = "write `url: postgres://user@host:5432/database`, or `url: SECRET[env.DATABASE_URL]`";
            violations.push_with_help("url", "must name the server for `type: postgres`", help);
            return;
        };
        if !url.secret() && holds_password(url.expose()) {
            let help = "put the whole URL into a variable or file and write `url: SECRET[env.DATABASE_URL]`";
            violations.push_with_help("url", "must not hold a password in the file", help);
            return;
        }
        if let Err(refusal) = Address::parse(url.expose()) {
            violations.refused("url", "must be an address of PostgreSQL", &refusal);
        }
    }

    fn sqlite_violations(&self, violations: &mut Violations) {
        violations.require(self.url.is_none(), "url", "is for `type: postgres`");
        violations.require(!self.table.contains('.'), "table", "must have no schema for `type: sqlite`");
        let named = self.path.as_ref().is_some_and(|path| !path.as_os_str().is_empty());
        violations.require(named, "path", "must name the file for `type: sqlite`");
    }

    /// Makes paths relative to the folder of the configuration file.
    pub fn resolve_paths(&mut self, folder: &Path) {
        if let Some(path) = &mut self.path {
            *path = folder.join(&path);
        }
    }
}

/// Whether a URL holds a password, in front of the host or among its options, however wrongly it is written.
fn holds_password(text: &str) -> bool {
    let behind_scheme = text.split_once("://").map_or(text, |(_, rest)| rest);
    behind_scheme.rsplit_once('@').is_some_and(|(user, _)| user.contains(':')) || text.contains("password")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sink(extra: &str) -> SinkConfig {
        serde_json::from_str(&format!(r#"{{"name": "assets", "collection": "devices", {extra}}}"#)).unwrap()
    }

    fn paths(config: &SinkConfig) -> Vec<String> {
        config.violations().into_iter().map(|violation| violation.path.unwrap_or_default()).collect()
    }

    #[test]
    fn a_sink_needs_little() {
        let postgres = sink(r#""type": "postgres", "url": "postgres://windfall@db.example.com/fleet""#);
        assert_eq!(paths(&postgres), [""; 0]);
        assert_eq!(postgres.table, "assets");
        assert_eq!(paths(&sink(r#""type": "sqlite", "path": "assets.db""#)), [""; 0]);
    }

    #[test]
    fn a_password_in_the_file_is_refused_with_the_remedy_and_not_repeated() {
        for url in [
            "postgres://u:canary@h/d",
            "postgres://u@h/d?password=canary",
            "u:canary@h",
            "postgres://u:12/34canary@h/d",
            "postgres://u:can#ary@h/d",
        ] {
            let config = sink(&format!(r#""type": "postgres", "url": "{url}""#));
            let violations: Vec<_> = config.violations().into_iter().collect();
            assert_eq!(violations[0].path.as_deref(), Some("url"));
            assert!(violations[0].help.as_ref().unwrap().contains("SECRET[env.DATABASE_URL]"));
            assert!(!format!("{violations:?} {config:?}").contains("canary"));
        }
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let config = sink(
            r#""type": "sqlite", "url": "x", "table": "Bad-Name", "batch": {"count": 20000, "period": "1m"},
               "dlq": {"nack_window": 5, "nack_threshold": 5}"#,
        );
        assert_eq!(paths(&config), ["table", "url", "path", "batch.count", "batch.period", "dlq.nack_threshold"]);
    }
}
