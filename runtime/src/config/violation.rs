//! What a configuration, or a file that it names, breaks although it could be read.

use std::fmt;

use super::load::Fault;
use super::yaml::Place;
use crate::diagnose::Diagnose;

/// Collects broken rules, so that all are shown at once; the path of each finds its place in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Violations(Vec<Fault>);

impl Violations {
    /// Makes an empty collection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one: where, and what must hold, as in `must lie between 0 and 1`.
    pub fn push(&mut self, path: impl Into<String>, constraint: impl Into<String>) {
        self.0.push(Fault { path: Some(path.into()), what: constraint.into(), ..Fault::default() });
    }

    /// Adds one with its remedy.
    pub fn push_with_help(&mut self, path: impl Into<String>, constraint: impl Into<String>, help: impl Into<String>) {
        let (path, what, help) = (Some(path.into()), constraint.into(), Some(help.into()));
        self.0.push(Fault { path, what, help, ..Fault::default() });
    }

    /// Adds one that an error found, with its remedy.
    pub fn refused(&mut self, path: &str, constraint: &str, error: &impl Diagnose) {
        let (path, what, help) =
            (Some(path.to_owned()), format!("{constraint}: {error}"), error.help().map(Into::into));
        self.0.push(Fault { path, what, help, ..Fault::default() });
    }

    /// Adds one unless `holds`.
    pub fn require(&mut self, holds: bool, path: impl Into<String>, constraint: impl Into<String>) {
        if !holds {
            self.push(path, constraint);
        }
    }

    /// Adds one of the file `file`: at `place`, or of the file as a whole.
    pub fn at(&mut self, file: &str, place: impl Into<Option<Place>>, what: impl Into<String>) {
        self.0.push(Fault { file: file.to_owned(), place: place.into(), what: what.into(), ..Fault::default() });
    }

    /// Adds faults of other files, which have their places already.
    pub fn extend(&mut self, faults: impl IntoIterator<Item = Fault>) {
        self.0.extend(faults);
    }

    /// Takes over the violations of a part of the configuration that stands at `path`.
    pub fn within(&mut self, path: &str, part: Self) {
        self.0.extend(part.into_iter().map(|fault| {
            let inner = fault.path.as_deref().filter(|inner| !inner.is_empty());
            Fault { path: Some(inner.map_or_else(|| path.to_owned(), |inner| format!("{path}.{inner}"))), ..fault }
        }));
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives `value` back when nothing is wrong, else the faults, in the order of file, line and column.
    ///
    /// # Errors
    /// When there is at least one fault.
    pub fn or<T>(mut self, value: T) -> Result<T, Self> {
        if self.0.is_empty() {
            return Ok(value);
        }
        self.0.sort_by(|a, b| (&a.file, a.place).cmp(&(&b.file, b.place)));
        Err(self)
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(Fault::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Violations {}

impl IntoIterator for Violations {
    type Item = Fault;
    type IntoIter = std::vec::IntoIter<Fault>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
