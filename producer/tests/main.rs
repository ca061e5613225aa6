//! The producer's tests: scenario files, laws, and the run loop against the simulator and a real Kafka.

mod apple;
mod laws;
mod organization;
mod rig;
mod scenarios;
mod steps;
