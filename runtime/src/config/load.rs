//! From a file to a struct.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::encoding::{SAVE_AS_UTF8, text_of};
use super::explain::{TOO_MUCH, explain, missing, nearest};
use super::place::{Place, Places};
use super::substitute::{Reading, Sources, Substituted, substitute};
use super::violation::Violations;
use crate::diagnose::{Diagnose, Diagnosis, Kind};
use crate::secret::{Directory, SecretBackends, with_revealed};

/// A configuration is written by people; a larger file was named by mistake.
pub const MAX_CONFIG_BYTES: u64 = 1024 * 1024;

/// Whoever has made more mistakes than this is told of the others later.
const MAX_FAULTS: usize = 100;

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
#[must_use]
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
    /// Says of a value by its path whether the secrets that it refers to are read.
    pub secrets: &'a dyn Fn(&Places, &str) -> Reading,
    /// Returns the rules that the configuration breaks.
    pub check: &'a dyn Fn(&T) -> Violations,
}

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
    let places = Places::of(text);
    let mut faults: Vec<_> = places.fault.iter().cloned().collect();
    if faults.is_empty() {
        let secrets = backends(&places, folder_of(file));
        let substituted =
            substitute(text, &places, &Sources { secrets: &secrets, env: rules.env, reading: rules.secrets });
        let referred = substituted.revealed.iter().chain(substituted.withheld.values()).cloned().collect();
        let config = with_revealed(referred, || Recovery::begin(&places, &substituted).read(rules.check, &mut faults));
        if let (Some(config), true) = (config, faults.is_empty()) {
            let Substituted { withheld, warnings, .. } = substituted;
            return Ok(Loaded { config, withheld: withheld.into_keys().collect(), warnings });
        }
        faults.iter_mut().for_each(|fault| redact(fault, &substituted.revealed));
        faults.sort_by_key(|fault| fault.place);
    }
    for fault in faults.iter_mut().filter(|fault| fault.file.is_empty()) {
        fault.file = file.display().to_string();
    }
    Err(ConfigError::Faulty { file: file.to_owned(), faults })
}

/// Reads a text that may have many faults: what cannot be read is told, overwritten with blanks, and the rest read again.
struct Recovery<'a> {
    original: &'a Places,
    substituted: &'a Substituted,
    text: String,
    places: Places,
    /// Paths of what was overwritten or has no value, as they are in the file.
    gone: Vec<String>,
}

impl<'a> Recovery<'a> {
    fn begin(original: &'a Places, substituted: &'a Substituted) -> Self {
        let text = substituted.text.clone();
        let gone = substituted.faults.iter().filter_map(|fault| fault.path.clone()).collect();
        Self { original, substituted, places: Places::of(&text), text, gone }
    }

    /// Returns the configuration as far as it can be read, and adds everything that is wrong with it.
    fn read<T: DeserializeOwned>(mut self, check: &dyn Fn(&T) -> Violations, faults: &mut Vec<Fault>) -> Option<T> {
        faults.extend(self.substituted.faults.iter().cloned());
        for _ in 0..MAX_FAULTS {
            let error = match serde_saphyr::from_str_with_options::<T>(&self.text, options()) {
                Ok(config) => {
                    faults.extend(check(&config).into_iter().filter_map(|fault| self.broken(fault)));
                    return Some(config);
                }
                Err(error) => error,
            };
            let fault = explain(&error, &self.places);
            let (Some(path), Some(place), true) = (fault.path.clone(), fault.place, fault.what != TOO_MUCH) else {
                faults.push(fault);
                return None;
            };
            let known = self.path_in_file(&path);
            let follows = match missing(&error) {
                // A key that was misspelt is missing under its right name.
                Some(field) => self.gone.iter().any(|gone| {
                    let (parent, key) = gone.rsplit_once('.').unwrap_or(("", gone));
                    parent == known && nearest(key, [field]).is_some()
                }),
                None => self.gone.iter().any(|gone| holds(&known, gone)),
            };
            if !follows {
                let place = Some(self.substituted.place_in_file(place));
                faults.push(Fault { place, path: Some(known.clone()), ..fault });
            }
            if !self.places.blank(&mut self.text, &path, place) {
                return None;
            }
            self.gone.push(known);
            self.places = Places::of(&self.text);
            if self.places.fault.is_some() {
                return None;
            }
        }
        None
    }

    fn path_in_file(&self, path: &str) -> String {
        self.places.path_in(self.original, path, |place| self.substituted.place_in_file(place))
    }

    /// Finds the place of a broken rule; one about what could not be read, or was not, says nothing.
    fn broken(&self, fault: Fault) -> Option<Fault> {
        let Some(path) = fault.path.as_deref().filter(|_| fault.file.is_empty()) else { return Some(fault) };
        let path = self.path_in_file(path);
        let unknown = self.gone.iter().chain(self.substituted.withheld.keys());
        let known = !unknown.into_iter().any(|gone| holds(&path, gone) || holds(gone, &path));
        known.then(|| Fault { place: self.original.find(&path), path: Some(path), ..fault })
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
    let directories = places.scalars.iter().filter_map(|scalar| {
        let name = scalar.path.strip_prefix("secrets.")?.strip_suffix(".path")?;
        let allow_exposed = places.text(&format!("secrets.{name}.allow_exposed")) == Some("true");
        Some((name.to_owned(), Directory { path: folder.join(&scalar.text), allow_exposed }))
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
