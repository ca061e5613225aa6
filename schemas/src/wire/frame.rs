use std::fmt;

use super::WireError;

/// First byte of the frame, and of a header that holds an id.
const ID_MAGIC: u8 = 0;
/// First byte of a header that holds a GUID.
const GUID_MAGIC: u8 = 1;
/// Bytes in front of the datum.
const FRAME_BYTES: usize = 5;

/// How a record names the schema that it was written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SchemaReference {
    /// The registry's number.
    Id(u32),
    /// The registry's GUID, from the header of newer clients.
    Guid([u8; 16]),
}

impl fmt::Display for SchemaReference {
    /// The number, or the GUID as registries write it in paths.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Guid(bytes) => {
                for (place, byte) in bytes.iter().enumerate() {
                    if matches!(place, 4 | 6 | 8 | 10) {
                        f.write_str("-")?;
                    }
                    write!(f, "{byte:02x}")?;
                }
                Ok(())
            }
        }
    }
}

/// Puts the frame in front of a datum: 0x00, then the id as four bytes, big end first.
pub fn frame(id: u32, datum: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FRAME_BYTES + datum.len());
    bytes.push(ID_MAGIC);
    bytes.extend_from_slice(&id.to_be_bytes());
    bytes.extend_from_slice(datum);
    bytes
}

/// Takes a record's key or value apart into the name of its schema and the datum.
///
/// `header` is the record's header `__key_schema_id` or `__value_schema_id`, where it has one: the schema is then named
/// there and the bytes are the bare datum. We write the frame alone, since most readers know nothing else.
pub fn unframe<'a>(bytes: &'a [u8], header: Option<&[u8]>) -> Result<(SchemaReference, &'a [u8]), WireError> {
    if let Some(header) = header {
        return from_header(header).map(|reference| (reference, bytes));
    }
    match bytes {
        [ID_MAGIC, a, b, c, d, datum @ ..] => Ok((SchemaReference::Id(u32::from_be_bytes([*a, *b, *c, *d])), datum)),
        [ID_MAGIC, ..] | [] => Err(WireError::Frame { why: "it is shorter than the five bytes of the frame" }),
        _ => Err(WireError::Frame { why: "it does not begin with byte 0" }),
    }
}

fn from_header(header: &[u8]) -> Result<SchemaReference, WireError> {
    match header {
        [ID_MAGIC, id @ ..] => id.try_into().ok().map(|id| SchemaReference::Id(u32::from_be_bytes(id))),
        [GUID_MAGIC, guid @ ..] => guid.try_into().ok().map(SchemaReference::Guid),
        _ => None,
    }
    .ok_or(WireError::Frame { why: "its schema header is neither an id nor a GUID" })
}
