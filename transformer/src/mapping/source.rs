//! A source table as its Avro schema has it: which fields a mapping may name, and of what type.

use windfall_runtime::config::{Place, Violations, did_you_mean};
use windfall_schemas::asset::FieldType;

use crate::event::DecodedRow;
use crate::value::Value;

/// One field of a source table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceField {
    /// The name, as in the Avro schema.
    pub name: String,
    /// The type, or that of a list's items.
    pub kind: FieldType,
    /// Whether it holds a list; the items are strings then.
    pub list: bool,
    /// Whether a record may lack it.
    pub nullable: bool,
}

impl SourceField {
    /// The type with its article, for messages.
    pub(crate) fn named(&self) -> String {
        if self.list { "a list of strings".to_owned() } else { self.kind.named() }
    }
}

/// A source table: the fields of the record `Value` inside its envelope, in the schema's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceTable {
    /// The table's topic without prefix: `abm.devices`.
    pub name: String,
    /// The fields.
    pub fields: Vec<SourceField>,
    released: Option<usize>,
}

/// A schema that is no source table.
#[derive(Debug, thiserror::Error)]
#[error("schema of `{table}` does not describe an envelope with a flat `Value`: {reason}")]
pub struct NotATable {
    table: String,
    reason: String,
}

/// The field whose presence says that an organization has let a device go.
const RELEASED_AT: &str = "released_from_org_date_time";

impl SourceTable {
    /// Reads the table's fields from the Avro schema of its change topic.
    ///
    /// # Errors
    /// When the text is not such a schema, or a field's type is none that a mapping can use.
    pub fn from_schema(name: &str, schema: &str) -> Result<Self, NotATable> {
        let fault = |reason: String| NotATable { table: name.to_owned(), reason };
        let schema: serde_json::Value = serde_json::from_str(schema).map_err(|error| fault(error.to_string()))?;
        let value = value_record(&schema).ok_or_else(|| fault("no field `before` with a record `Value`".into()))?;
        let mut fields = Vec::with_capacity(value.len());
        for field in value {
            let name = field["name"].as_str().ok_or_else(|| fault("a field has no name".into()))?;
            let field = source_field(name, &field["type"])
                .ok_or_else(|| fault(format!("field `{name}` has a type that no mapping reads")))?;
            fields.push(field);
        }
        let released = fields.iter().position(|field| field.name == RELEASED_AT);
        Ok(Self { name: name.to_owned(), fields, released })
    }

    /// Finds a field's position by name.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }

    /// Finds the place of a field that a mapping names, or notes that there is none.
    pub(crate) fn find(&self, file: &str, name: &str, place: Place, problems: &mut Violations) -> Option<usize> {
        let found = self.position(name);
        if found.is_none() {
            let hint = did_you_mean(name, self.fields.iter().map(|field| field.name.as_str()));
            problems.at(file, place, format!("`{name}` is not a field of `{}`{hint}", self.name));
        }
        found
    }

    /// Says whether the record is of a device that its organization has released.
    pub fn released(&self, row: &Row) -> bool {
        self.released.is_some_and(|field| !row.value(field).is_null())
    }

    /// Sets a field of a row to what a record with this value would give.
    pub fn put(&self, row: &mut Row, position: usize, value: Value) {
        if let (Some(slot), Some(field)) = (row.0.get_mut(position), self.fields.get(position)) {
            *slot = match value {
                value @ Value::Timestamp(_) => value,
                value => typed(value, field),
            };
        }
    }

    /// Puts a decoded record into this table's order: unknown fields are left out, absent ones are null.
    pub fn row(&self, decoded: DecodedRow) -> Row {
        let mut values = vec![Value::Null; self.fields.len()];
        for (index, (name, value)) in decoded.0.into_iter().enumerate() {
            // The writer's order is nearly always ours, so the position is a good first guess.
            let position = match self.fields.get(index) {
                Some(field) if field.name == *name => Some(index),
                _ => self.position(&name),
            };
            if let Some(position) = position {
                values[position] = typed(value, &self.fields[position]);
            }
        }
        Row(values)
    }
}

/// Gives the value the meaning of its column; a value of another type is none.
fn typed(value: Value, field: &SourceField) -> Value {
    match (field.kind, value) {
        (_, Value::List(items)) if field.list => {
            let items: Vec<String> = items.into_iter().filter(|item| !item.trim().is_empty()).collect();
            if items.is_empty() { Value::Null } else { Value::List(items) }
        }
        _ if field.list => Value::Null,
        (FieldType::Timestamp, Value::Integer(millis)) => Value::Timestamp(millis),
        (FieldType::String, Value::Text(text)) if !text.trim().is_empty() => Value::Text(text),
        (FieldType::Integer, value @ Value::Integer(_))
        | (FieldType::Decimal, value @ Value::Decimal(_))
        | (FieldType::Boolean, value @ Value::Boolean(_)) => value,
        _ => Value::Null,
    }
}

fn value_record(schema: &serde_json::Value) -> Option<&Vec<serde_json::Value>> {
    let before = schema["fields"].as_array()?.iter().find(|field| field["name"] == "before")?;
    before["type"].as_array()?.iter().find(|branch| branch["name"] == "Value")?["fields"].as_array()
}

fn source_field(name: &str, schema: &serde_json::Value) -> Option<SourceField> {
    if let Some(branches) = schema.as_array() {
        let [null, value] = branches.as_slice() else { return None };
        let field = (null == "null").then(|| source_field(name, value)).flatten()?;
        return Some(SourceField { nullable: true, ..field });
    }
    let word = schema.as_str().or_else(|| schema["type"].as_str())?;
    let kind = match word {
        _ if schema["logicalType"] == "timestamp-millis" => FieldType::Timestamp,
        "array" if schema["items"] == "string" => FieldType::String,
        "string" => FieldType::String,
        "int" | "long" => FieldType::Integer,
        "float" | "double" => FieldType::Decimal,
        "boolean" => FieldType::Boolean,
        _ => return None,
    };
    Some(SourceField { name: name.to_owned(), kind, list: word == "array", nullable: false })
}

/// A record of a source table: a value for each of the table's fields, in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct Row(Vec<Value>);

impl Row {
    /// Makes a row of a table with so many fields, all of them null.
    pub fn empty(table: &SourceTable) -> Self {
        Self(vec![Value::Null; table.fields.len()])
    }

    /// Gives the value of the field at `position`; a position beyond the row's end is null.
    pub fn value(&self, position: usize) -> &Value {
        self.0.get(position).unwrap_or(&Value::Null)
    }

    /// Takes the value of the field at `position` out, which is null from then on.
    pub(crate) fn take(&mut self, position: usize) -> Value {
        self.0.get_mut(position).map(std::mem::take).unwrap_or_default()
    }
}
