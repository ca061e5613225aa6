//! Prints the schemas of a collection, and reads a collection back from one.

use serde_json::{Value as Json, json};

use super::{Collection, CollectionError, Field, FieldType};

const ASSET_ID: Column = required("asset_id", STRING, "the unique identifier chosen for the collection");
const SOURCE: Column = required("source", STRING, "topic of the source record, without prefix");
const SOURCE_KEY: Column = required("source_key", STRING, "key of the source record, such as org/device_id");
const SUBJECT: Column = required("subject", STRING, "what is disagreed on: the name of a field");

/// What follows the collection's fields in the flat record, the mark of deletion first.
const FLAT_TAIL: [Column; 13] = [
    Column::new("__deleted", STRING, Some("\"false\""), "true or false, as Debezium's flattening writes it"),
    text("__op", "op of the source event"),
    text("__kind", "kind of the source event; open set"),
    text("__org", "organization of the source event"),
    text("__device_id", "id of the source record"),
    long("__source_ts_ms", "source.ts_ms of the source event"),
    long("__ts_ms", "when the transformer made the record"),
    text("__event_id", "event_id of the source event"),
    text("__fingerprint", "fingerprint of the source event"),
    long("__version", "grows with each record of the asset"),
    text("__identifier", "name of the field that asset_id was taken from"),
    text("__mapping", "name and hash of the mapping"),
    text("__sources", "sorted JSON: field -> source_key, where it is not that of __device_id"),
];

