//! What the embedded registry holds: a fold of its entries, in their order (pure).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use apache_avro::Schema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;
use windfall_schemas::wire::{SchemaReference, guard};

use super::error::RegistryError;
use super::level::Level;
use super::normal::normal_form;

/// One thing that was decided, as it lies in the topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(super) enum Entry {
    /// A schema became a version of a subject.
    Version {
        /// The subject.
        subject: String,
        /// The text as it was sent.
        schema: String,
        /// How many versions the subject had when the entry was written. The entry counts only if the subject still has as
        /// many when it is read, so of two processes that register at once the second checks again. Entries of releases
        /// that did not write this always count.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<usize>,
    },
    /// A level was set, for one subject or for all that have none.
    Config {
        /// The subject.
        subject: Option<String>,
        /// The level's name.
        compatibility: String,
    },
}

/// A version of a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) subject: String,
    pub(super) version: u32,
    pub(super) id: u32,
    pub(super) guid: Uuid,
    pub(super) text: Arc<str>,
}

/// A schema's number: the first 31 bits of SHA-256 of its text, and never 0.
pub(super) fn id_of(text: &str) -> u32 {
    let digest = Sha256::digest(text.as_bytes());
    let first = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]) >> 1;
    first.max(1)
}

/// A schema's GUID, from its text as well.
pub(super) fn guid_of(text: &str) -> Uuid {
    let digest = Sha256::digest(text.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[4..20]);
    Uuid::from_bytes(bytes)
}

#[derive(Debug)]
struct StoredSchema {
    text: Arc<str>,
    guid: Uuid,
    normal: Option<serde_json::Value>,
    parsed: Schema,
}

/// What the registry holds.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    schemas: BTreeMap<u32, StoredSchema>,
    guids: HashMap<Uuid, u32>,
    /// Ids of each subject's versions, the first being version 1.
    subjects: BTreeMap<String, Vec<u32>>,
    levels: BTreeMap<String, Level>,
    level: Level,
}

impl Catalogue {
    /// Takes an entry over; one that cannot stand is left out, by every process alike.
    pub(super) fn apply(&mut self, entry: &Entry) -> Result<(), RegistryError> {
        match entry {
            Entry::Version { subject, schema, after } => {
                let versions = self.count(subject);
                if after.is_some_and(|after| after != versions) {
                    return Ok(());
                }
                self.add(subject, schema)
            }
            Entry::Config { subject, compatibility } => {
                let Ok(level) = compatibility.parse() else { return Ok(()) };
                match subject {
                    Some(subject) => {
                        self.levels.insert(subject.clone(), level);
                    }
                    None => self.level = level,
                }
                Ok(())
            }
        }
    }

    fn add(&mut self, subject: &str, text: &str) -> Result<(), RegistryError> {
        let id = self.id_for(subject, text)?;
        if !self.schemas.contains_key(&id) {
            let parsed = guard::parse(text)?;
            let held = StoredSchema { text: text.into(), guid: guid_of(text), normal: normal(text), parsed };
            self.guids.insert(held.guid, id);
            self.schemas.insert(id, held);
        }
        let versions = self.subjects.entry(subject.to_owned()).or_default();
        if !versions.contains(&id) {
            versions.push(id);
        }
        Ok(())
    }

    /// Returns a text's id, which must not be another text's.
    fn id_for(&self, subject: &str, text: &str) -> Result<u32, RegistryError> {
        let id = id_of(text);
        match self.schemas.get(&id) {
            Some(held) if *held.text != *text => Err(RegistryError::WrongSchema { subject: subject.to_owned(), id }),
            Some(_) | None => Ok(id),
        }
    }

    /// Finds the version of a subject that has this text, or one that means the same.
    pub(super) fn find(&self, subject: &str, text: &str) -> Option<Version> {
        let ids = self.subjects.get(subject)?;
        let exact = id_of(text);
        if ids.contains(&exact) && self.schemas.get(&exact).is_some_and(|held| *held.text == *text) {
            return self.version_of(subject, exact);
        }
        let sought = normal(text)?;
        let id = ids
            .iter()
            .rev()
            .find(|id| self.schemas.get(id).is_some_and(|held| held.normal.as_ref() == Some(&sought)))?;
        self.version_of(subject, *id)
    }

    /// Refuses a text that may not become the next version of a subject.
    pub(super) fn check(&self, subject: &str, text: &str) -> Result<(), RegistryError> {
        self.id_for(subject, text)?;
        let earlier = self.subjects.get(subject).map_or(&[][..], Vec::as_slice);
        let reason = self.objections(subject, text, earlier)?.join("; ");
        match reason.is_empty() {
            true => Ok(()),
            false => Err(RegistryError::Incompatible { subject: subject.to_owned(), reason }),
        }
    }

    /// Returns why a text does not go with versions of a subject, by the subject's level.
    pub(super) fn objections(&self, subject: &str, text: &str, earlier: &[u32]) -> Result<Vec<String>, RegistryError> {
        let new = guard::parse(text)?;
        let held = earlier.iter().filter_map(|id| self.schemas.get(id));
        let earlier: Vec<Schema> = held.map(|held| held.parsed.clone()).collect();
        Ok(self.own_level(subject).unwrap_or(self.level).objections(&new, &earlier))
    }

