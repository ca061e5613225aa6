//! The private key of an API account, in every form in which Apple's portal and people's tools have written it.
//!
//! | label | content | seen |
//! | --- | --- | --- |
//! | `EC PRIVATE KEY` | SEC1 | openssl |
//! | `EC PRIVATE KEY` | PKCS#8, also without a last line feed | Apple's portal |
//! | `EC PARAMETERS`, then `EC PRIVATE KEY` | curve, then SEC1 | `openssl ecparam -genkey` |
//! | `PRIVATE KEY` | PKCS#8 | Apple's portal |
//!
//! Line ends may be CRLF, or `\n` written out as in a variable of the environment. The label is not trusted: each
//! block is tried as both contents. Only P-256 is taken, and every refusal happens here, before the first request.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::EncodingKey;
use p256::SecretKey;
use p256::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _};
use secrecy::{ExposeSecret as _, SecretSlice};
use windfall_runtime::diagnose::{Diagnose, Diagnosis, Kind};
use xxhash_rust::xxh3::xxh3_64;

/// A P-256 key that signs client assertions; it cannot be shown, cloned or written.
pub struct SigningKey {
    signs: EncodingKey,
    /// Hash of the public half.
    fingerprint: u64,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey([redacted])")
    }
}

/// Why a text is not a key that can sign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No PEM at all.
    #[error("the private key is not in PEM form: there is no `-----BEGIN … PRIVATE KEY-----` line")]
    NotPem,
    /// Nothing there.
    #[error("the private key is empty")]
    Empty,
    /// Cut in the middle.
    #[error("the private key is cut off: `-----BEGIN {label}-----` has no matching END line")]
    Unfinished {
        /// Label of the block.
        label: String,
    },
    /// The block's text is not base64.
    #[error("the private key's text between BEGIN and END is damaged: it is not base64")]
    Damaged,
    /// PEM of something else.
    #[error("the file holds a `{label}`, not a private key")]
    NotPrivate {
        /// Label of the first block.
        label: String,
    },
    /// Behind a passphrase.
    #[error("the private key is encrypted")]
    Encrypted,
    /// Another curve.
    #[error("the private key is on the curve {curve}, and Apple's API takes P-256 only")]
    WrongCurve {
        /// Its usual name.
        curve: &'static str,
    },
    /// Another kind of key.
    #[error("the private key is an {kind} key, and Apple's API takes an EC key on P-256 only")]
    NotEc {
        /// RSA and the like.
        kind: &'static str,
    },
    /// A private key's label around something unreadable.
    #[error("the private key's content is neither SEC1 nor PKCS#8")]
    Unreadable,
}

impl Diagnose for KeyError {
    fn diagnosis(&self) -> Diagnosis {
        Kind::Configuration.help(match self {
            KeyError::NotPem | KeyError::Empty | KeyError::Unfinished { .. } | KeyError::Damaged => {
                "use the `.pem` file as it was downloaded from the API account's page in Apple's portal; a key can be \
                 downloaded once, so if the file is lost generate a new one there"
            }
            KeyError::NotPrivate { .. } => {
                "use the private key that Apple's portal gave, not a certificate or a public key"
            }
            KeyError::Encrypted => {
                "remove the passphrase, for instance with `openssl pkcs8 -topk8 -nocrypt -in key.pem -out key.plain.pem`, and protect the file by its mode"
            }
            KeyError::WrongCurve { .. } | KeyError::NotEc { .. } | KeyError::Unreadable => {
                "use the key that Apple's portal generated for this API account; a key made elsewhere does not work"
            }
        })
    }
}

impl SigningKey {
    /// Reads a key from its PEM text.
    ///
    /// # Errors
    /// When the text holds no usable key; the error says what it holds instead, and never quotes it.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let pem = unescaped(pem.trim_start_matches('\u{feff}').trim());
        if pem.is_empty() {
            return Err(KeyError::Empty);
        }
        let blocks = blocks(&pem)?;
        let mut first_refusal = None;
        for block in blocks.iter().filter(|block| block.label.ends_with("PRIVATE KEY")) {
            match block.key() {
                Ok(key) => return Ok(key),
                Err(refusal) => first_refusal = first_refusal.or(Some(refusal)),
            }
        }
        Err(match (first_refusal, blocks.first()) {
            (Some(refusal), _) => refusal,
            (None, Some(block)) => KeyError::NotPrivate { label: block.label.to_owned() },
            (None, None) => KeyError::NotPem,
        })
    }

    pub(crate) fn encoding_key(&self) -> &EncodingKey {
        &self.signs
    }

    /// Tells keys apart without saying anything of them: a hash of the public half.
    pub(crate) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

