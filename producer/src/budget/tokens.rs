//! How often a token may be asked for: the endpoint locks out whoever asks too often.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{LONGEST_RETRY_AFTER, LimiterState};

/// Token requests in [`WINDOW`], over all restarts; the endpoint was seen to refuse after about 30.
const MOST: usize = 10;
const WINDOW: Duration = Duration::from_secs(5 * 60);
/// Refusals in a row after which one request is made in each [`PAUSE`].
const PATIENCE: u32 = 3;
const PAUSE: Duration = Duration::from_secs(10 * 60);

/// Why no token may be asked for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenWait {
    /// Too many requests of late.
    TooMany(Duration),
    /// Too many refusals in a row, or the endpoint said so.
    Held(Duration),
}

/// The last token requests.
#[derive(Debug, Clone, Default)]
pub struct TokenBudget {
    asked: Vec<DateTime<Utc>>,
    refusals: u32,
    not_before: Option<DateTime<Utc>>,
    account: String,
}

impl TokenBudget {
    /// Takes over what an earlier process did.
    ///
    /// What lies in the future was written by a clock that has been set back since; it counts as asked for now.
    /// Refusals belong to the `account` that met them: whoever has put the right key in its place need not wait.
    pub fn take_over(state: &LimiterState, account: &str, now: DateTime<Utc>) -> Self {
        let asked = state.tokens.iter().map(|asked| (*asked).min(now)).collect();
        let not_before = state.tokens_not_before.map(|until| until.min(now + LONGEST_RETRY_AFTER));
        let same = state.account.as_deref().is_none_or(|refused| refused == account);
        let (refusals, not_before) = if same { (state.refusals, not_before) } else { (0, None) };
        Self { asked, refusals, not_before, account: account.to_owned() }
    }

    /// Returns why a token may not be asked for now, if so.
    #[must_use]
    pub fn wait(&self, now: DateTime<Utc>) -> Option<TokenWait> {
        let left = |until: DateTime<Utc>| (until - now).to_std().ok().filter(|left| !left.is_zero());
        // A clock that was set back makes no wait longer than the rule itself.
        let after = |from: DateTime<Utc>, pause: Duration| left(from + pause).map(|wait| wait.min(pause));
        let refused = (self.refusals >= PATIENCE).then(|| self.asked.last()).flatten();
        let held = refused.and_then(|last| after(*last, PAUSE)).max(self.not_before.and_then(left));
        if let Some(wait) = held {
            return Some(TokenWait::Held(wait));
        }
        let oldest = self.asked.len().checked_sub(MOST).and_then(|place| self.asked.get(place));
        oldest.and_then(|oldest| after(*oldest, WINDOW)).map(TokenWait::TooMany)
    }

    /// Notes a request, before it is sent.
    pub fn ask(&mut self, now: DateTime<Utc>) {
        for asked in &mut self.asked {
            *asked = (*asked).min(now);
        }
        self.asked.push(now);
        let surplus = self.asked.len().saturating_sub(MOST);
        self.asked.drain(..surplus);
    }

    /// Notes a refusal: 400, 401 or 429. Returns how long no other token may be asked for.
    pub fn refused(&mut self, now: DateTime<Utc>, retry_after: Option<Duration>) -> Duration {
        self.refusals = self.refusals.saturating_add(1);
        if let Some(wait) = retry_after {
            self.not_before = Some(now + wait.min(LONGEST_RETRY_AFTER));
        }
        match self.wait(now) {
            Some(TokenWait::Held(wait) | TokenWait::TooMany(wait)) => wait,
            None => Duration::ZERO,
        }
    }

    /// Notes that the endpoint asked for patience without refusing us.
    pub fn hold(&mut self, now: DateTime<Utc>, retry_after: Duration) {
        self.not_before = Some(now + retry_after.min(LONGEST_RETRY_AFTER));
    }

    /// Notes a token.
    pub fn granted(&mut self) {
        self.refusals = 0;
        self.not_before = None;
    }

    /// Returns the refusals in a row.
    pub fn refusals(&self) -> u32 {
        self.refusals
    }

