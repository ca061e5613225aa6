use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use apache_avro::{
    Schema, reader::datum::GenericDatumReader, util::max_allocation_bytes, writer::datum::GenericDatumWriter,
};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    MAX_READ_BYTES, MAX_WRITE_BYTES, SchemaReference, WireError,
    error::{cut, reason},
    frame, guard,
    plain::Plain,
    unframe,
};

/// Most schemas that one process keeps. Ours has some twenty and their history; a registry that hands out more is broken.
const MAX_SCHEMAS: usize = 4096;
/// Room that a record gets before it is written.
const USUAL_BYTES: usize = 1024;

/// Encodes and decodes the records of one schema. Cheap to clone.
///
/// Written is the frame with the schema's id and the datum; read is any datum of the same schema. Data of an older or
/// newer schema is read by the codec of *that* schema into the same type: fields that the type lacks are skipped, fields
/// that the schema lacks become their serde default. A field that holds a record cannot be skipped (the library asks for the
/// names inside in a way that it does not answer itself), so none is ever added to an envelope.
#[derive(Clone)]
pub struct Codec {
    id: u32,
    parsed: Arc<Parsed>,
}

struct Parsed {
    text: &'static str,
    name: String,
    schema: &'static Schema,
    writer: GenericDatumWriter<'static>,
    reader: GenericDatumReader<'static>,
}

impl Codec {
    /// Parses a schema, or finds it among those that this process has parsed already.
    ///
    /// `id` is the number that the registry gave the text.
    pub fn new(id: u32, text: &str) -> Result<Self, WireError> {
        parsed(text).map(|parsed| Self { id, parsed })
    }

    /// The registry's number of the schema.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The schema's text, as registered.
    pub fn text(&self) -> &str {
        self.parsed.text
    }

    /// Full name of the schema, such as `abm.devices.Envelope`.
    pub fn name(&self) -> &str {
        &self.parsed.name
    }

    /// The parsed schema.
    pub fn schema(&self) -> &Schema {
        self.parsed.schema
    }

    /// Writes a value: frame and datum.
    pub fn encode<T: Serialize + ?Sized>(&self, value: &T) -> Result<Vec<u8>, WireError> {
        let mut bytes = frame(self.id, &[]);
        // An envelope is about 1 KiB: one allocation instead of nine doublings.
        bytes.reserve(USUAL_BYTES);
        let front = bytes.len();
        let parsed = &*self.parsed;
        parsed
            .writer
            .write_ser(&mut bytes, &value)
            .map_err(|error| WireError::Encode { name: parsed.name.clone(), why: reason(error) })?;
        match bytes.len() - front {
            size if size > MAX_WRITE_BYTES => Err(WireError::TooLarge { bytes: size }),
            _ => Ok(bytes),
        }
    }

    /// Reads a framed record, which must have been written with this schema.
    pub fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, WireError> {
        match unframe(bytes, None)? {
            (SchemaReference::Id(id), datum) if id == self.id => self.decode_datum(datum),
            (found, _) => Err(WireError::OtherSchema { expected: self.id, found: found.to_string() }),
        }
    }

    /// Reads a bare datum of this schema, to its last byte.
    pub fn decode_datum<T: DeserializeOwned>(&self, datum: &[u8]) -> Result<T, WireError> {
        if datum.len() > MAX_READ_BYTES {
            return Err(WireError::TooLong { bytes: datum.len() });
        }
        let parsed = &*self.parsed;
        let mut rest = datum;
        let value = parsed
            .reader
            .read_deser(&mut rest)
            .map_err(|error| WireError::Decode { name: parsed.name.clone(), why: reason(error) })?;
        match rest.len() {
            0 => Ok(value),
            bytes => Err(WireError::LeftOver { name: parsed.name.clone(), bytes }),
        }
    }

    /// Reads a bare datum of any schema as JSON: unions as plain values, times as numbers, bytes as base64.
    pub fn decode_json(&self, datum: &[u8]) -> Result<serde_json::Value, WireError> {
        self.decode_datum::<Plain>(datum).map(|Plain(value)| value)
    }
}

impl std::fmt::Debug for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Codec").field("id", &self.id).field("name", &self.parsed.name).finish_non_exhaustive()
    }
}

/// Parses each text once in the life of the process.
///
/// Resolving a schema's names costs as much as encoding many records, and the library's reader and writer borrow the
/// schema; so parsed schemas are leaked, each once, and their number is limited.
fn parsed(text: &str) -> Result<Arc<Parsed>, WireError> {
    static PARSED: OnceLock<Mutex<HashMap<&'static str, Arc<Parsed>>>> = OnceLock::new();
    // Before anything is decoded: the library takes the first value it is given.
    max_allocation_bytes(MAX_READ_BYTES);

    let mut known = PARSED.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(parsed) = known.get(text) {
        return Ok(parsed.clone());
    }
    if known.len() >= MAX_SCHEMAS {
        return Err(WireError::Hostile { why: format!("this process has parsed {MAX_SCHEMAS} schemas already") });
    }
    let schema = guard::parse(text)?;
    let name = cut(schema.name().map_or_else(|| "unnamed".to_owned(), ToString::to_string));
    // A faulty schema is found out before anything is leaked.
    apache_avro::schema::ResolvedSchema::try_from(&schema).map_err(WireError::schema)?;
    let schema: &'static Schema = Box::leak(Box::new(schema));
    let text: &'static str = Box::leak(text.to_owned().into_boxed_str());
    let writer = GenericDatumWriter::builder(schema).human_readable(false).build().map_err(WireError::schema)?;
    let reader = GenericDatumReader::builder(schema).human_readable(false).build().map_err(WireError::schema)?;
    let parsed = Arc::new(Parsed { text, name, schema, writer, reader });
    known.insert(text, parsed.clone());
    Ok(parsed)
}
