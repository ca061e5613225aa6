//! Plain values of a mapping file, read as the type that is wanted of them.

use windfall_schemas::asset::FieldType;

use crate::mapping::source::SourceField;
use crate::mapping::yaml::Node;
use crate::value::{Value, parse_timestamp};

/// Reads a plain value as one of the given kind; `None` when it cannot be one.
pub(crate) fn literal(node: &Node, kind: FieldType) -> Option<Value> {
    #[allow(clippy::cast_precision_loss)]
    // A literal of more than 53 bits for a decimal is rounded, as in any language.
    match (kind, node) {
        (FieldType::String, Node::Text(text) | Node::Integer(_, text) | Node::Decimal(_, text)) => {
            Some(Value::Text(text.clone()))
        }
        (FieldType::String, Node::Boolean(flag)) => Some(Value::Text(flag.to_string())),
        (FieldType::Integer, Node::Integer(number, _)) => Some(Value::Integer(*number)),
        (FieldType::Decimal, Node::Integer(number, _)) => Some(Value::Decimal(*number as f64)),
        (FieldType::Decimal, Node::Decimal(number, _)) if number.is_finite() => Some(Value::Decimal(*number)),
        (FieldType::Boolean, Node::Boolean(flag)) => Some(Value::Boolean(*flag)),
        (FieldType::Timestamp, Node::Text(text)) => parse_timestamp(text).map(Value::Timestamp),
        (FieldType::Timestamp, Node::Integer(millis, _)) => Some(Value::Timestamp(*millis)),
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
        Node::Text(item) => Some(vec![item.clone()]),
        _ => None,
    };
    texts.map(|texts| if texts.is_empty() { Value::Null } else { Value::List(texts) })
}

fn text(node: &Node) -> Option<String> {
    literal(node, FieldType::String).map(|value| value.to_text())
}

/// Reads what a condition compares a field's value, or an item of its list, with; nothing is a value too. `None`: never equal.
pub(crate) fn test_value(node: &Node, kind: FieldType) -> Option<Value> {
    if *node == Node::Null { Some(Value::Null) } else { literal(node, kind) }
}
