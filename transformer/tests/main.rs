//! Tests of the transformer: files and laws without I/O, and both loops against a real Kafka.

#![allow(clippy::unwrap_used, reason = "a test ends where it finds what it did not expect")]

mod another_log;
mod decisions;
mod faults;
mod laws;
mod loops;
mod poison;
mod scenarios;
mod shipped;
mod shutdown;
mod takeover;
mod workbench;
