//! Device change events to asset records.
