//! Secrets: the configuration names them, the loader reads them from files or the environment, and nothing shows them.
//!
//! A secret is written as a reference, `SECRET[files.abm.pem]` or `SECRET[env.DATABASE_URL]`. The loader of the
//! configuration replaces references by values before the structs are filled, and tells the types here which values came
//! from one, so that a secret typed into the file itself is refused where [`Secret`] is wanted. A reference whose secret this
//! process does not need is not resolved: the value is then the text of the reference.

mod file;

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use secrecy::{ExposeSecret, SecretString};
use serde::de::Visitor;
use serde::{Deserialize, Deserializer};

use crate::config::{SAVE_AS_UTF8, SecretReading, TEXT_OR_SECRET};
use crate::diagnose::{Diagnose, Diagnosis, Kind};
use file::File;

/// No key, password or URL is longer; a larger file was named by mistake.
pub const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// A value that must come from a reference; its `Debug` is redacted and it cannot be serialised.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Wraps a value that was made or read elsewhere, as the demo and tests do.
    pub fn new(value: impl Into<String>) -> Self {
        Self(SecretString::from(value.into()))
    }

    /// Returns the value; never to be logged, printed or put into an error.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Returns the value in the wrapper that other crates take.
    pub fn into_inner(self) -> SecretString {
        self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret([redacted])")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match TextOrSecret::deserialize(deserializer)? {
            TextOrSecret::Secret(secret) => Ok(secret),
            TextOrSecret::Text(_) => Err(serde::de::Error::custom(
                "a secret must not stand in the file; write `SECRET[files.NAME]` or `SECRET[env.NAME]` and keep the value there",
            )),
        }
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A reference to a secret: `SECRET[files.NAME]` or `SECRET[env.NAME]`.",
            "pattern": "^SECRET\\[[a-z][a-z0-9_]*\\..+\\]$",
        })
    }
}

/// A value that may stand in the file, or come from a reference when it holds something secret.
#[derive(Clone)]
pub enum TextOrSecret {
    /// Stands in the file.
    Text(String),
    /// Came, as a whole or in part, from a reference.
    Secret(Secret),
}

impl TextOrSecret {
    /// Returns the value; never to be logged, printed or put into an error.
    pub fn expose(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Secret(secret) => secret.expose(),
        }
    }

    /// Whether the value came from a reference.
    pub fn secret(&self) -> bool {
        matches!(self, Self::Secret(_))
    }
}

impl std::fmt::Debug for TextOrSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A plain value may hold a password by mistake, and is refused only later.
        f.write_str(if self.secret() { "Secret([redacted])" } else { "Text([not shown])" })
    }
}

impl<'de> Deserialize<'de> for TextOrSecret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(TEXT_OR_SECRET, TextOrSecretVisitor)
    }
}

/// Is given bytes where a secret was put into the value, and text elsewhere.
struct TextOrSecretVisitor;

impl<'de> Visitor<'de> for TextOrSecretVisitor {
    type Value = TextOrSecret;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a string")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<TextOrSecret, D::Error> {
        String::deserialize(deserializer).map(TextOrSecret::Text)
    }

    fn visit_bytes<E: serde::de::Error>(self, secret: &[u8]) -> Result<TextOrSecret, E> {
        Ok(TextOrSecret::Secret(Secret::new(String::from_utf8_lossy(secret))))
    }
}

impl JsonSchema for TextOrSecret {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "TextOrSecret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A value, or a reference to a secret: `SECRET[files.NAME]`, `SECRET[env.NAME]`.",
        })
    }
}

/// Where the secrets of one backend are kept.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretBackend {
    /// What the backend is.
    #[serde(rename = "type")]
    pub kind: SecretBackendKind,
    /// Directory with one file a secret, relative to the configuration file.
    #[serde(default)]
    pub path: Option<PathBuf>,
    /// Takes files that every user of the machine may read or change, with a warning: for platforms that mount secrets with a
    /// mode that nobody can set.
    #[serde(default)]
    pub allow_exposed: bool,
}

/// What a backend of secrets is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SecretBackendKind {
    /// A directory with one file a secret.
    Directory,
}

