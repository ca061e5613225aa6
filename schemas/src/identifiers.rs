//! Identifiers of devices and organizations: parsed once, then trusted.

use std::fmt;

/// A text that cannot be such an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {what}: {why}")]
pub struct IdentifierError {
    /// What was asked for, with its article.
    pub what: &'static str,
    /// The text, cut to 64 characters.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl IdentifierError {
    fn new(what: &'static str, text: &str, why: &'static str) -> Self {
        Self { what, text: text.chars().take(64).collect(), why }
    }
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $what:literal, $normalise:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Reads and normalises the text.
            pub fn parse(text: &str) -> Result<Self, IdentifierError> {
                $normalise(text.trim()).map(Self).map_err(|why| IdentifierError::new($what, text, why))
            }

            /// The normalised text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The normalised text.
            pub fn into_string(self) -> String {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

identifier!(
    /// Apple's id of a device: opaque, only trimmed. Today it looks like the serial number, which nobody promises.
    DeviceId,
    "a device id",
    opaque
);
identifier!(
    /// A serial number: trimmed and in upper case.
    SerialNumber,
    "a serial number",
    serial_number
);
identifier!(
    /// An IMEI: 15 digits, or 14 without the check digit, or 16 with a software version; separators are dropped.
    Imei,
    "an IMEI",
    imei
);
identifier!(
    /// An MEID: 14 upper-case hexadecimal digits, or its 18 decimal digits; separators are dropped.
    Meid,
    "an MEID",
    meid
);
identifier!(
    /// An eSIM's identifier: 32 digits; separators are dropped.
    Eid,
    "an EID",
    eid
);
identifier!(
    /// A MAC address: twelve upper-case hexadecimal digits without separators.
    MacAddress,
    "a MAC address",
    mac_address
);
identifier!(
    /// The alias that the operator gave an organization: `[a-z][a-z0-9_]*`, since it ends up as a database's name.
    Org,
    "an organization's alias",
    org
);

/// Longest identifier that is taken for one; Apple's longest documented is 32.
const MAX_CHARS: usize = 128;

fn opaque(text: &str) -> Result<String, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.chars().count() > MAX_CHARS {
        return Err("it is longer than 128 characters");
    }
    if text.chars().any(char::is_control) {
        return Err("it holds control characters");
    }
    Ok(text.to_owned())
}

fn serial_number(text: &str) -> Result<String, &'static str> {
    opaque(text).map(|text| text.to_ascii_uppercase())
}

fn imei(text: &str) -> Result<String, &'static str> {
    let digits = bare(text);
    match digits.len() {
        14..=16 if decimal(&digits) => Ok(digits),
        _ => Err("it has not 14 to 16 digits"),
    }
}

fn meid(text: &str) -> Result<String, &'static str> {
    let digits = bare(text);
    match digits.len() {
        14 if hexadecimal(&digits) => Ok(digits),
        18 if decimal(&digits) => Ok(digits),
        _ => Err("it has neither 14 hexadecimal nor 18 decimal digits"),
    }
}

fn eid(text: &str) -> Result<String, &'static str> {
    let digits = bare(text);
    if digits.len() == 32 && decimal(&digits) { Ok(digits) } else { Err("it has not 32 digits") }
}

fn mac_address(text: &str) -> Result<String, &'static str> {
    let digits = bare(text);
    if digits.len() == 12 && hexadecimal(&digits) { Ok(digits) } else { Err("it has not twelve hexadecimal digits") }
}

fn org(text: &str) -> Result<String, &'static str> {
    let mut letters = text.bytes();
    let legal = letters.next().is_some_and(|first| first.is_ascii_lowercase())
        && letters.all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b'_');
    match legal {
        true if text.len() <= MAX_CHARS => Ok(text.to_owned()),
        true => Err("it is longer than 128 characters"),
        false => Err("it must match [a-z][a-z0-9_]*"),
    }
}

/// Drops the separators that people and other systems write, and raises the case.
fn bare(text: &str) -> String {
    text.chars()
        .filter(|letter| !matches!(letter, ' ' | ':' | '-' | '.' | '/'))
        .map(|letter| letter.to_ascii_uppercase())
        .collect()
}

fn decimal(text: &str) -> bool {
    text.bytes().all(|digit| digit.is_ascii_digit())
}

fn hexadecimal(text: &str) -> bool {
    text.bytes().all(|digit| digit.is_ascii_hexdigit())
}
