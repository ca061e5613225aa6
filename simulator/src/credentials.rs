//! The API account of a simulated organization: client id, key id and private key.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use p256::SecretKey;
use p256::ecdsa::VerifyingKey;
use p256::pkcs8::{EncodePrivateKey, LineEnding};

use crate::draw::Draw;

/// What a client needs to get a token. `Debug` leaves the key out.
#[derive(Clone)]
pub struct Credentials {
    /// Alias of the organization.
    pub org: String,
    /// `BUSINESSAPI.<uuid>` or `SCHOOLAPI.<uuid>`.
    pub client_id: String,
    /// Key id, a UUID in lower case.
    pub key_id: String,
    /// `business.api` or `school.api`.
    pub scope: String,
    /// The private key as PKCS#8 in PEM.
    pub private_key_pem: String,
    secret: SecretKey,
}

/// The forms in which Apple's portal and its users have written key files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyForm {
    /// Label `PRIVATE KEY`, PKCS#8.
    Pkcs8,
    /// Label `EC PRIVATE KEY`, SEC1.
    Sec1,
    /// Label `EC PRIVATE KEY`, but PKCS#8 inside, and no last line feed: the form of a live set-up.
    Mislabelled,
    /// A block `EC PARAMETERS` in front of SEC1.
    WithParameters,
    /// PKCS#8 with lines that end as on Windows.
    Crlf,
}

impl Credentials {
    /// Makes the account that belongs to a seed: the same seed always gets the same key.
    pub(crate) fn seeded(seed: u64, number: u64, org: &str, school: bool) -> Self {
        let mut draw = Draw::keyed(seed, &[number, 0xC4ED]);
        let secret = secret(&mut draw);
        let (product, scope) = if school { ("SCHOOLAPI", "school.api") } else { ("BUSINESSAPI", "business.api") };
        Self {
            org: org.to_owned(),
            client_id: format!("{product}.{}", uuid(&mut draw)),
            key_id: uuid(&mut draw),
            scope: scope.to_owned(),
            private_key_pem: pkcs8(&secret, LineEnding::LF),
            secret,
        }
    }

    /// Returns the private key in one of the forms that occur.
    pub fn private_key_as(&self, form: KeyForm) -> String {
        match form {
            KeyForm::Pkcs8 => self.private_key_pem.clone(),
            KeyForm::Crlf => pkcs8(&self.secret, LineEnding::CRLF),
            KeyForm::Sec1 => sec1(&self.secret),
            KeyForm::Mislabelled => self.private_key_pem.replace("PRIVATE KEY", "EC PRIVATE KEY").trim_end().to_owned(),
            KeyForm::WithParameters => {
                // The object identifier of P-256 in DER.
                let parameters = STANDARD.encode([0x06, 0x08, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07]);
                let block = format!("-----BEGIN EC PARAMETERS-----\n{parameters}\n-----END EC PARAMETERS-----\n");
                block + &sec1(&self.secret)
            }
        }
    }

    /// Returns the key that verifies assertions.
    pub(crate) fn verifying_key(&self) -> VerifyingKey {
        VerifyingKey::from(self.secret.public_key())
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("org", &self.org)
            .field("client_id", &self.client_id)
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

/// Draws a UUID of version 4.
pub(crate) fn uuid(draw: &mut Draw) -> String {
    let (high, low) = (draw.next(), draw.next());
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xFFFF,
        high & 0xFFF,
        (low >> 48) & 0x3FFF | 0x8000,
        low & 0xFFFF_FFFF_FFFF
    )
}

fn secret(draw: &mut Draw) -> SecretKey {
    loop {
        let bytes: Vec<u8> = (0..4).flat_map(|_| draw.next().to_be_bytes()).collect();
        // All but a vanishing share of 32 bytes is a scalar of the curve.
        if let Ok(secret) = SecretKey::from_slice(&bytes) {
            return secret;
        }
    }
}

#[expect(clippy::expect_used, reason = "a scalar of the curve always has this encoding")]
fn pkcs8(secret: &SecretKey, ending: LineEnding) -> String {
    secret.to_pkcs8_pem(ending).expect("PKCS#8 holds every P-256 key").to_string()
}

#[expect(clippy::expect_used, reason = "a scalar of the curve always has this encoding")]
fn sec1(secret: &SecretKey) -> String {
    secret.to_sec1_pem(LineEnding::LF).expect("SEC1 holds every P-256 key").to_string()
}
