//! The rules of a fault script, and which of them apply to an answer.

use std::time::Duration;

use serde::Deserialize;

use super::script::FaultScript;
use crate::draw::Draw;

/// One rule: where, when, what.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Answers that it is about.
    pub target: Target,
    /// Which of them it plays in.
    pub when: When,
    /// What it does.
    pub action: Action,
    /// The rule as it was written.
    pub text: String,
}

/// Answers that a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// All.
    All,
    /// Those of a route, by the name that the journal uses.
    Route(String),
    /// Those of paths that fit a pattern.
    Path(String),
}

/// Which matches a rule plays in: all conditions hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct When {
    /// First match, counted from 1.
    pub from: Option<u64>,
    /// Last match.
    pub to: Option<u64>,
    /// Every so manieth match.
    pub every: Option<u64>,
    /// By chance, from 0 to 1.
    pub chance: Option<f64>,
    /// On this page of a chain.
    pub page: Option<u32>,
    /// In this organization.
    pub org: Option<String>,
    /// At most so often.
    pub times: Option<u64>,
}

/// What `Retry-After` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RetryAfter {
    /// Whole seconds.
    Seconds(u32),
    /// An HTTP date so many seconds ahead.
    Date(u32),
    /// Nothing that can be understood.
    Garbage,
    /// The header is missing.
    Missing,
}

/// What is odd about an item, by the name that it has in a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ItemFault {
    /// An attribute that nobody knows.
    UnknownAttribute,
    /// A status that nobody knows.
    UnknownStatus,
    /// No `serialNumber`.
    NoSerial,
    /// No `id`.
    NoId,
    /// Neither `id` nor `serialNumber`.
    Nameless,
    /// No `attributes`.
    NoAttributes,
    /// Text that is JSON but no resource.
    #[serde(rename = "malformed-item")]
    Malformed,
    /// A number where a text belongs.
    WrongType,
    /// Strings for arrays, arrays for strings, `purchaseSourceUid`: as older answers had them.
    VariantShapes,
    /// The serial number in lower case with a space behind.
    SerialVariant,
    /// `updatedDateTime` a day earlier than it is.
    OldUpdated,
    /// The item twice in a page.
    Duplicate,
}

/// What a fault does.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Another status instead of the answer.
    Status {
        /// The status.
        status: u16,
        /// The header `Retry-After`.
        retry_after: RetryAfter,
        /// HTML instead of an error document.
        html: bool,
    },
    /// Ends the organization's tokens and answers 401.
    Revoke,
    /// Refuses the cursor with this status.
    BadCursor(u16),
    /// Resets the connection; after a share of the body when one is given.
    Reset(Option<f64>),
    /// Never answers.
    Hang,
    /// Answers late.
    Delay(Duration),
    /// Sends so many bytes a second.
    Drip(usize),
    /// Cuts the JSON after a share of it.
    Cut(f64),
    /// Puts a byte into the body that is no UTF-8.
    BadUtf8,
    /// Puts a value of 100,000 brackets into the body.
    Deep,
    /// Puts the member `data` into the body twice, empty the second time.
    DuplicateKeys,
    /// Answers 200 with HTML.
    Html,
    /// Puts so many MiB of white space in front.
    Huge(u64),
    /// Packs so many MiB of white space and the body with gzip, whatever the client asked for.
    Bomb(u64),
    /// Moves the begin of the next page by so many devices: forward skips, backward repeats.
    Shift(i64),
    /// No items and no next page.
    Empty,
    /// No items but a next page.
    EmptyPage,
    /// Ends the list here and keeps a share of the page.
    CutList(f64),
    /// Gives `meta.paging.total`, wrong by so many.
    Total(i64),
    /// Leads `links.next` elsewhere.
    NextTo(String),
    /// Leads to the same page again.
    NextLoop,
    /// Odd items.
    Item {
        /// What is odd.
        fault: ItemFault,
        /// How many items.
        count: usize,
        /// This device instead.
        device: Option<String>,
    },
    /// So many devices of other servers stand in this linkage list too.
    DoubleLink(usize),
    /// The linkage list shows what was so long ago.
    Lag(Duration),
    /// The header `Date` is wrong by so many seconds.
    Date(i64),
}

/// What a request is, as far as rules ask.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Match<'a> {
    pub(crate) route: &'static str,
    pub(crate) path: &'a str,
    pub(crate) org: Option<&'a str>,
    pub(crate) page: Option<u32>,
    pub(crate) cursor: bool,
}

