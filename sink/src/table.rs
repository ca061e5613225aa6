//! The table that a collection asks for: names and column types, without any store's SQL.

use std::fmt;

use windfall_runtime::diagnose::{Diagnose, Diagnosis, Kind};
use windfall_schemas::asset::Collection;
pub use windfall_schemas::asset::FieldType;

/// Longest name that PostgreSQL keeps whole; a longer one would be cut without an error, and two could become one.
const NAME_LIMIT: usize = 63;

/// Schema of a table whose name gives none.
const DEFAULT_SCHEMA: &str = "public";

/// Columns that the sink adds itself; a collection may not have fields of these names.
const OWN_COLUMNS: [&str; 6] = ["asset_id", "__deleted", "__generation", "__partition", "__offset", "__written_at"];

/// Fields of the flat record that have no column: the table holds one collection.
const LEFT_OUT: [&str; 1] = ["collection"];

/// A name of a schema, table or column: `[a-z_][a-z0-9_]{0,62}`, so that quoting it can never end early.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// Checks `name`.
    ///
    /// # Errors
    /// When it is anything but `[a-z_][a-z0-9_]{0,62}`.
    pub fn parse(name: &str) -> Result<Self, TableError> {
        let mut characters = name.bytes();
        let first = characters.next().is_some_and(|c| c.is_ascii_lowercase() || c == b'_');
        let rest = characters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_');
        if first && rest && name.len() <= NAME_LIMIT {
            Ok(Self(name.to_owned()))
        } else {
            Err(TableError::Name { name: name.escape_debug().take(80).collect() })
        }
    }

    /// Returns the bare name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the name in double quotes, as SQL wants it.
    pub fn quoted(&self) -> String {
        format!("\"{}\"", self.0)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A table's name with its schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableName {
    /// The schema, `public` when the configuration names none. SQLite has none and ignores it.
    pub schema: Name,
    /// The table.
    pub table: Name,
}

impl TableName {
    /// Reads `table` or `schema.table`.
    ///
    /// # Errors
    /// When either part is no legal name.
    pub fn parse(text: &str) -> Result<Self, TableError> {
        let (schema, table) = text.split_once('.').unwrap_or((DEFAULT_SCHEMA, text));
        Ok(Self { schema: Name::parse(schema)?, table: Name::parse(table)? })
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.schema, self.table)
    }
}

/// A column made from a field of the collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// The field's name.
    pub name: Name,
    /// The field's type.
    pub kind: FieldType,
}

/// The table of one collection: its name and, in the flat record's order, one column for each field.
///
/// `asset_id`, `__deleted` and the guard are in every table and therefore not among `columns`; `collection` is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Where the table lies.
    pub name: TableName,
    /// The fields, in the order in which [`Content::Record`](crate::asset::Content::Record) gives their values.
    pub columns: Vec<Column>,
}

impl Table {
    /// Makes the table of a collection: a column for each field that its flat record has, by the record's names.
    ///
    /// # Errors
    /// When a field's name is too long for a column.
    pub fn of_collection(name: TableName, collection: &Collection) -> Result<Self, TableError> {
        Self::of_fields(name, collection.columns())
    }

    /// Makes the table of the flat record whose fields are given by name and type.
    ///
    /// # Errors
    /// When a field's name is not a legal column name or stands twice.
    pub fn of_fields<'a>(
        name: TableName,
        fields: impl IntoIterator<Item = (&'a str, FieldType)>,
    ) -> Result<Self, TableError> {
        let mut columns: Vec<Column> = Vec::new();
        for (field, kind) in fields {
            if OWN_COLUMNS.contains(&field) || LEFT_OUT.contains(&field) {
                continue;
            }
            let column = Column { name: Name::parse(field)?, kind };
            if columns.iter().any(|known| known.name == column.name) {
                return Err(TableError::Twice { name: column.name });
            }
            columns.push(column);
        }
        Ok(Self { name, columns })
    }
}

/// A table that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// The name would need quoting, or would be cut.
    #[error("`{name}` is not a name for a schema, table or column: only [a-z_][a-z0-9_]{{0,62}} is")]
    Name {
        /// The name, escaped and cut.
        name: String,
    },
    /// Two fields would share a column.
    #[error("two fields ask for the column `{name}`")]
    Twice {
        /// The column.
        name: Name,
    },
}

impl Diagnose for TableError {
    fn diagnosis(&self) -> Diagnosis {
        Kind::Configuration.help(match self {
            Self::Name { .. } => {
                "use lower-case letters, digits and underscores, at most 63, not beginning with a digit; `schema.table` for a table elsewhere than in `public`"
            }
            Self::Twice { .. } => "rename one of the two fields in the collection's file",
        })
    }
}
