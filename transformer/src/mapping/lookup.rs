//! Lookup tables: from the mapping file itself, or from a file of comma-separated values beside it.

use std::collections::HashMap;

/// A table from key to value, both text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Table(HashMap<String, String>);

impl Table {
    /// Makes a table of pairs; a later pair of the same key wins.
    pub(crate) fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(pairs.into_iter().collect())
    }

    /// Finds the value of a key, which is compared without blanks at its ends.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key.trim()).map(String::as_str)
    }
}

/// A fault of a file of comma-separated values.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CsvError {
    #[error("the file has no header line")]
    Empty,
    #[error("the file has no column `{column}`; its columns are `{}`", columns.join("`, `"))]
    NoColumn { column: String, columns: Vec<String> },
    #[error("line {line} has {found} fields where the header has {expected}")]
    Uneven { line: usize, found: usize, expected: usize },
    #[error("a quoted field that begins on line {line} has no end")]
    Unclosed { line: usize },
    #[error("line {line} repeats the key `{key}`")]
    Repeated { line: usize, key: String },
}

/// Reads a table out of comma-separated values (RFC 4180) with a header line.
pub(crate) fn from_csv(text: &str, key: &str, value: &str) -> Result<Table, CsvError> {
    let mut rows = rows(text.strip_prefix('\u{feff}').unwrap_or(text))?.into_iter();
    let (_, header) = rows.next().ok_or(CsvError::Empty)?;
    let column = |name: &str| {
        header
            .iter()
            .position(|column| column.trim() == name)
            .ok_or_else(|| CsvError::NoColumn { column: name.to_owned(), columns: header.clone() })
    };
    let (key, value) = (column(key)?, column(value)?);
    let mut table = HashMap::new();
    for (line, row) in rows {
        if row.len() != header.len() {
            return Err(CsvError::Uneven { line, found: row.len(), expected: header.len() });
        }
        let name = row[key].trim().to_owned();
        if table.insert(name.clone(), row[value].trim().to_owned()).is_some() {
            return Err(CsvError::Repeated { line, key: name });
        }
    }
    Ok(Table(table))
}

/// Splits the text into rows, each with the line that it begins on; empty lines are left out.
fn rows(text: &str) -> Result<Vec<(usize, Vec<String>)>, CsvError> {
    let mut rows = Vec::new();
    let (mut row, mut field) = (Vec::new(), String::new());
    let (mut line, mut begun, mut quoted) = (1, 1, None);
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        line += usize::from(char == '\n');
        match (char, quoted) {
            ('"', Some(_)) if chars.next_if_eq(&'"').is_some() => field.push('"'),
            ('"', Some(_)) => quoted = None,
            (other, Some(_)) => field.push(other),
            ('"', None) if field.is_empty() => quoted = Some(line),
            (',', None) => row.push(std::mem::take(&mut field)),
            ('\n', None) => {
                row.push(std::mem::take(&mut field).trim_end_matches('\r').to_owned());
                push_row(&mut rows, begun, std::mem::take(&mut row));
                begun = line;
            }
            (other, None) => field.push(other),
        }
    }
    if let Some(line) = quoted {
        return Err(CsvError::Unclosed { line });
    }
    row.push(field);
    push_row(&mut rows, begun, row);
    Ok(rows)
}

fn push_row(rows: &mut Vec<(usize, Vec<String>)>, line: usize, row: Vec<String>) {
    if row.iter().any(|field| !field.is_empty()) {
        rows.push((line, row));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_fields_hold_commas_quotes_and_line_ends() {
        let table = from_csv("id,name\r\n\r\n7,\"Bits, \"\"Bytes\"\"\nand Co\"\r\n8 , CDW\r\n", "id", "name").unwrap();
        assert_eq!(table.get("7"), Some("Bits, \"Bytes\"\nand Co"));
        assert_eq!(table.get(" 8 "), Some("CDW"));
        assert_eq!(table.get("9"), None);
    }

    #[test]
    fn faults_name_their_line() {
        assert_eq!(from_csv("", "id", "name"), Err(CsvError::Empty));
        assert_eq!(from_csv("id,name\n1\n", "id", "name"), Err(CsvError::Uneven { line: 2, found: 1, expected: 2 }));
        assert_eq!(from_csv("id,name\n1,a\n1,b\n", "id", "name"), Err(CsvError::Repeated { line: 3, key: "1".into() }));
        assert_eq!(from_csv("id,name\n1,\"a\n", "id", "name"), Err(CsvError::Unclosed { line: 2 }));
        let missing = from_csv("id,name\n", "id", "title").unwrap_err();
        assert_eq!(missing.to_string(), "the file has no column `title`; its columns are `id`, `name`");
    }
}
