//! The example is put to every promise of a store, and runs under the public sink against a real broker.

#![allow(clippy::unwrap_used, reason = "a test ends where it finds what it did not expect")]

mod promises;
mod run;
