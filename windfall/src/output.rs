//! Data on standard output, as a table, JSON or YAML. When the reader closes the pipe the command ends without an error.

use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use comfy_table::{ContentArrangement, Table, TableStyle};
use serde::Serialize;
use serde_json::Value;
use windfall_runtime::telemetry::escaped;

use crate::cli::Form;

/// Standard output, buffered.
pub(crate) struct Output {
    form: Form,
    out: BufWriter<StdoutLock<'static>>,
    terminal: bool,
}

impl Output {
    pub(crate) fn new(form: Form) -> Self {
        let stdout = io::stdout();
        Self { form, terminal: stdout.is_terminal(), out: BufWriter::new(stdout.lock()) }
    }

    /// Writes a line of text as it is.
    pub(crate) fn line(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.out, "{line}")
    }

    /// Writes one record of a stream as a JSON line or a YAML document, and flushes it.
    pub(crate) fn record(&mut self, record: &Value) -> io::Result<()> {
        match self.form {
            Form::Yaml => write!(self.out, "---\n{}", yaml(record)?)?,
            Form::Json | Form::Table => writeln!(self.out, "{record}")?,
        }
        self.out.flush()
    }

    /// Writes one answer: `value` for machines, or a table with `heads` above `rows` for people.
    pub(crate) fn answer(
        &mut self,
        value: &impl Serialize,
        heads: &[&str],
        rows: Vec<Vec<String>>,
    ) -> crate::Result<()> {
        match self.form {
            Form::Table => {
                let text = table(heads, rows, self.terminal);
                self.line(&text)?;
            }
            Form::Json => {
                serde_json::to_writer_pretty(&mut self.out, value).map_err(io::Error::from)?;
                writeln!(self.out)?;
            }
            Form::Yaml => self.out.write_all(yaml(value)?.as_bytes())?,
        }
        self.out.flush()?;
        Ok(())
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Formats a table. On a terminal it fits the width; elsewhere each row is one line.
pub(crate) fn table(heads: &[&str], rows: Vec<Vec<String>>, terminal: bool) -> String {
    let mut table = Table::new();
    table.load_style(TableStyle::new()).set_header(heads);
    let arrangement = if terminal { ContentArrangement::Dynamic } else { ContentArrangement::Disabled };
    table.set_content_arrangement(arrangement);
    for row in rows {
        table.add_row(row.into_iter().map(|cell| escaped(&cell).to_string()));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
    lines.join("\n")
}

/// Writes a value as YAML.
fn yaml(value: &impl Serialize) -> io::Result<String> {
    serde_saphyr::to_string(value).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use windfall_runtime::config::{Rules, SecretReading, Violations, parse};

    use super::*;

    #[test]
    fn yaml_says_the_same_as_json() {
        let value = json!({
            "name": "acme", "empty": {}, "none": null, "list": [1, "no", { "a": "x: y" }, []], "version": "1.0", "number": "12345e67", "line\n": "a\nb\n", "deep": { "b": true }
        });
        let text = yaml(&value).unwrap();
        let rules =
            Rules::<Value> { env: &|_| None, secrets: &|_, _| SecretReading::Needed, check: &|_| Violations::new() };
        let back = parse(&text, std::path::Path::new("x"), &rules).unwrap().config;
        assert_eq!(back, value, "{text}");
    }

    #[test]
    fn a_table_away_from_a_terminal_keeps_each_row_on_its_line() {
        let long = "x".repeat(500);
        let text = table(
            &["NAME", "VALUE"],
            vec![vec!["a".into(), long.clone()], vec!["b\u{1b}[31m".into(), "2".into()]],
            false,
        );
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[1].ends_with(&long));
        assert!(lines[2].starts_with("b\\u{1b}[31m"), "control characters are shown, not obeyed: {text}");
    }
}
