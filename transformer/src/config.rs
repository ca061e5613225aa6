//! The transformer's part of the configuration.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windfall_runtime::config::Violations;

use crate::catalog::DEFAULT_COLLECTION;

/// A collection of assets: what an asset is, and which mappings fill it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CollectionConfig {
    /// Name of the collection, as in its file; it becomes part of topic names: `[a-z][a-z0-9_]*`.
    pub name: String,
    /// The collection's file, relative to the configuration file; the shipped one when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// Mapping files, relative to the configuration file, each of another source table; the shipped ones when left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mappings: Vec<PathBuf>,
}

impl CollectionConfig {
    /// The collection that is meant when none is configured.
    pub fn shipped() -> Self {
        Self { name: DEFAULT_COLLECTION.to_owned(), file: None, mappings: Vec::new() }
    }
}

/// Checks the configured collections without reading their files.
#[must_use]
pub fn violations(collections: &[CollectionConfig]) -> Violations {
    let mut violations = Violations::new();
    for (index, collection) in collections.iter().enumerate() {
        let mut push =
            |field: &str, constraint: String| violations.push(format!("collections[{index}].{field}"), constraint);
        let name = &collection.name;
        if windfall_schemas::identifiers::Org::parse(name).is_err() {
            push("name", format!("must match [a-z][a-z0-9_]*, `{name}` does not"));
        }
        if collections[..index].iter().any(|other| other.name == *name) {
            push("name", format!("must be unique, `{name}` stands twice"));
        }
        if collection.file.is_none() && name != DEFAULT_COLLECTION {
            push("file", format!("must be given: `{name}` is not the shipped collection"));
        }
        if collection.mappings.is_empty() && name != DEFAULT_COLLECTION {
            push("mappings", format!("must name at least one mapping: `{name}` is not the shipped collection"));
        }
    }
    violations
}