/// Variables of an environment often hold a PEM on one line, with its line ends written as `\n`.
fn unescaped(pem: &str) -> zeroize::Zeroizing<String> {
    let escaped = !pem.contains('\n') && pem.contains("\\n");
    zeroize::Zeroizing::new(if escaped { pem.replace("\\r", "").replace("\\n", "\n") } else { pem.to_owned() })
}

struct Block<'a> {
    label: &'a str,
    body: &'a str,
}

/// Longest label that is repeated in a message.
const MAX_LABEL: usize = 40;

fn blocks(pem: &str) -> Result<Vec<Block<'_>>, KeyError> {
    let mut blocks = Vec::new();
    let mut rest = pem;
    while let Some(begin) = rest.find("-----BEGIN ") {
        rest = &rest[begin + "-----BEGIN ".len()..];
        let Some((label, after)) = rest.split_once("-----") else { return Err(KeyError::NotPem) };
        if label.len() > MAX_LABEL || !label.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == ' ') {
            return Err(KeyError::NotPem);
        }
        let Some((body, after)) = after.split_once(format!("-----END {label}-----").as_str()) else {
            return Err(KeyError::Unfinished { label: label.to_owned() });
        };
        blocks.push(Block { label, body });
        rest = after;
    }
    Ok(blocks)
}

impl Block<'_> {
    fn key(&self) -> Result<SigningKey, KeyError> {
        if self.label.contains("ENCRYPTED") || self.body.contains("ENCRYPTED") {
            return Err(KeyError::Encrypted);
        }
        match self.label {
            "RSA PRIVATE KEY" => return Err(KeyError::NotEc { kind: "RSA" }),
            "DSA PRIVATE KEY" => return Err(KeyError::NotEc { kind: "DSA" }),
            "OPENSSH PRIVATE KEY" => return Err(KeyError::NotEc { kind: "OpenSSH" }),
            _ => {}
        }
        let compact = zeroize::Zeroizing::new(self.body.chars().filter(|c| !c.is_whitespace()).collect::<String>());
        let der = STANDARD.decode(compact.as_bytes()).map_err(|_| KeyError::Damaged)?;
        let der: SecretSlice<u8> = der.into();
        let der = der.expose_secret();
        let key =
            SecretKey::from_pkcs8_der(der).or_else(|_| SecretKey::from_sec1_der(der)).map_err(|_| refusal(der))?;
        let pkcs8 = key.to_pkcs8_der().map_err(|_| KeyError::Unreadable)?;
        let fingerprint = xxh3_64(key.public_key().to_string().as_bytes());
        Ok(SigningKey { signs: EncodingKey::from_ec_der(pkcs8.as_bytes()), fingerprint })
    }
}

/// Object identifiers in DER, tag and length included, and what they stand for.
const CURVES: [(&[u8], &str); 5] = [
    (&[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22], "P-384"),
    (&[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23], "P-521"),
    (&[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x21], "P-224"),
    (&[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a], "secp256k1"),
    (&[0x06, 0x09, 0x2b, 0x24, 0x03, 0x03, 0x02, 0x08, 0x01, 0x01, 0x07], "brainpoolP256r1"),
];
const KINDS: [(&[u8], &str); 3] = [
    (&[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01], "RSA"),
    (&[0x06, 0x03, 0x2b, 0x65, 0x70], "Ed25519"),
    (&[0x06, 0x03, 0x2b, 0x65, 0x6e], "X25519"),
];
const ENCRYPTED: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0d];

fn refusal(der: &[u8]) -> KeyError {
    let holds = |oid: &[u8]| der.windows(oid.len()).any(|window| window == oid);
    if let Some((_, curve)) = CURVES.iter().find(|(oid, _)| holds(oid)) {
        return KeyError::WrongCurve { curve };
    }
    if let Some((_, kind)) = KINDS.iter().find(|(oid, _)| holds(oid)) {
        return KeyError::NotEc { kind };
    }
    if holds(ENCRYPTED) { KeyError::Encrypted } else { KeyError::Unreadable }
}
