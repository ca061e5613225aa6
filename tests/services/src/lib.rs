//! Real Apache Kafka, PostgreSQL and a schema registry, started for tests and local runs.
//!
//! A folder of its own beside the end-to-end tests, because every crate's tests want a broker and must not wait for the
//! whole workspace to compile. [`kafka()`], [`postgres()`] and [`registry()`] answer with an address: the one that
//! `WINDFALL_TEST_KAFKA`, `WINDFALL_TEST_POSTGRES` or `WINDFALL_TEST_REGISTRY` names, else that of a service started once for this
//! process. A service ends with the process that started it, however that ends: a shell holds the other end of a pipe and stops it.
//!
//! The jars come by name through Maven and are kept in `target/services`; PostgreSQL is the newest that the machine has installed.

mod jars;
mod kafka;
mod pooler;
mod postgres;
mod proxy;
mod registry;
mod supervised;

use std::sync::OnceLock;

pub use jars::{JarError, Jars};
pub use kafka::{Kafka, KafkaOptions};
pub use pooler::Pooler;
pub use postgres::{Postgres, PostgresOptions};
pub use proxy::{Direction, EndTxn, Held, Proxy};
pub use registry::Registry;
pub use supervised::{ServiceError, Supervised, free_port};

/// Names the variable that holds the address of a broker to use instead of starting one.
pub const KAFKA_VARIABLE: &str = "WINDFALL_TEST_KAFKA";
/// Names the variable that holds the URL of a PostgreSQL to use instead of starting one.
pub const POSTGRES_VARIABLE: &str = "WINDFALL_TEST_POSTGRES";
/// Names the variable that holds the URL of a schema registry to use instead of starting one.
pub const REGISTRY_VARIABLE: &str = "WINDFALL_TEST_REGISTRY";

/// Returns the bootstrap address of a real broker for this process's tests.
///
/// # Panics
/// When none is named and none can be started; the message says what is missing.
#[must_use]
pub fn kafka() -> &'static str {
    static STARTED: OnceLock<(String, Option<Kafka>)> = OnceLock::new();
    named_or_started(
        &STARTED,
        KAFKA_VARIABLE,
        || Kafka::start(&KafkaOptions::default()),
        |kafka| kafka.bootstrap().to_owned(),
    )
}

/// Returns the URL of a real PostgreSQL for this process's tests, with a database `postgres` and a user that may do all.
///
/// # Panics
/// When none is named and none can be started; the message says what is missing.
#[must_use]
pub fn postgres() -> &'static str {
    static STARTED: OnceLock<(String, Option<Postgres>)> = OnceLock::new();
    named_or_started(&STARTED, POSTGRES_VARIABLE, || Postgres::start(&PostgresOptions::default()), Postgres::url)
}

/// Returns the base URL of Confluent's API as Apicurio serves it, for this process's tests.
///
/// # Panics
/// When none is named and none can be started; the message says what is missing.
#[must_use]
pub fn registry() -> &'static str {
    static STARTED: OnceLock<(String, Option<Registry>)> = OnceLock::new();
    named_or_started(&STARTED, REGISTRY_VARIABLE, Registry::start, |registry| registry.url().to_owned())
}

fn named_or_started<S>(
    cell: &'static OnceLock<(String, Option<S>)>,
    variable: &str,
    start: impl FnOnce() -> Result<S, ServiceError>,
    address: impl FnOnce(&S) -> String,
) -> &'static str {
    let (found, _kept) = cell.get_or_init(|| match std::env::var(variable) {
        Ok(named) if !named.is_empty() => (named, None),
        _ => match start() {
            Ok(service) => (address(&service), Some(service)),
            Err(error) => panic!("no service for the tests: {error}; set {variable} to use one that runs already"),
        },
    });
    found
}
