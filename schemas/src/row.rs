//! Records whose fields are known only at run time, on their way to and from the one codec.

use std::fmt;

use apache_avro::{Schema, schema::RecordField};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, SeqAccess, Visitor},
    ser::{Error as _, SerializeTuple},
};

use crate::{
    asset::{Collection, FieldType, FieldValue},
    wire::{Codec, WireError, plain::AnyName},
};

impl Collection {
    /// Refuses values that are not one for each field of the collection, of its type.
    pub(crate) fn fits(&self, values: &[FieldValue], codec: &Codec) -> Result<(), WireError> {
        let fields = self.fields();
        let misfit = |why: String| WireError::Encode { name: codec.name().to_owned(), why };
        if fields.len() != values.len() {
            return Err(misfit(format!("{} values for {} fields", values.len(), fields.len())));
        }
        for (field, value) in fields.iter().zip(values) {
            if let Some(kind) = value.kind().filter(|kind| *kind != field.kind) {
                return Err(misfit(format!(
                    "field `{}` is of type {}, the value of type {kind}",
                    field.name, field.kind
                )));
            }
        }
        Ok(())
    }

    /// Writes the collection's own fields into a record.
    pub(crate) fn write_fields<T: SerializeTuple>(
        &self,
        row: &mut RowWriter<'_, T>,
        values: &[FieldValue],
    ) -> Result<(), T::Error> {
        self.fields().iter().zip(values).try_for_each(|(field, value)| row.write(&field.name, value))
    }
}

/// Writes a record field by field, in the order of its schema: the Avro library takes a tuple as it comes, and would look for
/// each name of a map.
pub(crate) struct RowWriter<'c, T> {
    fields: std::slice::Iter<'c, RecordField>,
    row: T,
}

impl<'c, T: SerializeTuple> RowWriter<'c, T> {
    pub(crate) fn new<S: Serializer<SerializeTuple = T, Error = T::Error>>(
        codec: &'c Codec,
        serializer: S,
    ) -> Result<Self, T::Error> {
        let fields = fields_of(codec);
        Ok(Self { fields: fields.iter(), row: serializer.serialize_tuple(fields.len())? })
    }

    pub(crate) fn write(&mut self, name: &str, value: &(impl Serialize + ?Sized)) -> Result<(), T::Error> {
        match self.fields.next() {
            Some(field) if field.name == name => self.row.serialize_element(value),
            _ => Err(T::Error::custom(format_args!("the schema has no field `{name}` at this place"))),
        }
    }

    pub(crate) fn end(self) -> Result<T::Ok, T::Error> {
        self.row.end()
    }
}

fn fields_of(codec: &Codec) -> &[RecordField] {
    match codec.schema() {
        Schema::Record(record) => &record.fields,
        _ => &[],
    }
}

impl Serialize for FieldValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_none(),
            Self::String(text) => serializer.serialize_some(text),
            Self::Integer(number) | Self::Timestamp(number) => serializer.serialize_some(number),
            Self::Decimal(number) => serializer.serialize_some(number),
            Self::Boolean(value) => serializer.serialize_some(value),
        }
    }
}

/// A record as it was read: values in the writer's order, whose names the schema has.
pub(crate) struct RawRow(Vec<RawValue>);

/// A value as it was read, before a collection or a mapping gives it the meaning of its field.
#[derive(Debug, Default)]
pub enum RawValue {
    /// Nothing.
    #[default]
    Null,
    /// A text.
    Text(String),
    /// A whole number, or an instant.
    Number(i64),
    /// A number with a fraction; may be infinite or not-a-number.
    Decimal(f64),
    /// True or false.
    Boolean(bool),
    /// The texts of a list; its other items are left out.
    List(Vec<String>),
    /// A record, a map, bytes or a number beyond 64 bits: no field of ours holds these.
    Foreign,
}

/// A value of any type that is read past without keeping it.
///
/// serde's `IgnoredAny` cannot read past a record: it asks for the names of fields in a way that the Avro library refuses.
#[derive(Debug, Default)]
pub struct Skipped;

impl<'de> Deserialize<'de> for RawRow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RowVisitor)
    }
}

impl<'de> Deserialize<'de> for RawValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor::<true>)
    }
}

impl<'de> Deserialize<'de> for Skipped {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor::<false>).map(|_| Self)
    }
}

struct RowVisitor;

impl<'de> Visitor<'de> for RowVisitor {
    type Value = RawRow;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<RawRow, A::Error> {
        let mut values = Vec::with_capacity(entries.size_hint().unwrap_or(0).min(1024));
        while entries.next_key::<AnyName>()?.is_some() {
            values.push(entries.next_value()?);
        }
        Ok(RawRow(values))
    }
}

/// Reads any value; one that is not to be kept takes no memory, and what is returned for it says nothing.
struct ValueVisitor<const KEEP: bool>;

