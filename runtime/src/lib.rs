//! What all stages of Windfall share at their edge to the outside: configuration, telemetry, Kafka and the schema registry.

pub mod clock;
pub mod config;
pub mod diagnose;
pub mod failpoint;
pub mod health;
pub mod http;
pub mod kafka;
pub mod lines;
pub mod log_identity;
pub mod metrics;
pub mod patience;
pub mod reader;
pub mod registry;
pub mod retry;
pub mod secret;
pub mod shutdown;
pub mod telemetry;
pub mod worker;
