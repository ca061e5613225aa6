use chrono::{DateTime, Utc};
use proptest::prelude::*;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn apple(share: f64) -> Limit {
    Limit { requests: 20, per: MINUTE, share }
}

fn wall(now: Duration) -> DateTime<Utc> {
    DateTime::from_timestamp(1_795_260_000, 0).unwrap() + now
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Waits as the budget says and sends; returns when the request left.
fn send(budget: &mut Budget, mut now: Duration, late: Duration) -> Duration {
    let ticket = budget.enter(Priority::Scan);
    loop {
        match budget.ask(ticket, now) {
            Turn::Go => return now,
            Turn::Wait(wait) => now += wait + late,
            Turn::Busy => unreachable!("nobody else is here"),
        }
    }
}

/// One request: how late timers fire, the way there, the way back, the pause until the next; whether we crash before it.
type Trip = (u64, u64, u64, u64, u8);

/// Sends trips one after another and returns when Apple saw them.
fn seen_by_apple(limit: Limit, trips: &[Trip]) -> Vec<Duration> {
    let mut now = millis(100_000_000);
    let mut state = LimiterState::default();
    let mut budget = Budget::take_over(limit, &state, now, wall(now));
    let mut seen = Vec::new();
    for (late, there, back, pause, crash) in trips {
        if *crash == 0 {
            budget.write(&mut state);
            budget = Budget::take_over(limit, &state, now, wall(now));
        }
        now = send(&mut budget, now, millis(*late)) + millis(*there);
        seen.push(now);
        if *crash == 1 {
            // The answer is never read: the process is gone, and the next one begins at once.
            budget.write(&mut state);
            budget = Budget::take_over(limit, &state, now, wall(now));
        } else {
            now += millis(*back);
            budget.answered(now);
        }
        now += millis(*pause);
    }
    seen
}

fn trips() -> impl Strategy<Value = Vec<Trip>> {
    let quick = (0_u64..20, 0_u64..300, 0_u64..200, Just(0_u64), 2_u8..20);
    let slow = (0_u64..500, 0_u64..30_000, 0_u64..30_000, 0_u64..4_000, 0_u8..20);
    let uneven = (Just(0_u64), prop_oneof![Just(0_u64), Just(2_900)], Just(0_u64), Just(0_u64), 2_u8..20);
    prop_oneof![
        prop::collection::vec(quick, 60..150),
        prop::collection::vec(slow, 40..120),
        prop::collection::vec(uneven, 60..150),
    ]
}

proptest! {
    #[test]
    fn apple_never_sees_more_than_the_limit_in_any_minute(trips in trips(), share in prop_oneof![Just(1.0), 0.05_f64..1.0]) {
        let limit = apple(share);
        let seen = seen_by_apple(limit, &trips);
        let allowed = limit.window();
        for window in seen.windows(allowed + 1) {
            prop_assert!(window[allowed] - window[0] > MINUTE, "{:?}", window[allowed] - window[0]);
        }
    }

    #[test]
    fn no_two_requests_leave_within_a_period(pauses in prop::collection::vec(0_u64..10_000, 2..60)) {
        let mut budget = Budget::take_over(apple(1.0), &LimiterState::default(), Duration::ZERO, wall(Duration::ZERO));
        let (mut now, mut left) = (Duration::ZERO, Vec::new());
        for pause in pauses {
            now = send(&mut budget, now, Duration::ZERO);
            left.push(now);
            budget.answered(now);
            now += millis(pause);
        }
        for pair in left.windows(2) {
            prop_assert!(pair[1] - pair[0] >= millis(3060), "{pair:?}");
        }
    }
}

#[test]
fn the_whole_limit_is_used_when_answers_are_quick() {
    let seen = seen_by_apple(apple(1.0), &[(0, 100, 100, 0, 2); 200]);
    let whole = seen[199] - seen[0];
    assert!(whole < millis(199 * 3_061), "{whole:?}");
}

#[test]
fn whoever_takes_over_waits_a_period_and_no_more_than_two() {
    let start = millis(500_000);
    let mut budget = Budget::take_over(apple(1.0), &LimiterState::default(), start, wall(start));
    let first = send(&mut budget, start, Duration::ZERO) - start;
    assert!(first >= millis(3_060) && first <= millis(6_120), "{first:?}");
}

#[test]
fn a_retry_after_is_obeyed_to_the_second_and_over_a_restart() {
    for seconds in [0, 1, 60, 3600] {
        let wait = Duration::from_secs(seconds);
        let mut now = MINUTE * 10;
        let mut budget = Budget::take_over(apple(1.0), &LimiterState::default(), now, wall(now));
        now = send(&mut budget, now, Duration::ZERO);
        budget.throttled(wait, now, wall(now));
        budget.answered(now);
        let mut state = LimiterState::default();
        budget.write(&mut state);
        let here = send(&mut budget, now, Duration::ZERO);
        assert!(here - now >= wait.max(millis(6_120)), "{seconds}: {:?}", here - now);
        let later = now + wait / 2;
        // The clock of the next process begins anew.
        let mut next = Budget::take_over(apple(1.0), &state, Duration::ZERO, wall(later));
        let there = send(&mut next, Duration::ZERO, Duration::ZERO);
        assert!(later + there - now >= wait, "{seconds}: {there:?}");
    }
}

#[test]
fn a_clock_set_back_a_day_makes_no_wait_longer_than_apple_asked_for() {
    let now = MINUTE;
    let mut budget = Budget::take_over(apple(1.0), &LimiterState::default(), now, wall(now));
    budget.throttled(Duration::from_secs(90), now, wall(now));
    let mut state = LimiterState::default();
    budget.write(&mut state);
    let yesterday = wall(now) - chrono::Duration::days(1);
    let next = Budget::take_over(apple(1.0), &state, Duration::ZERO, yesterday);
    assert_eq!(next.pace(Duration::ZERO).wait, Duration::from_secs(90));
}

#[test]
fn a_retry_after_of_a_century_is_obeyed_for_a_day() {
    let mut budget = Budget::take_over(apple(1.0), &LimiterState::default(), MINUTE, wall(MINUTE));
    budget.throttled(Duration::from_secs(u64::MAX), MINUTE, wall(MINUTE));
    assert_eq!(budget.pace(MINUTE).wait, LONGEST_RETRY_AFTER);
}

#[test]
fn a_429_halves_the_pace_and_a_quiet_minute_gives_one_request_back() {
    let mut budget = Budget::take_over(apple(1.0), &LimiterState::default(), MINUTE, wall(MINUTE));
    budget.throttled(Duration::ZERO, MINUTE, wall(MINUTE));
    assert_eq!(budget.pace(MINUTE).period, millis(6_120));
    let mut now = send(&mut budget, MINUTE * 3, Duration::ZERO);
    budget.answered(now);
    assert!(budget.pace(now).period < millis(5_600), "{:?}", budget.pace(now).period);
    now = send(&mut budget, MINUTE * 60, Duration::ZERO);
    assert_eq!(budget.pace(now).period, millis(3_060));
}

#[test]
fn refusals_without_end_leave_a_sixteenth_of_the_pace() {
    let mut budget = Budget::take_over(apple(1.0), &LimiterState::default(), MINUTE, wall(MINUTE));
    for _ in 0..50 {
        budget.throttled(Duration::ZERO, MINUTE, wall(MINUTE));
    }
    assert_eq!(budget.pace(MINUTE).period, millis(48_960));
}

#[test]
fn a_lowered_pace_is_taken_over() {
    let mut budget = Budget::take_over(apple(1.0), &LimiterState::default(), MINUTE, wall(MINUTE));
    budget.throttled(Duration::from_secs(5), MINUTE, wall(MINUTE));
    let mut state = LimiterState::default();
    budget.write(&mut state);
    let next = Budget::take_over(apple(1.0), &state, MINUTE, wall(MINUTE));
    assert_eq!(next.pace(MINUTE).period, millis(6_120));
}

#[test]
fn only_one_request_is_in_flight() {
    let mut budget = Budget::take_over(apple(1.0), &LimiterState::default(), Duration::ZERO, wall(Duration::ZERO));
    let now = send(&mut budget, Duration::ZERO, Duration::ZERO);
    let other = budget.enter(Priority::LookUp);
    assert_eq!(budget.ask(other, now + MINUTE), Turn::Busy);
    budget.answered(now + MINUTE);
    assert_eq!(budget.ask(other, now + MINUTE), Turn::Go);
}

#[test]
fn a_state_of_an_older_version_is_read() {
    let state: LimiterState = serde_json::from_str(r#"{"tokens":["2026-11-21T09:14:03Z"]}"#).unwrap();
    assert_eq!(state.tokens.len(), 1);
    let text = serde_json::to_string(&state).unwrap();
    assert_eq!(serde_json::from_str::<LimiterState>(&text).unwrap(), state);
}

#[test]
fn an_estimate_counts_the_wait_and_the_periods_after_it() {
    let pace = Pace { wait: millis(500), period: millis(3_060), ..Pace::default() };
    assert_eq!(pace.estimate(0), Duration::ZERO);
    assert_eq!(pace.estimate(3), millis(500 + 2 * 3_060));
}

#[test]
fn what_a_predecessor_may_have_sent_holds_requests_back_and_is_not_shown_as_sent() {
    let limit = Limit { requests: 6_000, per: MINUTE, share: 1.0 };
    let mut now = millis(100_000_000);
    let mut budget = Budget::take_over(limit, &LimiterState::default(), now, wall(now));
    assert_eq!((budget.pace(now).used, budget.pace(now).limit), (0, 6_000));
    for _ in 0..24 {
        now = send(&mut budget, now, millis(1)) + millis(1);
        budget.answered(now);
    }
    assert_eq!(budget.pace(now).used, 24);
}
