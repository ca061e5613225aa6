//! The token that stops the process, and the deadline after which it ends anyway.

use std::pin::Pin;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::JoinMap;
use tracing::{info, warn};

use crate::lines::Lines;

/// Work in flight has this long to commit or be aborted.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// This long after the deadline the process exits, even while a write blocks.
const GRACE: Duration = Duration::from_secs(1);

/// Exit code of a process that was interrupted.
pub const INTERRUPTED: i32 = 130;

/// Cancels the returned token at the first SIGTERM or SIGINT; a second one ends the process at once.
///
/// Every task that holds the token stops its intake, commits or aborts what is in flight, and returns within [`DEADLINE`];
/// [`Crew`] and [`in_time`] enforce this. A second after the deadline the process exits.
///
/// # Errors
/// When the signals cannot be listened to.
#[cfg(unix)]
pub fn on_signal() -> std::io::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let stop = token.clone();
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        stop.cancel();
        info!(signal = name, "stopping");
        tokio::select! {
            _ = terminate.recv() => warn!("second signal, ending at once"),
            _ = interrupt.recv() => warn!("second signal, ending at once"),
            () = tokio::time::sleep(DEADLINE + GRACE) => warn!("the process did not stop in time, ending at once"),
        }
        if let Ok(lines) = Lines::stderr() {
            lines.finish();
        }
        std::process::exit(INTERRUPTED);
    });
    Ok(token)
}

/// Waits for `work` no longer than [`DEADLINE`] after `stop` was cancelled; work that takes longer is dropped, and `name` is logged.
pub async fn in_time<T>(name: &str, stop: &CancellationToken, work: impl Future<Output = T>) -> Option<T> {
    before(name, late(stop.clone()), work).await
}

async fn before<T>(name: &str, late: impl Future<Output = ()>, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        () = late => {
            tell(&[name.to_owned()]);
            None
        }
    }
}

async fn late(stop: CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(DEADLINE).await;
}

fn tell(names: &[String]) {
    warn!(not_stopped = names.join(", "), seconds = DEADLINE.as_secs(), "not stopped in time, ending without them");
}

/// Tasks with names that stop by one token, each within [`DEADLINE`].
///
/// Dropping it aborts what is left.
pub struct Crew<T> {
    tasks: JoinMap<String, T>,
    late: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// What came of waiting for a [`Crew`].
#[derive(Debug, PartialEq, Eq)]
pub enum Next<T> {
    /// The task of this name has ended.
    Ended(String, T),
    /// All have ended.
    Gone,
    /// The deadline has passed, and these have not stopped; it was logged.
    Late(Vec<String>),
}

impl<T: Send + 'static> Crew<T> {
    /// Makes a crew without members; its deadline begins when `stop` is cancelled.
    pub fn new(stop: &CancellationToken) -> Self {
        Self::until(late(stop.clone()))
    }

    fn until(late: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { tasks: JoinMap::new(), late: Box::pin(late) }
    }

    /// Starts a task under a name that no other task has.
    pub fn spawn(&mut self, name: impl Into<String>, work: impl Future<Output = T> + Send + 'static) {
        self.tasks.spawn(name.into(), work);
    }

    /// Waits until a task ends, all have ended, or the deadline has passed; may be cancelled without losing anything.
    ///
    /// # Panics
    /// With a task that panics.
    pub async fn next(&mut self) -> Next<T> {
        tokio::select! {
            biased;
            joined = self.tasks.join_next() => match joined {
                None => Next::Gone,
                Some((name, Ok(ended))) => Next::Ended(name, ended),
                Some((_, Err(error))) => std::panic::resume_unwind(error.into_panic()),
            },
            () = &mut self.late => {
                let mut names: Vec<_> = self.tasks.keys().cloned().collect();
                names.sort();
                tell(&names);
                Next::Late(names)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    /// A deadline that passes when the test says so.
    fn deadline() -> (oneshot::Sender<()>, impl Future<Output = ()> + Send) {
        let (pass, passed) = oneshot::channel();
        (pass, async move { passed.await.unwrap() })
    }

    #[tokio::test]
    async fn work_that_does_not_end_is_left_at_the_deadline() {
        let (pass, passed) = deadline();
        pass.send(()).unwrap();
        assert_eq!(before("work", passed, std::future::pending::<()>()).await, None);
    }

    #[tokio::test]
    async fn work_that_ends_at_the_deadline_has_ended() {
        let (pass, passed) = deadline();
        pass.send(()).unwrap();
        assert_eq!(before("work", passed, std::future::ready(7)).await, Some(7));
    }

    #[tokio::test]
    async fn nobody_is_hurried_before_the_stop() {
        let stop = CancellationToken::new();
        assert_eq!(in_time("work", &stop, tokio::task::yield_now()).await, Some(()));
        let mut crew = Crew::new(&stop);
        crew.spawn("slow", std::future::pending::<()>());
        let waiting = crew.next();
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
    }

    #[tokio::test]
    async fn a_task_that_hangs_is_named_at_the_deadline_and_the_others_are_told() {
        let stop = CancellationToken::new();
        let (pass, passed) = deadline();
        let mut crew = Crew::until(passed);
        let stopped = stop.clone();
        crew.spawn("producer", async move {
            stopped.cancelled().await;
            "producer"
        });
        crew.spawn("sink assets", std::future::pending());
        stop.cancel();
        assert_eq!(crew.next().await, Next::Ended("producer".to_owned(), "producer"));
        pass.send(()).unwrap();
        assert_eq!(crew.next().await, Next::Late(vec!["sink assets".to_owned()]));
    }

    #[tokio::test]
    async fn a_crew_whose_last_has_ended_is_gone() {
        let mut crew = Crew::new(&CancellationToken::new());
        crew.spawn("quick", async { 7 });
        assert_eq!(crew.next().await, Next::Ended("quick".to_owned(), 7));
        assert_eq!(crew.next().await, Next::Gone);
    }
}
