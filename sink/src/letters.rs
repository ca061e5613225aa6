//! Dead letters of a sink: delivered to Kafka before the position moves.

use windfall_runtime::kafka::dead_letters::{Refusal, dead_letter};
use windfall_runtime::kafka::sender::Sender;
use windfall_runtime::kafka::{Connection, Outgoing, Record};

use windfall_runtime::clock::SharedClock;

use crate::record::Refused;
use crate::store::Source;
use crate::writer::DeadLetters;

/// Sends refused records, with Connect's headers, to the sink's own topic.
pub(crate) struct KafkaDeadLetters {
    pub(crate) connection: Connection,
    pub(crate) topic: String,
    /// `windfall-sink-<name>`.
    pub(crate) service: String,
    pub(crate) instance: String,
    /// The kind of the store.
    pub(crate) component: String,
    pub(crate) clock: SharedClock,
    pub(crate) sender: Option<Sender>,
}

impl KafkaDeadLetters {
    fn letter(&self, record: &Record, refused: &Refused) -> Outgoing {
        let Refused { stage, kind, message } = refused;
        let refusal = Refusal {
            stage: *stage,
            service: self.service.clone(),
            instance: self.instance.clone(),
            component: self.component.clone(),
            kind: kind.clone(),
            message: message.clone(),
            attempts: 1,
            first_failed_ms: self.clock.now().timestamp_millis(),
        };
        dead_letter(record, &self.topic, &refusal)
    }
}

impl DeadLetters for KafkaDeadLetters {
    async fn deliver(&mut self, letters: &[(&Record, &Refused)]) -> Result<(), Source> {
        let outgoing: Vec<Outgoing> = letters.iter().map(|(record, refused)| self.letter(record, refused)).collect();
        let sender = match self.sender.take() {
            Some(sender) if !sender.is_dead() => sender,
            Some(_) | None => Sender::new(&self.connection)?,
        };
        let sent = sender.send(&outgoing).await;
        self.sender = Some(sender);
        sent.map(drop).map_err(Source::from)
    }
}
