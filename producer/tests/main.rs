//! The producer's tests: scenario files, laws, and the run loop against the simulator and a real Kafka.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends where it stands")]

mod apple;
mod laws;
mod lookups;
mod organization;
mod rig;
mod scenarios;
mod sharing;
mod steps;
mod takeover;
mod trouble;
mod unreadable;
mod unwritable;
