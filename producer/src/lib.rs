//! The producer: from the pages of Apple's API to the change topics.
//!
//! # A scan
//!
//! A source's task takes its organization over ([`ledger`]): it fences whoever wrote before, reads its own topics to their
//! ends, and knows from them the last known fleet ([`fleet`]) and where the last scan stopped ([`checkpoint`]). A scan reads the
//! management services and their linkage lists ([`assignment`]), then the pages. Each page is compared with the fleet
//! ([`diff`]) and becomes one transaction ([`step`]): changes, rejects, the ids seen, and last the header that moves the
//! cursor. At its end the devices that were not seen are suspected; the breaker ([`breaker`]) holds too many of them for a person,
//! the others are looked up one by one and judged ([`release`]).
//!
//! Steps are pure: what is known and what was read go in, the content of one transaction comes out. Memory moves only by
//! a step whose commit has answered OK, through the same functions that fold the topics.

pub mod apple;
pub mod assignment;
pub mod breaker;
pub mod budget;
pub mod checkpoint;
pub mod config;
pub mod diff;
pub mod error;
pub mod event;
pub mod fields;
pub mod fleet;
pub mod ledger;
pub mod memory;
pub mod notice;
pub mod observation;
mod packed;
pub mod release;
pub mod run;
pub mod scans;
mod signals;
pub mod source;
pub mod step;
