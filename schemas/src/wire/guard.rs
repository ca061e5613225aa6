//! Limits on schemas, which come from a registry that others write to.
//!
//! The library decodes by recursion and grows what it reads item by item, so a schema can make a record of few bytes
//! cost without bound: types that hold themselves, deep nesting, names that double at each level, arrays of items that
//! take no bytes, fixed types of any size. All of these are refused before the first record.

use std::collections::HashMap;

use apache_avro::{
    Schema,
    schema::{DecimalSchema, FixedSchema, InnerDecimalSchema, Name, ResolvedSchema, UuidSchema},
};

use super::{MAX_READ_BYTES, WireError};

/// Longest text of a schema; ours have some 10 KiB.
pub const MAX_SCHEMA_BYTES: usize = 512 * 1024;
/// Deepest nesting; ours have five levels.
pub const MAX_DEPTH: usize = 32;
/// Most types once every name is replaced by what it names; ours have about two hundred.
pub const MAX_TYPES: usize = 20_000;

/// Parses a schema and refuses one that breaks a limit.
pub fn parse(text: &str) -> Result<Schema, WireError> {
    if text.len() > MAX_SCHEMA_BYTES {
        return Err(hostile(format!("its text has {} bytes, more than {MAX_SCHEMA_BYTES}", text.len())));
    }
    let schema = Schema::parse_str(text).map_err(WireError::schema)?;
    let resolved = ResolvedSchema::try_from(&schema).map_err(WireError::schema)?;
    let mut walk = Walk { names: resolved.get_names(), inside: Vec::new(), types: 0 };
    walk.visit(&schema, 0, false)?;
    Ok(schema)
}

struct Walk<'s> {
    names: &'s HashMap<Name, &'s Schema>,
    /// Records that are being walked, from the outermost.
    inside: Vec<&'s Name>,
    types: usize,
}

impl<'s> Walk<'s> {
    /// Walks a type as the decoder would. `repeated`: it stands somewhere in an array's item or a map's value, where
    /// each leaf must take bytes, else the count alone decides how many are made.
    fn visit(&mut self, schema: &'s Schema, depth: usize, repeated: bool) -> Result<(), WireError> {
        self.types += 1;
        if self.types > MAX_TYPES {
            return Err(hostile(format!("it unfolds to more than {MAX_TYPES} types")));
        }
        if depth > MAX_DEPTH {
            return Err(hostile(format!("it is nested more than {MAX_DEPTH} deep")));
        }
        match schema {
            Schema::Ref { name } => match self.names.get(name) {
                Some(named) => self.visit(named, depth, repeated),
                None => Err(hostile(format!("it names `{name}` without saying what that is"))),
            },
            Schema::Array(array) => self.visit(&array.items, depth + 1, true),
            Schema::Map(map) => self.visit(&map.types, depth + 1, true),
            // The branch's number takes a byte, so a null inside is not free.
            Schema::Union(union) => {
                let branches = union.variants().iter().filter(|branch| !matches!(branch, Schema::Null));
                branches.into_iter().try_for_each(|branch| self.visit(branch, depth + 1, repeated))
            }
            Schema::Record(record) => {
                if self.inside.contains(&&record.name) {
                    return Err(hostile(format!("`{}` holds itself", record.name)));
                }
                if repeated && record.fields.is_empty() {
                    return Err(hostile(format!("it repeats `{}`, which takes no bytes", record.name)));
                }
                self.inside.push(&record.name);
                for field in &record.fields {
                    self.visit(&field.schema, depth + 1, repeated)?;
                }
                self.inside.pop();
                Ok(())
            }
            Schema::Null if repeated => Err(hostile("it repeats nulls, which take no bytes".to_owned())),
            Schema::Fixed(fixed)
            | Schema::Duration(fixed)
            | Schema::Uuid(UuidSchema::Fixed(fixed))
            | Schema::Decimal(DecimalSchema { inner: InnerDecimalSchema::Fixed(fixed), .. }) => sized(fixed, repeated),
            _ => Ok(()),
        }
    }
}

fn sized(fixed: &FixedSchema, repeated: bool) -> Result<(), WireError> {
    let FixedSchema { name, size, .. } = fixed;
    if *size > MAX_READ_BYTES {
        return Err(hostile(format!("`{name}` has {size} bytes, more than {MAX_READ_BYTES}")));
    }
    if repeated && *size == 0 {
        return Err(hostile(format!("it repeats `{name}`, which takes no bytes")));
    }
    Ok(())
}

fn hostile(why: String) -> WireError {
    WireError::Hostile { why: super::error::cut(why) }
}
