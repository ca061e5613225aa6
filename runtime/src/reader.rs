//! Decodes records by the schema ids that they name, and decides what each answer of the registry means.
//!
//! | what the registry says of a schema that a record names | verdict |
//! | --- | --- |
//! | the text of an Avro schema | the record is read with it |
//! | a text that is no Avro schema, or breaks a limit | the record is at fault |
//! | 404, 422 or anything else that is no schema, for less than 60 s | doubtful: the caller waits and asks again |
//! | the same for 60 s, while our own subject is found | the record is at fault |
//! | the same within ten minutes after another schema was missing for 60 s, while our own subject is found | the record is at fault |
//! | the same for 60 s, and our own subject is not found either | the configuration is at fault: the caller stops |
//! | nothing, 408, 429 or 5xx | the registry is away: the caller waits and asks again |
//! | 401 or 403 | the configuration is at fault: the caller stops |
//!
//! A single "not found" proves nothing, because a registry that has just started says so for every schema until it has read its
//! own topic. One that has kept to its answer for a minute has read it, and is believed about the next ones until it is away: a
//! stream of schema ids that somebody made up holds a stage for a minute and not for a minute each. Only the embedded registry's answer is certain at once: it reads its topic to the end before it gives one.
//!
//! The types carry the verdict: [`Unreadable`] is the record's fault, and a [`RegistryError`] tells by `may_pass` whether to wait.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use futures_util::future::join_all;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;
use tokio::time::Instant;
use windfall_schemas::wire::{Codec, SchemaReference, WireError, unframe};

use crate::kafka::Record;
use crate::registry::{RegistryClient, RegistryError};

/// Header that names the schema of a key, where a writer puts no frame in front.
const KEY_HEADER: &str = "__key_schema_id";
/// Header that names the schema of a value.
const VALUE_HEADER: &str = "__value_schema_id";
/// A schema that was missing may be registered later; this bounds how often a stream of bad records asks for it. Two questions
/// further apart than this do not count as one doubt.
const ASK_AGAIN: Duration = Duration::from_secs(60);
/// How long a registry whose answer was doubted, and then found right, is believed at once.
const BELIEVED_FOR: Duration = Duration::from_secs(600);
/// Missing schemas that are remembered. Strangers can make ids up, so the number is bounded.
const MAX_MISSES: usize = 10_000;

/// Why a record cannot be read: the record's own fault, in contrast to a registry that is away.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// There is no key.
    #[error("the record has no key")]
    NoKey,
    /// The registry does not have its schema.
    #[error("the schema registry has no schema {reference}")]
    UnknownSchema {
        /// The id or GUID.
        reference: SchemaReference,
    },
    /// Its schema cannot be used.
    #[error("schema {reference} cannot be used: {why}")]
    BadSchema {
        /// The id or GUID.
        reference: SchemaReference,
        /// Why not.
        why: WireError,
    },
    /// The bytes are no record of its schema.
    #[error(transparent)]
    Wire(#[from] WireError),
}

impl Unreadable {
    /// Returns a name to count by; dead letters carry it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NoKey => "no_key",
            Self::UnknownSchema { .. } => "unknown_schema",
            Self::BadSchema { .. } | Self::Wire(WireError::Schema { .. } | WireError::Hostile { .. }) => "bad_schema",
            Self::Wire(WireError::TooLarge { .. } | WireError::TooLong { .. }) => "too_long",
            Self::Wire(
                WireError::Frame { .. }
                | WireError::OtherSchema { .. }
                | WireError::Decode { .. }
                | WireError::LeftOver { .. }
                | WireError::Encode { .. },
            ) => "undecodable",
        }
    }
}

/// What is known of a schema.
#[derive(Clone)]
enum Cached {
    Given(Codec),
    Missing(Miss),
}

/// A schema that the registry did not give.
#[derive(Debug, Clone)]
struct Miss {
    /// When it was asked for first, of the questions that follow closely on each other.
    since: Instant,
    asked_at: Instant,
    /// The verdict, once there is one.
    fault: Option<Unreadable>,
}

