//! The producer's tests: scenario files, laws, and the run loop against the simulator and a real Kafka.

mod laws;
mod scenarios;
mod steps;
