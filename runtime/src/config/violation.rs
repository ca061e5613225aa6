//! What a configuration breaks although every field could be read.

use std::fmt;

use crate::diagnose::Diagnose;

/// One broken rule: where, what must hold, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field, `sources[0].rate_limit.share`.
    pub path: String,
    /// What must hold, `must lie between 0 and 1`.
    pub constraint: String,
    /// What to do, in one sentence.
    pub help: Option<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.path, self.constraint)
    }
}

/// Collects violations, so that all are shown at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Violations(Vec<Violation>);

impl Violations {
    /// Makes an empty collection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one.
    pub fn push(&mut self, path: impl Into<String>, constraint: impl Into<String>) {
        self.0.push(Violation { path: path.into(), constraint: constraint.into(), help: None });
    }

    /// Adds one with its remedy.
    pub fn push_with_help(&mut self, path: impl Into<String>, constraint: impl Into<String>, help: impl Into<String>) {
        self.0.push(Violation { path: path.into(), constraint: constraint.into(), help: Some(help.into()) });
    }

    /// Adds one that an error found, with its remedy.
    pub fn refused(&mut self, path: &str, constraint: &str, error: &impl Diagnose) {
        let (constraint, help) = (format!("{constraint}: {error}"), error.help().map(Into::into));
        self.0.push(Violation { path: path.to_owned(), constraint, help });
    }

    /// Adds one unless `holds`.
    pub fn require(&mut self, holds: bool, path: impl Into<String>, constraint: impl Into<String>) {
        if !holds {
            self.push(path, constraint);
        }
    }

    /// Takes over the violations of a part of the configuration that stands at `path`.
    pub fn within(&mut self, path: &str, part: impl IntoIterator<Item = Violation>) {
        self.0.extend(part.into_iter().map(|violation| Violation {
            path: if violation.path.is_empty() { path.to_owned() } else { format!("{path}.{}", violation.path) },
            ..violation
        }));
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns them in the order they were found.
    #[must_use]
    pub fn into_vec(self) -> Vec<Violation> {
        self.0
    }
}

impl IntoIterator for Violations {
    type Item = Violation;
    type IntoIter = std::vec::IntoIter<Violation>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
