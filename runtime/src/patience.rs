//! Repeats what a part needs before it can begin. While a service is unavailable the part waits, and `status` shows the reason.

use std::error::Error;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::diagnose::{Diagnosis, Kind};
use crate::health::{PartState, StatusPart};
use crate::retry::{Backoff, Quiet, Retry};
use crate::telemetry::chain;

/// A service that restarts is back within seconds, and one that is away for long is not asked more often than this.
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(500), max: Duration::from_secs(10), factor: 2.0 };

/// Does `work` until it succeeds or fails for good. After a failure of something that is away and may come back, it waits, longer
/// each time, and shows `parts` as paused with the reason. Returns `None` when `stop` is cancelled first.
///
/// # Errors
/// The first error of another kind.
pub async fn until_it_passes<T, E: Error + 'static, F: Future<Output = Result<T, E>>>(
    what: &'static str,
    parts: &[StatusPart],
    stop: &CancellationToken,
    diagnosis: impl Fn(&E) -> Diagnosis,
    mut work: impl FnMut() -> F,
) -> Result<Option<T>, E> {
    let began = tokio::time::Instant::now();
    let mut quiet = Quiet::new();
    for attempt in 1.. {
        let done = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(None),
            done = work() => done,
        };
        let error = match done {
            Err(error) if passes(&diagnosis(&error)) => error,
            done => {
                if quiet.over() {
                    info!(what, "works again");
                    for part in parts {
                        part.state(PartState::Starting);
                        part.clear("reason");
                    }
                }
                return done.map(Some);
            }
        };
        let reason = chain(&error).to_string();
        if let Some(left_out) = quiet.tell(began.elapsed()) {
            warn!(what, error = reason, left_out, "cannot begin yet, trying again");
        }
        parts.iter().for_each(|part| part.paused(reason.clone()));
        tokio::select! {
            () = stop.cancelled() => return Ok(None),
            () = tokio::time::sleep(BACKOFF.wait(attempt, 1.0)) => {}
        }
    }
    Ok(None)
}

/// A login that is refused may pass too, but somebody has to hear of it now.
fn passes(diagnosis: &Diagnosis) -> bool {
    diagnosis.retry != Retry::Never && matches!(diagnosis.kind, Kind::Unavailable | Kind::RateLimited)
}

#[cfg(test)]
mod tests {
    use futures_util::poll;

    use super::*;
    use crate::clock::SystemClock;
    use crate::health::StatusRegistry;

    #[derive(Debug, thiserror::Error, PartialEq)]
    #[error("the registry is away")]
    struct Trouble(Kind);

    #[tokio::test]
    async fn a_part_that_cannot_begin_says_why_and_stops_when_asked() {
        let (status, stop) = (StatusRegistry::new("one", SystemClock::shared()), CancellationToken::new());
        let parts = [status.part("map devices", Duration::from_secs(90))];
        let away = || std::future::ready(Err::<(), _>(Trouble(Kind::Unavailable)));
        let waiting = until_it_passes("collection", &parts, &stop, |trouble| trouble.0.into(), away);
        tokio::pin!(waiting);
        assert!(poll!(&mut waiting).is_pending(), "it tries again later");
        let part = status.snapshot().parts.remove("map devices").unwrap();
        assert_eq!((part.state, part.details["reason"].as_str()), (PartState::Paused, Some("the registry is away")));
        stop.cancel();
        assert_eq!(waiting.await, Ok(None));
    }

    #[tokio::test]
    async fn what_somebody_has_to_change_ends_it_at_once() {
        let stop = CancellationToken::new();
        for kind in [Kind::Refused, Kind::Authentication, Kind::Configuration] {
            let refused = || std::future::ready(Err::<(), _>(Trouble(kind)));
            let ended = until_it_passes("collection", &[], &stop, |trouble| trouble.0.into(), refused).await;
            assert_eq!(ended, Err(Trouble(kind)));
        }
    }
}
