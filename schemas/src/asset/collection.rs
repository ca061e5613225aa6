use std::{collections::HashMap, fmt};

/// What an asset is: a name and its fields in order.
///
/// Everything about the collection's topics follows from it: [`Collection::value_schema`] and its neighbours print the
/// schemas, [`Collection::encode_asset`] and its neighbours write the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collection {
    name: String,
    fields: Vec<Field>,
    positions: HashMap<String, usize>,
}

/// One field of a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Name, `[a-z_][a-z0-9_]*`, also the column's.
    pub name: String,
    /// What it holds.
    pub kind: FieldType,
    /// What it means; becomes the schema's `doc`.
    pub description: Option<String>,
    /// A record without it is refused by the mapping. The schema's field is nullable all the same.
    pub required: bool,
    /// No two assets have the same; may name an asset.
    pub unique: bool,
}

impl Field {
    /// Makes an optional field without description.
    pub fn new(name: impl Into<String>, kind: FieldType) -> Self {
        Self { name: name.into(), kind, description: None, required: false, unique: false }
    }
}

/// Type of a field: of a collection, and so of a source's field that fills it and of a column that stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FieldType {
    /// Text.
    String,
    /// Whole number: Avro long.
    Integer,
    /// Number with a fraction: Avro double.
    Decimal,
    /// True or false.
    Boolean,
    /// Instant in milliseconds: Avro timestamp-millis.
    Timestamp,
}

impl FieldType {
    /// All types.
    pub const ALL: [Self; 5] = [Self::String, Self::Integer, Self::Decimal, Self::Boolean, Self::Timestamp];

    /// Name of the type, as collections write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Decimal => "decimal",
            Self::Boolean => "boolean",
            Self::Timestamp => "timestamp",
        }
    }

    /// The type with its article, for messages.
    pub fn named(self) -> String {
        let article = if self == Self::Integer { "an" } else { "a" };
        format!("{article} {self}")
    }
}

impl fmt::Display for FieldType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a collection has no schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CollectionError {
    /// The field at fault, where there is one.
    pub field: Option<String>,
    message: String,
}

impl CollectionError {
    pub(super) fn new(message: String) -> Self {
        Self { field: None, message }
    }
}

/// Names of fields that every flat record or contribution has without `__` in front.
const RESERVED: [&str; 4] = ["collection", "asset_id", "source", "source_key"];

impl Collection {
    /// Checks the names and makes the collection.
    pub fn new(name: impl Into<String>, fields: Vec<Field>) -> Result<Self, CollectionError> {
        let name = name.into();
        if !legal(&name) {
            let message = format!("the collection cannot be named `{name}`: a name matches [a-z_][a-z0-9_]*");
            return Err(CollectionError::new(message));
        }
        if fields.is_empty() {
            return Err(CollectionError::new(format!("`{name}` has no fields")));
        }
        let mut positions = HashMap::with_capacity(fields.len());
        for (position, field) in fields.iter().enumerate() {
            let field = &field.name;
            let fault = if !legal(field) {
                format!("a field of `{name}` cannot be named `{field}`: a name matches [a-z_][a-z0-9_]*")
            } else if field.starts_with("__") || RESERVED.contains(&field.as_str()) {
                format!(
                    "a field of `{name}` cannot be named `{field}`: every record has a field of its own by that name"
                )
            } else if positions.insert(field.clone(), position).is_some() {
                format!("`{name}` has two fields named `{field}`")
            } else {
                continue;
            };
            return Err(CollectionError { field: Some(field.clone()), message: fault });
        }
        Ok(Self { name, fields, positions })
    }

    /// Name of the collection.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The fields in order; the values of a record stand in the same order.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Place of a field among [`Collection::fields`].
    pub fn position(&self, field: &str) -> Option<usize> {
        self.positions.get(field).copied()
    }

    /// The field of that name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.position(name).map(|position| &self.fields[position])
    }
}

fn legal(name: &str) -> bool {
    let mut letters = name.bytes();
    letters.next().is_some_and(|first| first.is_ascii_lowercase() || first == b'_')
        && letters.all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b'_')
}
