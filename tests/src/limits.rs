//! Law L10: Apple's limits, as Apple's own clock sees them.

use chrono::{DateTime, Duration, Utc};
use windfall_simulator::journal::{Line, Record, Response, Start};

use crate::checker::Breach;
use crate::journal::responses;

/// For so long one token must do, while it is valid.
const TOKEN_LASTS: Duration = Duration::minutes(10);

/// Returns how the simulator was set up.
#[must_use]
pub fn setup(journal: &[Line]) -> Option<&Start> {
    journal.iter().find_map(|line| match &line.record {
        Record::Start(start) => Some(start),
        _ => None,
    })
}

/// Returns the reads, those refused too, in the order in which they came: the journal holds answers in the order in which they left.
fn reads(journal: &[Line]) -> Vec<&Response> {
    let mut reads: Vec<&Response> = responses(journal).filter(|it| it.route != "token").collect();
    reads.sort_by_key(|it| it.at_wall);
    reads
}

/// Returns the most reads that came in any sliding window of so many seconds.
#[must_use]
pub fn busiest(journal: &[Line], seconds: u32) -> usize {
    windows(&reads(journal), seconds).map(|(inside, _)| inside).max().unwrap_or(0)
}

fn windows<'a>(reads: &'a [&Response], seconds: u32) -> impl Iterator<Item = (usize, DateTime<Utc>)> + 'a {
    let length = Duration::seconds(i64::from(seconds));
    reads.iter().enumerate().map(move |(at, first)| {
        let end = reads.partition_point(|it| it.at_wall < first.at_wall + length);
        (end - at, first.at_wall)
    })
}

/// L10, first and second clause: no sliding window holds more reads than the simulator's limit, and nothing is asked for, of the API
/// or of the token endpoint, before the `Retry-After` it gave is over.
#[must_use]
pub fn limits_kept(journal: &[Line]) -> Vec<Breach> {
    let Some((limit, seconds)) = setup(journal).and_then(|start| Some((start.limit?, start.limit_seconds))) else {
        return vec!["L10: the simulator had no limit to keep".to_owned()];
    };
    let reads = reads(journal);
    let mut breaches: Vec<Breach> = windows(&reads, seconds)
        .filter(|(inside, _)| *inside > limit as usize)
        .map(|(inside, from)| format!("L10: {inside} reads in the {seconds} s from {from}, {limit} are allowed"))
        .collect();
    let mut tokens: Vec<&Response> = responses(journal).filter(|it| it.route == "token").collect();
    tokens.sort_by_key(|it| it.at_wall);
    breaches.extend(asked_too_early(&reads));
    breaches.extend(asked_too_early(&tokens));
    breaches
}

/// The longest wait counts until it is over, whatever was answered meanwhile.
fn asked_too_early(asked: &[&Response]) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let mut until: Option<DateTime<Utc>> = None;
    for answer in asked {
        if let Some(until) = until.filter(|until| answer.at_wall < *until) {
            breaches.push(format!("L10: {} was asked for at {}, before {until}", answer.target, answer.at_wall));
        }
        until = until.max(answer.retry_until);
    }
    breaches
}

