//! Which rules play in an answer.

use super::rule::{Action, Rule, Target};
use super::script::FaultScript;
use crate::draw::Draw;

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
