//! The decisions of the token endpoint, and the tokens that it has issued.

use std::collections::HashMap;

use chrono::{DateTime, Duration, Utc};
use serde_json::{Value, json};

use crate::assertion::{self, KeyIdRule};
use crate::credentials::{self, Credentials};
use crate::draw::Draw;
use crate::limiter::{Limiter, RateLimit};

/// Life of a token in seconds.
pub(crate) const LIFE: i64 = 3600;
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The accounts, and the tokens issued to them.
#[derive(Debug)]
pub(crate) struct Tokens {
    accounts: Vec<Account>,
    key_id_rule: KeyIdRule,
    issued: HashMap<String, IssuedToken>,
    draw: Draw,
}

#[derive(Debug)]
struct Account {
    credentials: Credentials,
    limiter: Option<Limiter>,
    revoked: bool,
}

#[derive(Clone, Debug)]
struct IssuedToken {
    org: usize,
    expires: DateTime<Utc>,
}

/// What the token endpoint answers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Grant {
    pub(crate) status: u16,
    pub(crate) body: Value,
    pub(crate) retry_after: Option<u32>,
    /// Why it was refused.
    pub(crate) reason: Option<String>,
}

impl Tokens {
    /// Makes an endpoint that knows these accounts; `salt` keeps tokens of two runs apart.
    pub(crate) fn new(accounts: &[Credentials], key_id_rule: KeyIdRule, limit: Option<RateLimit>, salt: u64) -> Self {
        let account = |credentials: &Credentials| Account {
            credentials: credentials.clone(),
            limiter: limit.map(Limiter::new),
            revoked: false,
        };
        let accounts = accounts.iter().map(account).collect();
        Self { accounts, key_id_rule, issued: HashMap::new(), draw: Draw::keyed(salt, &[0x70CE]) }
    }

    /// Returns the number of the organization that a client id names.
    pub(crate) fn org_of(&self, client_id: &str) -> Option<usize> {
        self.accounts.iter().position(|account| account.credentials.client_id == client_id)
    }

    /// Answers a token request with the parameters of its query and form.
    pub(crate) fn grant(&mut self, parameters: &HashMap<String, String>, now: DateTime<Utc>) -> Grant {
        let text = |name: &str| parameters.get(name).map_or("", String::as_str);
        let refuse = |error: &str, reason: String| Grant {
            status: 400,
            body: json!({ "error": error }),
            retry_after: None,
            reason: Some(reason),
        };
        if let Some(name) = ["grant_type", "client_id", "client_assertion_type", "client_assertion", "scope"]
            .into_iter()
            .find(|name| text(name).is_empty())
        {
            return refuse("invalid_request", format!("`{name}` is missing"));
        }
        let Some(org) = self.org_of(text("client_id")) else {
            return refuse("invalid_client", "the client id is unknown".to_owned());
        };
        let account = &mut self.accounts[org];
        if let Some(Err(seconds)) = account.limiter.as_mut().map(|limiter| limiter.admit(now)) {
            let reason = Some("too many token requests".to_owned());
            let body = json!({ "error": "too_many_requests" });
            return Grant { status: 429, body, retry_after: Some(seconds), reason };
        }
        if text("grant_type") != "client_credentials" {
            return refuse("unsupported_grant_type", "`grant_type` is not client_credentials".to_owned());
        }
        if text("client_assertion_type") != ASSERTION_TYPE {
            return refuse("invalid_request", "`client_assertion_type` is not the JWT bearer".to_owned());
        }
        if text("scope") != account.credentials.scope {
            return refuse("invalid_scope", "`scope` does not fit the client id".to_owned());
        }
        if account.revoked {
            return refuse("invalid_client", "the key was revoked".to_owned());
        }
        if let Err(fault) = assertion::verify(text("client_assertion"), &account.credentials, self.key_id_rule, now) {
            return refuse("invalid_client", fault.to_string());
        }
        self.give(org, now)
    }

    /// Returns the organization that a token stands for at `now`.
    pub(crate) fn holder(&self, token: &str, now: DateTime<Utc>) -> Result<usize, &'static str> {
        match self.issued.get(token) {
            Some(token) if token.expires > now => Ok(token.org),
            Some(_) => Err("The access token has expired"),
            None => Err("The access token is not known"),
        }
    }

    /// Ends all tokens of an organization.
    pub(crate) fn revoke(&mut self, org: usize) {
        self.issued.retain(|_, token| token.org != org);
    }

    /// Ends the key of an organization, and its tokens.
    pub(crate) fn revoke_key(&mut self, org: usize) {
        self.accounts[org].revoked = true;
        self.revoke(org);
    }

    /// Gives a token without asking for anything.
    pub(crate) fn give(&mut self, org: usize, now: DateTime<Utc>) -> Grant {
        self.issued.retain(|_, token| token.expires > now);
        // Five parts, as Apple's encrypted tokens have: nobody should read anything out of it.
        let token = format!(
            "eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIiwia2lkIjpudWxsfQ..{:016x}.{}.{:016x}",
            self.draw.next(),
            credentials::uuid(&mut self.draw),
            self.draw.next()
        );
        self.issued.insert(token.clone(), IssuedToken { org, expires: now + Duration::seconds(LIFE) });
        let scope = &self.accounts[org].credentials.scope;
        let body = json!({ "access_token": token, "token_type": "Bearer", "expires_in": LIFE, "scope": scope });
        Grant { status: 200, body, retry_after: None, reason: None }
    }
}
