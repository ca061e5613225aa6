//! One token that ends everything, and the deadline after which the process ends anyway.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// What is in flight has this long to commit or be thrown away.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Exit code of a process that was interrupted.
pub const INTERRUPTED: i32 = 130;

/// Cancels the returned token at the first SIGTERM or SIGINT; a second one, or ten seconds, ends the process at once.
///
/// Whoever holds the token stops its intake, commits or throws away what is in flight, and returns.
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
        info!(signal = name, "stopping");
        stop.cancel();
        tokio::select! {
            _ = terminate.recv() => warn!("second signal, ending at once"),
            _ = interrupt.recv() => warn!("second signal, ending at once"),
            () = tokio::time::sleep(DEADLINE) => warn!(seconds = DEADLINE.as_secs(), "not stopped in time, ending at once"),
        }
        std::process::exit(INTERRUPTED);
    });
    Ok(token)
}

/// Waits for `work` no longer than `deadline` after `token` was cancelled; says whether it ended in time.
pub async fn within(deadline: Duration, token: &CancellationToken, work: impl Future<Output = ()>) -> bool {
    let late = async {
        token.cancelled().await;
        tokio::time::sleep(deadline).await;
    };
    tokio::select! {
        biased;
        () = work => true,
        () = late => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_does_not_end_is_left_after_the_deadline() {
        let token = CancellationToken::new();
        token.cancel();
        assert!(!within(Duration::ZERO, &token, std::future::pending()).await);
    }

    #[tokio::test]
    async fn work_is_not_hurried_before_the_token_is_cancelled() {
        let token = CancellationToken::new();
        assert!(within(Duration::ZERO, &token, tokio::task::yield_now()).await);
    }
}
