//! `${NAME}`, `${NAME:default}` and `SECRET[backend.name]` inside string values.

use std::collections::{BTreeMap, HashSet};

use super::load::Fault;
use super::place::{Place, Places, Scalar};
use crate::secret::SecretBackends;

/// The text with everything put in, and what must be known about it afterwards.
pub(crate) struct Substituted {
    pub(crate) text: String,
    /// Values that hold something secret, as a whole.
    pub(crate) revealed: HashSet<String>,
    /// Values that refer to a secret nobody needs, by their path: they stand as they were written.
    pub(crate) withheld: BTreeMap<String, String>,
    shifts: Vec<Shift>,
}

/// Where the values come from that references stand for.
pub(crate) struct Sources<'a> {
    pub(crate) secrets: &'a SecretBackends,
    pub(crate) env: &'a dyn Fn(&str) -> Option<String>,
    /// Whether the secrets of the value at a path are read.
    pub(crate) needed: &'a dyn Fn(&Places, &str) -> bool,
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

/// Replaces references in all values of `text`; all that cannot be resolved are returned together.
pub(crate) fn substitute(text: &str, places: &Places, from: &Sources<'_>) -> Result<Substituted, Vec<Fault>> {
    let mut faults = Vec::new();
    let mut result = Substituted {
        text: String::with_capacity(text.len()),
        revealed: HashSet::new(),
        withheld: BTreeMap::new(),
        shifts: Vec::new(),
    };
    let mut done = 0;
    for scalar in places.scalars.iter().filter(|scalar| refers(&scalar.text)) {
        let needed = (from.needed)(places, &scalar.path);
        let Some(value) = resolve(scalar, from, needed, &mut faults) else { continue };
        if value.withheld {
            result.withheld.insert(scalar.path.clone(), scalar.text.clone());
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
    if faults.is_empty() { Ok(result) } else { Err(faults) }
}

fn refers(text: &str) -> bool {
    text.contains("${") || text.contains("SECRET[")
}

struct Value {
    text: String,
    secret: bool,
    /// A secret in it was not read.
    withheld: bool,
}

fn resolve(scalar: &Scalar, from: &Sources<'_>, needed: bool, faults: &mut Vec<Fault>) -> Option<Value> {
    let fault = |what: String, help: String| Fault {
        place: Some(scalar.place),
        path: Some(scalar.path.clone()),
        what,
        help: Some(help),
        ..Fault::default()
    };
    if !scalar.replaceable {
        let help = "write the value on one line, in quotes";
        faults.push(fault("a reference stands in a value of several lines".to_owned(), help.to_owned()));
        return None;
    }
    let mut value = Value { text: String::new(), secret: false, withheld: false };
    let mut rest = scalar.text.as_str();
    let before = faults.len();
    while let Some((plain, reference, after)) = next_reference(rest) {
        value.text.push_str(plain);
        match reference {
            Reference::Literal => value.text.push_str("${"),
            Reference::Unclosed(form) => {
                faults.push(fault(
                    format!("a reference has no end: `{form}`"),
                    "close it, or write `$${` for a plain `${`".into(),
                ));
                return None;
            }
            Reference::Variable { name, default } => match (from.env)(name).or_else(|| default.map(str::to_owned)) {
                Some(text) => value.text.push_str(&text),
                None => faults.push(fault(
                    format!("the variable `{name}` is not set"),
                    format!("set `{name}`, or give a default: `${{{name}:default}}`"),
                )),
            },
            // What a reference looks like is checked all the same: it is wrong for whoever needs it.
            Reference::Secret(name) if !needed => match from.secrets.locate(name) {
                Ok(_) => value.withheld = true,
                Err(error) => faults.push(fault(crate::telemetry::chain(&error).to_string(), error.help())),
            },
            Reference::Secret(name) => match from.secrets.read(name, from.env) {
                Ok(text) => {
                    value.secret = true;
                    value.text.push_str(&text);
                }
                Err(error) => faults.push(fault(crate::telemetry::chain(&error).to_string(), error.help())),
            },
        }
        rest = after;
    }
    value.text.push_str(rest);
    (faults.len() == before).then_some(value)
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
