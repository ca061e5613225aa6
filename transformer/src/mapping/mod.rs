//! The mapping language: how one source table fills a collection.
//!
//! A mapping is declarative and total. It is read with the places of all its parts (`parse`), checked against the
//! source's Avro schema and the collection's types before the first record (`compile`), and then evaluated (`program`).
//!
//! | form of a field | meaning |
//! | --- | --- |
//! | `serial_number` | that source field |
//! | `{ from: imei, take: first }` | an item of a list: `first`, `last`, a number from 1, or all by `join` |
//! | `{ coalesce: [a, { from: b, take: last }] }` | the first that is not empty |
//! | `{ template: "{device_model} ({serial_number})" }` | text with fields; empty when one of them is |
//! | `{ const: leased }` | always that |
//!
//! After the source come, in this order: `lookup` (a table of `lookups`), `format`, the conversion to the field's type,
//! `only_if` and `unless` (all conditions of `only_if` must hold, not all of `unless`; else the field is empty), and `default`
//! for whatever is empty then. A type never changes in silence: text is read as a number or a time by `format: parse` alone.

mod compile;
mod examples;
mod format;
mod literal;
mod lookup;
pub(crate) mod parse;
mod program;
pub mod source;

use std::sync::Arc;

pub use compile::ReadBeside;
pub use examples::Example;
pub(crate) use program::JOINED_BY;
pub use program::{Mapped, Program};

use windfall_runtime::config::{Fault, Place, Violations, did_you_mean};

use crate::collection::CompiledCollection;
use crate::mapping::source::SourceTable;

/// A mapping that was checked, with the tests that it carries.
#[derive(Debug, Clone)]
pub struct Mapping {
    /// The file it was read from.
    pub file: String,
    /// Where its name stands.
    pub(crate) name_at: Place,
    /// Where its source is named.
    pub(crate) from_at: Place,
    /// What runs.
    pub program: Arc<Program>,
    /// The tests that it carries.
    pub examples: Vec<Example>,
}

impl Mapping {
    /// Runs the mapping's own tests.
    #[must_use]
    pub fn test(&self) -> Vec<Fault> {
        self.examples.iter().filter_map(|example| example.run(&self.program)).collect()
    }
}

/// Reads and checks a mapping file.
///
/// # Errors
/// All faults of the file, with their places.
pub fn load(
    file: &str,
    text: &str,
    tables: &[Arc<SourceTable>],
    collection: &CompiledCollection,
    beside: ReadBeside<'_>,
) -> Result<Mapping, Violations> {
    let parsed = parse::mapping(file, text)?;
    let mut problems = Violations::default();
    if parsed.into.value != collection.name {
        let hint = did_you_mean(&parsed.into.value, [collection.name.as_str()]);
        let message = format!(
            "the mapping is `into: {}`, but is listed under the collection `{}`{hint}",
            parsed.into.value, collection.name
        );
        problems.at(file, parsed.into.place, message);
    }
    let Some(table) = tables.iter().find(|table| table.name == parsed.from.value) else {
        let hint = did_you_mean(&parsed.from.value, tables.iter().map(|table| table.name.as_str()));
        problems.at(file, parsed.from.place, format!("there is no source table `{}`{hint}", parsed.from.value));
        return Err(problems);
    };
    let mut sound = |more| problems.extend(more);
    let program = compile::compile(file, text, &parsed, table, collection, beside).map_err(&mut sound).ok();
    let examples = program.as_ref().map(|program| examples::compile(file, &parsed, program, collection));
    let examples = examples.and_then(|examples| examples.map_err(&mut sound).ok());
    let mapping = program.zip(examples).map(|(program, examples)| Mapping {
        file: file.to_owned(),
        name_at: parsed.name.place,
        from_at: parsed.from.place,
        program: Arc::new(program),
        examples,
    });
    Ok(problems.or(mapping)?.expect("where there is no mapping there is a fault"))
}
