//! From a file to a struct.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::explain::explain;
use super::place::{Place, Places};
use super::substitute::{Sources, substitute};
use super::violation::Violation;
use crate::diagnose::{Diagnose, Diagnosis, Kind};
use crate::secret::{SecretBackends, with_revealed};

/// A configuration is written by people; a larger file was named by mistake.
pub const MAX_CONFIG_BYTES: u64 = 1024 * 1024;

/// Depth, nodes and aliases that no configuration needs; a hostile or mistaken file ends here.
const MAX_NODES: usize = 50_000;
const MAX_ALIASES: usize = 200;
const MAX_DEPTH: usize = 64;

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
        if let Some(path) = path.as_deref().filter(|path| !path.is_empty()) {
            write!(f, " `{path}`")?;
        }
        write!(f, "{}{what}", if file.is_empty() { "" } else { ": " })
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

impl ConfigError {
    fn faulty(file: &Path, mut faults: Vec<Fault>) -> Self {
        for fault in &mut faults {
            fault.file = file.display().to_string();
        }
        Self::Faulty { file: file.to_owned(), faults }
    }
}

impl Diagnose for ConfigError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Unreadable { .. } => {
                Kind::Configuration.help("name the file with `-c FILE`, or in `WINDFALL_CONFIG`")
            }
            Self::TooLarge { .. } => Kind::Configuration.help("check which file is meant"),
            Self::Faulty { .. } => Kind::Configuration.into(),
        }
    }

    fn faults(&self) -> &[Fault] {
        match self {
            Self::Faulty { faults, .. } => faults,
            Self::Unreadable { .. } | Self::TooLarge { .. } => &[],
        }
    }
}

/// A configuration and where it came from.
#[derive(Clone)]
pub struct Loaded<T> {
    /// The configuration.
    pub config: T,
    /// The file.
    pub file: PathBuf,
    /// Where its values stand.
    pub places: Places,
    revealed: HashSet<String>,
    withheld: BTreeSet<String>,
}

impl<T> fmt::Debug for Loaded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The places hold the scalars of the file.
        f.debug_struct("Loaded").field("file", &self.file).finish_non_exhaustive()
    }
}

impl<T> Loaded<T> {
    /// Returns the folder that paths in the file are relative to.
    #[must_use]
    pub fn folder(&self) -> &Path {
        folder_of(&self.file)
    }

    /// Makes an error of the rules that the configuration breaks; none are no error.
    ///
    /// A value whose secret was not needed, and what holds it, cannot be judged: a rule about it is left to whoever needs it.
    ///
    /// # Errors
    /// When there is a violation.
    pub fn refuse(&self, violations: impl IntoIterator<Item = Violation>) -> Result<(), ConfigError> {
        let faults: Vec<_> = violations
            .into_iter()
            .filter(|violation| !self.withheld.iter().any(|path| holds(&violation.path, path)))
            .map(|violation| {
                let place = self.places.find(&violation.path);
                let Violation { path, constraint, help } = violation;
                let fault = Fault { place, what: constraint, path: Some(path), help, ..Fault::default() };
                redacted(fault, &self.revealed)
            })
            .collect();
        if faults.is_empty() { Ok(()) } else { Err(ConfigError::faulty(&self.file, faults)) }
    }
}

/// Whether the value at `path` is the one at `inner` or has it inside.
fn holds(path: &str, inner: &str) -> bool {
    inner.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(""))
}

/// Reads a configuration; `env` looks up the variables that the file names, and `needed` says of each value by its path
/// whether the secrets that it refers to are read.
///
/// A secret that is not needed is not looked for, so it may be missing or out of reach; its reference stays where it stands.
///
/// # Errors
/// When the file cannot be read, or anything in it cannot stand: all references that cannot be resolved at once,
/// else the first fault of its structure.
pub fn load<T: DeserializeOwned>(
    file: &Path,
    env: &dyn Fn(&str) -> Option<String>,
    needed: &dyn Fn(&Places, &str) -> bool,
) -> Result<Loaded<T>, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { file: file.to_owned(), source };
    if std::fs::metadata(file).map_err(unreadable)?.len() > MAX_CONFIG_BYTES {
        return Err(ConfigError::TooLarge { file: file.to_owned() });
    }
    parse(&std::fs::read_to_string(file).map_err(unreadable)?, file, env, needed)
}

/// Reads a configuration from `text`, which stands in `file`.
///
/// # Errors
/// As [`load`].
pub fn parse<T: DeserializeOwned>(
    text: &str,
    file: &Path,
    env: &dyn Fn(&str) -> Option<String>,
    needed: &dyn Fn(&Places, &str) -> bool,
) -> Result<Loaded<T>, ConfigError> {
    let faulty = |faults| ConfigError::faulty(file, faults);
    let places = Places::of(text);
    if let Some(fault) = &places.fault {
        return Err(faulty(vec![fault.clone()]));
    }
    let secrets = backends(&places, folder_of(file));
    let from = Sources { secrets: &secrets, env, needed };
    let substituted = substitute(text, &places, &from).map_err(faulty)?;
    let referred = substituted.revealed.iter().chain(substituted.withheld.values()).cloned().collect();
    let read = with_revealed(referred, || serde_saphyr::from_str_with_options(&substituted.text, options()));
    match read {
        Ok(config) => {
            let withheld = substituted.withheld.into_keys().collect();
            Ok(Loaded { config, file: file.to_owned(), places, revealed: substituted.revealed, withheld })
        }
        Err(error) => {
            let fault = explain(&error, &places, |place| substituted.place_in_file(place));
            Err(faulty(vec![redacted(fault, &substituted.revealed)]))
        }
    }
}

fn options() -> serde_saphyr::Options {
    let mut budget = serde_saphyr::Budget::default();
    budget.max_nodes = MAX_NODES;
    budget.max_aliases = MAX_ALIASES;
    budget.max_depth = MAX_DEPTH;
    let mut options = serde_saphyr::Options::default();
    options.budget = Some(budget);
    options.with_snippet = false;
    options
}

/// Finds the directories of secrets, which must be known before anything else is.
fn backends(places: &Places, folder: &Path) -> SecretBackends {
    let directories: BTreeMap<_, _> = places
        .scalars
        .iter()
        .filter_map(|scalar| {
            let name = scalar.path.strip_prefix("secrets.")?.strip_suffix(".path")?;
            Some((name.to_owned(), folder.join(&scalar.text)))
        })
        .collect();
    SecretBackends::new(directories)
}

/// A shorter value is no secret, and taking it out would make every message unreadable.
const SHORTEST_SECRET: usize = 4;

/// Takes every value that came from a reference out of a message, whatever put it there.
fn redacted(mut fault: Fault, revealed: &HashSet<String>) -> Fault {
    let clean = |text: &mut String| {
        for secret in revealed.iter().filter(|secret| secret.len() >= SHORTEST_SECRET) {
            *text = text.replace(secret.as_str(), "[redacted]");
        }
    };
    clean(&mut fault.what);
    if let Some(help) = &mut fault.help {
        clean(help);
    }
    fault
}
