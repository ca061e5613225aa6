//! The collections of a configuration: read, checked against each other and against the sources, and compiled.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use windfall_runtime::config::{Fault, SAVE_AS_UTF8, Violations, text_of};
use windfall_schemas::topic::{CHANGE_PARTITIONS, Table};

use crate::collection::{self, CompiledCollection};
use crate::config::CollectionConfig;
use crate::mapping::source::SourceTable;
use crate::mapping::{self, Mapping};

/// The shipped collection `devices`.
pub const DEVICES_COLLECTION: &str = include_str!("../defaults/devices.yaml");
/// The shipped mapping of `abm.devices` into it.
pub const ABM_DEVICES_MAPPING: &str = include_str!("../defaults/abm-devices.yaml");

/// Name of the collection that is shipped.
pub const DEFAULT_COLLECTION: &str = "devices";

/// A collection and the mappings that fill it, all of them checked.
#[derive(Debug, Clone)]
pub struct LoadedCollection {
    /// The collection.
    pub collection: Arc<CompiledCollection>,
    /// Its mappings, each of another source table.
    pub mappings: Vec<Mapping>,
}

impl LoadedCollection {
    /// The source tables that the mappings name, without prefix.
    pub fn sources(&self) -> Vec<&str> {
        self.mappings.iter().map(|mapping| mapping.program.table.name.as_str()).collect()
    }

    /// The identity of what maps and merges: a hash of the collection and its mappings, whatever their order.
    pub fn program(&self) -> String {
        let mut versions: Vec<&str> = self.mappings.iter().map(|mapping| &*mapping.program.version).collect();
        versions.sort_unstable();
        format!("{:032x}", xxhash_rust::xxh3::xxh3_128(versions.join("\n").as_bytes()))
    }

    /// Runs the tests of all mappings.
    #[must_use]
    pub fn test(&self) -> Vec<Fault> {
        self.mappings.iter().flat_map(Mapping::test).collect()
    }
}

/// Reads, checks and compiles the collections of a configuration; an empty list is the shipped collection.
///
/// Paths are relative to `base`, the folder of the configuration file; files of lookups to their mapping's.
///
/// # Errors
/// All faults of all files, with their places.
pub fn load_collections(base: &Path, configs: &[CollectionConfig]) -> Result<Vec<LoadedCollection>, Violations> {
    let shipped = [CollectionConfig::shipped()];
    let configs = if configs.is_empty() { &shipped } else { configs };
    let tables = source_tables()?;
    let mut problems = Violations::default();
    let mut loaded = Vec::new();
    for config in configs {
        match load_one(base, config, &tables) {
            Ok(collection) => loaded.push(collection),
            Err(more) => problems.extend(more),
        }
    }
    problems.or(loaded)
}

/// The tables that mappings can read.
///
/// # Errors
/// When a schema that is built in is not that of a table.
pub fn source_tables() -> Result<Vec<Arc<SourceTable>>, Violations> {
    let mut problems = Violations::default();
    let mut tables = Vec::new();
    for table in Table::ALL {
        match SourceTable::from_schema(table.topic, table.value_schema) {
            Ok(table) => tables.push(Arc::new(table)),
            Err(error) => problems.at(table.topic, None, error.to_string()),
        }
    }
    problems.or(tables)
}

/// A file of the configuration, or a shipped one.
struct Source {
    shown: String,
    text: String,
    /// `None` for a shipped file, beside which nothing lies.
    path: Option<PathBuf>,
}

impl Source {
    fn shipped(name: &str, text: &str) -> Self {
        Self { shown: format!("<shipped>/{name}"), text: text.to_owned(), path: None }
    }

    fn read(base: &Path, path: &Path) -> Result<Self, Violations> {
        let shown = path.display().to_string();
        let path = base.join(path);
        match read(&path) {
            Ok(text) => Ok(Self { shown, text, path: Some(path) }),
            Err(why) => Err(one(&shown, format!("cannot be read: {why}"))),
        }
    }

    fn beside(&self, name: &str) -> Result<String, String> {
        let folder =
            self.path.as_ref().and_then(|path| path.parent()).ok_or("a shipped mapping has no files beside it")?;
        read(&folder.join(name))
    }
}

/// Reads a text file; the error says why that is not possible.
fn read(path: &Path) -> Result<String, String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    text_of(bytes).map_err(|what| format!("it {what}; {SAVE_AS_UTF8}"))
}

fn load_one(
    base: &Path,
    config: &CollectionConfig,
    tables: &[Arc<SourceTable>],
) -> Result<LoadedCollection, Violations> {
    let source = match &config.file {
        Some(path) => Source::read(base, path)?,
        None if config.name == DEFAULT_COLLECTION => Source::shipped("devices.yaml", DEVICES_COLLECTION),
        None => return Err(one(&config.name, "is not a shipped collection, so it needs a `file`")),
    };
    let collection = Arc::new(collection::parse(&source.shown, &source.text)?);
    if collection.name != config.name {
        let message =
            format!("describes the collection `{}`, but the configuration calls it `{}`", collection.name, config.name);
        return Err(one(&source.shown, message));
    }
    let sources = match config.mappings.as_slice() {
        [] if config.name == DEFAULT_COLLECTION => vec![Ok(Source::shipped("abm-devices.yaml", ABM_DEVICES_MAPPING))],
        [] => return Err(one(&config.name, "has no `mappings`, so nothing would fill it")),
        paths => paths.iter().map(|path| Source::read(base, path)).collect(),
    };
    let mut problems = Violations::default();
    let mut mappings = Vec::new();
    for source in sources {
        let read = source.and_then(|source| {
            let beside = |name: &str| source.beside(name);
            mapping::load(&source.shown, &source.text, tables, &collection, &beside)
        });
        match read {
            Ok(mapping) => mappings.push(mapping),
            Err(more) => problems.extend(more),
        }
    }
    check_together(&mappings, &mut problems);
    problems.or(LoadedCollection { collection, mappings })
}

fn one(file: &str, message: impl Into<String>) -> Violations {
    let mut problems = Violations::default();
    problems.at(file, None, message);
    problems
}

/// Checks what a mapping alone cannot know: that names and sources are its own, and that its source can feed a collection.
fn check_together(mappings: &[Mapping], problems: &mut Violations) {
    for (index, mapping) in mappings.iter().enumerate() {
        let (name, table) = (&mapping.program.name, &mapping.program.table.name);
        if let Some(first) = mappings[..index].iter().find(|other| other.program.name == *name) {
            problems.at(
                &mapping.file,
                mapping.name_at,
                format!("the mapping `{name}` is already described in {}", first.file),
            );
        }
        if let Some(first) = mappings[..index].iter().find(|other| other.program.table.name == *table) {
            let message =
                format!("`{table}` already feeds this collection through {}: one source has one mapping", first.file);
            problems.at(&mapping.file, mapping.from_at, message);
        }
        let partitions = Table::from_topic(table).map_or(CHANGE_PARTITIONS, |table| table.partitions);
        if partitions != CHANGE_PARTITIONS {
            let message = format!(
                "`{table}` has {partitions} partition(s) and cannot feed a collection, whose links have {CHANGE_PARTITIONS}"
            );
            problems.at(&mapping.file, mapping.from_at, message);
        }
    }
}
