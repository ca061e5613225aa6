//! `${NAME}`, `${NAME:default}` and `SECRET[backend.name]` inside string values.

use std::collections::{BTreeMap, HashSet};

use super::load::Fault;
use super::place::{Place, Places, Scalar};
use crate::diagnose::Diagnose as _;
use crate::secret::SecretBackends;

/// The text with everything put in, and what must be known about it afterwards.
pub(crate) struct Substituted {
    pub(crate) text: String,
    /// Values that hold something secret, as a whole.
    pub(crate) revealed: HashSet<String>,
    /// Values that refer to a secret that was not read, or to nothing, by their path: they stand as they were written.
    pub(crate) withheld: BTreeMap<String, String>,
    /// Everything that is wrong with references and the values behind them.
    pub(crate) faults: Vec<Fault>,
    /// What is read all the same, and worth a word.
    pub(crate) warnings: Vec<String>,
    shifts: Vec<Shift>,
}

/// Whether a secret is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// It is needed: one that is not there is a fault.
    Needed,
    /// It is looked at where it is there.
    IfThere,
    /// It is not looked for, so it may be out of reach.
    Never,
}

/// Where the values come from that references stand for.
pub(crate) struct Sources<'a> {
    pub(crate) secrets: &'a SecretBackends,
    pub(crate) env: &'a dyn Fn(&str) -> Option<String>,
    /// Whether the secrets of the value at a path are read.
    pub(crate) reading: &'a dyn Fn(&Places, &str) -> Reading,
}

/// A replaced value: where it stood, and how long it was and is, in characters.
struct Shift {
    place: Place,
    old: usize,
    new: usize,
}

impl Substituted {
    /// Translates a place in the new text into one in the file.
    pub(crate) fn place_in_file(&self, place: Place) -> Place {
        let mut column = place.column;
        for shift in self.shifts.iter().filter(|shift| shift.place.line == place.line) {
            if column >= shift.place.column + shift.new {
                column = column + shift.old - shift.new;
            } else if column > shift.place.column {
                column = shift.place.column;
            }
        }
        Place { line: place.line, column }
    }
}

/// Replaces references in all values of `text`.
pub(crate) fn substitute(text: &str, places: &Places, from: &Sources<'_>) -> Substituted {
    let mut result = Substituted {
        text: String::with_capacity(text.len()),
        revealed: HashSet::new(),
        withheld: BTreeMap::new(),
        faults: Vec::new(),
        warnings: Vec::new(),
        shifts: Vec::new(),
    };
    let mut done = 0;
    for scalar in &places.scalars {
        let before = result.faults.len();
        let reading = (from.reading)(places, &scalar.path);
        let value = resolve(scalar, from, reading, &mut result.faults, &mut result.warnings);
        if result.faults.len() == before
            && let Some(end) = scalar.replaceable.then(|| stray(&value.text)).flatten()
        {
            let what = format!("the value begins or ends with {end}");
            let help =
                "take it out where the value is kept; a file with Windows line ends has one at the end of each line";
            result.faults.push(fault(scalar, what, help.to_owned()));
        }
        if value.withheld || result.faults.len() > before {
            result.withheld.insert(scalar.path.clone(), scalar.text.clone());
            continue;
        }
        if !refers(&scalar.text) {
            continue;
        }
        let written = serde_json::Value::String(value.text.clone()).to_string();
        if value.secret {
            result.revealed.insert(value.text);
        }
        result.text.push_str(&text[done..scalar.bytes.start]);
        result.text.push_str(&written);
        done = scalar.bytes.end;
        let old = text[scalar.bytes.clone()].chars().count();
        result.shifts.push(Shift { place: scalar.place, old, new: written.chars().count() });
    }
    result.text.push_str(&text[done..]);
    result
}

fn refers(text: &str) -> bool {
    text.contains("${") || text.contains("SECRET[")
}

