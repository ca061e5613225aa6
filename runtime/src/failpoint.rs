//! Labelled places where a test stops, kills or delays a process.
//!
//! A label is `stage.step.before` or `stage.step.after`. With the feature `failpoints` it obeys the variable
//! `FAILPOINTS` (`producer.page.commit.before=2*off->return(abort)`); without, it costs nothing and leaves no text behind.

/// Names a place at which a test may interfere: `return(abort)` ends the process at once, as `kill -9` would.
#[macro_export]
macro_rules! failpoint {
    ($label:literal) => {
        $crate::failpoint::__fail_point!($label, |action: Option<String>| $crate::failpoint::act($label, action.as_deref()))
    };
}

#[doc(hidden)]
pub use fail::fail_point as __fail_point;

/// Carries out the action that `FAILPOINTS` gives for `label`.
#[doc(hidden)]
pub fn act(label: &str, action: Option<&str>) {
    match action {
        Some("abort") => std::process::abort(),
        other => tracing::warn!(label, action = other, "failpoint has an action that is not known"),
    }
}
