//! Checks a mapping against its source and its collection and compiles it: every fault is found before the first record.

use std::collections::HashMap;
use std::sync::Arc;

use windfall_runtime::config::yaml::{At, Node};
use windfall_runtime::config::{Place, Violations, did_you_mean};
use windfall_schemas::asset::{Field, FieldType};

use crate::collection::CompiledCollection;
use crate::mapping::format::{Format, WORDS};
use crate::mapping::literal::{literal, test_value};
use crate::mapping::lookup::{Table, from_csv};
use crate::mapping::parse::{Condition, Form, LookupForm, MappingFile, SourceForm, Take};
use crate::mapping::program::{Expr, Fields, Program, TemplatePart, Test};
use crate::mapping::source::{SourceField, SourceTable};
use crate::value::Value;

/// Reads a file that a mapping names, by the name that stands there; the error says what was wrong, in lowercase.
pub type ReadBeside<'a> = &'a dyn Fn(&str) -> Result<String, String>;

/// Part of every mapping's identity. Raise it when a format, a normalised form or another rule of this crate changes, so that equal
/// files make other records: devices that do not change get them only by being mapped again.
const RULES: u32 = 1;

/// Compiles a mapping that has been read from `file`.
pub(crate) fn compile(
    file: &str,
    text: &str,
    mapping: &MappingFile,
    table: &Arc<SourceTable>,
    collection: &CompiledCollection,
    beside: ReadBeside<'_>,
) -> Result<Program, Violations> {
    let mut compiler = Compiler { file, table, lookups: HashMap::new(), problems: Violations::default() };
    let mut fingerprint = format!("{RULES} {text}{:016x}", collection.fingerprint);
    for (name, form) in &mapping.lookups {
        let lookup = compiler.lookup_table(form, beside, &mut fingerprint);
        compiler.lookups.insert(name.value.clone(), lookup);
    }
    let conditions = compiler.tests(&mapping.conditions);
    let targets = collection.schema.fields();
    let mut fields = vec![Expr::Const(Value::Null); targets.len()];
    for (name, form) in &mapping.fields {
        let Some(place) = collection.find(file, name, &mut compiler.problems) else { continue };
        if let Some(expr) = compiler.target(&targets[place], form) {
            fields[place] = expr;
        }
    }
    compiler.completeness(mapping, collection);
    let version = format!("{}@{:016x}", mapping.name.value, xxhash_rust::xxh3::xxh3_64(fingerprint.as_bytes()));
    compiler.problems.or(Program {
        name: mapping.name.value.clone(),
        version,
        table: Arc::clone(table),
        conditions,
        fields: Fields::new(fields),
        identity: Arc::clone(&collection.identity),
    })
}

/// The type of an expression.
#[derive(Debug, Clone, Copy)]
struct Typed {
    kind: FieldType,
    nullable: bool,
}

struct Compiler<'a> {
    file: &'a str,
    table: &'a SourceTable,
    lookups: HashMap<String, Arc<Table>>,
    problems: Violations,
}

