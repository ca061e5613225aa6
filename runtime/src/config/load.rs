//! From a file to a struct.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::encoding::{SAVE_AS_UTF8, text_of};
use super::explain::{describe, missing, nearest};
use super::fill::{Failed, Failure, Filler};
use super::substitute::{SecretReading, Sources, Substituted, substitute};
use super::violation::Violations;
use super::yaml::{self, At, Limits, Node, Place};
use crate::diagnose::{Diagnose, Diagnosis, Kind};
use crate::secret::{Directory, SecretBackends};

/// A configuration is written by people; a larger file was named by mistake.
pub const MAX_CONFIG_BYTES: u64 = 1024 * 1024;

/// What no configuration needs.
const LIMITS: Limits = Limits { nodes: 50_000, aliases: 200 };

/// Whoever has made more mistakes than this is told of the others later.
const MAX_FAULTS: usize = 100;

/// One thing that is wrong, with its place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fault {
    /// The file; empty where the fault is of none.
    pub file: String,
    /// Where it stands.
    pub place: Option<Place>,
    /// The path of the value, `sources[0].scan`.
    pub path: Option<String>,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub help: Option<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, place, path, what, help: _ } = self;
        f.write_str(file)?;
        if let Some(place) = place {
            write!(f, ":{place}")?;
        }
        let path = path.as_deref().filter(|path| !path.is_empty()).map(|path| format!("`{path}`")).unwrap_or_default();
        match (file.is_empty(), path.is_empty()) {
            (false, false) => write!(f, " {path}: {what}"),
            (false, true) => write!(f, ": {what}"),
            (true, false) => write!(f, "{path} {what}"),
            (true, true) => f.write_str(what),
        }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("could not read the configuration `{}`", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is no text that can be read.
    #[error("`{}` {what}", file.display())]
    NotText {
        /// The file.
        file: PathBuf,
        /// What it is instead.
        what: &'static str,
    },
    /// The file is too large.
    #[error("`{}` is larger than {MAX_CONFIG_BYTES} bytes, which no configuration is", file.display())]
    TooLarge {
        /// The file.
        file: PathBuf,
    },
    /// The file says something that cannot stand.
    #[error("the configuration `{}` cannot be used", file.display())]
    Faulty {
        /// The file.
        file: PathBuf,
        /// What is wrong, all that was found.
        faults: Vec<Fault>,
    },
}

impl Diagnose for ConfigError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Unreadable { .. } => {
                Kind::Configuration.help("name the file with `-c FILE`, or in `WINDFALL_CONFIG`")
            }
            Self::TooLarge { .. } => Kind::Configuration.help("check which file is meant"),
            Self::NotText { .. } => Kind::Configuration.help(SAVE_AS_UTF8),
            Self::Faulty { .. } => Kind::Configuration.into(),
        }
    }

    fn faults(&self) -> &[Fault] {
        match self {
            Self::Faulty { faults, .. } => faults,
            Self::Unreadable { .. } | Self::NotText { .. } | Self::TooLarge { .. } => &[],
        }
    }
}

/// A configuration, and what is to be said of it.
pub struct Loaded<T> {
    /// The configuration.
    pub config: T,
    /// Paths of the values whose secrets were not read.
    pub withheld: Vec<String>,
    /// What was read all the same, and is worth a word at the start and in `check`.
    pub warnings: Vec<String>,
}

/// Returns the folder that paths in the configuration `file` are relative to.
pub fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(""))
}

/// Whether the value at `path` is the one at `inner` or has it inside.
fn holds(path: &str, inner: &str) -> bool {
    inner.strip_prefix(path).is_some_and(|rest| path.is_empty() || rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Where a configuration gets its references from, and what it has to hold to.
pub struct Rules<'a, T> {
    /// Looks up the variables that the file names.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Says of a value by its path whether the secrets that it refers to are read; the texts of all values are given by path, as
    /// they stand in the file.
    pub secrets: &'a dyn Fn(&Texts, &str) -> SecretReading,
    /// Returns the rules that the configuration breaks.
    pub check: &'a dyn Fn(&T) -> Violations,
}

/// The texts of all single values by their path, as they stand in the file, references included.
pub type Texts = BTreeMap<String, String>;

/// Reads the configuration `file`.
///
/// A secret that is not read leaves its reference where it stands. A rule about such a value, and about what holds it, is left
/// to whoever needs the value.
///
/// # Errors
/// When the file cannot be read, or anything in it cannot stand: references that cannot be resolved, keys that are not
/// known, values that cannot be read and rules that are broken are told together.
pub fn load<T: DeserializeOwned>(file: &Path, rules: &Rules<'_, T>) -> Result<Loaded<T>, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { file: file.to_owned(), source };
    if std::fs::metadata(file).map_err(unreadable)?.len() > MAX_CONFIG_BYTES {
        return Err(ConfigError::TooLarge { file: file.to_owned() });
    }
    let bytes = std::fs::read(file).map_err(unreadable)?;
    let text = text_of(bytes).map_err(|what| ConfigError::NotText { file: file.to_owned(), what })?;
    parse(&text, file, rules)
}

/// Reads a configuration from `text`, which stands in `file`.
///
/// # Errors
/// As [`load`].
pub fn parse<T: DeserializeOwned>(text: &str, file: &Path, rules: &Rules<'_, T>) -> Result<Loaded<T>, ConfigError> {
    let mut faults = Vec::new();
    if let Some(mut root) = yaml::parse(text, LIMITS, &mut faults) {
        let mut texts = Texts::new();
        root.each(&mut |spot, node| {
            if let Node::Scalar(scalar) = &node.value {
                texts.insert(spot.path.clone(), scalar.text.clone());
            }
        });
        let secrets = backends(&texts, folder_of(file));
        let sources = Sources { secrets: &secrets, env: rules.env, reading: &|path| (rules.secrets)(&texts, path) };
        let substituted = substitute(&mut root, &sources, &mut faults);
        let gone = faults.iter().filter_map(|fault| fault.path.clone()).collect();
        let recovery = FaultCollector { root, gone, withheld: &substituted.withheld, faults: &mut faults };
        let config = recovery.read(rules.check);
        if let (Some(config), true) = (config, faults.is_empty()) {
            let Substituted { withheld, warnings, .. } = substituted;
            return Ok(Loaded { config, withheld, warnings });
        }
        faults.iter_mut().for_each(|fault| redact(fault, &substituted.revealed));
        faults.sort_by_key(|fault| fault.place);
    }
    for fault in faults.iter_mut().filter(|fault| fault.file.is_empty()) {
        fault.file = file.display().to_string();
    }
    Err(ConfigError::Faulty { file: file.to_owned(), faults })
}

/// Reads a tree that may have many faults: what cannot be read is reported and left out, and the rest is read again.
struct FaultCollector<'a> {
    root: At<Node>,
    /// Paths of what was left out or has no value.
    gone: Vec<String>,
    withheld: &'a [String],
    faults: &'a mut Vec<Fault>,
}

