//! A collection file: what an asset is, how it is named, and how several sources are merged into one record.

use std::sync::Arc;

use windfall_runtime::config::yaml::{At, Node, Plain};
use windfall_runtime::config::{Place, Violations, did_you_mean};
use windfall_schemas::asset::{Collection, Field, FieldType};
use windfall_schemas::topic::Table;

use crate::identity::{Rules, Shape};
use crate::mapping::parse::Reader;
use crate::merge::{Choice, MergeRule};

/// A collection, checked.
#[derive(Debug, Clone)]
pub struct CompiledCollection {
    /// Name of the collection.
    pub name: String,
    /// Its fields and schemas.
    pub schema: Collection,
    /// How assets are named.
    pub identity: Arc<Rules>,
    /// For each field how contributions are merged; `None`: the first in rank gives it.
    pub merge: Vec<Option<MergeRule>>,
    /// A hash of the file.
    pub fingerprint: u64,
    /// The file, and where each field stands in it.
    file: String,
    places: Vec<Place>,
}

impl CompiledCollection {
    /// Finds the place of a field that a mapping names, or notes that there is none.
    pub(crate) fn find(&self, file: &str, name: &At<String>, problems: &mut Violations) -> Option<usize> {
        let found = self.schema.position(&name.value);
        if found.is_none() {
            let hint = did_you_mean(&name.value, self.schema.fields().iter().map(|field| field.name.as_str()));
            let message = format!("`{}` is not a field of the collection `{}`{hint}", name.value, self.name);
            problems.at(file, name.place, message);
        }
        found
    }

    /// Compares the fields with the registered schema of the flat record: fields may come and go, and each keeps its type.
    #[must_use]
    pub fn changed_types(&self, registered: &str) -> Violations {
        let mut problems = Violations::default();
        let Ok(known) = Collection::from_value_schema(registered) else { return problems };
        for (field, place) in self.schema.fields().iter().zip(&self.places) {
            let before = known.fields().iter().find(|before| before.name == field.name);
            if let Some(before) = before.filter(|before| before.kind != field.kind) {
                let what = format!("`{}` is `{}`, and is registered as `{}`", field.name, field.kind, before.kind);
                problems.at(&self.file, *place, what);
            }
        }
        problems
    }
}

const KEYS: [&str; 4] = ["collection", "fields", "identify_by", "merge"];
const FIELD_KEYS: [&str; 4] = ["type", "required", "unique", "description"];
const MERGE_KEYS: [&str; 5] = ["prefer", "stale_after", "blank", "take", "agree"];
const TAKES: [(&str, Choice); 4] =
    [("newest", Choice::Newest), ("first", Choice::First), ("max", Choice::Max), ("union", Choice::Union)];

/// Reads and checks a collection file.
///
/// # Errors
/// All faults of the file, with their places.
pub fn parse(file: &str, text: &str) -> Result<CompiledCollection, Violations> {
    let (mut reader, document) = Reader::open(file, text)?;
    let start = document.place;
    let (mut name, mut fields, mut identify_by, mut merge) = (None, None, None, Vec::new());
    for (key, value) in reader.map(document, "a collection file").unwrap_or_default() {
        match key.value.as_str() {
            "collection" => name = reader.text(value, "`collection`"),
            "fields" => fields = reader.collection_fields(value),
            "identify_by" => identify_by = reader.names(value, "`identify_by`").map(|names| (key.place, names)),
            "merge" => merge = reader.map(value, "`merge`").unwrap_or_default(),
            _ => reader.unknown_key(&key, "a collection file", &KEYS),
        }
    }
    let (Some(name), Some(fields), Some(identify_by)) = (name, fields, identify_by) else {
        if reader.problems.is_empty() {
            reader.fault(start, "a collection file needs the keys `collection`, `fields` and `identify_by`");
        }
        return Err(reader.problems.or(()).err().unwrap_or_default());
    };
    let identity = reader.identity(&fields, &identify_by);
    let merge = reader.merge_rules(&fields, merge);
    let places: Vec<Place> = fields.iter().map(|field| field.place).collect();
    let plain: Vec<Field> = fields.into_iter().map(|field| field.value).collect();
    let names: Vec<String> = plain.iter().map(|field| field.name.clone()).collect();
    match Collection::new(name.value.clone(), plain) {
        Ok(schema) => reader.problems.or(CompiledCollection {
            name: name.value,
            schema,
            identity: Arc::new(identity),
            merge,
            fingerprint: xxhash_rust::xxh3::xxh3_64(text.as_bytes()),
            file: file.to_owned(),
            places,
        }),
        Err(error) => {
            let field = names.iter().position(|field| Some(field) == error.field.as_ref());
            let place = field.map_or(name.place, |field| places[field]);
            // A name that stands twice has been reported where it does.
            if reader.problems.is_empty() {
                reader.fault(place, error.to_string());
            }
            Err(reader.problems.or(()).err().unwrap_or_default())
        }
    }
}

