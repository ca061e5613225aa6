//! What is wrong with a collection or mapping file: where, what, and the nearest right name.

use std::fmt;

use windfall_runtime::config::{self, Fault};

/// A place in a file; line and column count from one, a line of zero means the file as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Place {
    /// Line, from one.
    pub line: u64,
    /// Column in characters, from one.
    pub column: u64,
}

/// A value and the place where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub place: Place,
}

/// One fault of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file as the configuration names it.
    pub file: String,
    /// Where in the file.
    pub place: Place,
    /// What is wrong, in lowercase, without a full stop.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, place, message } = self;
        match place.line {
            0 => write!(f, "{file}: {message}"),
            line => write!(f, "{file}:{line}:{}: {message}", place.column),
        }
    }
}

/// All faults found in a set of files, in the order of file, line and column.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Adds a fault.
    pub fn push(&mut self, file: &str, place: Place, message: impl Into<String>) {
        self.0.push(Problem { file: file.to_owned(), place, message: message.into() });
    }

    /// Takes over the faults of another set.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Says whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Iterates over the faults, each file's from its first line on.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    /// Gives `value` back when nothing is wrong, else the faults, sorted within each file.
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

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Self {
        let Problem { file, place: Place { line, column }, message: what } = problem;
        let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let place = (line > 0).then(|| config::Place { line: number(line), column: number(column) });
        Self { file, place, what, ..Self::default() }
    }
}

impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// The least similarity (Jaro-Winkler) at which a name is offered in place of an unknown one.
const NEAR: f64 = 0.75;

/// Finds the name that was probably meant.
pub(crate) fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    names
        .into_iter()
        .map(|known| (strsim::jaro_winkler(&name.to_lowercase(), &known.to_lowercase()), known))
        .filter(|(similarity, _)| *similarity >= NEAR)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}

/// The end of a message about an unknown name: the nearest one, or all of a short list.
pub(crate) fn did_you_mean<'a>(name: &str, names: impl IntoIterator<Item = &'a str> + Clone) -> String {
    /// Up to so many names are listed when none is near.
    const LISTED: usize = 12;
    if let Some(near) = nearest(name, names.clone()) {
        return format!("; did you mean `{near}`?");
    }
    let all: Vec<&str> = names.into_iter().collect();
    match all.len() {
        1..=LISTED => format!("; it may be one of `{}`", all.join("`, `")),
        _ => String::new(),
    }
}
