//! Reading a fault script.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize as _;
use serde::de::value::{Error as ValueError, StrDeserializer};

use super::rule::{Action, ItemFault, RetryAfter, Rule, Target, When};

/// A script of faults.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FaultScript {
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// Why a fault script cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// The file could not be read.
    #[error("could not read the fault script `{path}`")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A rule cannot be understood.
    #[error("fault {number}, `{rule}`: {problem}")]
    Rule {
        /// Number of the rule, from 1.
        number: usize,
        /// The rule as it was written.
        rule: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl ScriptError {
    /// Returns what the operator can do.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => {
                "name a readable file, or write the rules themselves, such as `devices @2 reset`"
            }
            Self::Rule { .. } => {
                "a rule is TARGET [WHEN …] ACTION [NAME=VALUE …], such as `devices @2 429 retry-after=30`"
            }
        }
    }
}

impl FaultScript {
    /// Reads a script from a file, or from `spec` itself when no such file is there.
    ///
    /// # Errors
    /// When the file cannot be read or a rule cannot be understood.
    pub fn load(spec: &str) -> Result<Self, ScriptError> {
        match std::fs::read_to_string(spec) {
            Ok(text) => text.parse(),
            // A script has spaces, a path that was meant has none.
            Err(source) if !spec.trim().contains(char::is_whitespace) => {
                Err(ScriptError::Unreadable { path: spec.to_owned(), source })
            }
            Err(_) => spec.parse(),
        }
    }
}

impl FromStr for FaultScript {
    type Err = ScriptError;

    fn from_str(text: &str) -> Result<Self, ScriptError> {
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
        let written = lines.flat_map(|line| line.split(';')).map(str::trim).filter(|rule| !rule.is_empty());
        let rules = written.enumerate().map(|(place, text)| {
            rule(text).map_err(|problem| ScriptError::Rule { number: place + 1, rule: text.to_owned(), problem })
        });
        Ok(Self { rules: rules.collect::<Result<_, _>>()? })
    }
}

const ROUTES: &[&str] =
    &["token", "devices", "device", "assigned-server-id", "assigned-server", "servers", "server", "linkage"];

fn rule(text: &str) -> Result<Rule, String> {
    let mut words = text.split_whitespace().peekable();
    let target = target(words.next().unwrap_or_default())?;
    let mut when = When::default();
    while let Some(word) = words.peek() {
        if !condition(word, &mut when)? {
            break;
        }
        words.next();
    }
    let name = words.next().ok_or("the action is missing")?;
    let mut settings = Settings::default();
    for word in words {
        if condition(word, &mut when)? {
            continue;
        }
        let (name, value) = word.split_once('=').unwrap_or((word, "yes"));
        settings.given.insert(name, value);
    }
    let action = action(name, &mut settings)?;
    match settings.given.keys().next() {
        Some(name) => Err(format!("`{name}` is no setting of this action")),
        None => Ok(Rule { target, when, action, text: text.to_owned() }),
    }
}

fn target(word: &str) -> Result<Target, String> {
    match word {
        "*" => Ok(Target::All),
        path if path.starts_with('/') => Ok(Target::Path(path.to_owned())),
        route if ROUTES.contains(&route) => Ok(Target::Route(route.to_owned())),
        _ => Err(format!("`{word}` is no target: use `*`, a path, or one of {}", ROUTES.join(", "))),
    }
}

/// Takes a word as a condition; `false` when it is none.
fn condition(word: &str, when: &mut When) -> Result<bool, String> {
    let whole = |text: &str| text.parse::<u64>().map_err(|_| format!("`{text}` in `{word}` is no whole number"));
    if let Some(range) = word.strip_prefix('@') {
        let (from, to) = match range.split_once("..") {
            Some((from, "")) => (whole(from)?, None),
            Some((from, to)) => (whole(from)?, Some(whole(to)?)),
            None => (whole(range)?, Some(whole(range)?)),
        };
        (when.from, when.to) = (Some(from), to);
    } else if let Some(times) = word.strip_prefix('x').filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit())) {
        when.times = Some(whole(times)?);
    } else if let Some(every) = word.strip_prefix("every=") {
        when.every = Some(whole(every)?.max(1));
    } else if let Some(page) = word.strip_prefix("page=") {
        when.page = Some(u32::try_from(whole(page)?).unwrap_or(u32::MAX));
    } else if let Some(org) = word.strip_prefix("org=") {
        when.org = Some(org.to_owned());
    } else if word.ends_with('%') && !word.contains('=') {
        when.chance = Some(share(word)?);
    } else {
        return Ok(false);
    }
    Ok(true)
}

#[derive(Debug, Default)]
struct Settings<'a> {
    given: BTreeMap<&'a str, &'a str>,
}

impl Settings<'_> {
    fn number<T: FromStr>(&mut self, name: &str, usual: T) -> Result<T, String> {
        match self.given.remove(name) {
            None => Ok(usual),
            Some(text) => text.parse().map_err(|_| format!("`{name}={text}` is no number that fits")),
        }
    }

    fn share(&mut self, name: &str, usual: f64) -> Result<f64, String> {
        self.given.remove(name).map_or(Ok(usual), share)
    }

    fn flag(&mut self, name: &str) -> bool {
        self.given.remove(name).is_some()
    }
}

fn share(text: &str) -> Result<f64, String> {
    let percent = text.strip_suffix('%').and_then(|number| number.parse::<f64>().ok());
    percent
        .filter(|percent| (0.0..=100.0).contains(percent))
        .map(|percent| percent / 100.0)
        .ok_or_else(|| format!("`{text}` is no percentage from 0% to 100%"))
}

