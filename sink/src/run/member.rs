//! One member of the group after another: what a slow broker has ended is begun again.

use windfall_runtime::diagnose::Diagnose;
use windfall_runtime::kafka::consumer::{ConsumerError, GroupConsumer};
use windfall_runtime::telemetry::chain;

use super::{Instant, Running};
use crate::error::SinkError;

impl Running {
    /// Runs to the end; a single run that stores nothing any more is ended.
    pub(super) async fn join_or_stall(&mut self, consumer: GroupConsumer) -> Result<(), SinkError> {
        let Some(stall) = self.goal.as_ref().map(|goal| goal.stall.clone()) else { return self.join(consumer).await };
        let sink = self.sink.clone();
        tokio::select! {
            biased;
            ended = self.join(consumer) => ended,
            reason = stall.over() => Err(SinkError::Stalled { sink, after: stall.limit(), reason }),
        }
    }

    /// Runs as a member of the group; where a membership failed and a new one may do better, that follows after a while.
    async fn join(&mut self, mut consumer: GroupConsumer) -> Result<(), SinkError> {
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
