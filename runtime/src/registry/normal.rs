//! One form for schemas that mean the same and print differently (pure).
//!
//! Clients print a parsed schema before they ask for it: `{"type":"string"}` becomes `"string"`, a namespace moves into names or out
//! of them, keys change their order. Docs, defaults and all other attributes stay: a schema without them is another one.

use serde_json::{Map, Value};

/// Returns the form in which equal schemas are equal.
pub(super) fn normal_form(schema: &Value) -> Value {
    within(schema, "")
}

const PRIMITIVES: [&str; 8] = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"];

fn within(schema: &Value, namespace: &str) -> Value {
    match schema {
        Value::String(name) => Value::String(full(name, namespace)),
        Value::Array(branches) => Value::Array(branches.iter().map(|branch| within(branch, namespace)).collect()),
        Value::Object(object) => of_object(object, namespace),
        other => other.clone(),
    }
}

fn of_object(object: &Map<String, Value>, namespace: &str) -> Value {
    let kind = object.get("type").and_then(Value::as_str).unwrap_or_default();
    if object.len() == 1
        && let Some(inner) = object.get("type")
    {
        return within(inner, namespace);
    }
    let mut normal = object.clone();
    let mut inside = namespace.to_owned();
    if matches!(kind, "record" | "enum" | "fixed" | "error")
        && let Some(name) = object.get("name").and_then(Value::as_str)
    {
        let given = object.get("namespace").and_then(Value::as_str).unwrap_or(namespace);
        let name = full(name, given);
        inside = name.rsplit_once('.').map_or_else(String::new, |(namespace, _)| namespace.to_owned());
        normal.insert("name".to_owned(), Value::String(name));
        normal.remove("namespace");
    } else if !PRIMITIVES.contains(&kind)
        && !matches!(kind, "array" | "map")
        && let Some(inner) = object.get("type")
    {
        normal.insert("type".to_owned(), within(inner, namespace));
    }
    for (place, of) in [("items", "array"), ("values", "map")] {
        if kind == of
            && let Some(inner) = object.get(place)
        {
            normal.insert(place.to_owned(), within(inner, namespace));
        }
    }
    if let Some(Value::Array(fields)) = object.get("fields") {
        normal.insert("fields".to_owned(), fields.iter().map(|field| of_field(field, &inside)).collect());
    }
    Value::Object(normal)
}

fn of_field(field: &Value, namespace: &str) -> Value {
    let mut normal = field.clone();
    if let Some(object) = normal.as_object_mut() {
        if let Some(schema) = object.get("type").map(|schema| within(schema, namespace)) {
            object.insert("type".to_owned(), schema);
        }
        if object.get("order").and_then(Value::as_str) == Some("ascending") {
            object.remove("order");
        }
    }
    normal
}

fn full(name: &str, namespace: &str) -> String {
    if PRIMITIVES.contains(&name) || name.contains('.') || namespace.is_empty() {
        return name.to_owned();
    }
    format!("{namespace}.{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(a: &str, b: &str) -> bool {
        let parsed = |text| serde_json::from_str::<Value>(text).unwrap();
        normal_form(&parsed(a)) == normal_form(&parsed(b))
    }

    const DEVICE: &str = r#"{"type":"record","name":"Key","namespace":"abm.devices","doc":"d",
        "fields":[{"name":"org","type":{"type":"string"},"order":"ascending"},{"name":"at","type":["null",{"type":"long","logicalType":"timestamp-millis"}],"default":null},
        {"name":"next","type":["null","Key"],"default":null}]}"#;

    #[test]
    fn a_schema_that_a_client_has_printed_is_the_same() {
        let printed = r#"{"doc":"d","name":"abm.devices.Key","fields":[{"type":"string","name":"org"},
            {"name":"at","default":null,"type":["null",{"logicalType":"timestamp-millis","type":"long"}]},
            {"name":"next","type":["null","abm.devices.Key"],"default":null}],"type":"record"}"#;
        assert!(same(DEVICE, printed));
        assert!(same(r#"{"type":"string"}"#, r#""string""#));
    }

    #[test]
    fn docs_defaults_and_attributes_count() {
        assert!(!same(DEVICE, &DEVICE.replace("\"doc\":\"d\"", "\"doc\":\"e\"")));
        assert!(!same(DEVICE, &DEVICE.replace("timestamp-millis", "timestamp-micros")));
        assert!(!same(r#"{"type":"string","connect.name":"x"}"#, r#""string""#));
        assert!(!same(r#"["null","string"]"#, r#"["string","null"]"#));
    }

    #[test]
    fn names_in_other_namespaces_stay_apart() {
        assert!(!same(r#"{"type":"fixed","name":"a.F","size":2}"#, r#"{"type":"fixed","name":"b.F","size":2}"#));
        assert!(same(
            r#"{"type":"fixed","name":"a.F","size":2}"#,
            r#"{"type":"fixed","name":"F","namespace":"a","size":2}"#
        ));
    }
}
