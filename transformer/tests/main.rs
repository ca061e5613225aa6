//! Tests of the transformer: files and laws without I/O, and both loops against a real Kafka.

mod faults;
mod laws;
mod loops;
mod scenarios;
mod shipped;
mod takeover;
mod workbench;
