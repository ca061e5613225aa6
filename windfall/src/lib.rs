//! The windfall command.
