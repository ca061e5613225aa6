//! The rim that all stages of Windfall share: configuration, telemetry, Kafka and the schema registry.

pub mod clock;
pub mod failpoint;
