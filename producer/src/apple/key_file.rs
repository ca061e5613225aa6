//! The file that a private key is read from: only its owner, and perhaps its group, may read it.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

/// Why a key file is not read.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// Nothing there.
    #[error("there is no private key at `{}`", .0.display())]
    Missing(PathBuf),
    /// There, but we may not.
    #[error("could not read the private key `{}`", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A directory, a pipe, a device.
    #[error("the private key `{}` is a {what}, not a regular file", path.display())]
    NotRegular {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A link that leads elsewhere.
    #[error("the private key `{}` is a link to `{}`, which lies outside of its directory", path.display(), target.display())]
    LinkOutside {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// Everybody may read or change it.
    #[error("the private key `{}` may be {act} by every user (mode {mode:04o})", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Read or changed.
        act: &'static str,
        /// Its mode.
        mode: u32,
    },
    /// No key is that large.
    #[error("the private key `{}` is larger than {MAX_KEY_BYTES} bytes", .0.display())]
    TooLarge(PathBuf),
    /// Not even text.
    #[error("the private key `{}` is not a text", .0.display())]
    NotText(PathBuf),
}

impl KeyFileError {
    /// Says in one sentence what the operator can do.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::Missing(path) => format!("put the `.pem` file from Apple's portal at `{}`", path.display()),
            Self::Unreadable { path, .. } => {
                format!("make `{}` belong to the user that runs windfall, with mode 0400", path.display())
            }
            Self::NotRegular { .. } | Self::NotText(_) | Self::TooLarge(_) => {
                "name the `.pem` file from Apple's portal itself".to_owned()
            }
            Self::LinkOutside { .. } => "name the file that is meant, or put it into this directory".to_owned(),
            Self::Exposed { path, .. } => {
                format!("run `chmod 0400 {}`, and generate a new key if others use this machine", path.display())
            }
        }
    }
}

/// A key's text, and whether its group may read it as well: worth a warning, and usual for mounted secrets.
pub struct KeyText {
    /// The text.
    pub pem: SecretString,
    /// Whether the file's group may read it.
    pub group_may_read: bool,
}

/// No key is larger.
const MAX_KEY_BYTES: u64 = 64 * 1024;

/// Reads a key file after having looked at what it is and who else may read it.
///
/// A link is followed inside its own directory only, as mounted secrets need it.
///
/// # Errors
/// When the file is missing, exposed, not a regular file, or leads elsewhere.
pub fn read(path: &Path) -> Result<KeyText, KeyFileError> {
    let target = resolved(path)?;
    // A pipe is seen before it is opened: opening one waits for its writer.
    regular(path, &fs::symlink_metadata(&target).map_err(|source| failed(path, source))?)?;
    let file = File::open(&target).map_err(|source| failed(path, source))?;
    let metadata = file.metadata().map_err(|source| failed(path, source))?;
    regular(path, &metadata)?;
    let mode = metadata.mode() & 0o7777;
    for (bit, act) in [(0o004, "read"), (0o002, "changed")] {
        if mode & bit != 0 {
            return Err(KeyFileError::Exposed { path: path.to_owned(), act, mode });
        }
    }
    if metadata.len() > MAX_KEY_BYTES {
        return Err(KeyFileError::TooLarge(path.to_owned()));
    }
    Ok(KeyText { pem: text(path, file)?, group_may_read: mode & 0o040 != 0 })
}

fn text(path: &Path, file: File) -> Result<SecretString, KeyFileError> {
    let mut bytes = zeroize::Zeroizing::new(Vec::with_capacity(4096));
    file.take(MAX_KEY_BYTES + 1).read_to_end(&mut bytes).map_err(|source| failed(path, source))?;
    if bytes.len() as u64 > MAX_KEY_BYTES {
        return Err(KeyFileError::TooLarge(path.to_owned()));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| KeyFileError::NotText(path.to_owned()))?;
    Ok(SecretString::from(text))
}

fn resolved(path: &Path) -> Result<PathBuf, KeyFileError> {
    let target = fs::canonicalize(path).map_err(|source| failed(path, source))?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let directory = fs::canonicalize(directory).map_err(|source| failed(path, source))?;
    if !target.starts_with(&directory) {
        return Err(KeyFileError::LinkOutside { path: path.to_owned(), target });
    }
    Ok(target)
}

fn regular(path: &Path, metadata: &fs::Metadata) -> Result<(), KeyFileError> {
    use std::os::unix::fs::FileTypeExt as _;
    let kind = metadata.file_type();
    let what = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => "directory",
        () if kind.is_fifo() => "pipe",
        () if kind.is_socket() => "socket",
        () if kind.is_symlink() => "link",
        () => "device",
    };
    Err(KeyFileError::NotRegular { path: path.to_owned(), what })
}

fn failed(path: &Path, source: io::Error) -> KeyFileError {
    match source.kind() {
        io::ErrorKind::NotFound => KeyFileError::Missing(path.to_owned()),
        _ => KeyFileError::Unreadable { path: path.to_owned(), source },
    }
}