impl Compiler<'_> {
    fn fault(&mut self, place: Place, message: impl Into<String>) {
        self.problems.at(self.file, place, message);
    }

    fn lookup_table(&mut self, form: &LookupForm, beside: ReadBeside<'_>, fingerprint: &mut String) -> Arc<Table> {
        match form {
            LookupForm::Table(entries) => {
                let mut pairs = Vec::new();
                for (key, value) in entries {
                    match literal(&value.value, FieldType::String) {
                        Some(Value::Text(text)) => pairs.push((key.value.trim().to_owned(), text)),
                        _ => self
                            .fault(value.place, format!("a lookup's value must be text, not {}", value.value.kind())),
                    }
                }
                Arc::new(Table::new(pairs))
            }
            LookupForm::File { file, key, value } => {
                let read = beside(&file.value).and_then(|text| {
                    fingerprint.push_str(&text);
                    from_csv(&text, &key.value, &value.value).map_err(|error| error.to_string())
                });
                match read {
                    Ok(table) => Arc::new(table),
                    Err(reason) => {
                        self.fault(file.place, format!("the lookup file `{}` cannot be used: {reason}", file.value));
                        Arc::default()
                    }
                }
            }
        }
    }

    fn field(&mut self, name: &str, place: Place) -> Option<usize> {
        self.table.find(self.file, name, place, &mut self.problems)
    }

    fn tests(&mut self, conditions: &[Condition]) -> Vec<Test> {
        let mut tests = Vec::new();
        for Condition { field, any_of } in conditions {
            let Some(position) = self.field(&field.value, field.place) else { continue };
            let source = &self.table.fields[position];
            let mut values = Vec::new();
            for item in any_of {
                match test_value(&item.value, source.kind) {
                    Some(value) => values.push(value),
                    None => self.fault(
                        item.place,
                        format!("`{}` is {} and is never equal to {}", field.value, source.named(), item.value.kind()),
                    ),
                }
            }
            tests.push(Test { field: position, any_of: values });
        }
        tests
    }

    /// Compiles the form of one of the collection's fields.
    fn target(&mut self, target: &Field, form: &At<Form>) -> Option<Expr> {
        let (expr, typed) = self.form(form, target.kind, &target.name)?;
        if target.required && typed.nullable {
            self.fault(
                form.place,
                format!(
                    "`{}` is required but its source may be empty; add a `default`, or take a source that never is",
                    target.name
                ),
            );
        }
        Some(expr)
    }

    /// Compiles a form so that it gives values of the kind `wanted`.
    fn form(&mut self, form: &At<Form>, wanted: FieldType, target: &str) -> Option<(Expr, Typed)> {
        let Form { source, take, lookup, format, default, only_if, unless } = &form.value;
        let steps = lookup.is_some() || format.is_some();
        let (mut expr, mut typed) = self.source(source, take.as_ref(), wanted, steps, target)?;
        if let Some(name) = lookup {
            (expr, typed) = self.lookup(name, expr, typed)?;
        }
        if let Some(word) = format {
            (expr, typed) = self.format(word, expr, typed, wanted)?;
        }
        (expr, typed) = self.convert(form.place, expr, typed, wanted, target)?;
        let (only_if, unless) = (self.tests(only_if), self.tests(unless));
        if !only_if.is_empty() || !unless.is_empty() {
            typed.nullable = true;
            expr = Expr::When { only_if, unless, then: Box::new(expr) };
        }
        if let Some(default) = default {
            let Some(value) = literal(&default.value, wanted) else {
                let kind = default.value.kind();
                self.fault(default.place, format!("`default` is {kind}, but `{target}` is {}", wanted.named()));
                return None;
            };
            typed.nullable = false;
            expr = Expr::Default(Box::new(expr), value);
        }
        Some((expr, typed))
    }

    fn source(
        &mut self,
        source: &SourceForm,
        take: Option<&At<Take>>,
        wanted: FieldType,
        steps: bool,
        target: &str,
    ) -> Option<(Expr, Typed)> {
        if let (Some(take), false) = (take, matches!(source, SourceForm::From(_))) {
            self.fault(take.place, "`take` belongs to `from`");
        }
        match source {
            SourceForm::From(name) => {
                let position = self.field(&name.value, name.place)?;
                self.take(position, name, take, wanted)
            }
            SourceForm::Coalesce(operands) => {
                // What a lookup or a format follows must give what these read.
                let wanted = if steps { FieldType::String } else { wanted };
                let mut compiled = Vec::new();
                let mut nullable = true;
                for operand in operands {
                    let (expr, typed) = self.form(operand, wanted, target)?;
                    nullable &= typed.nullable;
                    compiled.push(expr);
                }
                Some((Expr::Coalesce(compiled), Typed { kind: wanted, nullable }))
            }
            SourceForm::Template(text) => self.template(text),
            SourceForm::Const(node) => self.constant(node, wanted, steps, target),
        }
    }

    fn constant(&mut self, node: &At<Node>, wanted: FieldType, steps: bool, target: &str) -> Option<(Expr, Typed)> {
        if steps {
            self.fault(node.place, "a `const` takes no `lookup` and no `format`: write the value as it is to be");
            return None;
        }
        let Some(value) = literal(&node.value, wanted) else {
            self.fault(node.place, format!("`const` is {}, but `{target}` is {}", node.value.kind(), wanted.named()));
            return None;
        };
        Some((Expr::Const(value), Typed { kind: wanted, nullable: false }))
    }

    fn take(
        &mut self,
        position: usize,
        name: &At<String>,
        take: Option<&At<Take>>,
        wanted: FieldType,
    ) -> Option<(Expr, Typed)> {
        let SourceField { kind, list, nullable, .. } = self.table.fields[position];
        let field = Expr::Field(position);
        match take {
            Some(take) if list => Some((Expr::Take(Box::new(field), take.value), Typed { kind, nullable: true })),
            Some(take) => {
                self.fault(take.place, format!("`take` reads a list, but `{}` is {}", name.value, kind.named()));
                None
            }
            None if list => {
                self.fault(
                    name.place,
                    format!(
                        "`{0}` is a list of strings and the field is {1}; say which item: `{{ from: {0}, take: first }}`",
                        name.value,
                        wanted.named()
                    ),
                );
                None
            }
            None => Some((field, Typed { kind, nullable })),
        }
    }

    fn lookup(&mut self, name: &At<String>, expr: Expr, typed: Typed) -> Option<(Expr, Typed)> {
        let Some(table) = self.lookups.get(&name.value).cloned() else {
            let known: Vec<String> = self.lookups.keys().cloned().collect();
            let hint = if known.is_empty() {
                "; the mapping has no `lookups`".to_owned()
            } else {
                did_you_mean(&name.value, known.iter().map(String::as_str))
            };
            self.fault(name.place, format!("there is no lookup `{}`{hint}", name.value));
            return None;
        };
        let Some(expr) = as_text(expr, typed.kind) else {
            self.fault(name.place, format!("a lookup is by text, not by {}", typed.kind.named()));
            return None;
        };
        Some((Expr::Lookup(Box::new(expr), table), Typed { kind: FieldType::String, nullable: true }))
    }

    fn format(&mut self, word: &At<String>, expr: Expr, typed: Typed, wanted: FieldType) -> Option<(Expr, Typed)> {
        let Some(format) = Format::from_word(&word.value, wanted) else {
            let hint = did_you_mean(&word.value, WORDS);
            self.fault(word.place, format!("`{}` is neither a format nor a pattern such as `%Y-%m`{hint}", word.value));
            return None;
        };
        if format.reads() != typed.kind {
            self.fault(
                word.place,
                format!(
                    "the format `{}` reads {}, but the value is {}",
                    word.value,
                    format.reads().named(),
                    typed.kind.named()
                ),
            );
            return None;
        }
        let typed = Typed { kind: format.gives(), nullable: typed.nullable || format.loses() };
        Some((Expr::Format(Box::new(expr), format), typed))
    }

    fn convert(
        &mut self,
        place: Place,
        expr: Expr,
        typed: Typed,
        wanted: FieldType,
        target: &str,
    ) -> Option<(Expr, Typed)> {
        let Typed { kind, nullable } = typed;
        match (kind, wanted) {
            (kind, wanted) if kind == wanted => Some((expr, typed)),
            (FieldType::Integer, FieldType::Decimal)
            | (
                FieldType::Integer | FieldType::Decimal | FieldType::Boolean | FieldType::Timestamp,
                FieldType::String,
            ) => Some((Expr::Convert(Box::new(expr), wanted), Typed { kind: wanted, nullable })),
            (FieldType::String, _) => {
                self.fault(
                    place,
                    format!(
                        "`{target}` is {0}, but its source is a string; `format: parse` reads text as {0}",
                        wanted.named()
                    ),
                );
                None
            }
            _ => {
                self.fault(place, format!("`{target}` is {}, but its source is {}", wanted.named(), kind.named()));
                None
            }
        }
    }

    /// Compiles `text {field} text`; `{{` and `}}` stand for the braces themselves.
    fn template(&mut self, text: &At<String>) -> Option<(Expr, Typed)> {
        let mut parts = Vec::new();
        let mut nullable = false;
        let mut literal = String::new();
        let mut rest = text.value.as_str();
        while let Some(index) = rest.find(['{', '}']) {
            literal.push_str(&rest[..index]);
            let brace = &rest[index..=index];
            rest = &rest[index + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                literal.push_str(brace);
                rest = after;
                continue;
            }
            let Some((name, after)) = (brace == "{").then(|| rest.split_once('}')).flatten() else {
                self.fault(
                    text.place,
                    format!("the template has a `{brace}` without its other half; a brace itself is written twice"),
                );
                return None;
            };
            let position = self.field(name.trim(), text.place)?;
            let field = &self.table.fields[position];
            if field.list {
                self.fault(text.place, format!("`{}` is a list of strings, which a template cannot hold", field.name));
                return None;
            }
            nullable |= field.nullable;
            if !literal.is_empty() {
                parts.push(TemplatePart::Text(std::mem::take(&mut literal)));
            }
            parts.push(TemplatePart::Field(position));
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(TemplatePart::Text(literal));
        }
        Some((Expr::Template(parts), Typed { kind: FieldType::String, nullable }))
    }

    /// Checks that required fields and at least one identifier are filled.
    fn completeness(&mut self, mapping: &MappingFile, collection: &CompiledCollection) {
        let filled = |name: &str| mapping.fields.iter().any(|(field, _)| field.value == name);
        for target in collection.schema.fields().iter().filter(|target| target.required && !filled(&target.name)) {
            let message =
                format!("`{}` is required by the collection `{}` and has no source here", target.name, collection.name);
            self.fault(mapping.name.place, message);
        }
        let identifiers: Vec<&str> = collection.identity.identify_by.iter().map(|(_, name)| name.as_str()).collect();
        if !identifiers.iter().any(|name| filled(name)) {
            let message =
                format!("the mapping fills none of the fields that identify an asset: `{}`", identifiers.join("`, `"));
            self.fault(mapping.name.place, message);
        }
    }
}

fn as_text(expr: Expr, kind: FieldType) -> Option<Expr> {
    match kind {
        FieldType::String => Some(expr),
        FieldType::Integer | FieldType::Boolean => Some(Expr::Convert(Box::new(expr), FieldType::String)),
        FieldType::Decimal | FieldType::Timestamp => None,
    }
}
