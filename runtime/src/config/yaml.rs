//! A YAML document as a tree in which every key and value has its place.
//!
//! Configurations and mappings are read into this tree first. A configuration's structs are filled from it; a mapping is checked by
//! hand. So a message can name the place, and all faults of a file are reported together.

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde_saphyr::Error;
use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, ScanError, Span};

use super::fill::path_of;
use super::load::Fault;

const MAX_DEPTH: usize = 64;
/// Bytes of all texts; what an alias stands for counts each time.
const MAX_TEXT_BYTES: usize = 64 * 1024 * 1024;

/// What a document may ask for; a hostile or mistaken one is refused where it goes beyond.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Keys and values; what an alias stands for counts each time.
    pub nodes: usize,
    /// Aliases.
    pub aliases: usize,
}
/// A key whose value names maps that give what the map lacks.
const MERGE: &str = "<<";

/// A place in a file, both counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A key or value, and the place where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct At<T> {
    /// The key or value.
    pub value: T,
    /// Where it stands.
    pub place: Place,
}

/// A value of a YAML document.
#[derive(Debug, Clone)]
pub enum Node {
    /// A single value.
    Scalar(Scalar),
    /// A list.
    List(Vec<At<Node>>),
    /// Keys with their values, in the file's order; each key once.
    Map(Vec<(At<String>, At<Node>)>),
    /// A value that could not be read and was left out.
    LeftOut,
}

/// A single value as it stands in the file.
#[derive(Debug, Clone)]
pub struct Scalar {
    /// Its text, without quotes.
    pub text: String,
    /// As YAML that yields it.
    source: String,
    /// Whether it stands on one line, plain or quoted, so that references in it are replaced.
    pub(super) one_line: bool,
    /// Whether a secret was put into it.
    pub(super) secret: bool,
}

/// What a plain value is by itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Plain {
    /// Nothing.
    Null,
    /// `true` or `false`; `yes`, `no` and `on` are texts.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// Another number.
    Decimal(f64),
    /// Text, also a number with leading zeros and one that is too large: as text it keeps its digits.
    Text,
}

impl Scalar {
    fn new(text: &str, style: ScalarStyle, one_line: bool) -> Self {
        let source = match (style, text) {
            (ScalarStyle::Plain, "") => "null".to_owned(),
            (ScalarStyle::Plain, text) => text.to_owned(),
            (_, text) => quoted(text),
        };
        let one_line =
            one_line && matches!(style, ScalarStyle::Plain | ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted);
        Self { text: text.to_owned(), source, one_line, secret: false }
    }

    /// Replaces the value by a text.
    pub(super) fn replace(&mut self, text: String, secret: bool) {
        (self.source, self.text, self.secret) = (quoted(&text), text, secret);
    }

    /// Returns what the value is by itself.
    pub fn plain(&self) -> Plain {
        let options = serde_saphyr::options! {
            with_snippet: false,
            leading_zero_numbers_as_strings: true,
            strict_booleans: true,
        };
        match serde_saphyr::from_str_with_options(&self.source, options) {
            Ok(serde_json::Value::Null) => Plain::Null,
            Ok(serde_json::Value::Bool(value)) => Plain::Boolean(value),
            Ok(serde_json::Value::Number(number)) => match (number.as_i64(), number.is_u64()) {
                (Some(number), _) => Plain::Integer(number),
                (None, true) => Plain::Text,
                (None, false) => number.as_f64().map_or(Plain::Text, Plain::Decimal),
            },
            Ok(_) | Err(_) => Plain::Text,
        }
    }

