//! Exit codes: what a script can tell apart without reading a word.

use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// It did what was asked.
    Success = 0,
    /// It did not.
    Failure = 1,
    /// The command line cannot be understood.
    Usage = 2,
    /// Somebody did not accept who we are.
    Authentication = 3,
    /// What was named is not there.
    NotFound = 4,
    /// We may not do this.
    Permission = 5,
    /// The other side's rate limit is used up.
    RateLimited = 6,
    /// Something was left out; a later run makes up for it.
    Incomplete = 7,
    /// Something waits for an operator's approval.
    Held = 8,
    /// The configuration cannot be used.
    Config = 78,
    /// It was interrupted before its end.
    Interrupted = 130,
}

impl Exit {
    /// Returns the worse of two: a failure outweighs what was only held or left out.
    #[must_use]
    pub fn worse(self, other: Self) -> Self {
        if self.severity() >= other.severity() { self } else { other }
    }

    fn severity(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Incomplete => 1,
            Self::Held => 2,
            Self::RateLimited => 3,
            Self::NotFound => 4,
            Self::Failure => 5,
            Self::Permission => 6,
            Self::Authentication => 7,
            Self::Config => 8,
            Self::Usage => 9,
            Self::Interrupted => 10,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error of the command itself: what, where and why in its text, what to do beside it, and the exit code.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Failure {
    /// What went wrong, and where.
    pub what: String,
    /// The things that are wrong, one by one, where there are several.
    pub faults: Vec<String>,
    /// What to do about it.
    pub help: Option<String>,
    /// How the process ends.
    pub exit: Exit,
}

impl Failure {
    /// Makes a failure.
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self { what: what.into(), faults: Vec::new(), help: None, exit }
    }

    /// Adds the things that are wrong, one by one.
    #[must_use]
    pub fn faults(mut self, faults: impl IntoIterator<Item = impl ToString>) -> Self {
        self.faults = faults.into_iter().map(|fault| fault.to_string()).collect();
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worse_of_two_is_the_one_that_needs_more_attention() {
        assert_eq!(Exit::Incomplete.worse(Exit::Held), Exit::Held);
        assert_eq!(Exit::Held.worse(Exit::Failure), Exit::Failure);
        assert_eq!(Exit::Success.worse(Exit::Incomplete), Exit::Incomplete);
        assert_eq!(Exit::Authentication.worse(Exit::Failure), Exit::Authentication);
    }
}