/// L10, third clause: a process asks for one token in ten minutes, unless the API refused the one it had or it was given none.
///
/// `started` says when each process that may ask began, or when a standby may have taken over. With `standbys` a token that was not
/// asked for at one of these moments may be asked for later: nobody but the group knows when the standby takes over.
#[must_use]
pub fn tokens_kept(journal: &[Line], started: &[DateTime<Utc>], standbys: bool) -> Vec<Breach> {
    let mut all: Vec<&Response> = responses(journal).collect();
    all.sort_by_key(|it| it.at_wall);
    let mut breaches = Vec::new();
    // When the process now running was given the token that it still may use.
    let mut given: Option<DateTime<Utc>> = None;
    let (mut process, mut left) = (0, 0_usize);
    for answer in all {
        while started.get(process).is_some_and(|began| *began <= answer.at_wall) {
            process += 1;
            left += 1;
            given = None;
        }
        if answer.route != "token" {
            given = given.filter(|_| answer.status != Some(401));
            continue;
        }
        if process == 0 {
            breaches.push(format!("L10: a token was asked for at {}, by nobody", answer.at_wall));
        }
        if standbys && left > 0 {
            given = None;
        }
        left = left.saturating_sub(1);
        if let Some(given) = given.filter(|given| answer.at_wall - *given < TOKEN_LASTS) {
            breaches.push(format!("L10: a token was asked for at {}, the one of {given} was valid", answer.at_wall));
        }
        given = (answer.status == Some(200) && answer.complete).then_some(answer.at_wall);
    }
    breaches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_767_225_600 + seconds, 0).expect("a time")
    }

    fn line(record: Record) -> Line {
        Line { seq: 1, record }
    }

    fn answer(route: &str, seconds: i64, status: u16) -> Response {
        let (route, status) = (route.to_owned(), Some(status));
        Response { at_wall: at(seconds), route, status, complete: true, readable: true, ..Response::default() }
    }

    fn journal(limit: u32, answers: impl IntoIterator<Item = Response>) -> Vec<Line> {
        let start = Start {
            at_wall: at(0),
            at: at(0),
            seed: 1,
            orgs: vec![],
            devices: 0,
            limit: Some(limit),
            limit_seconds: 60,
        };
        let answers = answers.into_iter().map(|it| line(Record::Response(Box::new(it))));
        std::iter::once(line(Record::Start(start))).chain(answers).collect()
    }

    #[test]
    fn a_read_too_many_in_a_minute_is_found() {
        let reads = |times: [i64; 3]| times.map(|seconds| answer("devices", seconds, 200));
        assert!(limits_kept(&journal(3, reads([0, 30, 59]))).is_empty());
        assert_eq!(limits_kept(&journal(2, reads([0, 30, 59]))).len(), 1);
        assert_eq!(limits_kept(&journal(2, reads([59, 0, 30]))).len(), 1, "whatever order they stand in");
        assert!(limits_kept(&journal(2, reads([0, 30, 60]))).is_empty());
        assert_eq!(busiest(&journal(2, reads([0, 30, 60])), 60), 2);
        assert_eq!(limits_kept(&[]).len(), 1, "no limit to keep");
    }

    #[test]
    fn a_read_before_the_retry_after_is_over_is_found() {
        let told = || Response { retry_until: Some(at(10)), ..answer("devices", 5, 429) };
        assert!(limits_kept(&journal(9, [told(), answer("devices", 10, 200)])).is_empty());
        assert_eq!(limits_kept(&journal(9, [told(), answer("servers", 9, 200)])).len(), 1);
        assert_eq!(
            limits_kept(&journal(9, [answer("servers", 9, 200), told()])).len(),
            1,
            "whatever order they stand in"
        );
        let between = [told(), answer("devices", 12, 200), answer("devices", 8, 200), answer("devices", 9, 200)];
        assert_eq!(limits_kept(&journal(9, between)).len(), 2, "not only the next one");
        let token = Response { retry_until: Some(at(10)), ..answer("token", 5, 429) };
        assert_eq!(limits_kept(&journal(9, [token, answer("token", 9, 200)])).len(), 1);
    }

    #[test]
    fn a_token_too_many_is_found() {
        let two = || [answer("token", 1, 200), answer("token", 100, 200)];
        assert_eq!(tokens_kept(&journal(9, two()), &[at(0)], false).len(), 1);
        assert!(tokens_kept(&journal(9, two()), &[at(0), at(90)], false).is_empty(), "each process may ask");
        assert_eq!(tokens_kept(&journal(9, two()), &[], false).len(), 3, "somebody must have asked");
        let refused = [answer("token", 1, 200), answer("devices", 50, 401), answer("token", 51, 200)];
        assert!(tokens_kept(&journal(9, refused), &[at(0)], false).is_empty());
        let failed = [answer("token", 1, 503), answer("token", 2, 200), answer("token", 3, 200)];
        assert_eq!(tokens_kept(&journal(9, failed), &[at(0)], false).len(), 1);
        assert!(tokens_kept(&journal(9, two()), &[at(0), at(1)], true).is_empty(), "the standby took over later");
        let three = [answer("token", 1, 200), answer("token", 100, 200), answer("token", 200, 200)];
        assert_eq!(tokens_kept(&journal(9, three), &[at(0), at(1)], true).len(), 1, "each of them once");
        let late = [answer("token", 1, 200), answer("token", 601, 200)];
        assert!(tokens_kept(&journal(9, late), &[at(0)], false).is_empty());
    }
}
