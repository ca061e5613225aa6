//! A YAML document as a tree whose every node knows its line and column.
//!
//! Mappings are read into this tree first and checked by hand: so all faults of a file come in one go, each with its
//! place, and a form that is chosen by its keys (`from`, `coalesce`, …) does not lose its position to a buffered enum.

use std::fmt;

use serde::Deserialize;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Location, Spanned};
use windfall_runtime::config::{Place, Violations};

/// A value and the place where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct At<T> {
    /// The value.
    pub(crate) value: T,
    /// Where it stands.
    pub(crate) place: Place,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    Null,
    Boolean(bool),
    /// With the text that stands in the file: an identifier that looks like a number keeps its signs.
    Integer(i64, String),
    Decimal(f64, String),
    Text(String),
    List(Vec<At<Node>>),
    /// In the file's order; a key that stands twice is here twice.
    Map(Vec<(At<String>, At<Node>)>),
}

impl Node {
    /// Names the node's kind for a message.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Boolean(_) => "a boolean",
            Self::Integer(..) => "a whole number",
            Self::Decimal(..) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

/// Reads a document; a fault of the syntax is reported with its place and without the text around it.
pub(crate) fn read(file: &str, text: &str) -> Result<At<Node>, Violations> {
    let options = serde_saphyr::options! {
        with_snippet: false,
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        leading_zero_numbers_as_strings: true,
        // `N`, `no` and `on` are words of a fleet, not booleans.
        strict_booleans: true,
    };
    let mut root =
        serde_saphyr::from_str_with_options::<Spanned<Node>>(text, options).map(located).map_err(|error| {
            let place = error.location().filter(|location| location.line() > 0).map(place_of);
            let mut problems = Violations::default();
            problems.at(file, place, format!("not readable as YAML: {}", first_line(&error.to_string())));
            problems
        })?;
    keep_texts(&mut root, &text.lines().collect::<Vec<_>>());
    Ok(root)
}

/// Gives each number the text that stands in the file; one that an alias repeats keeps the usual form.
fn keep_texts(node: &mut At<Node>, lines: &[&str]) {
    match &mut node.value {
        Node::Integer(_, text) | Node::Decimal(_, text) => {
            let Place { line, column } = node.place;
            let line = lines.get(line.saturating_sub(1)).into_iter();
            let rest = line.flat_map(|line| line.chars().skip(column.saturating_sub(1)));
            let stands: String = rest.take_while(|c| c.is_ascii_alphanumeric() || "+-._".contains(*c)).collect();
            if !stands.is_empty() {
                *text = stands;
            }
        }
        Node::List(items) => items.iter_mut().for_each(|item| keep_texts(item, lines)),
        Node::Map(entries) => entries.iter_mut().for_each(|(_, value)| keep_texts(value, lines)),
        Node::Null | Node::Boolean(_) | Node::Text(_) => {}
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn place_of(location: Location) -> Place {
    let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    Place { line: number(location.line()), column: number(location.column()) }
}

fn located<T>(spanned: Spanned<T>) -> At<T> {
    At { place: place_of(spanned.referenced), value: spanned.value }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_some<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Boolean(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Integer(value, value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        // A number beyond i64 is an identifier that someone forgot to quote: as text it keeps its digits.
        Ok(i64::try_from(value)
            .map_or_else(|_| Node::Text(value.to_string()), |number| Node::Integer(number, value.to_string())))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Decimal(value, value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<Spanned<Node>>()? {
            items.push(located(item));
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = map.next_entry::<Spanned<String>, Spanned<Node>>()? {
            entries.push((located(key), located(value)));
        }
        Ok(Node::Map(entries))
    }
}
