//! Which part of the configuration a command needs. The secrets of the other parts are not read.

use windfall_runtime::config::{SecretReading, Texts};
use windfall_runtime::diagnose::Kind;

use crate::cli::{StageArgs, StageName};
use crate::exit::Failure;

/// A part of the configuration. Everything outside `sources:` and `sinks:` belongs to every scope but [`Scope::Nothing`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Everything.
    All,
    /// Everything; a secret that cannot be read is left out.
    IfThere,
    /// The sources.
    Producer,
    /// What all stages share: Kafka and the registry. The transformer needs nothing else.
    Shared,
    /// All sinks.
    Sinks,
    /// The sink of this name.
    Sink(String),
    /// No secret at all.
    Nothing,
}

impl Scope {
    /// Returns the scope of the stage that the command line names.
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

    /// Returns whether the secret at `path` is read.
    pub(crate) fn reading(&self, texts: &Texts, path: &str) -> SecretReading {
        let (list, rest) = path.split_once('[').unwrap_or((path, ""));
        let needed = match (self, list) {
            (Self::IfThere, _) => return SecretReading::IfThere,
            (Self::All, _) => true,
            (Self::Nothing, _) => false,
            (Self::Producer, list) => list != "sinks",
            (Self::Sinks, list) => list != "sources",
            (Self::Sink(name), "sinks") => {
                let found = rest.split_once(']').and_then(|(index, _)| texts.get(&format!("sinks[{index}].name")));
                // A name that contains variables is known only after substitution.
                found.is_none_or(|found| found == name || found.contains("${"))
            }
            (Self::Shared | Self::Sink(_), list) => list != "sources" && list != "sinks",
        };
        if needed { SecretReading::Needed } else { SecretReading::Never }
    }

    /// Returns whether the producer is part of the scope.
    pub(crate) fn producer(&self) -> bool {
        matches!(self, Self::All | Self::IfThere | Self::Producer)
    }

    /// Returns whether the sink of this name is part of the scope.
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

    fn needed(scope: &Scope) -> Vec<&'static str> {
        let text = "sinks: [{ name: a }, { name: b }, { name: \"${ENV:x}\" }]\n";
        let found = RefCell::new(None);
        let secrets = |texts: &Texts, _: &str| {
            *found.borrow_mut() = Some(texts.clone());
            SecretReading::Never
        };
        let rules = Rules::<serde_json::Value> { env: &|_| None, secrets: &secrets, check: &|_| Violations::new() };
        parse(text, std::path::Path::new("w.yaml"), &rules).unwrap();
        let texts = found.take().unwrap();
        PATHS.into_iter().filter(|path| scope.reading(&texts, path) == SecretReading::Needed).collect()
    }

    #[test]
    fn each_part_needs_its_own_secrets_and_those_of_kafka() {
        assert_eq!(needed(&Scope::All), PATHS);
        assert_eq!(needed(&Scope::Producer), PATHS[..3]);
        assert_eq!(needed(&Scope::Shared), PATHS[..1]);
        assert_eq!(needed(&Scope::Sinks), [PATHS[0], PATHS[3], PATHS[4], PATHS[5]]);
        assert_eq!(needed(&Scope::Sink("b".to_owned())), [PATHS[0], PATHS[4], PATHS[5]]);
        assert_eq!(needed(&Scope::Nothing), [""; 0]);
        assert_eq!(needed(&Scope::IfThere), [""; 0]);
    }

    #[test]
    fn only_a_sink_is_called_by_its_name() {
        let scope = |stage, name: Option<&str>| Scope::of(&StageArgs { stage, name: name.map(str::to_owned) }).ok();
        assert_eq!(scope(StageName::Sink, Some("a")), Some(Scope::Sink("a".to_owned())));
        assert_eq!(scope(StageName::Producer, Some("a")), None);
        assert_eq!(scope(StageName::All, None), Some(Scope::All));
    }
}
