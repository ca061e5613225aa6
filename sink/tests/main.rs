//! The sink's tests: one conformance suite over every store, and what only one of them can show.

mod conformance;
mod postgres;
mod subjects;
