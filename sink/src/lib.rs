//! Asset records to collection stores.