    /// Reads the value as the type that `read` asks for.
    pub(super) fn read<'de, T>(
        &'de self,
        read: impl for<'e> FnOnce(serde_saphyr::Deserializer<'de, 'e>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let options = serde_saphyr::options! { with_snippet: false };
        serde_saphyr::with_deserializer_from_str_with_options(&self.source, options, read)
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

impl Node {
    /// Names the node's kind for a message.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
            Self::LeftOut => "nothing",
            Self::Scalar(scalar) => match scalar.plain() {
                Plain::Null => "nothing",
                Plain::Boolean(_) => "a boolean",
                Plain::Integer(_) => "a whole number",
                Plain::Decimal(_) => "a number",
                Plain::Text => "text",
            },
        }
    }

    /// Returns what a single value is by itself.
    pub fn plain(&self) -> Option<Plain> {
        match self {
            Self::Scalar(scalar) => Some(scalar.plain()),
            Self::List(_) | Self::Map(_) | Self::LeftOut => None,
        }
    }

    /// Returns whether nothing stands there.
    pub fn is_null(&self) -> bool {
        self.plain() == Some(Plain::Null)
    }

    /// Returns the text of a value that is text by itself.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Scalar(scalar) if scalar.plain() == Plain::Text => Some(&scalar.text),
            _ => None,
        }
    }
}

/// Where a value stands in its document.
#[derive(Debug, Clone)]
pub(super) struct Spot {
    /// Its path in the file, `sources[0].scan`.
    pub(super) path: String,
    /// Its path in what is read: items of lists that were left out do not count there.
    pub(super) read_as: String,
    /// The place of its key, or of the item.
    pub(super) place: Place,
}

impl At<Node> {
    /// Calls `visit` with each value that was not left out, outer ones first.
    pub(super) fn each(&mut self, visit: &mut dyn FnMut(&Spot, &mut Self)) {
        self.each_from(Spot { path: String::new(), read_as: String::new(), place: self.place }, visit);
    }

    fn each_from(&mut self, spot: Spot, visit: &mut dyn FnMut(&Spot, &mut Self)) {
        if matches!(self.value, Node::LeftOut) {
            return;
        }
        visit(&spot, self);
        match &mut self.value {
            Node::List(items) => {
                let mut read = 0;
                for (index, item) in items.iter_mut().enumerate() {
                    let (path, read_as) = (format!("{}[{index}]", spot.path), format!("{}[{read}]", spot.read_as));
                    read += usize::from(!matches!(item.value, Node::LeftOut));
                    item.each_from(Spot { path, read_as, place: item.place }, visit);
                }
            }
            Node::Map(entries) => {
                for (key, value) in entries {
                    let (path, read_as) = (path_of(&spot.path, &key.value), path_of(&spot.read_as, &key.value));
                    value.each_from(Spot { path, read_as, place: key.place }, visit);
                }
            }
            Node::Scalar(_) | Node::LeftOut => {}
        }
    }
}

/// Reads a document, and adds what is wrong with its form; `None` where it is no YAML or asks for more than a file may.
///
/// Of a key that stands twice the first counts; an empty document is a map without keys.
pub fn parse(text: &str, limits: Limits, faults: &mut Vec<Fault>) -> Option<At<Node>> {
    let mut reading = TreeBuilder {
        events: Parser::new_from_str(text),
        limits,
        anchors: HashMap::new(),
        read: Size::default(),
        aliases: 0,
        depth: 0,
        repeated: Vec::new(),
    };
    let root = reading.document();
    faults.append(&mut reading.repeated);
    root.map_err(|fault| faults.push(fault)).ok()
}

fn fault(place: Place, what: impl Into<String>, help: &str) -> Fault {
    Fault { place: Some(place), what: what.into(), help: Some(help.to_owned()), ..Fault::default() }
}

fn place_of(span: Span) -> Place {
    Place { line: span.start.line(), column: span.start.col() + 1 }
}

/// How large a part of a document is.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    nodes: usize,
    text_bytes: usize,
}

struct TreeBuilder<I> {
    events: I,
    limits: Limits,
    /// What aliases stand for, and how large that is.
    anchors: HashMap<usize, (Node, Size)>,
    read: Size,
    aliases: usize,
    depth: usize,
    /// Keys that stand twice in their map.
    repeated: Vec<Fault>,
}

