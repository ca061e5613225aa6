//! From the YAML tree to a mapping whose every part still knows its place; checks form, not meaning.

use windfall_runtime::config::yaml::{self, At, Limits, Node, Plain};
use windfall_runtime::config::{Fault, Place, Violations, did_you_mean};

/// What no mapping needs, tables of look-ups included.
const LIMITS: Limits = Limits { nodes: 250_000, aliases: 50_000 };

/// A mapping file, read but not yet checked against a source and a collection.
#[derive(Debug, Clone)]
pub(crate) struct MappingFile {
    pub(crate) name: At<String>,
    pub(crate) from: At<String>,
    pub(crate) into: At<String>,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) fields: Vec<(At<String>, At<Form>)>,
    pub(crate) lookups: Vec<(At<String>, LookupForm)>,
    pub(crate) tests: Vec<TestForm>,
}

/// `field: value` or `field: [value, …]` under `where`, `only_if` or `unless`.
#[derive(Debug, Clone)]
pub(crate) struct Condition {
    pub(crate) field: At<String>,
    pub(crate) any_of: Vec<At<Node>>,
}

/// How a field of the collection gets its value.
#[derive(Debug, Clone)]
pub(crate) struct Form {
    pub(crate) source: SourceForm,
    pub(crate) take: Option<At<Take>>,
    pub(crate) lookup: Option<At<String>>,
    pub(crate) format: Option<At<String>>,
    pub(crate) default: Option<At<Node>>,
    pub(crate) only_if: Vec<Condition>,
    pub(crate) unless: Vec<Condition>,
}

/// Where the value comes from.
#[derive(Debug, Clone)]
pub(crate) enum SourceForm {
    From(At<String>),
    Coalesce(Vec<At<Form>>),
    Template(At<String>),
    Const(At<Node>),
}

/// Which of a list's items becomes the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Take {
    First,
    Last,
    /// From one.
    Nth(usize),
    Join,
}

/// Where a lookup's table stands.
#[derive(Debug, Clone)]
pub(crate) enum LookupForm {
    Table(Vec<(At<String>, At<Node>)>),
    File { file: At<String>, key: At<String>, value: At<String> },
}

/// A test that a mapping carries.
#[derive(Debug, Clone)]
pub(crate) struct TestForm {
    pub(crate) name: At<String>,
    pub(crate) input: Vec<(At<String>, At<Node>)>,
    /// `None`: the record is expected to be filtered out.
    pub(crate) expect: Option<Vec<(At<String>, At<Node>)>>,
}

/// Entries of a map, in the file's order.
pub(crate) type Entries = Vec<(At<String>, At<Node>)>;

/// A reader that notes faults and goes on.
pub(crate) struct Reader<'a> {
    pub(crate) file: &'a str,
    pub(crate) problems: Violations,
}

impl<'a> Reader<'a> {
    /// Reads the document of `file`.
    pub(crate) fn open(file: &'a str, text: &str) -> Result<(Self, At<Node>), Violations> {
        let mut faults = Vec::new();
        let document = yaml::parse(text, LIMITS, &mut faults);
        let mut problems = Violations::default();
        problems.extend(faults.into_iter().map(|fault| Fault { file: file.to_owned(), ..fault }));
        match document {
            Some(document) => Ok((Self { file, problems }, document)),
            None => Err(problems),
        }
    }

    pub(crate) fn fault(&mut self, place: Place, message: impl Into<String>) {
        self.problems.at(self.file, place, message);
    }

    /// Takes a node as a map.
    pub(crate) fn map(&mut self, node: At<Node>, what: &str) -> Option<Entries> {
        let Node::Map(entries) = node.value else {
            self.fault(node.place, format!("{what} must be a map, not {}", node.value.kind()));
            return None;
        };
        Some(entries)
    }

    /// Takes a node as text that is not empty; what looks like a number or a boolean is no text.
    pub(crate) fn text(&mut self, node: At<Node>, what: &str) -> Option<At<String>> {
        match node.value.text() {
            Some(text) if !text.trim().is_empty() => Some(At { value: text.to_owned(), place: node.place }),
            text => {
                let kind = text.map_or_else(|| node.value.kind(), |_| "empty");
                self.fault(node.place, format!("{what} must be text, not {kind}"));
                None
            }
        }
    }

    /// Reports a key that the file may not have.
    pub(crate) fn unknown_key(&mut self, key: &At<String>, what: &str, known: &[&str]) {
        let hint = did_you_mean(&key.value, known.iter().copied());
        self.fault(key.place, format!("`{}` is not a key of {what}{hint}", key.value));
    }
}

const KEYS: [&str; 7] = ["mapping", "from", "into", "where", "fields", "lookups", "tests"];

