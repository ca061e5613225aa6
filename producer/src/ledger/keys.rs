//! The check at start that equal keys have equal bytes, and so stand in the same partition.

use serde::de::DeserializeOwned;
use windfall_runtime::kafka::table::{self, FoldRequest, TableError};
use windfall_runtime::kafka::{Connection, Record};
use windfall_runtime::reader::Decoder;
use windfall_schemas::wire::{SchemaReference, unframe};

/// A key that names a schema.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Framed {
    at: (Option<i64>, i64),
    partition: i32,
    schema: u32,
}

/// Refuses a topic whose newest key that can be read has another schema id than ours.
///
/// Where none can be read, keys that name a schema are what a registry leaves behind that was changed or has lost its ids, and
/// are refused as well; beside keys of ours they are a stranger's, as is every key that names none.
pub(crate) async fn check<K: DeserializeOwned + 'static>(
    connection: &Connection,
    decoder: &Decoder,
    topic: &str,
    partitions: i32,
    ours: u32,
) -> Result<(), TableError> {
    match table::check_key_schema(connection, topic, 0..partitions, ours).await {
        Err(TableError::KeySchema { .. }) => {}
        checked => return checked,
    }
    let (request, decoder) = (FoldRequest::whole(topic, 0..partitions), decoder.clone());
    let newest: (Option<Framed>, Option<Framed>) = (None, None);
    let folded = table::fold(connection, request, newest, move |(read, foreign), record: Record| {
        let Some(framed) = framed(&record) else { return Ok(()) };
        decoder.learn_blocking(&record)?;
        match decoder.key::<K>(&record) {
            Ok(_) => *read = (*read).max(Some(framed)),
            Err(_) => *foreign = (*foreign).max(Some(framed)),
        }
        Ok(())
    });
    let (read, foreign) = folded.await?.state;
    match read.or(foreign) {
        Some(Framed { at: (_, offset), partition, schema }) if schema != ours => {
            Err(TableError::KeySchema { topic: topic.to_owned(), partition, offset, found: Some(schema), ours })
        }
        Some(_) | None => Ok(()),
    }
}

fn framed(record: &Record) -> Option<Framed> {
    match unframe(record.key.as_deref()?, None) {
        Ok((SchemaReference::Id(schema), _)) => {
            Some(Framed { at: (record.timestamp_ms, record.offset), partition: record.partition, schema })
        }
        Ok((SchemaReference::Guid(_), _)) | Err(_) => None,
    }
}
