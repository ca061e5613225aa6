//! The token endpoint's decisions, and the tokens given out.

use std::collections::HashMap;

use chrono::{DateTime, Duration, Utc};
use serde_json::{Value, json};

use crate::assertion::{self, Account, KeyIdRule};
use crate::credentials::{self, Credentials};
use crate::draw::Draw;
use crate::limiter::{Limiter, RateLimit};

/// Life of a token in seconds.
pub(crate) const LIFE: i64 = 3600;
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Accounts and the tokens they hold.
#[derive(Debug)]
pub(crate) struct Tokens {
    accounts: Vec<Entry>,
    key_id_rule: KeyIdRule,
    held: HashMap<String, Held>,
    draw: Draw,
}

#[derive(Debug)]
struct Entry {
    credentials: Credentials,
    key: p256::ecdsa::VerifyingKey,
    limiter: Option<Limiter>,
    revoked: bool,
}

#[derive(Clone, Debug)]
struct Held {
    org: usize,
    expires: DateTime<Utc>,
}

/// What the token endpoint answers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Grant {
    pub(crate) status: u16,
    pub(crate) body: Value,
    pub(crate) retry_after: Option<u32>,
    /// Number of the organization that the client id names.
    pub(crate) org: Option<usize>,
    /// Why it was refused.
    pub(crate) reason: Option<String>,
}

impl Tokens {
    /// Makes an endpoint that knows these accounts; `salt` keeps tokens of two runs apart.
    pub(crate) fn new(accounts: &[Credentials], key_id_rule: KeyIdRule, limit: Option<RateLimit>, salt: u64) -> Self {
        let accounts = accounts
            .iter()
            .map(|credentials| Entry {
                key: credentials.verifying_key(),
                credentials: credentials.clone(),
                limiter: limit.map(Limiter::new),
                revoked: false,
            })
            .collect();
        Self { accounts, key_id_rule, held: HashMap::new(), draw: Draw::keyed(salt, &[0x70CE]) }
    }

    /// Returns the number of the organization that a client id names.
    pub(crate) fn org_of(&self, client_id: &str) -> Option<usize> {
        self.accounts.iter().position(|entry| entry.credentials.client_id == client_id)
    }

    /// Answers a token request with the parameters of its query and form.
    pub(crate) fn grant(&mut self, parameters: &HashMap<String, String>, now: DateTime<Utc>) -> Grant {
        let text = |name: &str| parameters.get(name).map_or("", String::as_str);
        let org = self.org_of(text("client_id"));
        let refuse = |error: &str, reason: String| Grant {
            status: 400,
            body: json!({ "error": error }),
            retry_after: None,
            org,
            reason: Some(reason),
        };
        if let Some(name) = ["grant_type", "client_id", "client_assertion_type", "client_assertion", "scope"]
            .into_iter()
            .find(|name| text(name).is_empty())
        {
            return refuse("invalid_request", format!("`{name}` is missing"));
        }
        let Some(number) = org else {
            return refuse("invalid_client", "the client id is unknown".to_owned());
        };
        let entry = &mut self.accounts[number];
        if let Some(Err(seconds)) = entry.limiter.as_mut().map(|limiter| limiter.admit(now)) {
            let reason = Some("too many token requests".to_owned());
            let body = json!({ "error": "too_many_requests" });
            return Grant { status: 429, body, retry_after: Some(seconds), org, reason };
        }
        if text("grant_type") != "client_credentials" {
            return refuse("unsupported_grant_type", "`grant_type` is not client_credentials".to_owned());
        }
        if text("client_assertion_type") != ASSERTION_TYPE {
            return refuse("invalid_request", "`client_assertion_type` is not the JWT bearer".to_owned());
        }
        if text("scope") != entry.credentials.scope {
            return refuse("invalid_scope", "`scope` does not fit the client id".to_owned());
        }
        let account = Account {
            client_id: &entry.credentials.client_id,
            key_id: &entry.credentials.key_id,
            key_id_rule: self.key_id_rule,
            key: &entry.key,
        };
        if entry.revoked {
            return refuse("invalid_client", "the key was revoked".to_owned());
        }
        if let Err(fault) = assertion::verify(text("client_assertion"), account, now) {
            return refuse("invalid_client", fault.to_string());
        }
        self.give(number, now)
    }

    /// Returns the organization that a token stands for at `now`.
    pub(crate) fn holder(&self, token: &str, now: DateTime<Utc>) -> Result<usize, &'static str> {
        match self.held.get(token) {
            Some(held) if held.expires > now => Ok(held.org),
            Some(_) => Err("The access token has expired"),
            None => Err("The access token is not known"),
        }
    }

    /// Ends all tokens of an organization.
    pub(crate) fn revoke(&mut self, org: usize) {
        self.held.retain(|_, held| held.org != org);
    }

    /// Ends the key of an organization, and its tokens.
    pub(crate) fn revoke_key(&mut self, org: usize) {
        self.accounts[org].revoked = true;
        self.revoke(org);
    }

    /// Gives a token without asking for anything.
    pub(crate) fn give(&mut self, org: usize, now: DateTime<Utc>) -> Grant {
        self.held.retain(|_, held| held.expires > now);
        // Five parts, as Apple's encrypted tokens have: nobody should read anything out of it.
        let token = format!(
            "eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIiwia2lkIjpudWxsfQ..{:016x}.{}.{:016x}",
            self.draw.next(),
            credentials::uuid(&mut self.draw),
            self.draw.next()
        );
        self.held.insert(token.clone(), Held { org, expires: now + Duration::seconds(LIFE) });
        let scope = &self.accounts[org].credentials.scope;
        let body = json!({ "access_token": token, "token_type": "Bearer", "expires_in": LIFE, "scope": scope });
        Grant { status: 200, body, retry_after: None, org: Some(org), reason: None }
    }
}
