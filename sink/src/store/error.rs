//! What can go wrong in a store, sorted by what has to happen next.

use std::error::Error;

use windfall_runtime::diagnose::{Diagnose, Diagnosis, Kind};
use windfall_runtime::retry::Retry;

/// An error of a driver or library.
pub type Source = Box<dyn Error + Send + Sync + 'static>;

/// Why a store could not do its work.
///
/// | error | what is in the store | what the caller does |
/// | --- | --- | --- |
/// | `Fenced` | nothing of this batch | gives the partition up until its next assignment |
/// | `Advanced` | this batch up to `found`, by an earlier commit whose answer was lost | goes on from `found` |
/// | `Record` | nothing of this batch | leaves out the record that is named; where none is, halves the batch until it stands alone |
/// | `Environment` | nothing, or all when a commit's answer was lost | pauses, tries again |
/// | `Refused` | nothing | stops: only an operator can help |
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Someone else has claimed the partition since.
    #[error("partition {partition} was taken over by another instance")]
    Fenced {
        /// The partition.
        partition: i32,
    },
    /// The store's position is not where the batch begins, though the epoch is ours.
    #[error("the batch for partition {partition} begins at {expected}, the store's position is {found}")]
    Advanced {
        /// The partition.
        partition: i32,
        /// Where the batch begins.
        expected: i64,
        /// Where the store stands.
        found: i64,
    },
    /// The store cannot hold one of the records, and never will.
    #[error("a record of the batch was refused ({code})")]
    Record {
        /// Partition and offset of the record, where the store knows which of the batch it is.
        at: Option<(i32, i64)>,
        /// SQLSTATE, or the store's own name for the refusal.
        code: String,
        /// What the store said.
        #[source]
        source: Source,
    },
    /// The store cannot work at present.
    #[error("the store could not be written: {cause}")]
    Environment {
        /// What kind of trouble it is.
        cause: Cause,
        /// What the store said.
        #[source]
        source: Source,
    },
    /// The store must not be written as configured.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl StoreError {
    /// Makes an error about some record of the batch.
    pub fn record(code: impl Into<String>, source: impl Into<Source>) -> Self {
        Self::Record { at: None, code: code.into(), source: source.into() }
    }

    /// Names the record that an error is about, if it is about one.
    #[must_use]
    pub fn at(self, partition: i32, offset: i64) -> Self {
        match self {
            Self::Record { code, source, .. } => Self::Record { at: Some((partition, offset)), code, source },
            other => other,
        }
    }

    /// Makes an environment error.
    pub fn environment(cause: Cause, source: impl Into<Source>) -> Self {
        Self::Environment { cause, source: source.into() }
    }
}

impl Diagnose for StoreError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Fenced { .. } => {
                Kind::Superseded.help("nothing, when another process runs this sink; else look for a second one")
            }
            Self::Advanced { .. } => Kind::Unavailable.help("nothing: the sink goes on from the store's position"),
            Self::Record { .. } => Kind::Record.help("see the dead letter for the record and the reason"),
            Self::Environment { cause, .. } => cause.diagnosis(),
            Self::Refused(refusal) => refusal.diagnosis(),
        }
    }
}

/// Why a store cannot work at present: nothing is wrong with the records, and it ends by itself or an operator ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// No connection, or a broken one.
    Connection,
    /// The store does not let us in.
    Login,
    /// An answer did not come in time.
    TimedOut,
    /// Someone else holds a lock.
    Locked,
    /// Another transaction got in the way: serialization failure, deadlock.
    Conflict,
    /// No space left.
    DiskFull,
    /// The operating system reports an error for one of the store's files.
    Io,
    /// The file system lacks the shared memory that SQLite's write-ahead log needs.
    SharedMemory,
    /// Memory, connections or another limit of the server.
    Resources,
    /// The store is read only.
    ReadOnly,
    /// A right is missing.
    Rights,
    /// A table or column is not what it was when the sink began.
    Shape,
    /// The store is damaged or at odds with itself.
    Internal,
}

