//! Faults of the reader in our own words: no lines of the file are printed, since they may hold a secret.

use serde_saphyr::{Error, MessageFormatter, UserMessageFormatter};

use super::load::Fault;
use super::place::{Place, Places};

/// How alike two names must be for one to be offered for the other: one or two slips of the finger.
const ALIKE: f64 = 0.78;

/// Returns the one of `known` that `name` was probably meant to be.
#[must_use]
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    known
        .into_iter()
        .map(|candidate| (likeness(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// Likeness from 0 to 1; one slip in a short word, such as two letters exchanged, counts as alike.
fn likeness(name: &str, candidate: &str) -> f64 {
    let alike = strsim::jaro_winkler(name, candidate);
    let slips = strsim::osa_distance(name, candidate);
    if slips <= 1 && candidate.len() >= 3 { alike.max(ALIKE) } else { alike }
}

/// Says what a name that is not known may have been meant to be: "did you mean `b`? known here: `a`, `b`".
#[must_use]
pub fn suggestion(name: &str, known: &[&str]) -> String {
    let mut sorted = known.to_vec();
    sorted.sort_unstable();
    let list = sorted.iter().map(|known| format!("`{known}`")).collect::<Vec<_>>().join(", ");
    match nearest(name, known.iter().copied()) {
        Some(meant) => format!("did you mean `{meant}`? known here: {list}"),
        None if list.is_empty() => "nothing is known here; take it away".to_owned(),
        None => format!("known here: {list}"),
    }
}

/// Ends a message about a name that is not known: the one that was probably meant, or all of a short list.
#[must_use]
pub fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    /// Up to so many names are listed when none is near.
    const LISTED: usize = 12;
    let known: Vec<&str> = known.into_iter().collect();
    match (nearest(name, known.iter().copied()), known.len()) {
        (Some(near), _) => format!("; did you mean `{near}`?"),
        (None, 1..=LISTED) => format!("; it may be one of `{}`", known.join("`, `")),
        (None, _) => String::new(),
    }
}

/// What is said of a file that breaks a limit; reading it again without a part would take as long.
pub(crate) const TOO_MUCH: &str = "the file asks for more than a configuration needs (nesting, aliases or size)";

/// Turns an error of the reader into a fault of the text that has these places.
pub(crate) fn explain(error: &Error, places: &Places) -> Fault {
    let error = error.without_snippet();
    let place = error.location().filter(|location| location.line() > 0).map(|location| {
        let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        Place { line: number(location.line()), column: number(location.column()) }
    });
    let path = place
        .and_then(|place| match missing(error) {
            Some(_) => places.mapping_at(place),
            None => places.path_at(place).or_else(|| places.path_before(place)),
        })
        .map(str::to_owned);
    let (what, help) = describe(error);
    Fault { place, path, what, help, ..Fault::default() }
}

/// Returns the key that is missing, where the error is about one.
pub(crate) fn missing(error: &Error) -> Option<&str> {
    match error.without_snippet() {
        Error::SerdeMissingField { field, .. } => Some(field),
        _ => None,
    }
}

fn describe(error: &Error) -> (String, Option<String>) {
    match error {
        Error::SerdeUnknownField { field, expected, .. } => {
            (format!("the key `{field}` is not known"), Some(suggestion(field, expected)))
        }
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            (format!("`{variant}` is not a value that can stand here"), Some(suggestion(variant, expected)))
        }
        Error::SerdeMissingField { field, .. } => {
            (format!("the key `{field}` is missing"), Some(format!("add `{field}:` here")))
        }
        Error::DuplicateMappingKey { key, .. } => (
            format!("the key `{}` stands twice", key.as_deref().unwrap_or("?")),
            Some("keep one of the two".to_owned()),
        ),
        Error::SerdeInvalidType { unexpected, expected, .. }
        | Error::SerdeInvalidValue { unexpected, expected, .. } => {
            (format!("{} stands here, but it must be {expected}", without_value(unexpected)), None)
        }
        Error::InvalidScalar { ty, .. } => (format!("the value cannot be read as {ty}"), None),
        Error::QuotingRequired { .. } => (
            "a text is wanted here, and without quotes this is something else".to_owned(),
            Some("put the value in quotes".to_owned()),
        ),
        Error::Message { msg, .. } => match msg.split_once("; ") {
            Some((what, help)) => (what.to_owned(), Some(help.to_owned())),
            None => (msg.clone(), None),
        },
        other => {
            let text = UserMessageFormatter.format_message(other);
            // A limit that an alias breaks comes wrapped in the error of the alias.
            if text.starts_with("YAML document too large") {
                return (TOO_MUCH.to_owned(), Some("write it without anchors that refer to anchors".to_owned()));
            }
            (text.into_owned(), None)
        }
    }
}

/// Takes the value itself away (`string "hunter2"` becomes `a string`): it may be a secret.
fn without_value(unexpected: &str) -> &str {
    for kind in ["string", "boolean", "integer", "floating point", "character"] {
        if unexpected.starts_with(kind) {
            return match kind {
                "string" => "a text",
                "boolean" => "true or false",
                "integer" => "a whole number",
                "floating point" => "a number",
                _ => "a character",
            };
        }
    }
    match unexpected {
        "map" => "a group of keys",
        "sequence" => "a list",
        "unit value" | "null" => "nothing",
        _ => "another kind of value",
    }
}
