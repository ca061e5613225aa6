//! The sink's tests: one conformance suite over every store, and what only one of them can show.

#![allow(clippy::unwrap_used, reason = "a test ends where it finds what it did not expect")]

mod adoption;
mod kafka;
mod laws;
mod lost;
mod network;
mod pooler;
mod postgres;
mod sqlite;
mod stores;
mod subjects;
mod unique;

use windfall_sink::conformance;