/// Reads a mapping file's form.
pub(crate) fn mapping(file: &str, text: &str) -> Result<MappingFile, Violations> {
    let (mut reader, document) = Reader::open(file, text)?;
    let start = document.place;
    let (mut name, mut from, mut into, mut fields) = (None, None, None, None);
    let (mut conditions, mut lookups, mut tests) = (Vec::new(), Vec::new(), Vec::new());
    for (key, value) in reader.map(document, "a mapping file").unwrap_or_default() {
        match key.value.as_str() {
            "mapping" => name = reader.text(value, "`mapping`"),
            "from" => from = reader.text(value, "`from`"),
            "into" => into = reader.text(value, "`into`"),
            "where" => conditions = reader.conditions(value, "`where`"),
            "fields" => fields = reader.fields(value),
            "lookups" => lookups = reader.lookups(value),
            "tests" => tests = reader.tests(value),
            _ => reader.unknown_key(&key, "a mapping file", &KEYS),
        }
    }
    if reader.problems.is_empty() {
        for (missing, key) in [
            (name.is_none(), "mapping"),
            (from.is_none(), "from"),
            (into.is_none(), "into"),
            (fields.is_none(), "fields"),
        ] {
            if missing {
                reader.fault(start, format!("a mapping file needs the key `{key}`"));
            }
        }
    }
    match (name, from, into, fields) {
        (Some(name), Some(from), Some(into), Some(fields)) => {
            reader.problems.or(MappingFile { name, from, into, conditions, fields, lookups, tests })
        }
        _ => Err(reader.problems.or(()).err().unwrap_or_default()),
    }
}

const FORM_KEYS: [&str; 10] =
    ["from", "coalesce", "template", "const", "take", "lookup", "format", "default", "only_if", "unless"];

