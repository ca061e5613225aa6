//! Access tokens: a signed assertion is exchanged for a token, which is kept until shortly before it expires.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use jsonwebtoken::{Algorithm, Header};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};
use url::Url;
use uuid::Uuid;
use windfall_runtime::clock::SharedClock;
use windfall_runtime::http::route::{Route, RouteError};
use xxhash_rust::xxh3::xxh3_64;
use zeroize::Zeroizing;

use super::error::TokenError;
use super::headers;
use super::key::SigningKey;
use super::transport::Settings;
use crate::budget::{LimiterState, TokenBudget, TokenWait};

/// The audience of the assertion by Apple's documentation, whatever `token_url` says.
const AUDIENCE: &str = "https://account.apple.com/auth/oauth2/v2/token";
/// Apple allows 180 days. Twenty minutes outlast any wait between signing and sending, and a leaked one is soon worthless.
const ASSERTION_LIFE: Duration = Duration::from_secs(20 * 60);
/// `iat` is set back by this much, since it is not known how far ahead of Apple's a client's clock may be.
const BACKDATED: Duration = Duration::from_secs(60);
/// Apple's tokens live an hour; this is also what a token without `expires_in` is given.
const USUAL_LIFE: Duration = Duration::from_secs(3600);
/// A token is renewed so long before its end, or at nine tenths of a shorter life.
const MARGIN: Duration = Duration::from_secs(5 * 60);
/// A server's `Date` that differs by less says nothing about a clock.
const SKEW_SECONDS: i64 = 60;
/// After a fresh token was refused by the API the next one is asked for after this long.
const FRESH_REFUSED: Duration = Duration::from_secs(5 * 60);
/// No token answer is larger.
const MAX_BODY: usize = 64 * 1024;

/// Who asks, for what, and where.
#[derive(Debug, Clone)]
pub struct Account {
    /// `BUSINESSAPI.…` or `SCHOOLAPI.…`.
    pub client_id: String,
    /// Goes into the assertion's `kid`; some accounts must leave it out.
    pub key_id: Option<String>,
    /// `business.api` or `school.api`.
    pub scope: &'static str,
    /// Where tokens are given out.
    pub token_url: Url,
}

impl Account {
    /// Tells credentials apart in what is kept of refusals.
    fn fingerprint(&self, key: &SigningKey) -> String {
        let Self { client_id, key_id, scope, token_url } = self;
        let text = format!("{client_id}\n{key_id:?}\n{scope}\n{token_url}\n{:x}", key.fingerprint());
        format!("{:016x}", xxh3_64(text.as_bytes()))
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'static str,
    iat: i64,
    exp: i64,
    jti: String,
}

/// Signs an assertion that is valid from shortly before `now` for twenty minutes.
///
/// # Errors
/// When the key cannot sign.
pub fn assertion(
    account: &Account,
    key: &SigningKey,
    now: DateTime<Utc>,
    jti: Uuid,
) -> Result<SecretString, TokenError> {
    let mut header = Header::new(Algorithm::ES256);
    header.kid.clone_from(&account.key_id);
    let claims = Claims {
        iss: &account.client_id,
        sub: &account.client_id,
        aud: AUDIENCE,
        iat: (now - BACKDATED).timestamp(),
        exp: (now + ASSERTION_LIFE).timestamp(),
        jti: jti.to_string(),
    };
    jsonwebtoken::encode(&header, &claims, key.encoding_key()).map(SecretString::from).map_err(TokenError::Signing)
}

/// A token, and when it is no longer used. It cannot be shown.
#[derive(Clone)]
pub struct Token {
    value: SecretString,
    /// By the clock that only goes forward, so that no step of the wall clock keeps a dead token alive.
    until: Duration,
    serial: u64,
}

impl Token {
    /// Returns the token, for the header `Authorization` alone.
    pub(crate) fn expose(&self) -> &str {
        self.value.expose_secret()
    }
}

/// Where identifiers of assertions come from; a test passes its own.
pub type Identifiers = Box<dyn Fn() -> Uuid + Send + Sync>;

/// Provides tokens: one is cached, one request is in flight, and requests are limited so that Apple does not lock the account.
pub struct Tokens {
    account: Account,
    key: SigningKey,
    http: reqwest::Client,
    route: Route,
    clock: SharedClock,
    identifiers: Identifiers,
    /// Held across the request, so that whoever comes meanwhile waits for its answer.
    cached: tokio::sync::Mutex<Option<Token>>,
    ledger: Mutex<Ledger>,
}

struct Ledger {
    budget: TokenBudget,
    /// Whether a request is counted and durable, but not sent yet.
    reserved: bool,
    /// Until when the cached token is good; for the question whether a new one is due, which must not wait.
    until: Option<Duration>,
    given: u64,
    /// Tokens in a row that the API did not accept.
    rejected: u32,
    /// How far our clock lags behind the server's, once the server has refused our times.
    correction: chrono::Duration,
    /// Whether the correction came with the last refusal and was not tried yet.
    corrected: bool,
}

impl Tokens {
    /// Takes the account over, with what an earlier process has already asked for.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn take_over(
        account: Account,
        key: SigningKey,
        settings: &Settings,
        state: &LimiterState,
        clock: SharedClock,
        identifiers: Identifiers,
    ) -> Result<Self, RouteError> {
        let budget = TokenBudget::take_over(state, &account.fingerprint(&key), clock.now());
        let ledger = Ledger {
            budget,
            reserved: false,
            until: None,
            given: 0,
            rejected: 0,
            correction: chrono::Duration::zero(),
            corrected: false,
        };
        Ok(Self {
            account,
            key,
            http: settings.client(false)?,
            route: settings.route.clone(),
            clock,
            identifiers,
            cached: tokio::sync::Mutex::new(None),
            ledger: Mutex::new(ledger),
        })
    }

