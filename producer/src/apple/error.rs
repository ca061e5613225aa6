//! Why a request to Apple brought nothing, and whether another try may help.

use std::fmt;
use std::time::Duration;

use windfall_runtime::diagnose::{Diagnose, Diagnosis, Kind};
use windfall_runtime::http::route::RequestError;
pub use windfall_runtime::retry::Retry;

/// What Apple refused, and in which words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refusal {
    /// Path of the request, without its query and with `{id}` in the place of a device's id.
    pub path: String,
    /// HTTP status.
    pub status: u16,
    /// Apple's code, such as `FORBIDDEN_ERROR`; empty when the body was not Apple's error document.
    pub code: String,
    /// Apple's sentence, cut and in one line, without our token and without the id of a device.
    pub detail: Box<str>,
    /// Apple's `X-Apple-Request-Uuid`, to be quoted to Apple's support.
    pub request_id: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refusal { path, status, code, detail, request_id } = self;
        write!(f, "`{path}`: status {status}")?;
        if !code.is_empty() {
            write!(f, ", code `{code}`")?;
        }
        if !detail.is_empty() {
            write!(f, ", Apple says `{detail}`")?;
        }
        match request_id {
            Some(id) => write!(f, ", Apple's request id `{id}`"),
            None => Ok(()),
        }
    }
}

