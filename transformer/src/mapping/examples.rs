//! The tests that a mapping carries: an input record, and what it is to become.

use windfall_runtime::config::{Fault, Place, Violations};
use windfall_schemas::asset::FieldValue;

use crate::collection::CompiledCollection;
use crate::mapping::literal::{source_literal, test_value};
use crate::mapping::parse::{MappingFile, TestForm};
use crate::mapping::program::Program;
use crate::mapping::source::Row;
use crate::value::Value;

/// A test of a mapping, checked against source and collection.
#[derive(Debug, Clone)]
pub struct Example {
    /// What the test says.
    pub name: String,
    /// The mapping's file.
    pub file: String,
    /// Where the test stands in it.
    pub place: Place,
    input: Row,
    /// Place, name and value of each field that is looked at; `None`: the record is to be left out.
    expect: Option<Vec<(usize, String, FieldValue)>>,
}

/// Checks a mapping's tests; the values are read by the types of source and collection.
pub(crate) fn compile(
    file: &str,
    mapping: &MappingFile,
    program: &Program,
    collection: &CompiledCollection,
) -> Result<Vec<Example>, Violations> {
    let mut problems = Violations::default();
    let examples = mapping.tests.iter().map(|test| example(file, test, program, collection, &mut problems)).collect();
    problems.or(examples)
}

fn example(
    file: &str,
    test: &TestForm,
    program: &Program,
    collection: &CompiledCollection,
    problems: &mut Violations,
) -> Example {
    let table = &program.table;
    let mut input = Row::empty(table);
    for (name, value) in &test.input {
        let Some(position) = table.find(file, &name.value, name.place, problems) else { continue };
        let field = &table.fields[position];
        let read = if value.value.is_null() { Some(Value::Null) } else { source_literal(&value.value, field) };
        match read {
            Some(value) => table.put(&mut input, position, value),
            None => problems.at(
                file,
                value.place,
                format!("`{}` is {}, not {}", name.value, field.named(), value.value.kind()),
            ),
        }
    }
    let expect = test.expect.as_ref().map(|entries| {
        let mut fields = Vec::new();
        for (name, value) in entries {
            let Some(position) = collection.find(file, name, problems) else { continue };
            let kind = collection.schema.fields()[position].kind;
            match test_value(&value.value, kind) {
                Some(value) => fields.push((position, name.value.clone(), value.into_field())),
                None => problems.at(
                    file,
                    value.place,
                    format!("`{}` is {}, not {}", name.value, kind.named(), value.value.kind()),
                ),
            }
        }
        fields
    });
    Example { name: test.name.value.clone(), file: file.to_owned(), place: test.name.place, input, expect }
}

impl Example {
    /// Runs the test; `None` when it comes out as it should.
    #[must_use]
    pub fn run(&self, program: &Program) -> Option<Fault> {
        let mapped = program.evaluate(self.input.clone());
        let differences = match (&self.expect, mapped) {
            (None, None) => Vec::new(),
            (None, Some(_)) => vec!["the record was mapped, and was to be left out by `where`".to_owned()],
            (Some(_), None) => vec!["the record was left out by `where`".to_owned()],
            (Some(expect), Some(mapped)) => expect
                .iter()
                .filter(|(field, _, wanted)| mapped.values[*field] != *wanted)
                .map(|(field, name, wanted)| {
                    format!("`{name}` is {}, expected {}", shown(&mapped.values[*field]), shown(wanted))
                })
                .collect(),
        };
        if differences.is_empty() {
            return None;
        }
        let what = format!("test `{}` failed: {}", self.name, differences.join("; "));
        Some(Fault { file: self.file.clone(), place: Some(self.place), what, ..Fault::default() })
    }
}

fn shown(value: &FieldValue) -> String {
    if value.is_null() { "empty".to_owned() } else { format!("`{value}`") }
}