    /// Begins to count anew with what `state` says; the token at hand stays good.
    pub fn take_over_again(&self, state: &LimiterState) {
        let budget = TokenBudget::take_over(state, &self.account.fingerprint(&self.key), self.clock.now());
        self.lock().budget = budget;
    }

    /// Counts the next token request ahead, if one is due and allowed; tells whether the state has changed by it.
    pub fn reserve(&self) -> bool {
        let (now, wall) = (self.clock.elapsed(), self.clock.now());
        let mut ledger = self.lock();
        let due = ledger.until.is_none_or(|until| until <= now);
        if !due || ledger.reserved || ledger.budget.wait(wall).is_some() {
            return false;
        }
        ledger.budget.ask(wall);
        ledger.reserved = true;
        true
    }

    /// Writes what must survive a restart.
    pub fn write(&self, state: &mut LimiterState) {
        self.lock().budget.write(state);
    }

    /// Returns the cached token, or asks for one.
    ///
    /// # Errors
    /// When Apple gives none, or when asking once more is not wise yet.
    pub async fn token(&self) -> Result<Token, TokenError> {
        let mut cached = self.cached.lock().await;
        if let Some(token) = cached.as_ref().filter(|token| token.until > self.clock.elapsed()) {
            return Ok(token.clone());
        }
        *cached = None;
        self.lock().until = None;
        let token = match self.ask().await {
            Err(TokenError::Refused { .. }) if self.take_correction() => self.ask().await?,
            answer => answer?,
        };
        self.lock().until = Some(token.until);
        *cached = Some(token.clone());
        Ok(token)
    }

    /// Drops a token that the API did not accept, unless another one has taken its place meanwhile; tells whether another may
    /// be asked for at once.
    ///
    /// A fresh one that is refused too is no reason for another one: the next is asked for after minutes.
    pub async fn reject(&self, token: &Token) -> bool {
        let mut cached = self.cached.lock().await;
        if cached.as_ref().is_none_or(|cached| cached.serial != token.serial) {
            return true;
        }
        *cached = None;
        let wall = self.clock.now();
        let mut ledger = self.lock();
        ledger.until = None;
        ledger.rejected += 1;
        if ledger.rejected > 1 {
            ledger.budget.hold(wall, FRESH_REFUSED);
        }
        ledger.rejected == 1
    }

    /// Notes that the API has accepted the token of a request.
    pub fn accepted(&self) {
        self.lock().rejected = 0;
    }

    fn unreachable(&self, source: reqwest::Error) -> TokenError {
        TokenError::Unreachable(self.route.failed(source))
    }