impl FaultCollector<'_> {
    /// Returns the configuration as far as it can be read, and adds everything that is wrong with it.
    fn read<T: DeserializeOwned>(mut self, check: &dyn Fn(&T) -> Violations) -> Option<T> {
        for _ in 0..MAX_FAULTS {
            let failed = Failed::default();
            let error = match T::deserialize(Filler { node: &self.root, path: String::new(), failed: &failed }) {
                Ok(config) => {
                    self.refuse(check(&config));
                    return Some(config);
                }
                Err(error) => error,
            };
            let outermost = Failure { path: String::new(), place: self.root.place, kind: self.root.value.kind() };
            let Failure { path, place, kind } = failed.into_inner().unwrap_or(outermost);
            let follows = match missing(&error) {
                // A key that was misspelt is missing under its right name.
                Some(field) => self.gone.iter().any(|gone| {
                    let (parent, key) = gone.rsplit_once('.').unwrap_or(("", gone));
                    parent == path && nearest(key, [field]).is_some()
                }),
                None => self.gone.iter().any(|gone| holds(&path, gone)),
            };
            if !follows {
                let (what, help) = describe(&error, kind);
                let path = Some(path.clone());
                self.faults.push(Fault { place: Some(place), path, what, help, ..Fault::default() });
            }
            if path.is_empty() {
                return None;
            }
            self.root.each(&mut |spot, node| {
                if spot.path == path {
                    node.value = Node::LeftOut;
                }
            });
            self.gone.push(path);
        }
        None
    }

    /// Adds broken rules with their places; one about what could not be read, or was not, says nothing.
    fn refuse(&mut self, violations: Violations) {
        // Where an item was left out, the rules count the items otherwise than the file.
        let mut spots = BTreeMap::new();
        self.root.each(&mut |spot, _| drop(spots.insert(spot.read_as.clone(), spot.clone())));
        for fault in violations {
            let Some(path) = fault.path.as_deref().filter(|_| fault.file.is_empty()) else {
                self.faults.push(fault);
                continue;
            };
            let mut known = path;
            let spot = loop {
                match (spots.get(known), known.rfind(['.', '['])) {
                    (Some(spot), _) => break Some(spot),
                    (None, Some(end)) => known = &known[..end],
                    (None, None) => break None,
                }
            };
            let path = spot.map_or_else(|| path.to_owned(), |spot| format!("{}{}", spot.path, &path[known.len()..]));
            let unknown = self.gone.iter().chain(self.withheld);
            if !unknown.into_iter().any(|gone| holds(&path, gone) || holds(gone, &path)) {
                self.faults.push(Fault { place: spot.map(|spot| spot.place), path: Some(path), ..fault });
            }
        }
    }
}

/// Finds the directories of secrets, which must be known before anything else is.
fn backends(texts: &Texts, folder: &Path) -> SecretBackends {
    let directories = texts.iter().filter_map(|(path, text)| {
        let name = path.strip_prefix("secrets.")?.strip_suffix(".path")?;
        let allow_exposed = texts.get(&format!("secrets.{name}.allow_exposed")).is_some_and(|text| text == "true");
        Some((name.to_owned(), Directory { path: folder.join(text), allow_exposed }))
    });
    SecretBackends(directories.collect())
}

/// A shorter value is no secret, and taking it out would make every message unreadable.
const SHORTEST_SECRET: usize = 4;

/// Takes every value that came from a reference out of a message, whatever put it there.
fn redact(fault: &mut Fault, revealed: &HashSet<String>) {
    let clean = |text: &mut String| {
        for secret in revealed.iter().filter(|secret| secret.len() >= SHORTEST_SECRET) {
            *text = text.replace(secret.as_str(), "[redacted]");
        }
    };
    clean(&mut fault.what);
    if let Some(help) = &mut fault.help {
        clean(help);
    }
}