/// What follows the collection's fields in a contribution.
const CONTRIBUTION_TAIL: [Column; 12] = [
    Column::new("__released", "\"boolean\"", Some("false"), "whether the source record is released"),
    text("__op", "op of the source event"),
    text("__kind", "kind of the source event; open set"),
    text("__org", "organization of the source event"),
    long("__source_ts_ms", "source.ts_ms of the source event"),
    long("__claimed_ms", "source.ts_ms of the event that added the asset"),
    text("__event_id", "event_id of the source event"),
    text("__fingerprint", "fingerprint of the source event"),
    Column::new("__source_partition", r#"["null", "int"]"#, Some("null"), "partition of the source record"),
    long("__source_offset", "offset of the source record"),
    text("__identifier", "name of the field that asset_id was taken from"),
    text("__mapping", "name and hash of the mapping"),
];

const CONFLICT: [Column; 6] = [
    ASSET_ID,
    SUBJECT,
    required("state", STRING, "open or closed; open set"),
    text("held", "the value that was kept, as JSON"),
    text("candidates", "JSON: who says what"),
    Column::new("seen_at", NULLABLE_TIMESTAMP, Some("null"), "source time of the claim that made or ended it"),
];

const STRING: &str = r#""string""#;
const LONG: &str = r#""long""#;
const TIMESTAMP: &str = r#"{"type": "long", "logicalType": "timestamp-millis"}"#;
const NULLABLE_STRING: &str = r#"["null", "string"]"#;
const NULLABLE_LONG: &str = r#"["null", "long"]"#;
const NULLABLE_TIMESTAMP: &str = r#"["null", {"type": "long", "logicalType": "timestamp-millis"}]"#;

/// One field of a printed schema: type and default are JSON texts.
struct Column {
    name: &'static str,
    kind: &'static str,
    default: Option<&'static str>,
    doc: &'static str,
}

const fn required(name: &'static str, kind: &'static str, doc: &'static str) -> Column {
    Column::new(name, kind, None, doc)
}

const fn text(name: &'static str, doc: &'static str) -> Column {
    Column::new(name, NULLABLE_STRING, Some("null"), doc)
}

const fn long(name: &'static str, doc: &'static str) -> Column {
    Column::new(name, NULLABLE_LONG, Some("null"), doc)
}

impl Column {
    const fn new(name: &'static str, kind: &'static str, default: Option<&'static str>, doc: &'static str) -> Self {
        Self { name, kind, default, doc }
    }

    fn print(&self) -> String {
        let Self { name, kind, default, doc } = self;
        let default = default.map_or_else(String::new, |default| format!(r#", "default": {default}"#));
        format!(r#"{{"name": "{name}", "type": {kind}{default}, "doc": {}}}"#, json!(doc))
    }
}

impl FieldType {
    fn avro(self) -> &'static str {
        match self {
            Self::String => STRING,
            Self::Integer => LONG,
            Self::Decimal => "\"double\"",
            Self::Boolean => "\"boolean\"",
            Self::Timestamp => TIMESTAMP,
        }
    }
}

impl Field {
    fn print(&self) -> String {
        let Self { name, kind, description, required: _, unique: _ } = self;
        let doc = description.as_ref().map_or_else(String::new, |text| format!(r#", "doc": {}"#, json!(text)));
        format!(r#"{{"name": "{name}", "type": ["null", {}], "default": null{doc}}}"#, kind.avro())
    }
}

impl Collection {
    /// Text of the flat record's key schema.
    pub fn key_schema(&self) -> String {
        record(&self.namespace(""), "Key", None, &[ASSET_ID.print()])
    }

    /// Text of the flat record's schema: the collection's fields in order, then the fixed ones.
    pub fn value_schema(&self) -> String {
        let collection = required("collection", STRING, "name of the collection");
        self.with_fields("", None, &[collection, ASSET_ID], &FLAT_TAIL)
    }

    /// The fields of the flat record that a table has columns for, in its order: the collection's own, then what every
    /// record says of its origin. Left out are the collection's name, the key and the mark of deletion.
    pub fn columns(&self) -> impl Iterator<Item = (&str, FieldType)> {
        self.own().chain(Self::origin().map(|(name, kind)| -> (&str, FieldType) { (name, kind) }))
    }

    /// The collection's own fields, by name and type.
    pub(crate) fn own(&self) -> impl Iterator<Item = (&str, FieldType)> {
        self.fields().iter().map(|field| (field.name.as_str(), field.kind))
    }

    /// What every flat record says of its origin, by name and type.
    fn origin() -> impl Iterator<Item = (&'static str, FieldType)> {
        FLAT_TAIL[1..].iter().filter_map(|column| {
            let kind = match column.kind {
                NULLABLE_STRING => FieldType::String,
                NULLABLE_LONG => FieldType::Integer,
                _ => return None,
            };
            Some((column.name, kind))
        })
    }

    /// Text of the key schema of `links`.
    pub fn links_key_schema(&self) -> String {
        record(&self.namespace(".links"), "Key", None, &[SOURCE.print(), SOURCE_KEY.print()])
    }

    /// Text of the value schema of `links`.
    pub fn links_value_schema(&self) -> String {
        let namespace = self.namespace(".links");
        let claimed = required("claimed_ms", LONG, "source.ts_ms of the event that added the asset");
        let asset = format!(
            "{{\"type\": \"record\", \"name\": \"Asset\", \"connect.name\": \"{namespace}.Asset\", \"fields\": [\n   {},\n   {}]}}",
            ASSET_ID.print(),
            claimed.print()
        );
        let assets = format!(
            "{{\"name\": \"assets\", \"doc\": \"the assets that the source record contributes to now\", \"type\": \
             {{\"type\": \"array\", \"items\":\n  {asset}}}}}"
        );
        let fields = [
            SOURCE.print(),
            SOURCE_KEY.print(),
            required("source_partition", "\"int\"", "partition of the source record").print(),
            required("source_offset", "\"long\"", "offset of the source record that was mapped last").print(),
            assets,
        ];
        record(&namespace, "Value", Some("the assets that one source record contributes to"), &fields)
    }

    /// Text of the key schema of `contributions`.
    pub fn contributions_key_schema(&self) -> String {
        let fields = [ASSET_ID.print(), SOURCE.print(), SOURCE_KEY.print()];
        record(&self.namespace(".contributions"), "Key", None, &fields)
    }

    /// Text of the value schema of `contributions`: the key's fields, the collection's, then the fixed ones.
    pub fn contributions_value_schema(&self) -> String {
        let doc = "what one source record says of one asset, after mapping";
        self.with_fields(".contributions", Some(doc), &[ASSET_ID, SOURCE, SOURCE_KEY], &CONTRIBUTION_TAIL)
    }

    /// Text of the key schema of `conflicts`.
    pub fn conflicts_key_schema(&self) -> String {
        record(&self.namespace(".conflicts"), "Key", None, &[ASSET_ID.print(), SUBJECT.print()])
    }

    /// Text of the value schema of `conflicts`.
    pub fn conflicts_value_schema(&self) -> String {
        let fields: Vec<String> = CONFLICT.iter().map(Column::print).collect();
        record(&self.namespace(".conflicts"), "Value", Some("who disagrees on an asset, and what was kept"), &fields)
    }

    /// Reads a collection back from the text of its flat record's schema.
    ///
    /// What a schema does not say (required, unique) is false.
    pub fn from_value_schema(text: &str) -> Result<Self, CollectionError> {
        let schema: Json = serde_json::from_str(text).map_err(|_| foreign("it is no JSON"))?;
        let name = schema["namespace"]
            .as_str()
            .and_then(|namespace| namespace.strip_prefix("assets."))
            .ok_or_else(|| foreign("its namespace is not assets.<collection>"))?;
        let columns = schema["fields"].as_array().ok_or_else(|| foreign("it is no record"))?;
        let fields = columns.iter().filter_map(|column| own_field(column).transpose()).collect::<Result<_, _>>()?;
        Self::new(name, fields)
    }

    fn namespace(&self, suffix: &str) -> String {
        format!("assets.{}{suffix}", self.name())
    }

    fn with_fields(&self, suffix: &str, doc: Option<&str>, head: &[Column], tail: &[Column]) -> String {
        let own = self.fields().iter().map(Field::print);
        let fields: Vec<String> =
            head.iter().map(Column::print).chain(own).chain(tail.iter().map(Column::print)).collect();
        record(&self.namespace(suffix), "Value", doc, &fields)
    }
}

fn foreign(why: &str) -> CollectionError {
    CollectionError::new(format!("the schema is not that of a collection: {why}"))
}

/// Reads one field of the collection's own; `None` for those that every record has.
fn own_field(column: &Json) -> Result<Option<Field>, CollectionError> {
    let name = column["name"].as_str().unwrap_or_default();
    if name.starts_with("__") || matches!(name, "collection" | "asset_id") {
        return Ok(None);
    }
    let branch = &column["type"][1];
    let kind = match (branch.as_str(), branch["logicalType"].as_str()) {
        (Some("string"), _) => FieldType::String,
        (Some("long"), _) => FieldType::Integer,
        (Some("double"), _) => FieldType::Decimal,
        (Some("boolean"), _) => FieldType::Boolean,
        (None, Some("timestamp-millis")) => FieldType::Timestamp,
        _ => return Err(foreign(&format!("the type of `{name}` is none of a collection"))),
    };
    let description = column["doc"].as_str().map(str::to_owned);
    Ok(Some(Field { description, ..Field::new(name, kind) }))
}

/// Prints a record, one field a line, with the line's end that the files have.
fn record(namespace: &str, name: &str, doc: Option<&str>, fields: &[String]) -> String {
    let doc = doc.map_or_else(String::new, |doc| format!(r#", "doc": {}"#, json!(doc)));
    let fields: Vec<String> = fields.iter().map(|field| format!(" {field}")).collect();
    format!(
        "{{\"type\": \"record\", \"name\": \"{name}\", \"namespace\": \"{namespace}\", \"connect.name\": \
         \"{namespace}.{name}\"{doc}, \"fields\": [\n{}]}}\n",
        fields.join(",\n")
    )
}
