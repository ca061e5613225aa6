//! Plain values of a mapping file, read as the type that is wanted of them.

use crate::mapping::source::Kind;
use crate::mapping::yaml::Node;
use crate::value::{Value, parse_timestamp};

/// Reads a plain value as one of the given kind; `None` when it cannot be one.
pub(crate) fn literal(node: &Node, kind: Kind) -> Option<Value> {
    #[allow(clippy::cast_precision_loss)]
    // A literal of more than 53 bits for a decimal is rounded, as in any language.
    match (kind, node) {
        (Kind::Text, Node::Text(text) | Node::Integer(_, text) | Node::Decimal(_, text)) => {
            Some(Value::Text(text.clone()))
        }
        (Kind::Text, Node::Boolean(flag)) => Some(Value::Text(flag.to_string())),
        (Kind::Integer, Node::Integer(number, _)) => Some(Value::Integer(*number)),
        (Kind::Decimal, Node::Integer(number, _)) => Some(Value::Decimal(*number as f64)),
        (Kind::Decimal, Node::Decimal(number, _)) if number.is_finite() => Some(Value::Decimal(*number)),
        (Kind::Boolean, Node::Boolean(flag)) => Some(Value::Boolean(*flag)),
        (Kind::Timestamp, Node::Text(text)) => parse_timestamp(text).map(Value::Timestamp),
        (Kind::Timestamp, Node::Integer(millis, _)) => Some(Value::Timestamp(*millis)),
        (Kind::List, Node::List(items)) => {
            let items: Option<Vec<String>> = items
                .iter()
                .map(|item| match literal(&item.value, Kind::Text)? {
                    Value::Text(text) => Some(text),
                    _ => None,
                })
                .collect();
            items.map(|items| if items.is_empty() { Value::Null } else { Value::List(items) })
        }
        (Kind::List, node @ Node::Text(_)) => literal(node, Kind::Text).map(|value| Value::List(vec![value.to_text()])),
        _ => None,
    }
}

/// Reads what a condition compares a field of the given kind with; nothing is a value too. `None`: never equal.
pub(crate) fn test_value(node: &Node, kind: Kind) -> Option<Value> {
    match (kind, node) {
        (_, Node::Null) => Some(Value::Null),
        (Kind::List, node) => literal(node, Kind::Text),
        (kind, node) => literal(node, kind),
    }
}
