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

/// A key with its value, or an item of a list.
#[derive(Debug, Clone)]
struct Entry {
    place: Place,
    path: String,
    bytes: std::ops::Range<usize>,
}

/// The places of all keys and list items of one file, by path.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// In the order of the file; the entry of an alias has no bytes of its own.
    entries: Vec<Entry>,
    by_path: BTreeMap<String, usize>,
    pub(crate) scalars: Vec<Scalar>,
    /// Why the text is no YAML, if it is none.
    pub(crate) fault: Option<Fault>,
}

enum Frame {
    Map { path: String, entry: Option<usize>, key: Option<(String, Place, usize)> },
    List { path: String, entry: Option<usize>, next: usize },
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
        let (from, to) = (span.start.byte_offset().unwrap_or_default(), span.end.byte_offset().unwrap_or_default());
        match event {
            Event::MappingEnd | Event::SequenceEnd => {
                if let Some(Frame::Map { entry: Some(at), .. } | Frame::List { entry: Some(at), .. }) = stack.pop() {
                    self.entries[at].bytes.end = to;
                }
            }
            Event::Scalar(text, style, ..) => {
                if let Some(Frame::Map { key: key @ None, .. }) = stack.last_mut() {
                    *key = Some((text.to_string(), here, from));
                    return;
                }
                let (path, entry) = self.enter(stack, here, from);
                if let Some(at) = entry {
                    self.entries[at].bytes.end = to;
                }
                let replaceable = span.start.line() == span.end.line()
                    && matches!(style, ScalarStyle::Plain | ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted);
                let text = text.to_string();
                self.scalars.push(Scalar { path, text, replaceable, bytes: from..to, place: here });
            }
            Event::MappingStart(..) => {
                let (path, entry) = self.enter(stack, here, from);
                stack.push(Frame::Map { path, entry, key: None });
            }
            Event::SequenceStart(..) => {
                let (path, entry) = self.enter(stack, here, from);
                stack.push(Frame::List { path, entry, next: 0 });
            }
            Event::Alias(..) => {
                if let (_, Some(at)) = self.enter(stack, here, from) {
                    self.entries[at].bytes.end = to;
                }
            }
            _ => {}
        }
    }

    /// Names the value that begins at `here`, notes its entry, and returns its path and where the entry is kept.
    fn enter(&mut self, stack: &mut [Frame], here: Place, from: usize) -> (String, Option<usize>) {
        let (path, place, from) = match stack.last_mut() {
            None => return (String::new(), None),
            Some(Frame::Map { path, key, .. }) => {
                let (key, place, from) = key.take().unwrap_or_else(|| ("?".to_owned(), here, from));
                (if path.is_empty() { key } else { format!("{path}.{key}") }, place, from)
            }
            Some(Frame::List { path, next, .. }) => {
                *next += 1;
                (format!("{path}[{}]", *next - 1), here, from)
            }
        };
        self.by_path.insert(path.clone(), self.entries.len());
        self.entries.push(Entry { place, path: path.clone(), bytes: from..from });
        (path, Some(self.entries.len() - 1))
    }

    /// Returns the place of `path`, or of the nearest thing around it that stands in the file.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<Place> {
        Some(self.entries[self.nearest(path)?.0].place)
    }

    /// Returns the entry of `path`, or of the nearest thing around it, and what of the path is left over.
    fn nearest<'a>(&self, path: &'a str) -> Option<(usize, &'a str)> {
        let mut known = path;
        loop {
            if let Some(at) = self.by_path.get(known) {
                return Some((*at, &path[known.len()..]));
            }
            known = &known[..known.rfind(['.', '['])?];
        }
    }

    /// Translates a path of this text into one of `original`, the text it was before something was taken out of it.
    pub(crate) fn path_in(&self, original: &Self, path: &str, translate: impl Fn(Place) -> Place) -> String {
        let translated = self.nearest(path).and_then(|(at, rest)| {
            let Entry { place, path, .. } = &self.entries[at];
            let place = translate(*place);
            // An item begins where its first key does; taking things out changes nothing but the numbers of items.
            let same = |entry: &&Entry| entry.place == place && shape(&entry.path) == shape(path);
            Some(format!("{}{rest}", original.entries.iter().find(same)?.path))
        });
        translated.unwrap_or_else(|| path.to_owned())
    }

    /// Overwrites the key or item at `path` in `text`, of which these are the places, with blanks, so that everything else
    /// keeps its place; returns false where that is not possible.
    pub(crate) fn blank(&self, text: &mut String, path: &str, place: Place) -> bool {
        let at_place = |entry: &&Entry| entry.path == path && entry.place <= place;
        let Some(entry) = self.entries.iter().rev().find(at_place) else { return false };
        let mut range = entry.bytes.clone();
        // A key without a value ends before its colon.
        if let Some(after) = text[range.end..].trim_start().strip_prefix(':') {
            range.end = text.len() - after.len();
        }
        // The comma of a list in brackets and the dash of a list in lines go with what they belong to.
        let before = text[..range.start].trim_end();
        if let Some(after) = text[range.end..].trim_start().strip_prefix(',') {
            range.end = text.len() - after.len();
        } else if before.ends_with(',') || (path.ends_with(']') && before.ends_with('-')) {
            range.start = before.len() - 1;
        }
        let blanks: String = text[range.clone()].chars().map(|c| if c == '\n' { c } else { ' ' }).collect();
        let changed = !blanks.is_empty();
        text.replace_range(range, &blanks);
        changed
    }

    /// Returns the text of the value at `path` as it stands in the file, references included; none where it is no single value.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<&str> {
        self.scalars.iter().find(|scalar| scalar.path == path).map(|scalar| scalar.text.as_str())
    }

    /// Returns the path of what begins exactly at `place`: the innermost when several do.
    #[must_use]
    pub fn path_at(&self, place: Place) -> Option<&str> {
        self.entries.iter().rev().find(|entry| entry.place == place).map(|entry| entry.path.as_str())
    }

    /// Returns the path of the mapping that begins at `place`: a block mapping begins with its first key.
    pub(crate) fn mapping_at(&self, place: Place) -> Option<&str> {
        let Some(Entry { path, .. }) = self.entries.iter().find(|entry| entry.place == place) else {
            return self.path_before(place);
        };
        if path.ends_with(']') { Some(path) } else { Some(&path[..path.rfind(['.', '[']).unwrap_or(0)]) }
    }

    /// Returns the path of the last thing that begins at or before `place`.
    #[must_use]
    pub fn path_before(&self, place: Place) -> Option<&str> {
        self.entries.iter().rev().find(|entry| entry.place <= place).map(|entry| entry.path.as_str())
    }
}

/// Returns the path without the numbers of items.
fn shape(path: &str) -> String {
    path.chars().filter(|c| !c.is_ascii_digit()).collect()
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
