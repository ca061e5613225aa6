//! A source table as its Avro schema has it: which fields a mapping may name, and of what type.

use std::fmt;

pub use super::decoded::DecodedRow;
use crate::value::Value;

/// The type of a source field or of an expression over source fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// A whole number.
    Integer,
    /// A number with a fraction.
    Decimal,
    /// True or false.
    Boolean,
    /// A moment.
    Timestamp,
    /// Texts.
    List,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "string",
            Self::Integer => "integer",
            Self::Decimal => "decimal",
            Self::Boolean => "boolean",
            Self::Timestamp => "timestamp",
            Self::List => "list of strings",
        })
    }
}

impl Kind {
    /// The type with its article, for messages.
    pub(crate) fn named(self) -> String {
        match self {
            Self::Integer => format!("an {self}"),
            _ => format!("a {self}"),
        }
    }
}

/// One field of a source table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceField {
    /// The name, as in the Avro schema.
    pub name: String,
    /// The type.
    pub kind: Kind,
    /// Whether a record may lack it.
    pub nullable: bool,
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
            let (kind, nullable) = kind_of(&field["type"])
                .ok_or_else(|| fault(format!("field `{name}` has a type that no mapping reads")))?;
            fields.push(SourceField { name: name.to_owned(), kind, nullable });
        }
        let released = fields.iter().position(|field| field.name == RELEASED_AT);
        Ok(Self { name: name.to_owned(), fields, released })
    }

    /// Finds a field's position by name.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }

    /// Says whether the record is of a device that its organization has released.
    #[must_use]
    pub fn released(&self, row: &Row) -> bool {
        self.released.is_some_and(|field| !row.value(field).is_null())
    }

    /// Sets a field of a row to what a record with this value would give.
    pub fn put(&self, row: &mut Row, position: usize, value: Value) {
        if let (Some(slot), Some(field)) = (row.0.get_mut(position), self.fields.get(position)) {
            *slot = match value {
                value @ Value::Timestamp(_) => value,
                value => typed(value, field.kind),
            };
        }
    }

    /// Puts a decoded record into this table's order: unknown fields are left out, absent ones are null.
    #[must_use]
    pub fn row(&self, decoded: DecodedRow) -> Row {
        let mut values = vec![Value::Null; self.fields.len()];
        for (index, (name, value)) in decoded.0.into_iter().enumerate() {
            // The writer's order is nearly always ours, so the position is a good first guess.
            let position = match self.fields.get(index) {
                Some(field) if field.name == *name => Some(index),
                _ => self.position(&name),
            };
            if let Some(position) = position {
                values[position] = typed(value, self.fields[position].kind);
            }
        }
        Row(values)
    }
}

/// Gives the value the meaning of its column; a value of another type is none.
fn typed(value: Value, kind: Kind) -> Value {
    match (kind, value) {
        (Kind::Timestamp, Value::Integer(millis)) => Value::Timestamp(millis),
        (Kind::Text, Value::Text(text)) => {
            if text.trim().is_empty() {
                Value::Null
            } else {
                Value::Text(text)
            }
        }
        (Kind::List, Value::List(items)) => {
            let items: Vec<String> = items.into_iter().filter(|item| !item.trim().is_empty()).collect();
            if items.is_empty() { Value::Null } else { Value::List(items) }
        }
        (Kind::Integer, value @ Value::Integer(_))
        | (Kind::Decimal, value @ Value::Decimal(_))
        | (Kind::Boolean, value @ Value::Boolean(_)) => value,
        _ => Value::Null,
    }
}

fn value_record(schema: &serde_json::Value) -> Option<&Vec<serde_json::Value>> {
    let before = schema["fields"].as_array()?.iter().find(|field| field["name"] == "before")?;
    before["type"].as_array()?.iter().find(|branch| branch["name"] == "Value")?["fields"].as_array()
}

fn kind_of(schema: &serde_json::Value) -> Option<(Kind, bool)> {
    if let Some(branches) = schema.as_array() {
        let [null, value] = branches.as_slice() else { return None };
        return (null == "null").then(|| kind_of(value)).flatten().map(|(kind, _)| (kind, true));
    }
    if schema["logicalType"] == "timestamp-millis" {
        return Some((Kind::Timestamp, false));
    }
    let kind = match schema.as_str().or_else(|| schema["type"].as_str())? {
        "string" => Kind::Text,
        "int" | "long" => Kind::Integer,
        "float" | "double" => Kind::Decimal,
        "boolean" => Kind::Boolean,
        "array" if schema["items"] == "string" => Kind::List,
        _ => return None,
    };
    Some((kind, false))
}

/// A record of a source table: a value for each of the table's fields, in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct Row(Vec<Value>);

impl Row {
    /// Makes a row of a table with so many fields, all of them null.
    #[must_use]
    pub fn empty(table: &SourceTable) -> Self {
        Self(vec![Value::Null; table.fields.len()])
    }

    /// Gives the value of the field at `position`; a position beyond the row's end is null.
    #[must_use]
    pub fn value(&self, position: usize) -> &Value {
        self.0.get(position).unwrap_or(&Value::Null)
    }

    /// Takes the value of the field at `position` out, which is null from then on.
    pub(crate) fn take(&mut self, position: usize) -> Value {
        self.0.get_mut(position).map(std::mem::take).unwrap_or_default()
    }
}
