//! What tests of more than one stage share: the product as processes, the topics as another client reads them, and the checker of the laws.

pub mod accounting;
pub mod checker;
pub mod fold;
pub mod identity;
pub mod image;
pub mod journal;
pub mod limits;
pub mod process;
pub mod release;
pub mod run;
pub mod secrets;
pub mod served;
pub mod store;
pub mod topics;
pub mod torture;
pub mod truth;
pub mod vacuity;
pub mod workbench;

#[cfg(test)]
mod planted;