/// Why no token was to be had.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Apple refuses the API account, its key or the assertion.
    #[error("the token was refused: status {status}, error `{code}` ({refusals} refusals in a row)")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Word of RFC 6749, such as `invalid_client`; `none` when the body holds no such word.
        code: String,
        /// Refusals in a row, this one counted.
        refusals: u32,
        /// How long no other token is asked for.
        wait: Duration,
    },
    /// We do not ask, since asking once more might lock the account out.
    #[error("no token is asked for during another {}s, after {refusals} refusals in a row", wait.as_secs())]
    Held {
        /// How long.
        wait: Duration,
        /// Refusals in a row, by the token endpoint or of fresh tokens by the API.
        refusals: u32,
    },
    /// Too many tokens have been asked for.
    #[error("no token is asked for during another {}s, as too many were asked for in the last five minutes", wait.as_secs())]
    TooMany {
        /// How long.
        wait: Duration,
    },
    /// No connection, or none that lasted.
    #[error("the token endpoint could not be reached")]
    Unreachable(#[source] RequestError),
    /// The endpoint is in trouble.
    #[error("the token endpoint answered with status {status}")]
    Failing {
        /// HTTP status.
        status: u16,
        /// The `Retry-After` that came with it.
        retry_after: Option<Duration>,
    },
    /// A redirect, which would carry the assertion elsewhere.
    #[error("the token endpoint redirects (status {status}), and redirects are never followed")]
    Redirects {
        /// HTTP status.
        status: u16,
    },
    /// 200 with something that is no token.
    #[error("the token endpoint's answer could not be used: {why}")]
    Unusable {
        /// What is wrong with it.
        why: &'static str,
    },
    /// The key cannot sign.
    #[error("the private key cannot sign the client assertion")]
    Signing(#[source] jsonwebtoken::errors::Error),
}

impl Diagnose for TokenError {
    fn diagnosis(&self) -> Diagnosis {
        const ACCOUNT: &str = "compare `client_id`, `key_id` and the key file with the API account in Apple's portal (a key that was \
             generated anew there replaces the old one), see that the machine's clock is right, and if all three \
             agree try it without `key_id`";
        const OTHERS: &str = "wait; if it happens again, look for other programs that use the same API account";
        const ENDPOINT: &str =
            "see that `token_url` is Apple's token endpoint and that no proxy on the way answers in its place";
        match self {
            TokenError::Refused { status, code, wait, .. } => match (*status, code.as_str()) {
                (_, "invalid_scope") => Kind::Authentication.help(
                    "compare `type` with the portal: `abm` is for Apple Business, `asm` for Apple School Manager",
                ),
                (429, _) => Kind::RateLimited.help(OTHERS),
                _ => Kind::Authentication.help(ACCOUNT),
            }
            // Below three refusals in a row nothing holds the next request but the caller's own patience.
            .retry(if wait.is_zero() { Retry::Backoff } else { Retry::After(*wait) }),
            TokenError::Held { wait, .. } => Kind::Authentication.help(ACCOUNT).retry(Retry::After(*wait)),
            TokenError::TooMany { wait } => Kind::RateLimited.help(OTHERS).retry(Retry::After(*wait)),
            TokenError::Unreachable(_) => Kind::Unavailable.help(
                "see that this machine reaches the host of `token_url` by HTTPS, directly or through the proxy that `HTTPS_PROXY` names",
            ),
            TokenError::Failing { retry_after, .. } => Kind::Unavailable
                .help("wait; if it lasts, see Apple's system status page")
                .retry(retry_after.map_or(Retry::Backoff, Retry::After)),
            TokenError::Redirects { .. } => Kind::Refused.help(ENDPOINT),
            TokenError::Unusable { .. } => Kind::Unavailable.help(ENDPOINT),
            TokenError::Signing(_) => Kind::Authentication.help("use the key file as it came from Apple's portal"),
        }
    }
}

/// Why a request to Apple brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// There is no token to send it with.
    #[error("no token for Apple's API")]
    Token(#[from] TokenError),
    /// 401, also with a new token.
    #[error("a token that was just given out is not accepted for {0}")]
    Unauthorized(Refusal),
    /// 403: this API account may not read it.
    #[error("this API account may not read {0}")]
    Forbidden(Refusal),
    /// 404 for something that must exist, or a 404 that does not come from Apple's API.
    #[error("there is nothing at {0}")]
    NotFound(Refusal),
    /// The cursor is no longer good: the list is read from its beginning.
    #[error("the cursor was not accepted: {why} for {refusal}")]
    CursorRefused {
        /// What Apple said or did.
        why: &'static str,
        /// The answer.
        refusal: Refusal,
    },
    /// 429. The budget makes the next request wait.
    #[error("requests are limited for another {}s, after {refusal}", retry_after.as_secs())]
    RateLimited {
        /// How long.
        retry_after: Duration,
        /// The answer.
        refusal: Refusal,
    },
    /// Any other 4xx.
    #[error("Apple refuses {0}")]
    Refused(Refusal),
    /// 5xx.
    #[error("Apple's server failed on {refusal}")]
    Failing {
        /// The `Retry-After` that came with it.
        retry_after: Option<Duration>,
        /// The answer.
        refusal: Refusal,
    },
    /// No connection, or one that broke.
    #[error("`{path}` could not be reached")]
    Unreachable {
        /// Path of the request.
        path: String,
        /// What happened.
        #[source]
        source: RequestError,
    },
    /// The answer did not come to its end in time.
    #[error("`{path}` was not answered within {}s", limit.as_secs())]
    TimedOut {
        /// Path of the request.
        path: String,
        /// The deadline.
        limit: Duration,
    },
    /// The body is larger than any honest answer.
    #[error("the answer to `{path}` was larger than {} MiB", limit_bytes / (1024 * 1024))]
    TooLarge {
        /// Path of the request.
        path: String,
        /// The limit, after decompression.
        limit_bytes: usize,
    },
    /// 200 with a body that is not the document asked for.
    #[error("the answer to `{path}` could not be read: {why}")]
    Unreadable {
        /// Path of the request.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// A redirect: our token would go where it leads.
    #[error("`{path}` is redirected to `{to}`, and redirects are never followed")]
    Redirected {
        /// Path of the request.
        path: String,
        /// Origin of the target.
        to: String,
    },
    /// A next link that leaves the configured origin.
    #[error("the next link of `{path}` leads to `{to}`, and only links to `{origin}` are followed")]
    ForeignLink {
        /// Path of the request.
        path: String,
        /// Origin of the link, or what it is when it has none.
        to: String,
        /// The configured origin.
        origin: String,
    },
}

impl DirectoryError {
    /// Returns a short word for metrics and logs.
    pub fn code(&self) -> &'static str {
        match self {
            DirectoryError::Token(_) => "token",
            DirectoryError::Unauthorized(_) => "unauthorized",
            DirectoryError::Forbidden(_) => "forbidden",
            DirectoryError::NotFound(_) => "not_found",
            DirectoryError::CursorRefused { .. } => "cursor",
            DirectoryError::RateLimited { .. } => "rate_limited",
            DirectoryError::Refused(_) => "refused",
            DirectoryError::Failing { .. } => "failing",
            DirectoryError::Unreachable { .. } => "unreachable",
            DirectoryError::TimedOut { .. } => "timed_out",
            DirectoryError::TooLarge { .. } => "too_large",
            DirectoryError::Unreadable { .. } => "unreadable",
            DirectoryError::Redirected { .. } => "redirected",
            DirectoryError::ForeignLink { .. } => "foreign_link",
        }
    }
}

impl Diagnose for DirectoryError {
    /// Says whether, and when, another try of the same request may help.
    fn diagnosis(&self) -> Diagnosis {
        match self {
            DirectoryError::Token(error) => error.diagnosis(),
            DirectoryError::Unauthorized(_) => Kind::Authentication
                .help("see in Apple's portal whether the API account's key has been revoked, and that `type` fits the account")
                .retry(Retry::Backoff),
            DirectoryError::Forbidden(_) => Kind::Permission.help(
                "in Apple's portal: accept new terms if it asks for that, see that the key of the API account has not been \
                 revoked, and give the account a role that may view devices and device management services",
            ),
            DirectoryError::NotFound(_) => Kind::Refused
                .help("see that `api_url` is the API's origin without a path, and that no proxy answers in its place"),
            DirectoryError::CursorRefused { .. } => {
                Kind::Refused.help("nothing needs to be done: the scan begins anew")
            }
            DirectoryError::RateLimited { retry_after, .. } => Kind::RateLimited
                .help("wait; when it comes often, lower `rate_limit.share`: the limit is shared with other programs of the organization")
                .retry(Retry::After(*retry_after)),
            DirectoryError::Refused(_) => Kind::Refused
                .help("report it with Apple's request id: this version sends a request that Apple refuses"),
            DirectoryError::Failing { retry_after, .. } => Kind::Unavailable
                .help("wait; if it lasts, see Apple's system status page")
                .retry(retry_after.map_or(Retry::Backoff, Retry::After)),
            DirectoryError::Unreachable { .. } | DirectoryError::TimedOut { .. } => Kind::Unavailable.help(
                "see that this machine reaches the host of `api_url` by HTTPS, directly or through the proxy that `HTTPS_PROXY` names",
            ),
            DirectoryError::TooLarge { .. } => Kind::Unavailable.help("lower `scan.page_size`"),
            DirectoryError::Unreadable { .. } => Kind::Unavailable
                .help("see that no proxy or sign-in page on the way answers in Apple's place; if it lasts, report it"),
            DirectoryError::Redirected { .. } | DirectoryError::ForeignLink { .. } => Kind::Refused.help(
                "see that `api_url` is the API's own origin; if it is, do not go on before Apple has explained the link",
            ),
        }
    }
}
