//! Faults of the reader in our own words: no lines of the file are printed, since they may hold a secret.

use serde_saphyr::{Error, MessageFormatter, UserMessageFormatter};

/// How alike two names must be for one to be offered for the other: one or two slips of the finger.
const ALIKE: f64 = 0.78;

/// Returns the one of `known` that `name` was probably meant to be.
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

/// Returns the key that is missing, where the error is about one.
pub(crate) fn missing(error: &Error) -> Option<&str> {
    match error {
        Error::SerdeMissingField { field, .. } => Some(field),
        _ => None,
    }
}

/// Says what is wrong with a value of that kind, without the value, and what to do about it.
pub(crate) fn describe(error: &Error, kind: &str) -> (String, Option<String>) {
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
        Error::SerdeInvalidType { expected, .. } | Error::SerdeInvalidValue { expected, .. } => {
            (format!("{kind} stands here, but it must be {expected}"), None)
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
        other => (UserMessageFormatter.format_message(other).into_owned(), None),
    }
}
