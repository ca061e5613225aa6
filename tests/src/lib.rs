//! Tests of Windfall that need more than one stage.
