//! A map from names to bytes with one allocation an entry: the loops keep the state of every device in it (pure).

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};

/// A map from names to bytes. An entry takes one allocation, for name and bytes together, and two words in the table.
#[derive(Debug, Clone, Default)]
pub(crate) struct PackedMap(HashSet<PackedEntry>);

/// The length of the name, the name, the bytes.
#[derive(Debug, Clone)]
struct PackedEntry(Box<[u8]>);

impl PackedEntry {
    fn split(&self) -> (&[u8], &[u8]) {
        let mut rest = &*self.0;
        let name = sized(&mut rest);
        (name, rest)
    }
}

impl Borrow<[u8]> for PackedEntry {
    fn borrow(&self) -> &[u8] {
        self.split().0
    }
}

impl Hash for PackedEntry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.split().0.hash(state);
    }
}

impl PartialEq for PackedEntry {
    fn eq(&self, other: &Self) -> bool {
        self.split().0 == other.split().0
    }
}

impl Eq for PackedEntry {}

impl PackedMap {
    /// Returns the bytes of a name.
    pub(crate) fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name.as_bytes()).map(|entry| entry.split().1)
    }

    /// Sets the bytes of a name; they are given in parts.
    pub(crate) fn insert(&mut self, name: &str, parts: &[&[u8]]) {
        let length = size_of::<u32>() + name.len() + parts.iter().map(|part| part.len()).sum::<usize>();
        let mut entry = Vec::with_capacity(length);
        push_sized(&mut entry, name.as_bytes());
        parts.iter().for_each(|part| entry.extend_from_slice(part));
        self.0.replace(PackedEntry(entry.into()));
    }

    /// Removes a name.
    pub(crate) fn remove(&mut self, name: &str) {
        self.0.remove(name.as_bytes());
    }

    /// Returns all names and their bytes, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(PackedEntry::split).map(|(name, bytes)| (text(name), bytes))
    }

    /// Returns whether there is no name.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Appends bytes with their length in front.
///
/// # Panics
/// Of four gigabytes and more.
pub(crate) fn push_sized(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("records are smaller than four gigabytes");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Takes what [`push_sized`] appended from the front.
pub(crate) fn sized<'a>(bytes: &mut &'a [u8]) -> &'a [u8] {
    let length = u32::from_le_bytes(array(bytes)) as usize;
    let (taken, rest) = bytes.split_at(length);
    *bytes = rest;
    taken
}

/// Takes a number's bytes from the front.
///
/// # Panics
/// When there are fewer: what is read here was packed by this process.
pub(crate) fn array<const N: usize>(bytes: &mut &[u8]) -> [u8; N] {
    let (taken, rest) = bytes.split_first_chunk().expect("it was packed with a number in front");
    *bytes = rest;
    *taken
}

/// Reads a text that was packed.
pub(crate) fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).expect("it was packed from a text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_the_bytes_that_were_remembered_last() {
        let mut map = PackedMap::default();
        map.insert("a", &[b"1", b"2"]);
        map.insert("ab", &[]);
        map.insert("", &[b"3"]);
        map.insert("a", &[b"4"]);
        assert_eq!((map.get("a"), map.get("ab"), map.get("")), (Some(&b"4"[..]), Some(&b""[..]), Some(&b"3"[..])));
        assert_eq!((map.get("b"), map.iter().count()), (None, 3));
        map.remove("a");
        assert_eq!(map.get("a"), None);
        assert!(!map.is_empty());
    }
}
