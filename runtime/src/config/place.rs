//! Where each value of a YAML file stands.

use std::collections::BTreeMap;
use std::fmt;

use super::load::Fault;
use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, Span};

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

/// A scalar value (never a key) as it stands in the file.
#[derive(Debug, Clone)]
pub(crate) struct Scalar {
    pub(crate) path: String,
    pub(crate) text: String,
    /// Whether it stands on one line, plain or quoted, so that it can be replaced.
    pub(crate) replaceable: bool,
    pub(crate) bytes: std::ops::Range<usize>,
    pub(crate) place: Place,
}

/// The places of all keys and list items of one file, by path.
#[derive(Debug, Clone, Default)]
pub struct Places {
    by_path: BTreeMap<String, Place>,
    in_order: Vec<(Place, String)>,
    pub(crate) scalars: Vec<Scalar>,
    /// Why the text is no YAML, if it is none.
    pub(crate) fault: Option<Fault>,
}

enum Frame {
    Map { path: String, key: Option<(String, Place)> },
    List { path: String, next: usize },
}

impl Places {
    /// Finds the places of `text`, up to where it is no YAML.
    pub(crate) fn of(text: &str) -> Self {
        let mut places = Self::default();
        let mut stack = Vec::new();
        for event in Parser::new_from_str(text) {
            match event {
                Ok((event, span)) => places.take(&mut stack, &event, span),
                Err(error) => {
                    let place = Place { line: error.marker().line(), column: error.marker().col() + 1 };
                    let help = "check the indentation, and that brackets and quotes are closed";
                    let what = format!("this is no YAML: {}", error.info());
                    places.fault =
                        Some(Fault { place: Some(place), what, help: Some(help.to_owned()), ..Fault::default() });
                    break;
                }
            }
        }
        places
    }

    fn take(&mut self, stack: &mut Vec<Frame>, event: &Event<'_>, span: Span) {
        let here = Place { line: span.start.line(), column: span.start.col() + 1 };
        match event {
            Event::MappingEnd | Event::SequenceEnd => {
                stack.pop();
            }
            Event::Scalar(text, style, ..) => {
                if let Some(Frame::Map { key: key @ None, .. }) = stack.last_mut() {
                    *key = Some((text.to_string(), here));
                    return;
                }
                let path = self.enter(stack, here);
                let replaceable = span.start.line() == span.end.line()
                    && matches!(style, ScalarStyle::Plain | ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted);
                if let (Some(from), Some(to)) = (span.start.byte_offset(), span.end.byte_offset()) {
                    self.scalars.push(Scalar {
                        path,
                        text: text.to_string(),
                        replaceable,
                        bytes: from..to,
                        place: here,
                    });
                }
            }
            Event::MappingStart(..) => {
                let path = self.enter(stack, here);
                stack.push(Frame::Map { path, key: None });
            }
            Event::SequenceStart(..) => {
                let path = self.enter(stack, here);
                stack.push(Frame::List { path, next: 0 });
            }
            Event::Alias(..) => {
                self.enter(stack, here);
            }
            _ => {}
        }
    }

    /// Names the value that begins at `here`, notes its place, and returns its path.
    fn enter(&mut self, stack: &mut [Frame], here: Place) -> String {
        let (path, place) = match stack.last_mut() {
            None => return String::new(),
            Some(Frame::Map { path, key }) => {
                let (key, place) = key.take().unwrap_or_else(|| ("?".to_owned(), here));
                (if path.is_empty() { key } else { format!("{path}.{key}") }, place)
            }
            Some(Frame::List { path, next }) => {
                *next += 1;
                (format!("{path}[{}]", *next - 1), here)
            }
        };
        self.by_path.insert(path.clone(), place);
        self.in_order.push((place, path.clone()));
        path
    }

    /// Returns the place of `path`, or of the nearest thing around it that stands in the file.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<Place> {
        let mut path = path;
        loop {
            if let Some(place) = self.by_path.get(path) {
                return Some(*place);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }

    /// Returns the text of the value at `path` as it stands in the file, references included; none where it is no single value.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<&str> {
        self.scalars.iter().find(|scalar| scalar.path == path).map(|scalar| scalar.text.as_str())
    }

    /// Returns the path of what begins exactly at `place`: the innermost when several do.
    #[must_use]
    pub fn path_at(&self, place: Place) -> Option<&str> {
        self.in_order.iter().rev().find(|(at, _)| *at == place).map(|(_, path)| path.as_str())
    }

    /// Returns the path of the mapping that begins at `place`: a block mapping begins with its first key.
    pub(crate) fn mapping_at(&self, place: Place) -> Option<&str> {
        let Some((_, path)) = self.in_order.iter().find(|(at, _)| *at == place) else { return self.path_before(place) };
        if path.ends_with(']') { Some(path) } else { path.rfind(['.', '[']).map(|end| &path[..end]) }
    }

    /// Returns the path of the last thing that begins at or before `place`.
    #[must_use]
    pub fn path_before(&self, place: Place) -> Option<&str> {
        self.in_order.iter().rev().find(|(at, _)| *at <= place).map(|(_, path)| path.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_and_item_has_its_place() {
        let places = Places::of("a: 1\nlist:\n  - name: x\n    deep: { k: v }\n  - two\n");
        let at = |path: &str| places.find(path).map(|p| (p.line, p.column));
        assert_eq!(at("a"), Some((1, 1)));
        assert_eq!(at("list[0].deep.k"), Some((4, 13)));
        assert_eq!(at("list[1]"), Some((5, 5)));
        assert_eq!(at("list[0].missing.deeper"), at("list[0]"), "the nearest thing around it");
        assert_eq!(at("nothing"), None);
    }
}
