//! Exit codes, by which a script can tell results apart.

use std::borrow::Cow;
use std::process::ExitCode;

use windfall_runtime::config::Fault;
use windfall_runtime::diagnose::{Diagnose, Diagnosis, Kind};
use windfall_runtime::telemetry::chain;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Exit {
    /// The command succeeded.
    Success = 0,
    /// The command failed for a reason that no other code names.
    Failure = 1,
    /// The command line is wrong.
    Usage = 2,
    /// A service rejected our credentials.
    Authentication = 3,
    /// Something that the command line names does not exist.
    NotFound = 4,
    /// A service denied permission.
    Permission = 5,
    /// A service's rate limit is exhausted.
    RateLimited = 6,
    /// Some work was left undone; a later run does it.
    Incomplete = 7,
    /// Releases wait for an operator's approval.
    Held = 8,
    /// The configuration cannot be used.
    Config = 78,
    /// A signal ended the command before it was done.
    Interrupted = 130,
}

impl Exit {
    /// Returns the more severe of two: a failure outweighs work that was held or left undone.
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

impl From<Kind> for Exit {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Usage => Self::Usage,
            Kind::Configuration => Self::Config,
            Kind::Authentication => Self::Authentication,
            Kind::Permission => Self::Permission,
            Kind::NotFound => Self::NotFound,
            Kind::RateLimited => Self::RateLimited,
            Kind::Unavailable | Kind::Record | Kind::Superseded | Kind::Refused => Self::Failure,
            Kind::Held => Self::Held,
            // The reader of standard output has gone, which is no failure.
            Kind::Unread => Self::Success,
        }
    }
}

/// An error that arises in the command itself, not in a stage.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Failure {
    what: String,
    faults: Vec<Fault>,
    diagnosis: Diagnosis,
}

impl Failure {
    /// Makes a failure; `what` names what failed and where.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { what: what.into(), faults: Vec::new(), diagnosis: kind.into() }
    }

    /// Makes a failure from an error that has no diagnosis of its own.
    pub fn of(error: impl std::error::Error + 'static) -> Self {
        Self::new(Kind::Refused, chain(&error).to_string())
    }

    /// Adds the single faults, which are printed one a line.
    #[must_use]
    pub fn faults(self, faults: impl IntoIterator<Item = impl ToString>) -> Self {
        let fault = |what: &dyn ToString| Fault { what: what.to_string(), ..Fault::default() };
        Self { faults: faults.into_iter().map(|what| fault(&what)).collect(), ..self }
    }

    /// Adds the advice to the operator.
    #[must_use]
    pub fn help(self, help: impl Into<Cow<'static, str>>) -> Self {
        Self { diagnosis: self.diagnosis.or_help(help), ..self }
    }
}

impl Diagnose for Failure {
    fn diagnosis(&self) -> Diagnosis {
        self.diagnosis.clone()
    }

    fn faults(&self) -> &[Fault] {
        &self.faults
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