impl<'a, I: Iterator<Item = Result<(Event<'a>, Span), ScanError>>> TreeBuilder<I> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Fault> {
        self.events.next().unwrap_or(Ok((Event::StreamEnd, Span::default()))).map_err(|error| {
            let place = Place { line: error.marker().line(), column: error.marker().col() + 1 };
            let help = "check the indentation, and that brackets and quotes are closed";
            fault(place, format!("this is no YAML: {}", error.info()), help)
        })
    }

    fn document(&mut self) -> Result<At<Node>, Fault> {
        let mut root = None;
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => break,
                (Event::DocumentStart(..), span) if root.is_some() => {
                    return Err(fault(
                        place_of(span),
                        "a second document begins here",
                        "keep one document in the file",
                    ));
                }
                (Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd, _) => {}
                (event, span) => root = Some(self.value(event, span)?),
            }
        }
        Ok(root.unwrap_or(At { value: Node::Map(Vec::new()), place: Place { line: 1, column: 1 } }))
    }

    /// Reads the value that begins with `event`.
    fn value(&mut self, event: Event<'a>, span: Span) -> Result<At<Node>, Fault> {
        let (place, before) = (place_of(span), self.read);
        self.depth += 1;
        self.read.nodes += 1;
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let string = tag.is_some_and(|tag| tag.is_yaml_core_schema_tag("str"));
                let style = if string { ScalarStyle::DoubleQuoted } else { style };
                self.read.text_bytes += text.len();
                (Node::Scalar(Scalar::new(&text, style, span.start.line() == span.end.line())), anchor)
            }
            Event::SequenceStart(_, anchor, _) => (self.list()?, anchor),
            Event::MappingStart(_, anchor, _) => (self.map()?, anchor),
            Event::Alias(anchor) => (self.repeat(anchor, place)?, 0),
            other => return Err(fault(place, format!("this is no YAML: {other:?}"), "write a value here")),
        };
        self.depth -= 1;
        self.within(place)?;
        if anchor > 0 {
            let size =
                Size { nodes: self.read.nodes - before.nodes, text_bytes: self.read.text_bytes - before.text_bytes };
            self.anchors.insert(anchor, (value.clone(), size));
        }
        Ok(At { value, place })
    }

    /// Returns what an alias stands for. Its size is counted before it is copied.
    fn repeat(&mut self, anchor: usize, place: Place) -> Result<Node, Fault> {
        let unknown = || fault(place, "an alias refers to what contains it", "write the value itself here");
        let size = self.anchors.get(&anchor).ok_or_else(unknown)?.1;
        self.aliases += 1;
        self.read.nodes += size.nodes;
        self.read.text_bytes += size.text_bytes;
        self.within(place)?;
        Ok(self.anchors[&anchor].0.clone())
    }

    fn within(&self, place: Place) -> Result<(), Fault> {
        let Size { nodes, text_bytes } = self.read;
        let fits = nodes <= self.limits.nodes && self.aliases <= self.limits.aliases && text_bytes <= MAX_TEXT_BYTES;
        if fits { Ok(()) } else { Err(too_much(place)) }
    }

    fn list(&mut self) -> Result<Node, Fault> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Node::List(items)),
                (_, span) if self.depth > MAX_DEPTH => return Err(too_much(place_of(span))),
                (event, span) => items.push(self.value(event, span)?),
            }
        }
    }

    fn map(&mut self) -> Result<Node, Fault> {
        let mut entries: Vec<(At<String>, At<Node>)> = Vec::new();
        let mut lines = HashMap::new();
        loop {
            let (key, place) = match self.next()? {
                (Event::MappingEnd, _) => break,
                (Event::Scalar(key, ..), span) if self.depth <= MAX_DEPTH => (key.into_owned(), place_of(span)),
                (_, span) if self.depth > MAX_DEPTH => return Err(too_much(place_of(span))),
                (_, span) => return Err(fault(place_of(span), "this cannot be a key", "write the key as text")),
            };
            let (event, span) = self.next()?;
            let value = self.value(event, span)?;
            self.read.text_bytes += key.len();
            match lines.get(&key).filter(|_| key != MERGE) {
                Some(line) => {
                    let what = format!("the key `{key}` stands twice, first on line {line}");
                    self.repeated.push(fault(place, what, "keep one of the two"));
                }
                None => {
                    lines.insert(key.clone(), place.line);
                    entries.push((At { value: key, place }, value));
                }
            }
        }
        Ok(Node::Map(if lines.contains_key(MERGE) { merged(entries) } else { entries }))
    }
}

