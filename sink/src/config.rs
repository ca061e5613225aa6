//! A sink's part of the configuration.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