impl Miss {
    /// Notes that the schema was missing once more.
    fn again(before: Option<&Self>, now: Instant) -> Self {
        let asked_lately = |before: &&Self| before.fault.is_some() || now - before.asked_at < ASK_AGAIN;
        let before = before.filter(asked_lately);
        let (since, fault) = before.map_or((now, None), |before| (before.since, before.fault.clone()));
        Self { since, asked_at: now, fault }
    }
}

/// Reads records by the schemas they were written with. Cheap to clone; clones share what they know.
///
/// Call [`Decoder::learn`] first; after that [`Decoder::key`] and [`Decoder::value`] answer without waiting.
#[derive(Clone)]
pub struct Decoder {
    registry: RegistryClient,
    /// A subject of ours; if the registry has it, the registry can be believed about other schemas.
    subject: Arc<str>,
    known: Arc<RwLock<HashMap<SchemaReference, Cached>>>,
    /// When the registry last kept to an answer that was doubted; none since it was away.
    believed: Arc<Mutex<Option<Instant>>>,
}

impl Decoder {
    /// Makes a decoder. `subject` is one that stands in the registry before the first record is written, such as
    /// `abm.devices-value`.
    pub fn new(registry: RegistryClient, subject: impl Into<Arc<str>>) -> Self {
        Self { registry, subject: subject.into(), known: Arc::default(), believed: Arc::default() }
    }

    /// Asks for all schemas that the records name and that are not known yet.
    ///
    /// # Errors
    /// A [`RegistryError`] says nothing about the records: where it may pass, call this again after a while, else stop.
    pub async fn learn(&self, records: impl IntoIterator<Item = &Record>) -> Result<(), RegistryError> {
        let wanted: HashSet<SchemaReference> =
            records.into_iter().flat_map(references).filter(|reference| self.wanted(*reference)).collect();
        join_all(wanted.into_iter().map(|reference| self.ask(reference))).await.into_iter().collect()
    }

    /// As [`Decoder::learn`] for one record, on a thread of the runtime that may block, such as a fold's.
    ///
    /// # Errors
    /// As [`Decoder::learn`].
    pub fn learn_blocking(&self, record: &Record) -> Result<(), RegistryError> {
        match references(record).any(|reference| self.wanted(reference)) {
            true => Handle::current().block_on(self.learn([record])),
            false => Ok(()),
        }
    }

    /// Reads a record's key.
    ///
    /// # Errors
    /// [`Unreadable`] also for a schema that was not learned.
    pub fn key<T: DeserializeOwned>(&self, record: &Record) -> Result<T, Unreadable> {
        let bytes = record.key.as_deref().ok_or(Unreadable::NoKey)?;
        let (codec, datum) = self.codec(bytes, record.headers.get(KEY_HEADER))?;
        Ok(codec.decode_datum(datum)?)
    }

    /// Reads a record's value; `None` for a tombstone.
    ///
    /// # Errors
    /// As [`Decoder::key`].
    pub fn value<T: DeserializeOwned>(&self, record: &Record) -> Result<Option<T>, Unreadable> {
        let Some(bytes) = record.value.as_deref() else { return Ok(None) };
        let (codec, datum) = self.codec(bytes, record.headers.get(VALUE_HEADER))?;
        Ok(Some(codec.decode_datum(datum)?))
    }

