/// Defines a record whose fields stand in the order of its `.avsc` file.
///
/// Avro writes a record as its fields in that order. The library finds each field of a `struct` by its name first, which costs
/// more than to write it, and takes those of a tuple as they come: that is how these records are handed to it.
macro_rules! record {
    (
        $(#[$meta:meta])*
        pub struct $name:ident $(<$value:ident>)? as $avro:literal {
            $($(#[$field_meta:meta])* pub $field:ident: $kind:ty,)+
        }
    ) => {
        $(#[$meta])*
        #[derive(serde::Deserialize)]
        #[serde(rename = $avro)]
        pub struct $name $(<$value>)? {
            $($(#[$field_meta])* pub $field: $kind,)+
        }

        impl $(<$value: serde::Serialize>)? serde::Serialize for $name $(<$value>)? {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::{SerializeStruct, SerializeTupleStruct};
                const FIELDS: usize = [$(stringify!($field)),+].len();
                if serializer.is_human_readable() {
                    let mut record = serializer.serialize_struct($avro, FIELDS)?;
                    $(record.serialize_field(stringify!($field), &self.$field)?;)+
                    return record.end();
                }
                let mut record = serializer.serialize_tuple_struct($avro, FIELDS)?;
                $(record.serialize_field(&self.$field)?;)+
                record.end()
            }
        }
    };
}

pub(crate) use record;
