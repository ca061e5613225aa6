//! Apple's API to device change events.

pub mod apple;
pub mod assignment;
pub mod breaker;
pub mod budget;
pub mod checkpoint;
pub mod diff;
pub mod event;
pub mod fields;
pub mod fleet;
pub mod memory;
pub mod notice;
pub mod observation;
pub mod release;
pub mod step;
