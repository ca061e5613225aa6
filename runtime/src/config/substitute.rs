//! `${NAME}`, `${NAME:default}` and `SECRET[backend.name]` inside string values.

use std::collections::HashSet;

use super::load::Fault;
use super::yaml::{At, Node, Scalar};
use crate::diagnose::Diagnose as _;
use crate::secret::SecretBackends;

/// What must be known of a tree in which references were replaced.
pub(crate) struct Substituted {
    /// Values that hold something secret, as a whole.
    pub(crate) revealed: HashSet<String>,
    /// Paths of the values that refer to a secret that was not read, or to nothing: they stand as they were written.
    pub(crate) withheld: Vec<String>,
    /// What was read all the same, and is worth a word.
    pub(crate) warnings: Vec<String>,
}

/// Whether a secret is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretReading {
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
    pub(crate) reading: &'a dyn Fn(&str) -> SecretReading,
}

/// Replaces references in all single values of a tree, and adds everything that is wrong with them.
pub(crate) fn substitute(root: &mut At<Node>, from: &Sources<'_>, faults: &mut Vec<Fault>) -> Substituted {
    let mut result = Substituted { revealed: HashSet::new(), withheld: Vec::new(), warnings: Vec::new() };
    root.each(&mut |spot, node| {
        let place = node.place;
        let Node::Scalar(scalar) = &mut node.value else { return };
        let before = faults.len();
        let mut refuse = |what: String, help: String| {
            let (place, path) = (Some(place), Some(spot.path.clone()));
            faults.push(Fault { place, path, what, help: Some(help), ..Fault::default() });
        };
        let mut value = resolve(scalar, from, (from.reading)(&spot.path), &mut refuse, &mut result.warnings);
        if let Some(end) = value.as_ref().filter(|_| scalar.one_line).and_then(|value| stray(&value.text)) {
            let help =
                "take it out where the value is kept; a file with Windows line ends has one at the end of each line";
            refuse(format!("the value begins or ends with {end}"), help.to_owned());
        }
        if faults.len() > before {
            value = None;
        }
        match value {
            None => {
                result.withheld.push(spot.path.clone());
                scalar.secret = true;
            }
            Some(Value { text, secret }) if refers(&scalar.text) => {
                if secret {
                    result.revealed.insert(text.clone());
                }
                scalar.replace(text, secret);
            }
            Some(_) => {}
        }
    });
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
}

/// Puts a value together; `None` where something is wrong with it, or a secret in it was not read.
fn resolve(
    scalar: &Scalar,
    from: &Sources<'_>,
    reading: SecretReading,
    refuse: &mut dyn FnMut(String, String),
    warnings: &mut Vec<String>,
) -> Option<Value> {
    let mut value = Value { text: String::new(), secret: false };
    let mut whole = true;
    if !scalar.one_line && refers(&scalar.text) {
        let help = "write the value on one line, in quotes";
        refuse("a reference stands in a value of several lines".to_owned(), help.to_owned());
        return None;
    }
    let mut rest = scalar.text.as_str();
    while let Some((plain, reference, after)) = next_reference(rest) {
        value.text.push_str(plain);
        match reference {
            Reference::Literal => value.text.push_str("${"),
            Reference::Unclosed(form) => {
                let help = "close it, or write `$${` for a plain `${`";
                refuse(format!("a reference has no end: `{form}`"), help.to_owned());
            }
            Reference::Variable { name, default } => match (from.env)(name).or_else(|| default.map(str::to_owned)) {
                Some(text) => value.text.push_str(&text),
                None => refuse(
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
                Ok(None) => whole = false,
                Err(error) => {
                    refuse(crate::telemetry::chain(&error).to_string(), error.help().unwrap_or_default().into_owned());
                }
            },
        }
        rest = after;
    }
    value.text.push_str(rest);
    whole.then_some(value)
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
