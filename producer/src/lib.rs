//! Apple's API to device change events.
