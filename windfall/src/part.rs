//! Which part of the configuration a command works with: the secrets of the others are not read.

use windfall_runtime::config::{Places, Reading};
use windfall_runtime::diagnose::Kind;

use crate::cli::{StageArgs, StageName};
use crate::exit::Failure;

/// A part of the configuration. What stands under neither `sources:` nor `sinks:` belongs to all but [`Part::Nothing`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// Everything.
    All,
    /// Everything, secrets only as far as they are there.
    IfThere,
    /// The sources.
    Producer,
    /// What the stages share: Kafka and the registry. The transformer needs no more.
    Shared,
    /// All sinks.
    Sinks,
    /// The sink of this name.
    Sink(String),
    /// Nothing that is secret.
    Nothing,
}

impl Part {
    /// Returns the part of the stage that a command was given.
    pub(crate) fn of(args: &StageArgs) -> crate::Result<Self> {
        Ok(match (args.stage, &args.name) {
            (StageName::Sink, Some(name)) => Self::Sink(name.clone()),
            (_, Some(_)) => {
                let failure = Failure::new(Kind::Usage, "only a sink has a name to be called by");
                return Err(failure.help("write `sink NAME`, or leave the name out").into());
            }
            (StageName::All, None) => Self::All,
            (StageName::Producer, None) => Self::Producer,
            (StageName::Transformer, None) => Self::Shared,
            (StageName::Sink, None) => Self::Sinks,
        })
    }

    /// Says whether the secrets of the value at `path` are read.
    pub(crate) fn reading(&self, places: &Places, path: &str) -> Reading {
        let (list, rest) = path.split_once('[').unwrap_or((path, ""));
        let needed = match (self, list) {
            (Self::IfThere, _) => return Reading::IfThere,
            (Self::All, _) => true,
            (Self::Nothing, _) => false,
            (Self::Producer, list) => list != "sinks",
            (Self::Sinks, list) => list != "sources",
            (Self::Sink(name), "sinks") => {
                let found = rest.split_once(']').and_then(|(index, _)| places.text(&format!("sinks[{index}].name")));
                // A name that is put together from variables is known only later.
                found.is_none_or(|found| found == name || found.contains("${"))
            }
            (Self::Shared | Self::Sink(_), list) => list != "sources" && list != "sinks",
        };
        if needed { Reading::Needed } else { Reading::Never }
    }

    /// Whether the producer belongs to it.
    pub(crate) fn producer(&self) -> bool {
        matches!(self, Self::All | Self::IfThere | Self::Producer)
    }

    /// Whether a sink belongs to it.
    pub(crate) fn sink(&self, name: &str) -> bool {
        match self {
            Self::All | Self::IfThere | Self::Sinks => true,
            Self::Sink(wanted) => wanted == name,
            Self::Producer | Self::Shared | Self::Nothing => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use windfall_runtime::config::{Rules, Violations, parse};

    use super::*;

    const PATHS: [&str; 6] = [
        "kafka.properties.sasl.password",
        "sources[0].private_key",
        "sources[1].private_key",
        "sinks[0].url",
        "sinks[1].url",
        "sinks[2].url",
    ];

    fn needed(part: &Part) -> Vec<&'static str> {
        let text = "sinks: [{ name: a }, { name: b }, { name: \"${ENV:x}\" }]\n";
        let found = RefCell::new(None);
        let secrets = |places: &Places, _: &str| {
            *found.borrow_mut() = Some(places.clone());
            Reading::Never
        };
        let rules = Rules::<serde_json::Value> { env: &|_| None, secrets: &secrets, check: &|_| Violations::new() };
        parse(text, std::path::Path::new("w.yaml"), &rules).unwrap();
        let places = found.take().unwrap();
        PATHS.into_iter().filter(|path| part.reading(&places, path) == Reading::Needed).collect()
    }

    #[test]
    fn each_part_needs_its_own_secrets_and_those_of_kafka() {
        assert_eq!(needed(&Part::All), PATHS);
        assert_eq!(needed(&Part::Producer), PATHS[..3]);
        assert_eq!(needed(&Part::Shared), PATHS[..1]);
        assert_eq!(needed(&Part::Sinks), [PATHS[0], PATHS[3], PATHS[4], PATHS[5]]);
        assert_eq!(needed(&Part::Sink("b".to_owned())), [PATHS[0], PATHS[4], PATHS[5]]);
        assert_eq!(needed(&Part::Nothing), [""; 0]);
        assert_eq!(needed(&Part::IfThere), [""; 0]);
    }

    #[test]
    fn only_a_sink_is_called_by_its_name() {
        let part = |stage, name: Option<&str>| Part::of(&StageArgs { stage, name: name.map(str::to_owned) }).ok();
        assert_eq!(part(StageName::Sink, Some("a")), Some(Part::Sink("a".to_owned())));
        assert_eq!(part(StageName::Producer, Some("a")), None);
        assert_eq!(part(StageName::All, None), Some(Part::All));
    }
}