/// Rules and how far they have played.
#[derive(Debug)]
pub(crate) struct Plan {
    rules: Vec<Playing>,
    draw: Draw,
}

#[derive(Debug)]
struct Playing {
    rule: Rule,
    matches: u64,
    played: u64,
}

impl Plan {
    /// Makes a plan that begins with a script.
    pub(crate) fn new(script: &FaultScript, seed: u64) -> Self {
        let mut plan = Self { rules: Vec::new(), draw: Draw::keyed(seed, &[0xFA]) };
        plan.add(script);
        plan
    }

    /// Adds the rules of a script behind those that stand.
    pub(crate) fn add(&mut self, script: &FaultScript) {
        self.rules.extend(script.rules.iter().map(|rule| Playing { rule: rule.clone(), matches: 0, played: 0 }));
    }

    /// Lifts every rule.
    pub(crate) fn clear(&mut self) {
        self.rules.clear();
    }

    /// Returns each rule with how often it has played.
    pub(crate) fn played(&self) -> Vec<(String, u64)> {
        self.rules.iter().map(|playing| (playing.rule.text.clone(), playing.played)).collect()
    }

    /// Returns the actions that play in the answer to a request, with their rules' text.
    pub(crate) fn take(&mut self, request: Match<'_>) -> Vec<(Action, String)> {
        let mut actions = Vec::new();
        for playing in &mut self.rules {
            if !fits(&playing.rule, request) {
                continue;
            }
            playing.matches += 1;
            if plays(playing, &mut self.draw) {
                playing.played += 1;
                actions.push((playing.rule.action.clone(), playing.rule.text.clone()));
            }
        }
        actions
    }
}

fn fits(rule: &Rule, request: Match<'_>) -> bool {
    let target = match &rule.target {
        Target::All => true,
        Target::Route(route) => route == request.route,
        Target::Path(pattern) => path_fits(pattern, request.path),
    };
    target
        && rule.when.page.is_none_or(|page| request.page == Some(page))
        && rule.when.org.as_deref().is_none_or(|org| request.org == Some(org))
        && (request.cursor || !matches!(rule.action, Action::BadCursor(_)))
}

fn plays(playing: &Playing, draw: &mut Draw) -> bool {
    let when = &playing.rule.when;
    let place = playing.matches;
    when.from.is_none_or(|from| place >= from)
        && when.to.is_none_or(|to| place <= to)
        && when.every.is_none_or(|every| place.is_multiple_of(every))
        && when.times.is_none_or(|times| playing.played < times)
        && when.chance.is_none_or(|share| draw.chance(share))
}

fn path_fits(pattern: &str, path: &str) -> bool {
    let mut parts = path.split('/');
    for expected in pattern.split('/') {
        if expected == "**" {
            return true;
        }
        match parts.next() {
            Some(part) if expected == "*" || expected == part => {}
            _ => return false,
        }
    }
    parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(script: &str, requests: usize) -> Vec<usize> {
        let mut plan = Plan::new(&script.parse().unwrap(), 7);
        let request =
            Match { route: "devices", path: "/v1/orgDevices", org: Some("acme"), page: Some(1), cursor: false };
        (1..=requests).filter(|_| !plan.take(request).is_empty()).collect::<Vec<_>>()
    }

    #[test]
    fn a_rule_plays_in_exactly_the_matches_that_it_names() {
        for (script, expected) in [
            ("devices @2 reset", vec![2]),
            ("devices @2..4 reset", vec![2, 3, 4]),
            ("devices @5.. x2 reset", vec![5, 6]),
            ("devices every=3 reset", vec![3, 6]),
            ("devices x1 reset", vec![1]),
            ("devices page=2 reset", vec![]),
            ("devices org=other reset", vec![]),
            ("devices bad-cursor", vec![]),
            ("device reset", vec![]),
            ("/v1/* @1 reset", vec![1]),
            ("/v1/orgDevices/* reset", vec![]),
            ("/** @7 reset", vec![7]),
        ] {
            assert_eq!(hits(script, 7), expected, "{script}");
        }
    }

    #[test]
    fn chance_follows_the_seed_and_its_share() {
        let some = hits("* 20% reset", 1000);
        assert_eq!(some, hits("* 20% reset", 1000));
        assert!((150..250).contains(&some.len()), "{}", some.len());
    }
}