    /// Reads an answer; what it holds is wiped when it is dropped.
    async fn read(&self, mut response: reqwest::Response) -> Result<Zeroizing<Vec<u8>>, TokenError> {
        let mut body = Zeroizing::new(Vec::with_capacity(8 * 1024));
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(error))? {
            if body.len() + chunk.len() > MAX_BODY {
                return Err(TokenError::Unusable { why: "it is larger than 64 KiB" });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    async fn ask(&self) -> Result<Token, TokenError> {
        let signed_at = self.count()?;
        let assertion = assertion(&self.account, &self.key, signed_at, (self.identifiers)())?;
        let sent = self.clock.elapsed();
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", self.account.client_id.as_str()),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", assertion.expose_secret()),
            ("scope", self.account.scope),
        ];
        let request = self.http.post(self.account.token_url.clone()).header("accept", "application/json").form(&form);
        let response = request.send().await.map_err(|error| self.unreachable(error))?;
        let status = response.status().as_u16();
        let wall = self.clock.now();
        let (date, retry_after) = (headers::date(response.headers()), headers::retry_after(response.headers(), wall));
        let body = self.read(response).await?;
        match status {
            200 => self.granted(&body, sent),
            300..400 => Err(TokenError::Redirects { status }),
            400 | 401 | 429 => {
                if status != 429 {
                    self.compare_clocks(date, signed_at);
                }
                Err(self.refused(status, &body, retry_after, wall))
            }
            _ => {
                if let Some(wait) = retry_after {
                    self.lock().budget.hold(wall, wait);
                }
                Err(TokenError::Failing { status, retry_after })
            }
        }
    }

    /// Counts a request before it is made and returns the time to sign with.
    fn count(&self) -> Result<DateTime<Utc>, TokenError> {
        let wall = self.clock.now();
        let mut ledger = self.lock();
        if !std::mem::take(&mut ledger.reserved) {
            match ledger.budget.wait(wall) {
                Some(TokenWait::Held(wait)) => {
                    return Err(TokenError::Held { wait, refusals: ledger.budget.refusals().max(ledger.rejected) });
                }
                Some(TokenWait::TooMany(wait)) => return Err(TokenError::TooMany { wait }),
                None => ledger.budget.ask(wall),
            }
        }
        Ok(wall + ledger.correction)
    }

    fn granted(&self, body: &[u8], sent: Duration) -> Result<Token, TokenError> {
        let Ok(answer) = serde_json::from_slice::<TokenAnswer>(body) else {
            return Err(TokenError::Unusable { why: "it is not a token document" });
        };
        let printable = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !printable(answer.access_token.expose_secret()) {
            return Err(TokenError::Unusable { why: "its token is empty or holds characters that no header may" });
        }
        if answer.token_type.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
            return Err(TokenError::Unusable { why: "its token is not a bearer token" });
        }
        let life = match answer.expires_in {
            Some(seconds) if seconds <= 0 => return Err(TokenError::Unusable { why: "its token has already expired" }),
            Some(seconds) => Duration::from_secs(seconds.unsigned_abs()).min(24 * USUAL_LIFE),
            None => USUAL_LIFE,
        };
        let mut ledger = self.lock();
        ledger.budget.granted();
        ledger.given += 1;
        info!(client_id = %self.account.client_id, lives_s = life.as_secs(), "token received");
        let until = sent + life - MARGIN.min(life / 10);
        Ok(Token { value: answer.access_token, until, serial: ledger.given })
    }

    fn refused(&self, status: u16, body: &[u8], retry_after: Option<Duration>, wall: DateTime<Utc>) -> TokenError {
        let code = refusal_code(body);
        let mut ledger = self.lock();
        let wait = ledger.budget.refused(wall, retry_after);
        let refusals = ledger.budget.refusals();
        warn!(status, code, refusals, wait_s = wait.as_secs(), "token refused");
        TokenError::Refused { status, code, refusals, wait }
    }

    /// Takes the server's clock for ours when it refused us and the two differ.
    fn compare_clocks(&self, date: Option<DateTime<Utc>>, signed_at: DateTime<Utc>) {
        let Some(date) = date else { return };
        if (date - signed_at).abs() > chrono::Duration::seconds(SKEW_SECONDS) {
            let mut ledger = self.lock();
            ledger.correction = date - self.clock.now();
            ledger.corrected = true;
            warn!(
                seconds = ledger.correction.num_seconds(),
                "this machine's clock differs from the server's, signing with the server's"
            );
        }
    }

    /// Tells, once, whether the refusal just met is worth another try with another clock.
    fn take_correction(&self) -> bool {
        std::mem::take(&mut self.lock().corrected)
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: SecretString,
    #[serde(default)]
    token_type: Option<String>,
    #[serde(default)]
    expires_in: Option<i64>,
}

/// Reads the word of RFC 6749; whatever else the body holds is not repeated.
fn refusal_code(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Refusal {
        error: String,
    }
    let word = |text: &str| text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    match serde_json::from_slice::<Refusal>(body) {
        Ok(Refusal { error }) if !error.is_empty() && word(&error) => error,
        _ => "none".to_owned(),
    }
}