fn too_much(place: Place) -> Fault {
    let what = "the file asks for more than it may (nesting, aliases or size)";
    fault(place, what, "write it without anchors that refer to anchors")
}

/// Replaces merge keys by the entries of the maps that they name, for keys that the map does not have itself.
fn merged(entries: Vec<(At<String>, At<Node>)>) -> Vec<(At<String>, At<Node>)> {
    let (merges, mut entries): (Vec<_>, Vec<_>) = entries.into_iter().partition(|(key, _)| key.value == MERGE);
    let mut known: HashSet<String> = entries.iter().map(|(key, _)| key.value.clone()).collect();
    let maps = merges.into_iter().flat_map(|(_, named)| match named.value {
        Node::List(items) => items.into_iter().map(|item| item.value).collect(),
        map => vec![map],
    });
    for map in maps {
        let Node::Map(inherited) = map else { continue };
        entries.extend(inherited.into_iter().filter(|(key, _)| known.insert(key.value.clone())));
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { nodes: 1_000, aliases: 200 };

    fn read(text: &str) -> At<Node> {
        let mut faults = Vec::new();
        parse(text, LIMITS, &mut faults).unwrap_or_else(|| panic!("{text}: {faults:?}"))
    }

    fn kinds(text: &str) -> Vec<&'static str> {
        let Node::List(items) = read(text).value else { panic!("a list was written") };
        items.iter().map(|item| item.value.kind()).collect()
    }

    #[test]
    fn a_plain_value_is_what_it_looks_like_and_a_quoted_one_is_text() {
        assert_eq!(kinds("[~, null, true, false]"), ["nothing", "nothing", "a boolean", "a boolean"]);
        assert_eq!(kinds("[no, on, 007, 9999999999999999999, '1', \"true\", x, !!str 1]"), ["text"; 8]);
        assert_eq!(kinds("[1, -7, 0x1f]"), ["a whole number"; 3]);
        assert_eq!(kinds("[1.5, [], {}]"), ["a number", "a list", "a map"]);
    }

    #[test]
    fn an_alias_stands_for_its_value_and_a_merged_map_gives_what_is_not_there() {
        let Node::Map(entries) = read("a: &a { x: 1, y: 2 }\nb: { <<: *a, y: 3 }\nc: *a\n").value else {
            panic!("a map was written")
        };
        let keys = |at: usize| match &entries[at].1.value {
            Node::Map(inner) => inner.iter().map(|(key, _)| key.value.as_str()).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        assert_eq!((keys(1), keys(2)), (vec!["y", "x"], vec!["x", "y"]));
        assert_eq!(entries[2].1.place, Place { line: 3, column: 4 });
    }

    #[test]
    fn what_no_file_of_ours_needs_is_refused_with_its_place() {
        for text in ["a: 1\n---\nb: 2\n", "a: &a [*a]\n", "? [x]\n: 1\n", &"[".repeat(100)] {
            let mut faults = Vec::new();
            assert!(parse(text, LIMITS, &mut faults).is_none(), "{text}");
            assert!(matches!(&faults[..], [Fault { place: Some(_), .. }]), "{text}: {faults:?}");
        }
    }

    /// A megabyte that would take a terabyte of memory, and one that doubles with each line.
    #[test]
    fn what_aliases_stand_for_is_counted_before_it_is_copied() {
        let long = format!("a: &a \"{}\"\nb: [{}]\n", "y".repeat(MAX_TEXT_BYTES / 100), "*a, ".repeat(150));
        let many = format!("a: &a x\nb: [{}]\n", "*a, ".repeat(201));
        let doubling =
            (1..30).fold("a0: &a0 [x]\n".to_owned(), |text, n| text + &format!("a{n}: &a{n} [*a{0}, *a{0}]\n", n - 1));
        for text in [&long, &many, &doubling] {
            let mut faults = Vec::new();
            assert!(parse(text, LIMITS, &mut faults).is_none());
            assert!(faults[0].what.contains("asks for more than it may"), "{faults:?}");
        }
        read(&format!("a: &a x\nb: [{}]\n", "*a, ".repeat(200)));
    }
}
