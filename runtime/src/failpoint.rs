//! Labelled places where a test stops, kills or delays a process.
//!
//! A label is `stage.step.before` or `stage.step.after`. With the feature `failpoints` it obeys the variable
//! `FAILPOINTS` (`producer.page.commit.before=2*off->return(abort)`); without, it costs nothing and leaves no text behind.

/// Names a place at which a test may interfere: `return(abort)` ends the process at once, as `kill -9` would,
/// `return(hang)` logs that the place was reached and stops the thread there for good.
#[cfg(feature = "failpoints")]
#[macro_export]
macro_rules! failpoint {
    ($label:literal) => {
        $crate::failpoint::reach($label)
    };
}

/// Names a place at which a test may interfere; in this build it is nothing.
#[cfg(not(feature = "failpoints"))]
#[macro_export]
macro_rules! failpoint {
    ($label:literal) => {};
}

/// Carries out what `FAILPOINTS` says for `label`.
#[cfg(feature = "failpoints")]
#[doc(hidden)]
pub fn reach(label: &str) {
    fail::eval(label, |action| match action.as_deref() {
        Some("abort") => std::process::abort(),
        Some("hang") => {
            tracing::info!(label, "failpoint reached, hanging");
            loop {
                std::thread::park();
            }
        }
        other => tracing::warn!(label, action = other, "failpoint has an action that is not known"),
    });
}

/// Reads `FAILPOINTS`; the returned value must live as long as the labels are to obey. Without the feature it does nothing.
pub fn setup() -> Setup {
    #[cfg(feature = "failpoints")]
    return Setup(fail::FailScenario::setup());
    #[cfg(not(feature = "failpoints"))]
    Setup()
}

/// Keeps what `FAILPOINTS` said in force.
pub struct Setup(
    #[cfg(feature = "failpoints")]
    #[allow(dead_code, reason = "kept for its destructor")]
    fail::FailScenario<'static>,
);

impl std::fmt::Debug for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Setup")
    }
}