/// Names the control character that a value begins or ends with; a key in PEM form is read whatever its line ends are.
fn stray(text: &str) -> Option<&'static str> {
    let odd = [text.chars().next_back(), text.chars().next()].into_iter().flatten().find(|c| c.is_control())?;
    match odd {
        _ if text.contains("-----BEGIN") => None,
        '\r' => Some("a carriage return (`\\r`)"),
        '\n' => Some("a line feed (`\\n`)"),
        '\t' => Some("a tab (`\\t`)"),
        '\0' => Some("a zero byte (`\\0`)"),
        _ => Some("a control character"),
    }
}

struct Value {
    text: String,
    secret: bool,
    /// A secret in it was not read.
    withheld: bool,
}

fn fault(scalar: &Scalar, what: String, help: String) -> Fault {
    let (place, path) = (Some(scalar.place), Some(scalar.path.clone()));
    Fault { place, path, what, help: Some(help), ..Fault::default() }
}

fn resolve(
    scalar: &Scalar,
    from: &Sources<'_>,
    reading: Reading,
    faults: &mut Vec<Fault>,
    warnings: &mut Vec<String>,
) -> Value {
    let mut value = Value { text: String::new(), secret: false, withheld: false };
    let mut tell = |what: String, help: String| faults.push(fault(scalar, what, help));
    if !scalar.replaceable && refers(&scalar.text) {
        let help = "write the value on one line, in quotes";
        tell("a reference stands in a value of several lines".to_owned(), help.to_owned());
        return value;
    }
    let mut rest = scalar.text.as_str();
    while let Some((plain, reference, after)) = next_reference(rest) {
        value.text.push_str(plain);
        match reference {
            Reference::Literal => value.text.push_str("${"),
            Reference::Unclosed(form) => {
                let help = "close it, or write `$${` for a plain `${`";
                tell(format!("a reference has no end: `{form}`"), help.to_owned());
            }
            Reference::Variable { name, default } => match (from.env)(name).or_else(|| default.map(str::to_owned)) {
                Some(text) => value.text.push_str(&text),
                None => tell(
                    format!("the variable `{name}` is not set"),
                    format!("set `{name}`, or give a default: `${{{name}:default}}`"),
                ),
            },
            // What a reference looks like is checked all the same: it is wrong for whoever needs it.
            Reference::Secret(name) => match from.secrets.read(name, from.env, reading, warnings) {
                Ok(Some(text)) => {
                    value.secret = true;
                    value.text.push_str(&text);
                }
                Ok(None) => value.withheld = true,
                Err(error) => {
                    tell(crate::telemetry::chain(&error).to_string(), error.help().unwrap_or_default().into_owned());
                }
            },
        }
        rest = after;
    }
    value.text.push_str(rest);
    value
}

enum Reference<'a> {
    /// `$${`
    Literal,
    Variable {
        name: &'a str,
        default: Option<&'a str>,
    },
    Secret(&'a str),
    Unclosed(&'static str),
}

/// Splits `text` at its first reference.
fn next_reference(text: &str) -> Option<(&str, Reference<'_>, &str)> {
    let at = match (text.find("${"), text.find("SECRET[")) {
        (Some(variable), Some(secret)) => variable.min(secret),
        (Some(at), None) | (None, Some(at)) => at,
        (None, None) => return None,
    };
    let (plain, from) = text.split_at(at);
    if let Some(inner) = from.strip_prefix("SECRET[") {
        return Some(match inner.split_once(']') {
            Some((name, after)) => (plain, Reference::Secret(name), after),
            None => (plain, Reference::Unclosed("SECRET["), ""),
        });
    }
    let inner = &from[2..];
    if let Some(plain) = plain.strip_suffix('$') {
        return Some((plain, Reference::Literal, inner));
    }
    Some(match inner.split_once('}') {
        Some((body, after)) => {
            let (name, default) = body.split_once(':').map_or((body, None), |(name, default)| (name, Some(default)));
            (plain, Reference::Variable { name, default }, after)
        }
        None => (plain, Reference::Unclosed("${"), ""),
    })
}
