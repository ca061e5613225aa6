//! Which unique identifier names an asset.
//!
//! Unique fields are normalised in place, so that the asset's id and its fields agree. A text that is no identifier (a placeholder
//! that a vendor, a reseller or a form wrote, or a text of the wrong shape) counts as empty.

use windfall_schemas::asset::FieldValue;
use windfall_schemas::identifiers::{Eid, Imei, MacAddress, Meid, SerialNumber};

/// How a collection's assets are named.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules {
    /// The unique fields: place among the collection's fields, and how their text is normalised.
    pub unique: Vec<(usize, Shape)>,
    /// Places and names of the fields that name an asset, the first present one wins.
    pub identify_by: Vec<(usize, String)>,
}

/// What a unique field's text must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Any text: trimmed, in upper case.
    Serial,
    /// Digits, as of an IMEI.
    Imei,
    /// Digits, as of an MEID.
    Meid,
    /// Digits, as of an eSIM's identifier.
    Eid,
    /// Twelve hexadecimal digits.
    Mac,
}

impl Shape {
    /// Chooses the shape by a field's name: `imei_2` is an IMEI, `wifi_mac_address` a MAC address.
    pub fn of_field(name: &str) -> Self {
        let shapes = [("imei", Self::Imei), ("meid", Self::Meid), ("eid", Self::Eid), ("mac", Self::Mac)];
        let named = shapes.into_iter().find(|(word, _)| name.split('_').any(|part| part == *word));
        named.map_or(Self::Serial, |(_, shape)| shape)
    }

    /// Normalises a text; `None` when it is no identifier of this shape.
    pub fn normalise(self, text: &str) -> Option<String> {
        if placeholder(text) {
            return None;
        }
        match self {
            Self::Serial => SerialNumber::parse(text).ok().map(SerialNumber::into_string),
            Self::Imei => Imei::parse(text).ok().map(Imei::into_string),
            Self::Meid => Meid::parse(text).ok().map(Meid::into_string),
            Self::Eid => Eid::parse(text).ok().map(Eid::into_string),
            Self::Mac => MacAddress::parse(text).ok().map(MacAddress::into_string),
        }
    }
}

/// The asset that a record speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The identifier, normalised.
    pub asset_id: String,
    /// Name of the field that it was taken from.
    pub field: String,
}

/// Normalises the unique fields in place and finds the first identifier present.
#[must_use]
pub fn identify(rules: &Rules, values: &mut [FieldValue]) -> Option<Identity> {
    for (field, shape) in &rules.unique {
        if let Some(FieldValue::String(text)) = values.get(*field) {
            values[*field] = shape.normalise(text).map_or(FieldValue::Null, FieldValue::String);
        }
    }
    rules.identify_by.iter().find_map(|(field, name)| match values.get(*field)? {
        FieldValue::Null => None,
        value => Some(Identity { asset_id: value.to_string(), field: name.clone() }),
    })
}

/// What vendors and forms write where they know nothing; letters and digits alone, in lower case.
const PLACEHOLDERS: [&str; 23] = [
    "na",
    "nil",
    "none",
    "null",
    "empty",
    "blank",
    "unknown",
    "unspecified",
    "undefined",
    "unavailable",
    "notavailable",
    "notapplicable",
    "notspecified",
    "notset",
    "noserial",
    "noserialnumber",
    "serialnumber",
    "systemserialnumber",
    "defaultstring",
    "tobefilledbyoem",
    "tbd",
    "test",
    "invalid",
];

/// Bytes of the longest placeholder.
const LONGEST: usize = 18;

/// Says whether a text stands for "nothing is known": a word of the list, or one character repeated (`000000`, `XXXX`, `--`).
pub fn placeholder(text: &str) -> bool {
    let mut bare = text.chars().filter(|char| char.is_alphanumeric()).flat_map(char::to_lowercase).peekable();
    let Some(first) = bare.peek().copied() else { return true };
    // Asked of each identifier of each record, so nothing is allocated.
    let (mut word, mut length, mut repeated) = ([0; LONGEST], 0, true);
    for char in bare {
        repeated &= char == first;
        if let (Some(letter), true) = (word.get_mut(length), char.is_ascii()) {
            *letter = char as u8;
        }
        length += 1;
        if length > LONGEST && !repeated {
            return false;
        }
    }
    repeated || word.get(..length).is_some_and(|word| PLACEHOLDERS.iter().any(|known| known.as_bytes() == word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_placeholder_is_found_and_what_only_begins_like_one_is_not() {
        assert_eq!(PLACEHOLDERS.iter().map(|word| word.len()).max(), Some(LONGEST));
        for word in PLACEHOLDERS {
            assert!(placeholder(word) && placeholder(&format!(" {} ", word.to_uppercase())), "{word}");
            assert!(!placeholder(&format!("{word}7")) && !placeholder(&format!("{word}\u{e4}")), "{word}");
        }
        assert!(placeholder(&"0".repeat(200)) && !placeholder(&format!("{}1", "0".repeat(200))));
        assert!(!placeholder("\u{e4}\u{f6}"), "two letters that are no bytes of a word");
    }
}