impl<'de, const KEEP: bool> Visitor<'de> for ValueVisitor<KEEP> {
    type Value = RawValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<RawValue, E> {
        Ok(RawValue::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<RawValue, E> {
        Ok(RawValue::Boolean(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<RawValue, E> {
        Ok(RawValue::Number(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<RawValue, E> {
        Ok(i64::try_from(value).map_or(RawValue::Foreign, RawValue::Number))
    }

    fn visit_f64<E>(self, value: f64) -> Result<RawValue, E> {
        Ok(RawValue::Decimal(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<RawValue, E> {
        Ok(if KEEP { RawValue::Text(value.to_owned()) } else { RawValue::Foreign })
    }

    fn visit_string<E>(self, value: String) -> Result<RawValue, E> {
        Ok(RawValue::Text(value))
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<RawValue, E> {
        Ok(RawValue::Foreign)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<RawValue, A::Error> {
        let mut texts = Vec::new();
        if KEEP {
            while let Some(item) = items.next_element()? {
                if let RawValue::Text(text) = item {
                    texts.push(text);
                }
            }
        } else {
            while items.next_element::<Skipped>()?.is_some() {}
        }
        Ok(RawValue::List(texts))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<RawValue, A::Error> {
        while entries.next_entry::<AnyName, Skipped>()?.is_some() {}
        Ok(RawValue::Foreign)
    }
}

/// Takes a read record apart by name. Asked in the writer's order, each answer is the next cell.
pub(crate) struct RowReader<'c> {
    fields: &'c [RecordField],
    cells: Vec<RawValue>,
    next: usize,
    codec: &'c Codec,
}

impl<'c> RowReader<'c> {
    pub(crate) fn new(row: RawRow, codec: &'c Codec) -> Self {
        Self { fields: fields_of(codec), cells: row.0, next: 0, codec }
    }

    pub(crate) fn required_text(&mut self, name: &str) -> Result<String, WireError> {
        self.text(name)?.ok_or_else(|| self.misfit(name, "text"))
    }

    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>, WireError> {
        match self.take(name) {
            RawValue::Null => Ok(None),
            RawValue::Text(text) => Ok(Some(text)),
            _ => Err(self.misfit(name, "text")),
        }
    }

    pub(crate) fn long(&mut self, name: &str) -> Result<Option<i64>, WireError> {
        match self.take(name) {
            RawValue::Null => Ok(None),
            RawValue::Number(number) => Ok(Some(number)),
            _ => Err(self.misfit(name, "a whole number")),
        }
    }

    pub(crate) fn int(&mut self, name: &str) -> Result<Option<i32>, WireError> {
        match self.long(name)? {
            None => Ok(None),
            Some(number) => i32::try_from(number).map(Some).map_err(|_| self.misfit(name, "a small whole number")),
        }
    }

    pub(crate) fn boolean(&mut self, name: &str) -> Result<Option<bool>, WireError> {
        match self.take(name) {
            RawValue::Null => Ok(None),
            RawValue::Boolean(value) => Ok(Some(value)),
            _ => Err(self.misfit(name, "true or false")),
        }
    }

    /// Takes the fields of these names and types.
    pub(crate) fn fields<'f>(
        &mut self,
        fields: impl Iterator<Item = (&'f str, FieldType)>,
    ) -> Result<Vec<FieldValue>, WireError> {
        let mut values = Vec::with_capacity(fields.size_hint().0);
        for (name, kind) in fields {
            values.push(match (self.take(name), kind) {
                (RawValue::Null, _) => FieldValue::Null,
                (RawValue::Text(text), FieldType::String) => FieldValue::String(text),
                (RawValue::Number(number), FieldType::Integer) => FieldValue::Integer(number),
                (RawValue::Number(number), FieldType::Timestamp) => FieldValue::Timestamp(number),
                (RawValue::Decimal(number), FieldType::Decimal) => FieldValue::Decimal(number),
                (RawValue::Boolean(value), FieldType::Boolean) => FieldValue::Boolean(value),
                (_, kind) => return Err(self.misfit(name, kind.as_str())),
            });
        }
        Ok(values)
    }

    /// Takes the cell of that name; null when the writer had none.
    fn take(&mut self, name: &str) -> RawValue {
        let named = |field: &RecordField| field.name == name;
        let expected = self.fields.get(self.next).is_some_and(named).then_some(self.next);
        let Some(place) = expected.or_else(|| self.fields.iter().position(named)) else {
            return RawValue::Null;
        };
        self.next = place + 1;
        self.cells.get_mut(place).map(std::mem::take).unwrap_or_default()
    }

    fn misfit(&self, name: &str, wanted: &str) -> WireError {
        WireError::Decode { name: self.codec.name().to_owned(), why: format!("field `{name}` is not {wanted}") }
    }
}
