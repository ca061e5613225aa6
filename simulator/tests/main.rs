//! The simulator as a client sees it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod control;
mod determinism;
mod faults;
mod journal;
mod listing;
mod rate_limit;
mod shapes;
mod sim;
mod single_reads;
mod support;
mod token;
