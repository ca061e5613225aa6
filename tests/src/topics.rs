//! The topics as another client sees them: Java's consumer reads, `apache-avro` decodes, no product code takes part.

use std::collections::{BTreeMap, HashMap};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::Value as Json;

/// Which records a reader sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Those of transactions that were committed.
    Committed,
    /// All, those of aborted and open transactions included.
    Uncommitted,
}

/// One record, decoded.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Entry {
    /// Topic, its prefix included.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// The broker's time, in milliseconds.
    pub timestamp: i64,
    /// The partition that Java's own partitioner gives to the key's bytes; -1 where there is no key.
    pub home: i32,
    /// The key's bytes, frame included.
    pub key_bytes: Vec<u8>,
    /// Decoded key; `Null` where there is none.
    pub key: Json,
    /// Decoded value; `None` is a tombstone.
    pub value: Option<Json>,
    /// The last value of each header, as text.
    pub headers: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Line {
    topic: String,
    partition: i32,
    home: i32,
    offset: i64,
    timestamp: i64,
    key: Option<String>,
    value: Option<String>,
    headers: Vec<(String, Option<String>)>,
}

/// An open transaction is ended by its broker within 15 s, the product's setting; one that lasts longer than this hangs.
const PATIENCE: Duration = Duration::from_secs(40);

/// Reads topics and decodes them by the schemas of one registry.
#[derive(Debug)]
pub struct TopicReader {
    bootstrap: String,
    registry: String,
    patience: Duration,
    schemas: HashMap<u32, Schema>,
}

impl TopicReader {
    /// Makes a reader of the broker at `bootstrap` with the registry at `registry`.
    #[must_use]
    pub fn new(bootstrap: &str, registry: &str) -> Self {
        Self {
            bootstrap: bootstrap.to_owned(),
            registry: registry.to_owned(),
            patience: PATIENCE,
            schemas: HashMap::new(),
        }
    }

    /// Waits so long for an open transaction to end, instead of longer than a broker lets one of the product's be open.
    #[must_use]
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Reads the whole of some topics, in the order of partition and offset for each.
    ///
    /// The end is the log's own, as it stands at the start: what an open transaction hides is waited for, and missed in words.
    ///
    /// # Errors
    /// When Java cannot read, a transaction stays open, or a record cannot be decoded.
    pub fn read(&mut self, isolation: Isolation, topics: &[&str]) -> anyhow::Result<Vec<Entry>> {
        let jars = windfall_services::Jars::kafka()?;
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/java/ReadTopics.java");
        let level = match isolation {
            Isolation::Committed => "read_committed",
            Isolation::Uncommitted => "read_uncommitted",
        };
        let output = Command::new("java")
            .args([
                "-XX:TieredStopAtLevel=1",
                "-XX:+UseSerialGC",
                "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
                "-cp",
            ])
            .arg(jars.join("*"))
            .args([program, &self.bootstrap, level, &self.patience.as_secs().to_string()])
            .args(topics)
            .output()
            .context("cannot run java")?;
        ensure!(output.status.success(), "the reader failed: {}", String::from_utf8_lossy(&output.stderr));
        let mut entries = Vec::new();
        for line in String::from_utf8(output.stdout)?.lines() {
            let line: Line =
                serde_json::from_str(line).with_context(|| format!("not a line of the reader: {line:.200}"))?;
            entries.push(self.entry(line)?);
        }
        entries.sort_by(|a, b| (&a.topic, a.partition, a.offset).cmp(&(&b.topic, b.partition, b.offset)));
        Ok(entries)
    }

    fn entry(&mut self, line: Line) -> anyhow::Result<Entry> {
        let place = format!("{} {} @{}", line.topic, line.partition, line.offset);
        let key_bytes = BASE64_STANDARD.decode(line.key.as_deref().unwrap_or_default())?;
        let key = line.key.map(|key| self.decode(&key)).transpose().with_context(|| format!("key of {place}"))?;
        let value =
            line.value.map(|value| self.decode(&value)).transpose().with_context(|| format!("value of {place}"))?;
        let mut headers = BTreeMap::new();
        for (name, value) in line.headers {
            let bytes = BASE64_STANDARD.decode(value.unwrap_or_default())?;
            headers.insert(name, String::from_utf8_lossy(&bytes).into_owned());
        }
        let Line { topic, partition, offset, timestamp, home, .. } = line;
        let key = key.unwrap_or(Json::Null);
        Ok(Entry { topic, partition, offset, timestamp, home, key_bytes, key, value, headers })
    }

    fn decode(&mut self, encoded: &str) -> anyhow::Result<Json> {
        let bytes = BASE64_STANDARD.decode(encoded)?;
        let [0, a, b, c, d, datum @ ..] = bytes.as_slice() else {
            // Signals are plain text.
            let text = String::from_utf8(bytes)?;
            return Ok(serde_json::from_str(&text).unwrap_or(Json::String(text)));
        };
        let schema = self.schema(u32::from_be_bytes([*a, *b, *c, *d]))?;
        let mut rest = datum;
        let value = GenericDatumReader::builder(schema).build()?.read_value(&mut rest)?;
        ensure!(rest.is_empty(), "{} bytes left over", rest.len());
        json(value)
    }

    fn schema(&mut self, id: u32) -> anyhow::Result<&Schema> {
        if !self.schemas.contains_key(&id) {
            let url = format!("{}/schemas/ids/{id}", self.registry.trim_end_matches('/'));
            let answer: Json = blocking(async { reqwest::get(&url).await?.error_for_status()?.json().await })?;
            let text = answer["schema"].as_str().context("the registry's answer has no schema")?;
            self.schemas.insert(id, Schema::parse_str(text)?);
        }
        self.schemas.get(&id).context("just inserted")
    }
}

/// Waits for a request of a checker, which has no runtime of its own.
fn blocking<T>(request: impl Future<Output = reqwest::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(request)?)
}

/// Turns a decoded datum into plain JSON: unions as their value, times and longs as numbers.
fn json(value: Value) -> anyhow::Result<Json> {
    Ok(match value {
        Value::Null => Json::Null,
        Value::Boolean(it) => it.into(),
        Value::Int(it) => it.into(),
        Value::Long(it) | Value::TimestampMillis(it) => it.into(),
        Value::Double(it) => it.into(),
        Value::String(it) => it.into(),
        Value::Bytes(it) => BASE64_STANDARD.encode(it).into(),
        Value::Union(_, inner) => json(*inner)?,
        Value::Array(items) => Json::Array(items.into_iter().map(json).collect::<anyhow::Result<_>>()?),
        Value::Map(items) => {
            Json::Object(items.into_iter().map(|(name, it)| Ok((name, json(it)?))).collect::<anyhow::Result<_>>()?)
        }
        Value::Record(fields) => {
            Json::Object(fields.into_iter().map(|(name, it)| Ok((name, json(it)?))).collect::<anyhow::Result<_>>()?)
        }
        other => bail!("no schema of ours holds {other:?}"),
    })
}
