//! Plain values of a mapping file, read as the type that is wanted of them.

use windfall_runtime::config::yaml::{Node, Plain};
use windfall_schemas::asset::FieldType;

use crate::mapping::source::SourceField;
use crate::value::{Value, parse_timestamp};

/// Reads a plain value as one of the given kind; `None` when it cannot be one.
pub(crate) fn literal(node: &Node, kind: FieldType) -> Option<Value> {
    let Node::Scalar(scalar) = node else { return None };
    let text = scalar.text.as_str();
    #[allow(clippy::cast_precision_loss)]
    // A literal of more than 53 bits for a decimal is rounded, as in any language.
    match (kind, scalar.plain()) {
        (FieldType::String, Plain::Boolean(flag)) => Some(Value::Text(flag.to_string())),
        (FieldType::String, Plain::Text | Plain::Integer(_) | Plain::Decimal(_)) => Some(Value::Text(text.to_owned())),
        (FieldType::Integer, Plain::Integer(number)) => Some(Value::Integer(number)),
        (FieldType::Decimal, Plain::Integer(number)) => Some(Value::Decimal(number as f64)),
        (FieldType::Decimal, Plain::Decimal(number)) if number.is_finite() => Some(Value::Decimal(number)),
        (FieldType::Boolean, Plain::Boolean(flag)) => Some(Value::Boolean(flag)),
        (FieldType::Timestamp, Plain::Text) => parse_timestamp(text).map(Value::Timestamp),
        (FieldType::Timestamp, Plain::Integer(millis)) => Some(Value::Timestamp(millis)),
        _ => None,
    }
}

/// Reads a plain value as a source field has it: a list of texts, or one text for a list of one.
pub(crate) fn source_literal(node: &Node, field: &SourceField) -> Option<Value> {
    if !field.list {
        return literal(node, field.kind);
    }
    let texts: Option<Vec<String>> = match node {
        Node::List(items) => items.iter().map(|item| text(&item.value)).collect(),
        _ => node.text().map(|item| vec![item.to_owned()]),
    };
    texts.map(|texts| if texts.is_empty() { Value::Null } else { Value::List(texts) })
}

fn text(node: &Node) -> Option<String> {
    literal(node, FieldType::String).map(|value| value.to_text())
}

/// Reads what a condition compares a field's value, or an item of its list, with; nothing is a value too. `None`: never equal.
pub(crate) fn test_value(node: &Node, kind: FieldType) -> Option<Value> {
    if node.is_null() { Some(Value::Null) } else { literal(node, kind) }
}
