//! What tests of more than one stage share: the product as processes, the topics as another client reads them, and the checker of the laws.

pub mod checker;
pub mod journal;
pub mod process;
pub mod store;
pub mod topics;
pub mod workbench;
