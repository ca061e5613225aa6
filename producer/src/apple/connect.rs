//! From a configured source to its directory.

use uuid::Uuid;
use windfall_runtime::clock::SharedClock;
use windfall_runtime::diagnose::{Diagnose, Diagnosis, Kind};
use windfall_runtime::http::route::RouteError;

use super::auth::Identifiers;
use super::client::{AppleDirectory, Options};
use super::key::{KeyError, SigningKey};
use super::transport::WHOLE;
use crate::budget::LimiterState;
use crate::config::SourceConfig;

/// Why an organization cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The key cannot be used.
    #[error("the private key of `{source_name}` cannot be used")]
    Key {
        /// Name of the source.
        source_name: String,
        /// Why.
        #[source]
        source: KeyError,
    },
    /// `api_url` or `token_url` is no URL.
    #[error("`{field}` of `{source_name}` is not a URL")]
    Url {
        /// Name of the source.
        source_name: String,
        /// Name of the setting.
        field: &'static str,
    },
    /// Apple's hosts cannot be reached the way the environment says, or TLS cannot be set up.
    #[error(transparent)]
    Route(#[from] RouteError),
}

impl Diagnose for ConnectError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            ConnectError::Key { source, .. } => source.diagnosis(),
            ConnectError::Url { .. } => {
                Kind::Configuration.help("write it with its scheme, such as `https://example.com`")
            }
            ConnectError::Route(error) => error.diagnosis(),
        }
    }
}

impl AppleDirectory {
    /// Takes over the organization that `config` names, with what an earlier process has left of its budget.
    ///
    /// # Errors
    /// When the key cannot be used or TLS cannot be set up; nothing is sent.
    pub fn connect(config: &SourceConfig, state: LimiterState, clock: SharedClock) -> Result<Self, ConnectError> {
        let source_name = || config.name.clone();
        let missing = |field| ConnectError::Url { source_name: source_name(), field };
        let key = SigningKey::from_pem(config.private_key.expose())
            .map_err(|source| ConnectError::Key { source_name: source_name(), source })?;
        let options = Options {
            org: config.name.clone(),
            api_url: config.api_url().ok_or_else(|| missing("api_url"))?,
            account: config.account().ok_or_else(|| missing("token_url"))?,
            key,
            limit: config.rate_limit.limit(),
            page_size: config.scan.page_size,
            state,
            deadline: WHOLE,
        };
        Ok(Self::take_over(options, clock, random_identifiers())?)
    }
}

/// Makes the identifiers of assertions from the machine's randomness.
pub fn random_identifiers() -> Identifiers {
    Box::new(Uuid::new_v4)
}