    fn version_of(&self, subject: &str, id: u32) -> Option<Version> {
        let index = self.subjects.get(subject)?.iter().position(|known| *known == id)?;
        let held = self.schemas.get(&id)?;
        let version = u32::try_from(index + 1).ok()?;
        Some(Version { subject: subject.to_owned(), version, id, guid: held.guid, text: Arc::clone(&held.text) })
    }

    pub(super) fn subjects(&self) -> Vec<String> {
        self.subjects.keys().cloned().collect()
    }

    /// How many versions a subject has.
    pub(super) fn count(&self, subject: &str) -> usize {
        self.subjects.get(subject).map_or(0, Vec::len)
    }

    /// All versions of a subject, oldest first; `None` when there is no such subject.
    pub(super) fn versions(&self, subject: &str) -> Option<Vec<Version>> {
        let ids = self.subjects.get(subject)?;
        Some(ids.iter().filter_map(|id| self.version_of(subject, *id)).collect())
    }

    /// A schema's GUID and text.
    pub(super) fn schema(&self, of: SchemaReference) -> Option<(Uuid, Arc<str>)> {
        let id = match of {
            SchemaReference::Id(id) => id,
            SchemaReference::Guid(bytes) => *self.guids.get(&Uuid::from_bytes(bytes))?,
        };
        self.schemas.get(&id).map(|held| (held.guid, Arc::clone(&held.text)))
    }

    /// The versions, over all subjects, that a schema is.
    pub(super) fn uses(&self, id: u32) -> Vec<Version> {
        self.subjects.keys().filter_map(|subject| self.version_of(subject, id)).collect()
    }

    pub(super) fn level(&self) -> Level {
        self.level
    }

    /// The level set for a subject itself.
    pub(super) fn own_level(&self, subject: &str) -> Option<Level> {
        self.levels.get(subject).copied()
    }
}

fn normal(text: &str) -> Option<serde_json::Value> {
    serde_json::from_str(text).ok().map(|schema| normal_form(&schema))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"string"}]}"#;
    const TWO: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"string"},{"name":"b","type":["null","long"],"default":null}]}"#;

    fn version(subject: &str, schema: &str) -> Entry {
        Entry::Version { subject: subject.into(), schema: schema.into(), after: None }
    }

    fn catalogue(entries: &[Entry]) -> Catalogue {
        entries.iter().fold(Catalogue::default(), |mut catalogue, entry| {
            catalogue.apply(entry).unwrap();
            catalogue
        })
    }

    #[test]
    fn versions_follow_the_order_of_entries_and_a_repeated_one_is_none() {
        let catalogue = catalogue(&[version("s", ONE), version("s", TWO), version("s", ONE), version("t", TWO)]);
        let versions: Vec<u32> = catalogue.versions("s").unwrap().iter().map(|version| version.version).collect();
        assert_eq!(versions, [1, 2]);
        assert_eq!(catalogue.find("s", TWO).unwrap().version, 2);
        assert_eq!(catalogue.find("t", TWO).unwrap().id, catalogue.find("s", TWO).unwrap().id);
        assert_eq!(catalogue.uses(id_of(TWO)).len(), 2);
    }

    #[test]
    fn a_schema_printed_otherwise_is_found_and_keeps_its_id() {
        let catalogue = catalogue(&[version("s", ONE)]);
        let printed = r#"{ "name":"R", "type":"record", "fields":[{"type":{"type":"string"},"name":"a"}] }"#;
        assert_eq!(catalogue.find("s", printed).unwrap().id, id_of(ONE));
        assert_eq!(catalogue.find("s", TWO), None);
    }

    #[test]
    fn an_incompatible_schema_is_refused_by_the_subjects_level() {
        let mut catalogue = catalogue(&[version("s", ONE)]);
        let required = TWO.replace(r#"["null","long"],"default":null"#, r#""long""#);
        assert!(matches!(catalogue.check("s", &required), Err(RegistryError::Incompatible { .. })));
        assert!(catalogue.check("t", &required).is_ok());
        catalogue.apply(&Entry::Config { subject: Some("s".into()), compatibility: "NONE".into() }).unwrap();
        assert!(catalogue.check("s", &required).is_ok());
    }

    #[test]
    fn of_two_entries_that_were_written_for_the_same_place_the_first_stands() {
        let raced = |schema: &str| Entry::Version { subject: "s".into(), schema: schema.into(), after: Some(1) };
        let catalogue = catalogue(&[version("s", ONE), raced(TWO), raced("\"string\"")]);
        assert_eq!(catalogue.versions("s").unwrap().len(), 2);
        assert_eq!(catalogue.find("s", "\"string\""), None);
        assert_eq!(catalogue.schema(SchemaReference::Id(id_of("\"string\""))), None);
    }

    #[test]
    fn an_id_has_31_bits_and_follows_from_the_text() {
        assert_eq!(id_of(ONE), id_of(ONE));
        assert_ne!(id_of(ONE), id_of(TWO));
        assert!(id_of(ONE) <= i32::MAX as u32);
    }
}