/// Why a secret could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The reference has no backend and name.
    #[error("`SECRET[{0}]` is not of the form `SECRET[backend.name]`")]
    Malformed(String),
    /// No such backend.
    #[error("no backend of secrets is called `{backend}`")]
    UnknownBackend {
        /// The name in the reference.
        backend: String,
        /// The backends that there are.
        known: Vec<String>,
    },
    /// The variable is not set.
    #[error("the variable `{0}` is not set")]
    Unset(String),
    /// The name would leave the directory.
    #[error("the name `{0}` is not a file name inside the directory of secrets")]
    Outside(String),
    /// The file cannot be read.
    #[error("could not read the secret `{}`", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A directory, a pipe, a device.
    #[error("the secret `{}` is a {what}, not a regular file", path.display())]
    NotRegular {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A link that leads elsewhere.
    #[error("the secret `{}` is a link that leads out of its directory", .0.display())]
    LinkOutside(PathBuf),
    /// Everybody may read or change it.
    #[error("the secret `{}` may be {act} by every user of this machine (mode {mode:04o})", path.display())]
    Exposed {
        /// The backend that it belongs to.
        backend: String,
        /// The file.
        path: PathBuf,
        /// Read or changed.
        act: &'static str,
        /// Its mode.
        mode: u32,
    },
    /// The file is not a secret.
    #[error("`{}` is larger than {MAX_SECRET_BYTES} bytes", .0.display())]
    TooLarge(PathBuf),
    /// Not even text.
    #[error("the secret `{}` {what}", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        what: &'static str,
    },
}

impl Diagnose for SecretError {
    fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::Malformed(_) => {
                Kind::Configuration.help("write `SECRET[files.NAME]` for a file or `SECRET[env.NAME]` for a variable")
            }
            Self::UnknownBackend { known, .. } => {
                Kind::Configuration.help(format!("use one of {}, or declare it under `secrets:`", quoted_list(known)))
            }
            Self::Unset(name) => Kind::Configuration.help(format!("set `{name}` in the environment of the process")),
            Self::Outside(_) => Kind::Configuration.help("name a file that lies in the directory itself"),
            Self::Unreadable { path, .. } => Kind::Configuration
                .help(format!("put the secret into `{}`, readable by the user that runs windfall", path.display())),
            Self::NotRegular { .. } | Self::TooLarge(_) => {
                Kind::Configuration.help("name the file that holds the secret itself")
            }
            Self::NotText { .. } => Kind::Configuration.help(SAVE_AS_UTF8),
            Self::LinkOutside(_) => Kind::Configuration.help("put the file itself into the directory of secrets"),
            Self::Exposed { backend, path, .. } => Kind::Configuration.help(format!(
                "run `chmod 0400 {}`, and replace the secret if others use this machine; where a platform mounts it, set the mode \
                 there (Kubernetes: `defaultMode: 0440` with `fsGroup`; Docker Swarm: `mode: 0400` with `uid`); where no mode can be \
                 set, as on Docker Desktop, write `allow_exposed: true` under `secrets.{backend}`",
                path.display()
            )),
        }
    }
}

fn quoted_list(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The directory of one backend.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
    pub(crate) allow_exposed: bool,
}

/// The backends of one configuration, by name; `env` is always there.
#[derive(Debug, Clone, Default)]
pub(crate) struct SecretBackends(pub(crate) BTreeMap<String, Directory>);

impl SecretBackends {
    /// Reads the secret that `reference` (`files.abm.pem`, `env.NAME`) names; one line end at the end of a file is dropped.
    ///
    /// Returns none where it is not read. A file that is open to others without need leaves a warning.
    pub(crate) fn read(
        &self,
        reference: &str,
        env: &dyn Fn(&str) -> Option<String>,
        reading: SecretReading,
        warnings: &mut Vec<String>,
    ) -> Result<Option<String>, SecretError> {
        let Some((backend, name)) = reference.split_once('.').filter(|(b, n)| !b.is_empty() && !n.is_empty()) else {
            return Err(SecretError::Malformed(reference.to_owned()));
        };
        let directory = match self.0.get(backend) {
            Some(directory) => directory,
            None if backend == "env" => {
                let value = (reading != SecretReading::Never).then(|| env(name)).flatten();
                if value.is_none() && reading == SecretReading::Needed {
                    return Err(SecretError::Unset(name.to_owned()));
                }
                return Ok(value);
            }
            None => {
                let known = self.0.keys().cloned().chain(["env".to_owned()]).collect();
                return Err(SecretError::UnknownBackend { backend: backend.to_owned(), known });
            }
        };
        if reading == SecretReading::Never {
            return Ok(None);
        }
        match file::read(backend, directory, name) {
            Ok(File { text, warning }) => {
                warnings.extend(warning);
                Ok(Some(text))
            }
            Err(SecretError::Unreadable { source, .. })
                if reading == SecretReading::IfThere && source.kind() == std::io::ErrorKind::NotFound =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
