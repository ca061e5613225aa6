//! The client assertion: a signed JWT that says who asks for a token. It is verified without the library that clients sign with.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use p256::ecdsa::Signature;
use p256::ecdsa::signature::Verifier;
use serde_json::{Map, Value};

use crate::credentials::Credentials;

/// Audiences that Apple's endpoint has accepted.
const AUDIENCES: &[&str] =
    &["https://account.apple.com/auth/oauth2/v2/token", "https://account.apple.com/auth/oauth2/token"];
/// Apple's own sample lives exactly so long.
const LONGEST_LIFE: i64 = 180 * 86_400;
/// How far a client's clock may run ahead; Apple's tolerance is not known.
const SKEW: i64 = 60;

/// Whether the header must carry the key id: clients of the live service disagree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyIdRule {
    /// It must be the account's.
    #[default]
    Required,
    /// It may be left out.
    Optional,
    /// It must be left out: seen for some accounts.
    Forbidden,
}

/// What is wrong with an assertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AssertionFault {
    #[error("the assertion is no JWT of three parts")]
    Malformed,
    #[error("`alg` is not ES256")]
    Algorithm,
    #[error("`kid` is not the key id of the account")]
    KeyId,
    #[error("`sub` is not the client id")]
    Subject,
    #[error("`iss` is not the client id")]
    Issuer,
    #[error("`aud` is not Apple's token endpoint")]
    Audience,
    #[error("`iat` is missing or lies in the future")]
    IssuedAt,
    #[error("`exp` is missing or past")]
    Expired,
    #[error("`exp` is more than 180 days after `iat`")]
    TooLong,
    #[error("`jti` is missing")]
    Identifier,
    #[error("the signature does not belong to the key")]
    Signature,
}

/// Verifies an assertion at `now`.
pub(crate) fn verify(
    assertion: &str,
    account: &Credentials,
    rule: KeyIdRule,
    now: DateTime<Utc>,
) -> Result<(), AssertionFault> {
    let (signed, signature) = assertion.rsplit_once('.').ok_or(AssertionFault::Malformed)?;
    let (header, claims) = signed.split_once('.').ok_or(AssertionFault::Malformed)?;
    let (header, claims) = (part(header)?, part(claims)?);
    check_header(&header, &account.key_id, rule)?;
    check_claims(&claims, &account.client_id, now.timestamp())?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| AssertionFault::Malformed)?;
    // Raw R and S, 64 bytes: a DER signature is refused.
    let signature = Signature::from_slice(&signature).map_err(|_| AssertionFault::Signature)?;
    account.verifying_key().verify(signed.as_bytes(), &signature).map_err(|_| AssertionFault::Signature)
}

fn check_header(header: &Map<String, Value>, key_id: &str, rule: KeyIdRule) -> Result<(), AssertionFault> {
    if header.get("alg").and_then(Value::as_str) != Some("ES256") {
        return Err(AssertionFault::Algorithm);
    }
    let fits = match (header.get("kid"), rule) {
        (None, KeyIdRule::Optional | KeyIdRule::Forbidden) => true,
        (None, KeyIdRule::Required) | (Some(_), KeyIdRule::Forbidden) => false,
        (Some(kid), KeyIdRule::Required | KeyIdRule::Optional) => kid.as_str() == Some(key_id),
    };
    if fits { Ok(()) } else { Err(AssertionFault::KeyId) }
}

fn check_claims(claims: &Map<String, Value>, client_id: &str, now: i64) -> Result<(), AssertionFault> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let seconds = |name: &str| claims.get(name).and_then(Value::as_i64);
    if text("sub") != Some(client_id) {
        return Err(AssertionFault::Subject);
    }
    if claims.contains_key("iss") && text("iss") != Some(client_id) {
        return Err(AssertionFault::Issuer);
    }
    if !text("aud").is_some_and(|audience| AUDIENCES.contains(&audience)) {
        return Err(AssertionFault::Audience);
    }
    let issued = seconds("iat").filter(|issued| *issued <= now + SKEW).ok_or(AssertionFault::IssuedAt)?;
    let expires = seconds("exp").filter(|expires| *expires > now).ok_or(AssertionFault::Expired)?;
    if expires - issued > LONGEST_LIFE {
        return Err(AssertionFault::TooLong);
    }
    if text("jti").is_none_or(str::is_empty) {
        return Err(AssertionFault::Identifier);
    }
    Ok(())
}

fn part(text: &str) -> Result<Map<String, Value>, AssertionFault> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| AssertionFault::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| AssertionFault::Malformed)
}
