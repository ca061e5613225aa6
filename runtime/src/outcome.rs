//! What a stage answers about one record, and the record on its way through it.

use bytes::Bytes;

/// What becomes of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<T, R> {
    /// It yields these, in order.
    Emit(Vec<T>),
    /// It yields nothing, and is counted under this reason.
    Drop(&'static str),
    /// It is kept for a later batch.
    Hold,
    /// It cannot be processed; it goes to the dead letters with the reason, and its neighbours go on.
    Reject(R),
}

/// Where a record stands in its topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

/// The bytes of a record as they came, for the dead letters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Raw {
    /// Key.
    pub key: Option<Bytes>,
    /// Value; none is a tombstone.
    pub value: Option<Bytes>,
}

/// One record on its way: what it means, where it came from, what it was, and what it commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope<P> {
    /// The decoded record.
    pub payload: P,
    /// Where it stands.
    pub origin: Origin,
    /// What it was.
    pub raw: Raw,
    /// The offset that is next once it is done.
    pub next_offset: i64,
}

impl<P> Envelope<P> {
    /// Wraps a record that stands at `origin`; the one after it is next.
    #[must_use]
    pub fn new(payload: P, origin: Origin, raw: Raw) -> Self {
        let next_offset = origin.offset + 1;
        Self { payload, origin, raw, next_offset }
    }

    /// Keeps everything but the payload, which `change` replaces.
    pub fn map<Q>(self, change: impl FnOnce(P) -> Q) -> Envelope<Q> {
        Envelope { payload: change(self.payload), origin: self.origin, raw: self.raw, next_offset: self.next_offset }
    }
}
