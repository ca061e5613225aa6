//! The contract holds: types agree with files, files with their history, bytes with other libraries.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod agreement;
mod assets;
mod codec;
mod compatibility;
mod fingerprints;
mod golden;
mod hostile;
mod lint;
mod names;
mod partitions;
mod round_trip;
mod samples;
mod values;
