//! Records read by the schemas they were written with.

use serde::de::DeserializeOwned;
use tokio::runtime::Handle;
use windfall_schemas::wire::{Codec, WireError, unframe};

use super::client::RegistryClient;
use super::error::RegistryError;
use crate::diagnose::{Diagnose, Diagnosis};

/// Header that holds the schema of a key, of clients that put no frame in front.
const KEY_HEADER: &str = "__key_schema_id";
/// Header that holds the schema of a value.
const VALUE_HEADER: &str = "__value_schema_id";

/// Why a record was not read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Its bytes are no record, or none that fits: no later try will read it.
    #[error("record is not readable")]
    Wire(#[from] WireError),
    /// Its schema was not had.
    #[error("schema of the record was not had")]
    Schema(#[from] RegistryError),
}

impl Diagnose for DecodeError {
    /// Where another try may read the record, the record is not at fault and no dead letter is to be made of it.
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Wire(error) => error.diagnosis(),
            Self::Schema(error) => error.diagnosis(),
        }
    }
}

/// Reads records by the schemas they were written with; cheap to clone.
#[derive(Clone)]
pub struct Decoder(RegistryClient);

impl Decoder {
    pub(super) fn new(client: RegistryClient) -> Self {
        Self(client)
    }

    /// Returns the codec of a record's key or value, and its bare datum.
    ///
    /// `header` is the record's `__key_schema_id` or `__value_schema_id`, where it has one.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub async fn codec<'a>(&self, bytes: &'a [u8], header: Option<&[u8]>) -> Result<(Codec, &'a [u8]), DecodeError> {
        let (reference, datum) = unframe(bytes, header)?;
        Ok((self.0.writer(&reference).await?, datum))
    }

    /// Reads a key or value.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub async fn decode<T: DeserializeOwned>(&self, bytes: &[u8], header: Option<&[u8]>) -> Result<T, DecodeError> {
        let (codec, datum) = self.codec(bytes, header).await?;
        Ok(codec.decode_datum(datum)?)
    }

    /// Reads a record's key; `None` where it has none.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub async fn key<T: DeserializeOwned>(&self, record: &crate::kafka::Record) -> Result<Option<T>, DecodeError> {
        match &record.key {
            Some(bytes) => self.decode(bytes, record.headers.get(KEY_HEADER)).await.map(Some),
            None => Ok(None),
        }
    }

    /// Reads a record's value; `None` for a tombstone.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub async fn value<T: DeserializeOwned>(&self, record: &crate::kafka::Record) -> Result<Option<T>, DecodeError> {
        match &record.value {
            Some(bytes) => self.decode(bytes, record.headers.get(VALUE_HEADER)).await.map(Some),
            None => Ok(None),
        }
    }

    /// Makes a decoder for threads that may block, such as the callback of a fold; to be called on the async runtime.
    #[must_use]
    pub fn blocking(&self) -> BlockingDecoder {
        BlockingDecoder { decoder: self.clone(), runtime: Handle::current() }
    }
}

/// A [`Decoder`] for threads that may block; never to be used on an async thread, where it panics.
#[derive(Clone)]
pub struct BlockingDecoder {
    decoder: Decoder,
    runtime: Handle,
}

impl BlockingDecoder {
    /// Reads a record's key; `None` where it has none.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn key<T: DeserializeOwned>(&self, record: &crate::kafka::Record) -> Result<Option<T>, DecodeError> {
        self.runtime.block_on(self.decoder.key(record))
    }

    /// Reads a record's value; `None` for a tombstone.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn value<T: DeserializeOwned>(&self, record: &crate::kafka::Record) -> Result<Option<T>, DecodeError> {
        self.runtime.block_on(self.decoder.value(record))
    }
}
