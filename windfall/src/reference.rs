//! The configuration's JSON Schema, and the Markdown reference that is generated from it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};
use windfall_runtime::metrics::{self, Metric};

use crate::config::Config;

/// The `$id` of the schema: its address in the repository.
const SCHEMA_TITLE: &str = "Windfall configuration";

/// Returns the JSON Schema of the configuration.
pub fn schema() -> Value {
    let mut schema = windfall_runtime::config::schema::<Config>();
    schema["title"] = json!(SCHEMA_TITLE);
    schema
}

/// Returns the JSON Schema as it is checked in.
pub fn schema_text() -> String {
    format!("{:#}\n", schema())
}

/// Returns the pages of the reference by file name, one page for each part of the configuration.
pub fn pages() -> BTreeMap<String, String> {
    let schema = schema();
    let part = |name: &str| schema["properties"].get(name).cloned().unwrap_or_default();
    let common = ["version", "secrets", "http", "instance"];
    let mut root = Page::new("windfall.yaml", "What stands in the file beside the stages' parts.", &schema);
    for name in common {
        root.field(name, &part(name), required(&schema, name));
    }
    let mut pages = BTreeMap::from([("common.md".to_owned(), root.finish())]);
    let parts = [
        ("kafka", "kafka", "Which cluster and which schema registry, for every stage."),
        ("sources", "producer", "Organizations that the producer reads."),
        ("collections", "transformer", "Collections of assets that the transformer makes."),
        ("sinks", "sink", "Stores that the sinks write."),
    ];
    for (name, file, story) in parts {
        let mut page = Page::new(name, story, &schema);
        page.field(name, &part(name), required(&schema, name));
        pages.insert(format!("{file}.md"), page.finish());
    }
    pages
}

/// Returns the page of all metrics, in the order of the pipeline.
pub fn metrics_page() -> String {
    let mut text = "<!-- Generated from `runtime/src/metrics.rs` by `make bless`; do not edit. -->\n# Metrics\n\n\
        What `GET /metrics` of `http.listen` shows, in Prometheus' form. No label grows with the fleet.\n\n\
        | metric | kind | meaning |\n| --- | --- | --- |\n"
        .to_owned();
    for Metric { name, kind, help } in metrics::ALL {
        let kind = format!("{kind:?}").to_lowercase();
        let _ = writeln!(text, "| `{name}` | {kind} | {help} |");
    }
    text
}

fn required(schema: &Value, field: &str) -> bool {
    schema["required"].as_array().is_some_and(|names| names.iter().any(|name| name == field))
}

struct Page<'a> {
    text: String,
    root: &'a Value,
}

impl<'a> Page<'a> {
    fn new(title: &str, story: &str, root: &'a Value) -> Self {
        let text = format!(
            "<!-- Generated from the configuration's types by `make bless`; do not edit. -->\n# `{title}`\n\n{story}\n\n\
             | field | type | default | meaning |\n| --- | --- | --- | --- |\n"
        );
        Self { text, root }
    }

    /// Writes the row of a field, then the rows of its nested fields.
    fn field(&mut self, path: &str, schema: &Value, required: bool) {
        let shape = self.resolved(schema);
        let default = match schema.get("default").or_else(|| shape.get("default")) {
            _ if required => "required".to_owned(),
            None | Some(Value::Null) => "-".to_owned(),
            Some(Value::Object(_)) => "see below".to_owned(),
            Some(value) => format!("`{value}`"),
        };
        let meaning =
            schema.get("description").or_else(|| shape.get("description")).and_then(Value::as_str).unwrap_or("");
        let meaning = meaning.replace('\n', " ").replace('|', "\\|");
        let _ = writeln!(self.text, "| `{path}` | {} | {default} | {meaning} |", self.kind(&shape));
        self.inside(path, &shape);
    }

    fn inside(&mut self, path: &str, shape: &Value) {
        if let Some(properties) = shape["properties"].as_object() {
            for (name, inner) in properties {
                self.field(&format!("{path}.{name}"), inner, required(shape, name));
            }
        }
        if let Some(items) = shape.get("items") {
            let shape = self.resolved(items);
            self.inside(&format!("{path}[]"), &shape);
        }
        if let Some(values) = shape.get("additionalProperties").filter(|values| values.is_object()) {
            let shape = self.resolved(values);
            self.inside(&format!("{path}.NAME"), &shape);
        }
    }

    /// Resolves a `$ref`, and of an optional value returns the schema that is not `null`.
    fn resolved(&self, schema: &Value) -> Value {
        if let Some(target) = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix('#')) {
            return self.root.pointer(target).map_or(Value::Null, |target| self.resolved(target));
        }
        let alternatives = schema["anyOf"].as_array();
        let real = alternatives.and_then(|all| all.iter().find(|one| one["type"] != "null"));
        real.map_or_else(|| schema.clone(), |real| self.resolved(real))
    }

    fn kind(&self, shape: &Value) -> String {
        if let Some(values) = choices(shape) {
            return values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ");
        }
        let name = match &shape["type"] {
            Value::String(name) => name.clone(),
            Value::Array(names) => {
                let real: Vec<_> = names.iter().filter_map(Value::as_str).filter(|name| *name != "null").collect();
                real.join(" or ")
            }
            _ => "value".to_owned(),
        };
        match name.as_str() {
            "array" => format!("list of {}", self.kind(&self.resolved(&shape["items"]))),
            "object" => "group".to_owned(),
            "string" if shape["description"].as_str().is_some_and(|text| text.starts_with("A length of time")) => {
                "period".to_owned()
            }
            "string"
                if shape["description"].as_str().is_some_and(|text| text.starts_with("A reference to a secret")) =>
            {
                "secret".to_owned()
            }
            "string" => "text".to_owned(),
            other => other.to_owned(),
        }
    }

    fn finish(self) -> String {
        self.text
    }
}

/// Returns the values of an enum.
fn choices(shape: &Value) -> Option<Vec<String>> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    if let Some(values) = shape["enum"].as_array() {
        return values.iter().map(text).collect();
    }
    shape["oneOf"].as_array()?.iter().map(|one| one.get("const").and_then(text)).collect()
}
