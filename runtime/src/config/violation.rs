//! What a configuration breaks although every field could be read.

use super::load::Fault;
use crate::diagnose::Diagnose;

/// Collects broken rules, so that all are shown at once; the path of each finds its place in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Violations(Vec<Fault>);

impl Violations {
    /// Makes an empty collection.
    #[must_use]
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
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl IntoIterator for Violations {
    type Item = Fault;
    type IntoIter = std::vec::IntoIter<Fault>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