    /// Returns what must survive a restart; the rest is left as it is in `state`.
    pub fn write(&self, state: &mut LimiterState) {
        state.tokens.clone_from(&self.asked);
        state.refusals = self.refusals;
        state.tokens_not_before = self.not_before;
        state.account = (self.refusals > 0 || self.not_before.is_some()).then(|| self.account.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_795_000_000 + seconds, 0).unwrap()
    }

    fn fresh() -> TokenBudget {
        TokenBudget::take_over(&LimiterState::default(), "a", at(0))
    }

    fn restarted(tokens: &TokenBudget, now: DateTime<Utc>) -> TokenBudget {
        let mut state = LimiterState::default();
        tokens.write(&mut state);
        TokenBudget::take_over(&state, "a", now)
    }

    #[test]
    fn the_eleventh_token_in_five_minutes_waits_over_any_number_of_restarts() {
        let mut tokens = fresh();
        for second in 0..10 {
            tokens = restarted(&tokens, at(second));
            assert_eq!(tokens.wait(at(second)), None);
            tokens.ask(at(second));
            tokens.granted();
        }
        assert_eq!(tokens.wait(at(10)), Some(TokenWait::TooMany(Duration::from_secs(290))));
        assert_eq!(restarted(&tokens, at(299)).wait(at(299)), Some(TokenWait::TooMany(Duration::from_secs(1))));
        assert_eq!(tokens.wait(at(300)), None);
    }

    #[test]
    fn after_three_refusals_one_request_is_made_in_ten_minutes_over_restarts() {
        let mut tokens = fresh();
        for second in 0..3 {
            assert_eq!(tokens.wait(at(second)), None);
            tokens.ask(at(second));
            tokens.refused(at(second), None);
        }
        tokens = restarted(&tokens, at(3));
        assert_eq!(tokens.wait(at(3)), Some(TokenWait::Held(Duration::from_secs(599))));
        assert_eq!(tokens.wait(at(602)), None);
        tokens.ask(at(602));
        assert_eq!(tokens.refused(at(602), None), Duration::from_secs(600));
        assert_eq!(tokens.wait(at(603)), Some(TokenWait::Held(Duration::from_secs(599))));
    }

    #[test]
    fn another_key_need_not_wait_for_what_the_old_one_met_and_yet_counts() {
        let mut tokens = fresh();
        for second in 0..3 {
            tokens.ask(at(second));
            tokens.refused(at(second), None);
        }
        let mut state = LimiterState::default();
        tokens.write(&mut state);
        let mut other = TokenBudget::take_over(&state, "b", at(3));
        assert_eq!((other.wait(at(3)), other.refusals()), (None, 0));
        for second in 3..10 {
            other.ask(at(second));
        }
        assert_eq!(other.wait(at(10)), Some(TokenWait::TooMany(Duration::from_secs(290))));
    }

    #[test]
    fn a_token_ends_the_row_of_refusals() {
        let mut tokens = fresh();
        for second in 0..2 {
            tokens.ask(at(second));
            tokens.refused(at(second), None);
        }
        tokens.granted();
        tokens.ask(at(2));
        assert_eq!(tokens.refused(at(2), None), Duration::ZERO);
    }

    #[test]
    fn the_endpoints_own_retry_after_is_obeyed_to_the_second() {
        let mut tokens = fresh();
        tokens.ask(at(0));
        assert_eq!(tokens.refused(at(0), Some(Duration::from_secs(77))), Duration::from_secs(77));
        let tokens = restarted(&tokens, at(50));
        assert_eq!(tokens.wait(at(76)), Some(TokenWait::Held(Duration::from_secs(1))));
        assert_eq!(tokens.wait(at(77)), None);
    }

    #[test]
    fn a_clock_set_back_a_day_holds_nobody_for_a_day() {
        let mut tokens = fresh();
        for second in 0..10 {
            tokens.ask(at(86_400 + second));
        }
        let tokens = restarted(&tokens, at(0));
        assert_eq!(tokens.wait(at(0)), Some(TokenWait::TooMany(Duration::from_secs(300))));
        assert_eq!(tokens.wait(at(300)), None);
    }
}
