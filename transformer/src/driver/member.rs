//! One member of the group after another: what a slow broker has ended is begun again.

use tokio::time::sleep;
use windfall_runtime::diagnose::Diagnose;
use windfall_runtime::kafka::consumer::{GroupConsumer, GroupOptions};

use super::Driver;
use crate::error::TransformerError;
use crate::stage::Stage;

impl<S: Stage> Driver<S> {
    /// Serves as a member of the group; where a membership failed and a new one may do better, that follows after a while.
    ///
    /// Memory stays as a cache, as at a revocation.
    pub(super) async fn join(&mut self) -> Result<(), TransformerError> {
        loop {
            let ended = self.serve_as_one().await;
            self.held = None;
            let error = match ended {
                Err(error @ TransformerError::Consumer(_)) if error.may_pass() => error,
                ended => return ended,
            };
            let pause = self.note(&error);
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Ok(()),
                () = sleep(pause) => {}
            }
        }
    }

    async fn serve_as_one(&mut self) -> Result<(), TransformerError> {
        let mut consumer = GroupConsumer::start(&self.connection, self.membership())?;
        let ended = self.serve(&mut consumer).await;
        drop(self.publisher.take());
        consumer.close().await;
        ended
    }

    fn membership(&self) -> GroupOptions {
        GroupOptions {
            group: self.options.group.clone(),
            topics: self.options.topics.clone(),
            membership: self.options.membership.clone(),
            limits: self.options.limits,
        }
    }
}
