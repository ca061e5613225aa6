//! Levels of compatibility, as Confluent names them (pure).

use std::fmt;
use std::str::FromStr;

use apache_avro::Schema;
use apache_avro::schema_compatibility::{Compatibility, SchemaCompatibility};

/// What a new version must be able to do with the earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Level {
    /// Nothing.
    None,
    /// Read what the last version wrote.
    #[default]
    Backward,
    /// Read what every version wrote.
    BackwardTransitive,
    /// Be read by the last version.
    Forward,
    /// Be read by every version.
    ForwardTransitive,
    /// Both, with the last version.
    Full,
    /// Both, with every version.
    FullTransitive,
}

/// A name that is no level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no compatibility level")]
pub struct UnknownLevel(String);

/// Every level with its name.
const NAMES: [(Level, &str); 7] = [
    (Level::None, "NONE"),
    (Level::Backward, "BACKWARD"),
    (Level::BackwardTransitive, "BACKWARD_TRANSITIVE"),
    (Level::Forward, "FORWARD"),
    (Level::ForwardTransitive, "FORWARD_TRANSITIVE"),
    (Level::Full, "FULL"),
    (Level::FullTransitive, "FULL_TRANSITIVE"),
];

impl fmt::Display for Level {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES.iter().find(|(level, _)| level == self).map_or("", |(_, name)| name);
        formatter.write_str(name)
    }
}

impl FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(name: &str) -> Result<Self, UnknownLevel> {
        let found = NAMES.iter().find(|(_, known)| known.eq_ignore_ascii_case(name));
        found.map(|(level, _)| *level).ok_or_else(|| UnknownLevel(name.to_owned()))
    }
}

impl Level {
    fn backward(self) -> bool {
        matches!(self, Self::Backward | Self::BackwardTransitive | Self::Full | Self::FullTransitive)
    }

    fn forward(self) -> bool {
        matches!(self, Self::Forward | Self::ForwardTransitive | Self::Full | Self::FullTransitive)
    }

    fn transitive(self) -> bool {
        matches!(self, Self::BackwardTransitive | Self::ForwardTransitive | Self::FullTransitive)
    }

    /// Returns why `new` may not follow `earlier` (oldest first); nothing when it may.
    ///
    /// The library's `Partial` counts as no: it stands for a new required field and for a new enum symbol too.
    pub fn objections(self, new: &Schema, earlier: &[Schema]) -> Vec<String> {
        let first = if self.transitive() { 0 } else { earlier.len().saturating_sub(1) };
        let mut objections = Vec::new();
        for (index, old) in earlier.iter().enumerate().skip(first) {
            let version = index + 1;
            if self.backward() {
                objections
                    .extend(objection(old, new).map(|why| format!("new schema cannot read version {version}: {why}")));
            }
            if self.forward() {
                objections
                    .extend(objection(new, old).map(|why| format!("version {version} cannot read new schema: {why}")));
            }
        }
        objections
    }
}

fn objection(writer: &Schema, reader: &Schema) -> Option<String> {
    match SchemaCompatibility::can_read(writer, reader) {
        Ok(Compatibility::Full) => None,
        Ok(Compatibility::Partial) => Some("only some records can be read".to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(fields: &str) -> Schema {
        Schema::parse_str(&format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#)).unwrap()
    }

    const A: &str = r#"{"name":"a","type":"string"}"#;
    const B: &str = r#"{"name":"b","type":"string"}"#;
    const B_WITH_DEFAULT: &str = r#"{"name":"b","type":["null","string"],"default":null}"#;

    fn allows(level: Level, new: &str, earlier: &[&str]) -> bool {
        let earlier: Vec<Schema> = earlier.iter().map(|fields| record(fields)).collect();
        level.objections(&record(new), &earlier).is_empty()
    }

    #[test]
    fn a_nullable_field_at_the_end_passes_every_level() {
        let new = format!("{A},{B_WITH_DEFAULT}");
        for level in
            ["NONE", "BACKWARD", "FORWARD", "FULL", "BACKWARD_TRANSITIVE", "FORWARD_TRANSITIVE", "full_transitive"]
        {
            assert!(allows(level.parse().unwrap(), &new, &[A]), "{level}");
        }
    }

    #[test]
    fn a_required_field_passes_forward_and_never_backward() {
        let new = format!("{A},{B}");
        assert!(allows(Level::Forward, &new, &[A]));
        assert!(!allows(Level::Backward, &new, &[A]));
        assert!(!allows(Level::Full, &new, &[A]));
        assert!(allows(Level::None, &new, &[A]));
    }

    #[test]
    fn only_transitive_levels_look_at_older_versions_than_the_last() {
        let (oldest, last, new) = (A, format!("{A},{B_WITH_DEFAULT}"), format!("{A},{B}"));
        // Reads the last version (which has `b`, though nullable)? No union fits a string: backward fails at the last already.
        assert!(!allows(Level::Backward, &new, &[oldest, &last]));
        let with_default = r#"{"name":"b","type":"string","default":""}"#;
        let (last, new) = (format!("{A},{with_default}"), format!("{A},{B}"));
        assert!(allows(Level::Backward, &new, &[oldest, &last]));
        assert!(!allows(Level::BackwardTransitive, &new, &[oldest, &last]));
    }

    #[test]
    fn a_name_that_is_no_level_is_refused() {
        assert!("SIDEWAYS".parse::<Level>().is_err());
        assert_eq!(Level::default().to_string(), "BACKWARD");
    }
}
