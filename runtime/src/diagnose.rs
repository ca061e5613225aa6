//! What an error means for whoever meets it: its kind, whether to try again, and what an operator can do.
//!
//! Each error enum has one table, its [`Diagnose`] implementation. Everything else follows from it: a loop asks
//! [`Diagnose::retry`], a log line shows [`Diagnose::help`], and the command derives its exit code from [`Diagnose::kind`].
//!
//! ```
//! use windfall_runtime::diagnose::{Diagnose, Diagnosis, Kind};
//!
//! #[derive(Debug, thiserror::Error)]
//! enum StoreError {
//!     #[error("the login was refused")]
//!     Login,
//!     #[error("no connection")]
//!     Connection,
//! }
//!
//! impl Diagnose for StoreError {
//!     fn diagnosis(&self) -> Diagnosis {
//!         match self {
//!             Self::Login => Kind::Authentication.help("check user and password"),
//!             Self::Connection => Kind::Unavailable.help("check that the store runs"),
//!         }
//!     }
//! }
//! ```

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::io;

use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;
use windfall_schemas::wire::WireError;

use crate::config::Fault;
use crate::retry::Retry;
use crate::telemetry::chain;

/// What kind of trouble an error is; the command's exit code follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The command line cannot be understood.
    Usage,
    /// The configuration, or a file that it names, has to be changed.
    Configuration,
    /// The other side does not accept who we are.
    Authentication,
    /// The other side knows us and does not allow this.
    Permission,
    /// Something that was named does not exist.
    NotFound,
    /// The other side's rate limit is used up.
    RateLimited,
    /// Something that is needed does not answer or cannot work now; it may recover by itself.
    Unavailable,
    /// One record cannot be read or written; the others are not affected.
    Record,
    /// Another process does this work now.
    Superseded,
    /// Something exists in another state than it must have, and somebody has to change it.
    Refused,
    /// The work waits for an operator's decision.
    Held,
    /// The reader of our output has gone away: nobody is left to be told.
    Unread,
}

impl Kind {
    /// Makes a diagnosis of this kind with one sentence that tells an operator what to do.
    #[must_use]
    pub fn help(self, help: impl Into<Cow<'static, str>>) -> Diagnosis {
        Diagnosis { help: Some(help.into()), ..self.into() }
    }

    /// Returns what this kind says about another try, unless the diagnosis says otherwise.
    fn retry(self) -> Retry {
        match self {
            Self::Unavailable | Self::RateLimited => Retry::Backoff,
            _ => Retry::Never,
        }
    }
}

/// What an error says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// What kind of trouble it is.
    pub kind: Kind,
    /// Whether, and when, the same try may succeed without anybody's help.
    pub retry: Retry,
    /// What an operator can do, in one sentence.
    pub help: Option<Cow<'static, str>>,
}

impl Diagnosis {
    /// Replaces what the kind says about another try.
    #[must_use]
    pub fn retry(self, retry: Retry) -> Self {
        Self { retry, ..self }
    }

    /// Adds what an operator can do, where the diagnosis of the cause does not know it.
    #[must_use]
    pub fn or_help(self, help: impl Into<Cow<'static, str>>) -> Self {
        Self { help: self.help.or_else(|| Some(help.into())), ..self }
    }
}

impl From<Kind> for Diagnosis {
    fn from(kind: Kind) -> Self {
        Self { kind, retry: kind.retry(), help: None }
    }
}

/// An error that knows its kind, whether to try again, and what an operator can do.
pub trait Diagnose: Error {
    /// The table of the error type: one match, in which a variant with a cause usually passes on the cause's diagnosis.
    fn diagnosis(&self) -> Diagnosis;

    /// Returns the faults inside one file, where the error collects several.
    fn faults(&self) -> &[Fault] {
        &[]
    }

    /// Returns what kind of trouble it is.
    fn kind(&self) -> Kind {
        self.diagnosis().kind
    }

    /// Returns whether, and when, the same try may succeed without anybody's help.
    fn retry(&self) -> Retry {
        self.diagnosis().retry
    }

    /// Returns whether another try may succeed without anybody's help.
    fn may_pass(&self) -> bool {
        self.retry() != Retry::Never
    }

    /// Returns the error with its causes and what an operator can do, as one line for `status`.
    fn told(&self) -> String
    where
        Self: Sized + 'static,
    {
        let help = self.help().map(|help| format!("; {help}")).unwrap_or_default();
        format!("{}{help}", chain(self))
    }

    /// Returns what an operator can do, in one sentence.
    fn help(&self) -> Option<Cow<'static, str>> {
        self.diagnosis().help
    }
}

/// Any error that can diagnose itself, where a caller does not need to know which one.
pub struct Diagnosed(Box<dyn Diagnose + Send + Sync>);

impl Diagnosed {
    /// Returns what the error says about itself.
    #[must_use]
    pub fn diagnosis(&self) -> Diagnosis {
        self.0.diagnosis()
    }

    /// Returns the faults inside one file, where the error collects several.
    #[must_use]
    pub fn faults(&self) -> &[Fault] {
        self.0.faults()
    }
}

impl<E: Diagnose + Send + Sync + 'static> From<E> for Diagnosed {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

impl fmt::Debug for Diagnosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Diagnosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

// Not `Diagnose`: then every type that is could not be converted.
impl Error for Diagnosed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

impl Diagnose for KafkaError {
    fn diagnosis(&self) -> Diagnosis {
        self.rdkafka_error_code().map_or(Kind::Unavailable.into(), |code| of_kafka(code).into())
    }
}

/// Returns what kind of trouble a broker's answer is.
pub fn of_kafka(code: Code) -> Kind {
    match code {
        Code::Authentication | Code::SaslAuthenticationFailed => Kind::Authentication,
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed => Kind::Permission,
        _ => Kind::Unavailable,
    }
}

impl Diagnose for io::Error {
    fn diagnosis(&self) -> Diagnosis {
        match self.kind() {
            io::ErrorKind::BrokenPipe => Kind::Unread,
            _ => Kind::Unavailable,
        }
        .into()
    }
}

impl Diagnose for WireError {
    fn diagnosis(&self) -> Diagnosis {
        Kind::Record.help(match self {
            Self::Frame { .. } => "find out who writes to the topic without a schema registry, and let it use one",
            Self::OtherSchema { .. } => {
                "check that all processes use one schema registry and that it was not set up anew"
            }
            Self::Schema { .. } | Self::Hostile { .. } => "find out who registered the schema, and delete that version",
            Self::Encode { .. } => "report this with the record's kind: the program and its schema disagree",
            Self::TooLarge { .. } => "look for a field that is much too long, and shorten it at its source",
            Self::Decode { .. } | Self::LeftOver { .. } => {
                "check that the schema registry was not set up anew; the record is kept as it came"
            }
            Self::TooLong { .. } => "find out who writes records of this size to the topic",
        })
    }
}