impl Reader<'_> {
    fn conditions(&mut self, node: At<Node>, what: &str) -> Vec<Condition> {
        let mut conditions = Vec::new();
        for (field, value) in self.map(node, what).unwrap_or_default() {
            let any_of = match value.value {
                Node::List(items) => items,
                other => vec![At { value: other, place: value.place }],
            };
            if any_of.is_empty() {
                self.fault(
                    value.place,
                    format!("the list of values for `{}` is empty, so no record would pass", field.value),
                );
            }
            for item in &any_of {
                if matches!(item.value, Node::List(_) | Node::Map(_)) {
                    self.fault(
                        item.place,
                        format!("a condition compares with plain values, not with {}", item.value.kind()),
                    );
                }
            }
            conditions.push(Condition { field, any_of });
        }
        conditions
    }

    fn fields(&mut self, node: At<Node>) -> Option<Vec<(At<String>, At<Form>)>> {
        let mut fields = Vec::new();
        for (target, value) in self.map(node, "`fields`")? {
            let place = value.place;
            if let Some(form) = self.form(value, &target.value) {
                fields.push((target, At { value: form, place }));
            }
        }
        Some(fields)
    }

    fn form(&mut self, node: At<Node>, target: &str) -> Option<Form> {
        let place = node.place;
        let plain = |source| Form {
            source,
            take: None,
            lookup: None,
            format: None,
            default: None,
            only_if: Vec::new(),
            unless: Vec::new(),
        };
        match node.value {
            Node::Map(_) => self.form_map(node, target),
            _ if node.value.text().is_some() => {
                self.text(node, "a field's source").map(|name| plain(SourceForm::From(name)))
            }
            other => {
                self.fault(
                    place,
                    format!("`{target}` needs the name of a source field, or a map with one of `from`, `coalesce`, `template`, `const`, not {}", other.kind()),
                );
                None
            }
        }
    }

    fn form_map(&mut self, node: At<Node>, target: &str) -> Option<Form> {
        let place = node.place;
        let mut sources = Vec::new();
        let (mut take, mut lookup, mut format, mut default) = (None, None, None, None);
        let (mut only_if, mut unless) = (Vec::new(), Vec::new());
        let mut sound = true;
        for (key, value) in self.map(node, &format!("the form of `{target}`"))? {
            match key.value.as_str() {
                "from" | "coalesce" | "template" | "const" => match self.source(&key.value, value, target) {
                    Some(source) => sources.push((key, source)),
                    None => sound = false,
                },
                "vrl" => {
                    self.fault(
                        key.place,
                        "`vrl` is not in this version: write the field with `from`, `coalesce`, `template` or `const`",
                    );
                    sound = false;
                }
                "take" => take = self.take(value),
                "lookup" => lookup = self.text(value, "`lookup`"),
                "format" => format = self.text(value, "`format`"),
                "default" => default = self.scalar(value, "`default`"),
                "only_if" => only_if = self.conditions(value, "`only_if`"),
                "unless" => unless = self.conditions(value, "`unless`"),
                _ => self.unknown_key(&key, &format!("the form of `{target}`"), &FORM_KEYS),
            }
        }
        if let Some((second, _)) = sources.get(1) {
            let first = &sources[0].0.value;
            self.fault(
                second.place,
                format!("`{target}` has both `{first}` and `{}`: one field has one source", second.value),
            );
        }
        if sources.is_empty() && sound {
            self.fault(place, format!("`{target}` needs one of `from`, `coalesce`, `template`, `const`"));
        }
        let (_, source) = sources.into_iter().next()?;
        Some(Form { source, take, lookup, format, default, only_if, unless })
    }

    fn source(&mut self, key: &str, node: At<Node>, target: &str) -> Option<SourceForm> {
        match key {
            "from" => self.text(node, "`from`").map(SourceForm::From),
            "template" => self.text(node, "`template`").map(SourceForm::Template),
            "const" => self.scalar(node, "`const`").map(SourceForm::Const),
            _ => self.coalesce(node, target).map(SourceForm::Coalesce),
        }
    }

    fn coalesce(&mut self, node: At<Node>, target: &str) -> Option<Vec<At<Form>>> {
        let Node::List(items) = node.value else {
            self.fault(node.place, format!("`coalesce` must be a list of sources, not {}", node.value.kind()));
            return None;
        };
        if items.is_empty() {
            self.fault(node.place, "`coalesce` needs at least one source");
            return None;
        }
        let mut forms = Vec::new();
        for item in items {
            let place = item.place;
            forms.push(At { value: self.form(item, target)?, place });
        }
        Some(forms)
    }

    fn scalar(&mut self, node: At<Node>, what: &str) -> Option<At<Node>> {
        if matches!(node.value, Node::List(_) | Node::Map(_)) || node.value.is_null() {
            self.fault(node.place, format!("{what} must be a plain value, not {}", node.value.kind()));
            return None;
        }
        Some(node)
    }

    fn take(&mut self, node: At<Node>) -> Option<At<Take>> {
        let value = match (node.value.plain(), node.value.text()) {
            (_, Some("first")) => Take::First,
            (_, Some("last")) => Take::Last,
            (_, Some("join")) => Take::Join,
            (Some(Plain::Integer(number)), _) if number >= 1 => {
                Take::Nth(usize::try_from(number).unwrap_or(usize::MAX))
            }
            _ => {
                self.fault(node.place, "`take` must be `first`, `last`, `join` or a number from 1 on");
                return None;
            }
        };
        Some(At { value, place: node.place })
    }

    fn lookups(&mut self, node: At<Node>) -> Vec<(At<String>, LookupForm)> {
        let mut lookups = Vec::new();
        for (name, value) in self.map(node, "`lookups`").unwrap_or_default() {
            if let Some(form) = self.lookup(&name.value, value) {
                lookups.push((name, form));
            }
        }
        lookups
    }

    fn lookup(&mut self, name: &str, node: At<Node>) -> Option<LookupForm> {
        let place = node.place;
        let (mut table, mut file, mut key_column, mut value_column) = (None, None, None, None);
        for (key, value) in self.map(node, &format!("the lookup `{name}`"))? {
            match key.value.as_str() {
                "table" => table = self.map(value, "`table`"),
                "file" => file = self.text(value, "`file`"),
                "key" => key_column = self.text(value, "`key`"),
                "value" => value_column = self.text(value, "`value`"),
                _ => self.unknown_key(&key, &format!("the lookup `{name}`"), &["table", "file", "key", "value"]),
            }
        }
        match (table, file, key_column, value_column) {
            (Some(table), None, None, None) => Some(LookupForm::Table(table)),
            (None, Some(file), Some(key), Some(value)) => Some(LookupForm::File { file, key, value }),
            _ => {
                self.fault(
                    place,
                    format!("the lookup `{name}` needs either `table`, or `file` with the columns `key` and `value`"),
                );
                None
            }
        }
    }

    fn tests(&mut self, node: At<Node>) -> Vec<TestForm> {
        let Node::List(items) = node.value else {
            self.fault(node.place, format!("`tests` must be a list, not {}", node.value.kind()));
            return Vec::new();
        };
        items.into_iter().filter_map(|item| self.test(item)).collect()
    }

    fn test(&mut self, node: At<Node>) -> Option<TestForm> {
        let place = node.place;
        let (mut name, mut input, mut expect) = (None, None, None);
        for (key, value) in self.map(node, "a test")? {
            match key.value.as_str() {
                "name" => name = self.text(value, "`name`"),
                "input" => input = self.map(value, "`input`"),
                "expect" if value.value.is_null() => expect = Some(None),
                "expect" => expect = self.map(value, "`expect`").map(Some),
                _ => self.unknown_key(&key, "a test", &["name", "input", "expect"]),
            }
        }
        let (Some(name), Some(input), Some(expect)) = (name, input, expect) else {
            self.fault(
                place,
                "a test needs `name`, `input` and `expect` (`expect: null` when the record is to be left out)",
            );
            return None;
        };
        Some(TestForm { name, input, expect })
    }
}