    /// Returns the codec of a record's key or value, and its bare datum. `header` is the header that names the schema, if any.
    ///
    /// # Errors
    /// As [`Decoder::key`].
    pub fn codec<'a>(&self, bytes: &'a [u8], header: Option<&[u8]>) -> Result<(Codec, &'a [u8]), Unreadable> {
        let (reference, datum) = unframe(bytes, header)?;
        match self.get(reference) {
            Some(Cached::Given(codec)) => Ok((codec, datum)),
            Some(Cached::Missing(Miss { fault: Some(fault), .. })) => Err(fault),
            Some(Cached::Missing(Miss { fault: None, .. })) | None => Err(Unreadable::UnknownSchema { reference }),
        }
    }

    fn get(&self, reference: SchemaReference) -> Option<Cached> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(&reference).cloned()
    }

    fn wanted(&self, reference: SchemaReference) -> bool {
        match self.known.read().unwrap_or_else(PoisonError::into_inner).get(&reference) {
            Some(Cached::Given(_)) => false,
            Some(Cached::Missing(miss)) => miss.fault.is_none() || miss.asked_at.elapsed() >= ASK_AGAIN,
            None => true,
        }
    }

    fn keep(&self, reference: SchemaReference, answer: Cached) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_MISSES {
            known.retain(|_, known| matches!(known, Cached::Given(_)));
        }
        known.insert(reference, answer);
    }

    /// Asks for one schema and remembers the verdict.
    async fn ask(&self, reference: SchemaReference) -> Result<(), RegistryError> {
        let doubted_for = self.registry.doubted_for();
        let answer = self.registry.writer(reference).await;
        let now = Instant::now();
        let before = match self.get(reference) {
            Some(Cached::Missing(miss)) => Some(miss),
            Some(Cached::Given(_)) | None => None,
        };
        let mut miss = Miss::again(before.as_ref(), now);
        let settled = now - miss.since >= doubted_for;
        let believed = self.believe(|it| it.is_some_and(|since| now - since < BELIEVED_FOR));
        let result = match answer {
            Ok(codec) => {
                self.keep(reference, Cached::Given(codec));
                return Ok(());
            }
            Err(RegistryError::Schema(why)) => {
                miss.fault = Some(Unreadable::BadSchema { reference, why });
                Ok(())
            }
            Err(error) if !error.is_no_schema() => {
                self.believe(|it| *it = None);
                return Err(error);
            }
            Err(_) if miss.fault.is_some() => Ok(()),
            Err(error) => match self.own_subject_stands().await.inspect_err(|_| self.believe(|it| *it = None))? {
                true if settled || believed => {
                    if settled {
                        self.believe(|it| *it = Some(now));
                    }
                    miss.fault = Some(Unreadable::UnknownSchema { reference });
                    Ok(())
                }
                false if settled => {
                    Err(RegistryError::Lost { what: error.to_string(), subject: self.subject.to_string() })
                }
                _ => Err(RegistryError::Doubtful { source: Box::new(error), limit_s: doubted_for.as_secs() }),
            },
        };
        self.keep(reference, Cached::Missing(miss));
        result
    }

    fn believe<T>(&self, work: impl FnOnce(&mut Option<Instant>) -> T) -> T {
        work(&mut self.believed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Says whether the registry has what it must have if it is the right one and has read its own topic.
    async fn own_subject_stands(&self) -> Result<bool, RegistryError> {
        if self.registry.doubted_for().is_zero() {
            return Ok(true);
        }
        match self.registry.latest(&self.subject).await {
            Ok(found) => Ok(found.is_some()),
            Err(error) if error.is_no_schema() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The schemas that a record names; bytes that name none are found out when they are read.
fn references(record: &Record) -> impl Iterator<Item = SchemaReference> {
    let sides = [(&record.key, KEY_HEADER), (&record.value, VALUE_HEADER)];
    sides.into_iter().filter_map(|(bytes, header)| {
        let bytes = bytes.as_deref()?;
        unframe(bytes, record.headers.get(header)).ok().map(|(reference, _)| reference)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubt_lasts_from_the_first_of_questions_that_follow_each_other_and_begins_anew_after_a_long_silence() {
        let first = Instant::now();
        let miss = Miss::again(None, first);
        let miss = Miss::again(Some(&miss), first + ASK_AGAIN / 2);
        assert_eq!(miss.since, first);
        let late = first + ASK_AGAIN * 60;
        assert_eq!(Miss::again(Some(&miss), late).since, late, "two answers an hour apart are no long doubt");
        let settled = Miss { fault: Some(Unreadable::NoKey), ..miss };
        assert_eq!(
            Miss::again(Some(&settled), late).fault,
            settled.fault,
            "a verdict stands until the schema is given"
        );
    }
}
