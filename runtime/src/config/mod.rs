//! One YAML file: unknown keys refused, variables and secrets put in after parsing, every fault named with its place.
//!
//! The file is read in three steps. It is parsed into a tree whose values know their places; `${NAME}`, `${NAME:default}` and
//! `SECRET[backend.name]` are replaced in single values of the tree, so that a value can never add a key; then the structs are
//! filled from the tree. Nothing else is taken from the environment. `$${` stands for a plain `${`. Faults of all three steps are
//! reported together: a key or value that cannot be read is left out, and the rest is read and checked without it.

mod encoding;
mod explain;
mod fill;
mod load;
mod substitute;
#[cfg(test)]
mod tests;
mod units;
mod violation;
pub mod yaml;

pub use encoding::{SAVE_AS_UTF8, text_of};
pub use explain::{did_you_mean, nearest, suggestion};
pub(crate) use fill::TEXT_OR_SECRET;
pub use load::{ConfigError, Fault, Loaded, MAX_CONFIG_BYTES, Rules, Texts, folder_of, load, parse};
pub use substitute::SecretReading;
pub use units::{Period, UnitError};
pub use violation::Violations;
pub use yaml::Place;

/// Generates the JSON Schema of a configuration, as it is checked in and as editors read it.
pub fn schema<T: schemars::JsonSchema>() -> serde_json::Value {
    schemars::schema_for!(T).to_value()
}

/// Whether `name` may name a source, sink or collection: `[a-z][a-z0-9_]*`, since it becomes part of topics and groups.
pub fn plain_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}