fn action(name: &str, settings: &mut Settings<'_>) -> Result<Action, String> {
    if let Ok(status) = name.parse::<u16>() {
        return status_action(status, settings);
    }
    Ok(match name {
        "revoke" => Action::Revoke,
        "bad-cursor" => Action::BadCursor(settings.number("status", 400)?),
        "reset" => Action::Reset(match settings.given.remove("at") {
            Some(at) => Some(share(at)?),
            None => None,
        }),
        "hang" => Action::Hang,
        "delay" => Action::Delay(Duration::from_millis(settings.number("ms", 500)?)),
        "drip" => Action::Drip(settings.number("bytes", 1)?),
        "cut" => Action::Cut(settings.share("at", 0.5)?),
        "bad-utf8" => Action::BadUtf8,
        "deep" => Action::Deep,
        "duplicate-keys" => Action::DuplicateKeys,
        "html" => Action::Html,
        "huge" => Action::Huge(settings.number("mib", 64)?),
        "bomb" => Action::Bomb(settings.number("mib", 64)?),
        "skip" => Action::Shift(settings.number("n", 1)?),
        "repeat" => Action::Shift(settings.number("n", 1_i64)?.saturating_neg()),
        "empty" => Action::Empty,
        "empty-page" => Action::EmptyPage,
        "cut-list" => Action::CutList(settings.share("keep", 0.1)?),
        "total" => Action::Total(settings.number("by", 5)?),
        "next-to" => {
            Action::NextTo(settings.given.remove("to").unwrap_or("https://evil.example/v1/orgDevices").to_owned())
        }
        "next-loop" => Action::NextLoop,
        "double-link" => Action::DoubleLink(settings.number("n", 1)?),
        "lag" => Action::Lag(Duration::from_secs(settings.number("seconds", 60)?)),
        "date" => Action::Date(settings.number("by", 86_400)?),
        _ => item_action(name, settings)?,
    })
}

fn status_action(status: u16, settings: &mut Settings<'_>) -> Result<Action, String> {
    if !(400..=599).contains(&status) {
        return Err(format!("`{status}` is no status from 400 to 599"));
    }
    let retry_after = match (settings.given.remove("retry-after"), status) {
        (None, 429) => RetryAfter::Seconds(1),
        (None | Some("none"), _) => RetryAfter::Missing,
        (Some("garbage"), _) => RetryAfter::Garbage,
        (Some(text), _) => {
            let (date, number) = text.strip_prefix("date:").map_or((false, text), |number| (true, number));
            let wrong = || format!("`retry-after={text}` is none of a number, date:NUMBER, garbage, none");
            let seconds = number.parse().map_err(|_| wrong())?;
            if date { RetryAfter::Date(seconds) } else { RetryAfter::Seconds(seconds) }
        }
    };
    Ok(Action::Status { status, retry_after, html: settings.flag("html") })
}

fn item_action(name: &str, settings: &mut Settings<'_>) -> Result<Action, String> {
    let fault = ItemFault::deserialize(StrDeserializer::<ValueError>::new(name));
    let fault = fault.map_err(|_| format!("`{name}` is no action"))?;
    let count = settings.number("n", 1)?;
    Ok(Action::Item { fault, count, device: settings.given.remove("device").map(str::to_owned) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Rule {
        let mut rules = text.parse::<FaultScript>().unwrap().rules;
        assert_eq!(rules.len(), 1, "{text}");
        rules.remove(0)
    }

    #[test]
    fn a_rule_is_read_as_it_was_meant() {
        let rule = one("devices @2..5 org=acme 429 retry-after=date:30 html x1");
        assert_eq!(rule.target, Target::Route("devices".to_owned()));
        assert_eq!(
            rule.when,
            When { from: Some(2), to: Some(5), org: Some("acme".to_owned()), times: Some(1), ..When::default() }
        );
        assert_eq!(rule.action, Action::Status { status: 429, retry_after: RetryAfter::Date(30), html: true });
        let chance = one("* 2.5% page=3 every=2 reset at=50%");
        assert_eq!(chance.when, When { chance: Some(0.025), page: Some(3), every: Some(2), ..When::default() });
        assert_eq!(chance.action, Action::Reset(Some(0.5)));
        assert_eq!(one("/v1/mdmServers/** @4.. 403").when.to, None);
    }

    #[test]
    fn comments_and_empty_rules_are_left_out() {
        let script: FaultScript = "# nothing\ndevices reset; ;token 400 # twice\n\n".parse().unwrap();
        assert_eq!(
            script.rules.iter().map(|rule| rule.text.as_str()).collect::<Vec<_>>(),
            ["devices reset", "token 400"]
        );
    }

    #[test]
    fn every_mistake_is_named_with_its_rule() {
        for (text, expected) in [
            ("device reset; divices reset", "fault 2, `divices reset`: `divices` is no target"),
            ("devices", "the action is missing"),
            ("devices @2", "the action is missing"),
            ("devices @two reset", "`two` in `@two` is no whole number"),
            ("devices 200", "`200` is no status from 400 to 599"),
            ("devices 120% reset", "`120%` is no percentage"),
            ("devices reset tomorrow=1", "`tomorrow` is no setting of this action"),
            ("devices 429 retry-after=soon", "`retry-after=soon` is none of"),
            ("devices explode", "`explode` is no action"),
            ("devices cut at=half", "`half` is no percentage"),
            ("devices skip n=-", "`n=-` is no number"),
        ] {
            let error = text.parse::<FaultScript>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_missing_file_is_told_from_a_script() {
        assert!(matches!(FaultScript::load("./no-such-file.faults"), Err(ScriptError::Unreadable { .. })));
        assert!(FaultScript::load("devices @1 reset").is_ok());
    }
}