impl Reader<'_> {
    fn collection_fields(&mut self, node: At<Node>) -> Option<Vec<At<Field>>> {
        let mut fields = Vec::new();
        for (name, value) in self.map(node, "`fields`")? {
            if let Some(field) = self.collection_field(&name, value) {
                fields.push(At { value: field, place: name.place });
            }
        }
        Some(fields)
    }

    fn collection_field(&mut self, name: &At<String>, node: At<Node>) -> Option<Field> {
        let place = node.place;
        let mut field = Field::new(name.value.clone(), FieldType::String);
        if node.value.text().is_some() {
            field.kind = self.field_type(node)?;
            return Some(field);
        }
        let mut kind = None;
        let mut sound = true;
        for (key, value) in self.map(node, &format!("the field `{}`", name.value))? {
            match key.value.as_str() {
                "type" => {
                    kind = self.field_type(value);
                    sound &= kind.is_some();
                }
                "required" => field.required = self.flag(value, "`required`")?,
                "unique" => field.unique = self.flag(value, "`unique`")?,
                "description" => field.description = self.text(value, "`description`").map(|text| text.value),
                _ => self.unknown_key(&key, &format!("the field `{}`", name.value), &FIELD_KEYS),
            }
        }
        if kind.is_none() && sound {
            self.fault(place, format!("the field `{}` needs a `type`", name.value));
        }
        field.kind = kind?;
        if field.unique && field.kind != FieldType::String {
            self.fault(
                place,
                format!("the field `{}` is unique, so it must be a string, not {}", name.value, field.kind.named()),
            );
        }
        Some(field)
    }

    fn field_type(&mut self, node: At<Node>) -> Option<FieldType> {
        let word = self.text(node, "a field's type")?;
        let found = FieldType::ALL.into_iter().find(|kind| kind.as_str() == word.value);
        if found.is_none() {
            let hint = did_you_mean(&word.value, FieldType::ALL.map(FieldType::as_str));
            self.fault(word.place, format!("`{}` is not a type{hint}", word.value));
        }
        found
    }

    fn flag(&mut self, node: At<Node>, what: &str) -> Option<bool> {
        let Some(Plain::Boolean(flag)) = node.value.plain() else {
            self.fault(node.place, format!("{what} must be true or false, not {}", node.value.kind()));
            return None;
        };
        Some(flag)
    }

    fn names(&mut self, node: At<Node>, what: &str) -> Option<Vec<At<String>>> {
        let Node::List(items) = node.value else {
            self.fault(node.place, format!("{what} must be a list, not {}", node.value.kind()));
            return None;
        };
        if items.is_empty() {
            self.fault(node.place, format!("{what} needs at least one name"));
        }
        items.into_iter().map(|item| self.text(item, what)).collect()
    }

    fn identity(&mut self, fields: &[At<Field>], (place, names): &(Place, Vec<At<String>>)) -> Rules {
        let mut identify_by: Vec<(usize, String)> = Vec::new();
        for name in names {
            let Some(position) = self.known(fields, name, "`identify_by` names") else { continue };
            if !fields[position].value.unique {
                let message = format!("`{}` identifies an asset, so it must be `unique: true`", name.value);
                self.fault(name.place, message);
            }
            if identify_by.iter().any(|(known, _)| *known == position) {
                self.fault(name.place, format!("`{}` stands twice in `identify_by`", name.value));
            }
            identify_by.push((position, name.value.clone()));
        }
        if identify_by.is_empty() && self.problems.is_empty() {
            self.fault(*place, "nothing identifies an asset");
        }
        let unique = fields.iter().enumerate().filter(|(_, field)| field.value.unique);
        Rules {
            unique: unique.map(|(position, field)| (position, Shape::of_field(&field.value.name))).collect(),
            identify_by,
        }
    }

    fn known(&mut self, fields: &[At<Field>], name: &At<String>, what: &str) -> Option<usize> {
        let found = fields.iter().position(|field| field.value.name == name.value);
        if found.is_none() {
            let hint = did_you_mean(&name.value, fields.iter().map(|field| field.value.name.as_str()));
            self.fault(name.place, format!("{what} `{}`, which is not a field of the collection{hint}", name.value));
        }
        found
    }

    fn merge_rules(&mut self, fields: &[At<Field>], entries: Vec<(At<String>, At<Node>)>) -> Vec<Option<MergeRule>> {
        let mut rules = vec![None; fields.len()];
        for (name, node) in entries {
            let Some(position) = self.known(fields, &name, "`merge` names") else { continue };
            rules[position] = self.merge_rule(&fields[position].value, node);
        }
        rules
    }

    fn merge_rule(&mut self, field: &Field, node: At<Node>) -> Option<MergeRule> {
        let place = node.place;
        let mut rule = MergeRule::default();
        if node.value.text().is_some() {
            let word = self.text(node, "a merge rule")?;
            if word.value == "agree" {
                rule.agree = true;
            } else {
                rule.choice = self.choice(&word, &["agree"])?;
            }
        } else {
            let what = format!("the merge rule of `{}`", field.name);
            for (key, value) in self.map(node, &what)? {
                match key.value.as_str() {
                    "prefer" => rule.prefer = self.sources(value)?,
                    "stale_after" => rule.stale_after_ms = Some(self.duration(value)?),
                    "blank" => rule.keep_over_blank = self.keep(value)?,
                    "take" => {
                        let word = self.text(value, "`take`")?;
                        rule.choice = self.choice(&word, &[])?;
                    }
                    "agree" => rule.agree = self.flag(value, "`agree`")?,
                    _ => self.unknown_key(&key, &what, &MERGE_KEYS),
                }
            }
        }
        self.check_rule(field, &rule, place);
        Some(rule)
    }

    /// Names of sources, or of families of them: `abm` is every table of Apple's.
    fn sources(&mut self, node: At<Node>) -> Option<Vec<String>> {
        let mut known = vec!["abm", "jamf"];
        known.extend(Table::ALL.map(|table| table.topic));
        let names = self.names(node, "`prefer`")?;
        for name in names.iter().filter(|name| !known.contains(&name.value.as_str())) {
            let hint = did_you_mean(&name.value, known.iter().copied());
            self.fault(name.place, format!("`{}` is no source{hint}", name.value));
        }
        Some(names.into_iter().map(|name| name.value).collect())
    }

    fn check_rule(&mut self, field: &Field, rule: &MergeRule, place: Place) {
        let name = &field.name;
        let ways = [rule.agree, !rule.prefer.is_empty(), rule.choice != Choice::Rank];
        if ways.into_iter().filter(|way| *way).count() > 1 {
            self.fault(place, format!("`{name}` is merged in one way: `prefer`, `take` or `agree`"));
        }
        if rule.stale_after_ms.is_some() && rule.prefer.is_empty() {
            self.fault(
                place,
                format!("`stale_after` of `{name}` needs `prefer`: it says when a preferred source no longer is"),
            );
        }
        if rule.choice == Choice::Union && field.kind != FieldType::String {
            self.fault(place, format!("`union` makes a list in a string, but `{name}` is {}", field.kind.named()));
        }
    }

    fn choice(&mut self, word: &At<String>, more: &[&'static str]) -> Option<Choice> {
        let found = TAKES.iter().find(|(known, _)| *known == word.value).map(|(_, choice)| *choice);
        if found.is_none() {
            let known: Vec<&str> = TAKES.iter().map(|(known, _)| *known).chain(more.iter().copied()).collect();
            let hint = did_you_mean(&word.value, known);
            self.fault(word.place, format!("`{}` is not a way to merge{hint}", word.value));
        }
        found
    }

    fn keep(&mut self, node: At<Node>) -> Option<bool> {
        let word = self.text(node, "`blank`")?;
        match word.value.as_str() {
            "keep" => Some(true),
            "take" => Some(false),
            other => {
                self.fault(
                    word.place,
                    format!("`blank` must be `keep` (a blank does not win) or `take`, not `{other}`"),
                );
                None
            }
        }
    }

    fn duration(&mut self, node: At<Node>) -> Option<i64> {
        let word = self.text(node, "`stale_after`")?;
        let found = millis(&word.value);
        if found.is_none() {
            self.fault(word.place, format!("`{}` is not a duration such as `90s`, `15m`, `1h`, `7d`", word.value));
        }
        found
    }
}

/// Reads a duration such as `30d` as milliseconds.
fn millis(text: &str) -> Option<i64> {
    let split = text.find(|char: char| !char.is_ascii_digit())?;
    let number: i64 = text[..split].parse().ok()?;
    let unit = match &text[split..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "w" => 604_800_000,
        _ => return None,
    };
    number.checked_mul(unit)
}