impl Cause {
    /// Returns the label for metrics and `status`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Login => "login",
            Self::TimedOut => "timed_out",
            Self::Locked => "locked",
            Self::Conflict => "conflict",
            Self::DiskFull => "disk_full",
            Self::Io => "io",
            Self::SharedMemory => "shared_memory",
            Self::Resources => "resources",
            Self::ReadOnly => "read_only",
            Self::Rights => "rights",
            Self::Shape => "shape",
            Self::Internal => "internal",
        }
    }

    /// Says what the operator can do; the sink tries again by itself, whatever the cause is.
    fn diagnosis(self) -> Diagnosis {
        match self {
            Self::Connection => Kind::Unavailable
                .help("see that the store runs and that its address in `sinks[].url` or `path` is right"),
            Self::Login => Kind::Authentication.help("see user, password and database in `sinks[].url`"),
            Self::TimedOut => Kind::Unavailable.help("see what keeps the store busy (`pg_stat_activity`)"),
            Self::Locked => Kind::Unavailable.help("see who holds the lock (`pg_locks`) and end it"),
            Self::Conflict => Kind::Unavailable.help("nothing: the batch is tried again"),
            Self::DiskFull => Kind::Unavailable.help("free space for the store"),
            Self::Io => Kind::Unavailable
                .help("read the kernel's log, and check the disk or the network share that holds the store's files"),
            Self::SharedMemory => Kind::Unavailable.help(
                "keep the file on a local disk: network shares and some container mounts cannot map memory that processes share",
            ),
            Self::Resources => Kind::Unavailable.help("raise the store's limits or close other connections"),
            Self::ReadOnly => Kind::Unavailable.help(
                "let the sink write: for PostgreSQL name the primary and lift `default_transaction_read_only`; for SQLite mount the folder writable and give this user the right to write the file and its folder",
            ),
            Self::Rights => Kind::Permission
                .help("grant select, insert and update on the table, `windfall_positions` and `windfall_sinks`"),
            Self::Shape => Kind::Unavailable
                .help("undo the change to the table, or run `windfall check` to see what it should look like"),
            Self::Internal => Kind::Unavailable.help("read the store's own log"),
        }
        .retry(Retry::Backoff)
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Connection => "no connection",
            Self::Login => "the login was refused",
            Self::TimedOut => "no answer in time",
            Self::Locked => "another session holds a lock",
            Self::Conflict => "another transaction got in the way",
            Self::DiskFull => "no space is left",
            Self::Io => "the operating system reports an error for its files",
            Self::SharedMemory => "its file system has no shared memory",
            Self::Resources => "a limit of the server is reached",
            Self::ReadOnly => "it is read only",
            Self::Rights => "a right is missing",
            Self::Shape => "a table is not what it was",
            Self::Internal => "it reports an inner fault",
        })
    }
}

/// Reasons never to begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A table has one sink.
    #[error("table `{table}` belongs to the sink `{owner}`, not to `{sink}`")]
    TakenTable {
        /// The table.
        table: String,
        /// The sink that has it.
        owner: String,
        /// The sink that asked.
        sink: String,
    },
    /// The sink has filled this table from another topic.
    #[error("table `{table}` is filled from `{owner}`, not from `{topic}`")]
    OtherTopic {
        /// The table.
        table: String,
        /// The topic it is filled from.
        owner: String,
        /// The topic that was asked for.
        topic: String,
    },
    /// The sink has filled another table from this topic, and its positions stand for that one.
    #[error("the sink `{sink}` fills the table `{owner}`, not `{table}`")]
    OtherTable {
        /// The sink.
        sink: String,
        /// The table it fills.
        owner: String,
        /// The table that was asked for.
        table: String,
    },
    /// The table is not what the collection asks for, and the sink may not change it.
    #[error("table `{table}` does not fit the collection: {}", faults.join("; "))]
    Shape {
        /// The table.
        table: String,
        /// Each thing that is missing or different.
        faults: Vec<String>,
        /// What would make it fit, as SQL; empty when nothing additive does.
        remedy: String,
    },
    /// The table is gone, though the positions say that it was filled.
    #[error("table `{table}` is missing, though the sink has filled it before")]
    Vanished {
        /// The table.
        table: String,
    },
    /// The database keeps texts in an encoding that lacks most of Unicode's characters.
    #[error("the database `{database}` is encoded in {encoding}, which cannot hold every text of a record")]
    Encoding {
        /// The database.
        database: String,
        /// Its encoding, as the server names it.
        encoding: String,
    },
    /// The address is no address of a store.
    #[error("the store's address cannot be used: {reason}")]
    Address {
        /// Why, without the address itself, which may hold a password.
        reason: String,
        /// What to do about it.
        help: String,
    },
}

impl Diagnose for Refusal {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::TakenTable { .. } => Kind::Refused.help(
                "name another table in `sinks[].table`, or, when the other sink is gone, delete its row from `windfall_sinks`",
            ),
            Self::OtherTopic { table, .. } => Kind::Refused.help(format!(
                "name another table, or drop `{table}` with its rows in `windfall_sinks` and `windfall_positions`"
            )),
            Self::OtherTable { owner, .. } => Kind::Refused.help(format!(
                "give the sink a new name, and it fills the new table from the start; or go on with `{owner}`"
            )),
            Self::Shape { remedy, .. } if remedy.is_empty() => Kind::Refused.help(
                "change the collection or rebuild the table under a new name: types are never changed in place",
            ),
            Self::Shape { remedy, .. } => {
                Kind::Refused.help(format!("run this, or set `schema: evolve` and let the sink do so: {remedy}"))
            }
            Self::Vanished { table } => Kind::Refused.help(format!(
                "restore `{table}`, or delete its rows in `windfall_sinks` and `windfall_positions` to fill it again from the start"
            )),
            Self::Encoding { .. } => Kind::Refused.help(
                "make a database with `create database NAME encoding 'UTF8' template template0` and name it in `sinks[].url`",
            ),
            Self::Address { help, .. } => Kind::Configuration.help(help.clone()),
        }
    }
}
