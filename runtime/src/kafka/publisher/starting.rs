//! One start at a time for each transactional id of this process.
//!
//! The request of a start that was given up may still reach a broker, and would fence a producer that started meanwhile.

use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// How often a waiting start checks whether it was given up.
const LOOK: Duration = Duration::from_millis(100);

static STARTING: Starting = Starting { ids: Mutex::new(None), left: Condvar::new() };

struct Starting {
    ids: Mutex<Option<HashSet<Arc<str>>>>,
    left: Condvar,
}

impl Starting {
    fn ids(&self) -> MutexGuard<'_, Option<HashSet<Arc<str>>>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to start a producer; ends when it is dropped.
#[derive(Debug)]
pub(super) struct Turn(Arc<str>);

impl Turn {
    /// Waits until no other start of that id is in flight; `None` when this start was given up.
    pub(super) fn take(transactional_id: &Arc<str>, abandoned: &CancellationToken) -> Option<Self> {
        let mut ids = STARTING.ids();
        while !abandoned.is_cancelled() {
            if ids.get_or_insert_default().insert(Arc::clone(transactional_id)) {
                return Some(Self(Arc::clone(transactional_id)));
            }
            let waited = STARTING.left.wait_timeout(ids, LOOK);
            ids = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        None
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        STARTING.ids().get_or_insert_default().remove(&self.0);
        STARTING.left.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> Arc<str> {
        uuid::Uuid::new_v4().to_string().into()
    }

    #[test]
    fn a_start_waits_for_the_one_of_its_id_alone() {
        let (id, wanted) = (id(), CancellationToken::new());
        let first = Turn::take(&id, &wanted).unwrap();
        assert!(Turn::take(&self::id(), &wanted).is_some(), "another id is free");
        let (told, tells) = std::sync::mpsc::channel();
        let second = std::thread::spawn({
            let id = Arc::clone(&id);
            move || {
                told.send(()).unwrap();
                let turn = Turn::take(&id, &CancellationToken::new());
                told.send(()).unwrap();
                turn.is_some()
            }
        });
        tells.recv().unwrap();
        assert!(tells.recv_timeout(LOOK * 3).is_err(), "the first is still at it");
        drop(first);
        assert!(second.join().unwrap());
        assert!(Turn::take(&id, &wanted).is_some());
    }

    #[test]
    fn a_start_that_nobody_wants_takes_no_turn() {
        let (id, unwanted) = (id(), CancellationToken::new());
        unwanted.cancel();
        assert!(Turn::take(&id, &unwanted).is_none());
        assert!(Turn::take(&id, &CancellationToken::new()).is_some());
    }
}
