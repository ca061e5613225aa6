//! Exit codes: what a script can tell apart without reading a word.

use std::borrow::Cow;
use std::process::ExitCode;

use windfall_runtime::config::Fault;
use windfall_runtime::diagnose::{Diagnose, Diagnosis, Kind};
use windfall_runtime::telemetry::chain;

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
            // Nobody is left to be told, and nothing went wrong.
            Kind::Unread => Self::Success,
        }
    }
}

/// An error of the command itself.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Failure {
    what: String,
    faults: Vec<Fault>,
    diagnosis: Diagnosis,
}

impl Failure {
    /// Makes a failure; `what` says what went wrong, and where.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { what: what.into(), faults: Vec::new(), diagnosis: kind.into() }
    }

    /// Makes a failure of an error that does not say what it means.
    pub fn of(error: impl std::error::Error + 'static) -> Self {
        Self::new(Kind::Refused, chain(&error).to_string())
    }

    /// Adds the things that are wrong, one by one.
    #[must_use]
    pub fn faults(self, faults: impl IntoIterator<Item = impl ToString>) -> Self {
        let fault = |what: &dyn ToString| Fault { what: what.to_string(), ..Fault::default() };
        Self { faults: faults.into_iter().map(|what| fault(&what)).collect(), ..self }
    }

    /// Adds what to do.
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
