//! One member of the group after another: what a slow broker has ended is begun again.

use windfall_runtime::kafka::consumer::{ConsumerError, GroupConsumer};
use windfall_runtime::telemetry::chain;

use super::{Instant, Running};
use crate::error::SinkError;
use crate::record::SchemaSource;

impl<R: SchemaSource> Running<R> {
    /// Runs as a member of the group; where a membership failed and a new one may do better, that follows after a while.
    pub(super) async fn join(&mut self, mut consumer: GroupConsumer) -> Result<(), SinkError> {
        loop {
            let failure = match self.drive(consumer).await {
                Err(SinkError::Consumer { source, .. }) if source.may_pass() => source,
                ended => return ended,
            };
            consumer = match self.next_member(*failure).await? {
                Some(consumer) => consumer,
                None => return Ok(()),
            };
        }
    }

    /// Makes the next member, trying until the sink is to stop.
    async fn next_member(&mut self, mut failure: ConsumerError) -> Result<Option<GroupConsumer>, SinkError> {
        self.forget();
        let mut attempt = 0;
        while failure.may_pass() {
            attempt += 1;
            self.count_error("consumer");
            let reason = chain(&failure).to_string();
            self.pause(attempt, &reason, || true).await;
            if self.stop.is_cancelled() {
                return Ok(None);
            }
            match GroupConsumer::start(&self.connection, self.options.clone()) {
                Ok(consumer) => {
                    self.group = consumer.group();
                    if let Some(goal) = &mut self.goal {
                        goal.join_by = Instant::now() + goal.joining;
                    }
                    return Ok(Some(consumer));
                }
                Err(source) => failure = source,
            }
        }
        Err(SinkError::Consumer { sink: self.sink.clone(), source: failure.into() })
    }
}
