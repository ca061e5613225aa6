//! The file that a secret is read from: only its owner, and perhaps its group, may read it.

use std::fs::{self, Metadata};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::{Directory, MAX_SECRET_BYTES, SecretError};
use crate::config::text_of;

/// A secret that was read, and whether it is open to more readers than it needs.
#[derive(Debug)]
pub(super) struct File {
    pub(super) text: String,
    pub(super) warning: Option<String>,
}

/// Reads the secret `name` of the directory of `backend` after having looked at what it is and who else may read it; one line
/// end is dropped.
pub(super) fn read(backend: &str, directory: &Directory, name: &str) -> Result<File, SecretError> {
    let Directory { path: directory, allow_exposed } = directory;
    if name.contains(['/', '\\', '\0']) || name == "." || name == ".." {
        return Err(SecretError::Outside(name.to_owned()));
    }
    let path = directory.join(name);
    let unreadable = |source| SecretError::Unreadable { path: path.clone(), source };
    let target = resolved(directory, &path)?;
    // A pipe is seen before it is opened: opening one waits for its writer.
    regular(&path, &fs::symlink_metadata(&target).map_err(unreadable)?)?;
    let file = fs::File::open(&target).map_err(unreadable)?;
    // Asked once more of what was opened: the name may stand for another file by now.
    let metadata = file.metadata().map_err(unreadable)?;
    regular(&path, &metadata)?;
    let warning = match (exposed(&metadata), allow_exposed) {
        (Exposure::Nobody, _) => None,
        (Exposure::Group(mode), _) => Some(format!(
            "the secret `{}` is open to its group (mode {mode:04o}); mode 0400 keeps it to its owner",
            path.display()
        )),
        (Exposure::Everybody { act, mode }, true) => Some(format!(
            "the secret `{}` may be {act} by every user of this machine (mode {mode:04o}), and `secrets.{backend}.allow_exposed` takes it",
            path.display()
        )),
        (Exposure::Everybody { act, mode }, false) => {
            return Err(SecretError::Exposed { backend: backend.to_owned(), path, act, mode });
        }
    };
    Ok(File { text: text(&path, file)?, warning })
}

/// A link is followed inside its own directory only, as mounted secrets need it.
fn resolved(directory: &Path, path: &Path) -> Result<PathBuf, SecretError> {
    let unreadable = |source| SecretError::Unreadable { path: path.to_owned(), source };
    let target = fs::canonicalize(path).map_err(unreadable)?;
    let home = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    if !target.starts_with(fs::canonicalize(home).map_err(unreadable)?) {
        return Err(SecretError::LinkOutside(path.to_owned()));
    }
    Ok(target)
}

fn text(path: &Path, file: fs::File) -> Result<String, SecretError> {
    let mut bytes = Vec::with_capacity(4096);
    let read = file.take(MAX_SECRET_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|source| SecretError::Unreadable { path: path.to_owned(), source })?;
    if bytes.len() as u64 > MAX_SECRET_BYTES {
        return Err(SecretError::TooLarge(path.to_owned()));
    }
    let mut text = text_of(bytes).map_err(|what| SecretError::NotText { path: path.to_owned(), what })?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

#[cfg(unix)]
fn regular(path: &Path, metadata: &Metadata) -> Result<(), SecretError> {
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
    Err(SecretError::NotRegular { path: path.to_owned(), what })
}

#[cfg(not(unix))]
fn regular(path: &Path, metadata: &Metadata) -> Result<(), SecretError> {
    if metadata.is_file() {
        return Ok(());
    }
    Err(SecretError::NotRegular { path: path.to_owned(), what: if metadata.is_dir() { "directory" } else { "device" } })
}

/// Who but its owner may read or change a file.
enum Exposure {
    Nobody,
    /// Usual for mounted secrets.
    Group(u32),
    Everybody {
        act: &'static str,
        mode: u32,
    },
}

#[cfg(unix)]
fn exposed(metadata: &Metadata) -> Exposure {
    use std::os::unix::fs::MetadataExt as _;
    let mode = metadata.mode() & 0o7777;
    match () {
        () if mode & 0o004 != 0 => Exposure::Everybody { act: "read", mode },
        () if mode & 0o002 != 0 => Exposure::Everybody { act: "changed", mode },
        () if mode & 0o060 != 0 => Exposure::Group(mode),
        () => Exposure::Nobody,
    }
}

#[cfg(not(unix))]
fn exposed(_: &Metadata) -> Exposure {
    Exposure::Nobody
}

#[cfg(all(test, unix))]
#[allow(clippy::unwrap_used, reason = "a test ends where it finds what it did not expect")]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use crate::diagnose::Diagnose as _;

    fn write(path: &Path, text: &[u8], mode: u32) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn read_in(directory: &Path, name: &str, allow_exposed: bool) -> Result<File, SecretError> {
        read("files", &Directory { path: directory.to_owned(), allow_exposed }, name)
    }

    fn refusal(directory: &Path, name: &str) -> SecretError {
        read_in(directory, name, false).map(drop).unwrap_err()
    }

    #[test]
    fn a_secret_is_read_only_when_others_may_neither_read_nor_change_it() {
        let directory = tempfile::tempdir().unwrap();
        for (index, mode) in [0o400, 0o600, 0o440, 0o640].into_iter().enumerate() {
            write(&directory.path().join(format!("good{index}")), b"text\r\n", mode);
            assert_eq!(read_in(directory.path(), &format!("good{index}"), false).unwrap().text, "text", "{mode:o}");
        }
        for (index, mode) in [0o644, 0o604, 0o602, 0o666, 0o777].into_iter().enumerate() {
            write(&directory.path().join(format!("bad{index}")), b"text", mode);
            let refusal = refusal(directory.path(), &format!("bad{index}"));
            assert!(matches!(refusal, SecretError::Exposed { mode: seen, .. } if seen == mode), "{refusal}");
            let help = refusal.help().unwrap();
            for knob in ["chmod 0400", "defaultMode", "Swarm", "`allow_exposed: true` under `secrets.files`"] {
                assert!(help.contains(knob), "{help}");
            }
        }
    }

    #[test]
    fn a_mounted_secret_whose_mode_nobody_can_set_is_taken_where_the_backend_says_so() {
        let directory = tempfile::tempdir().unwrap();
        for mode in [0o644, 0o444, 0o777] {
            let name = format!("mounted{mode:o}");
            write(&directory.path().join(&name), b"text", mode);
            let taken = read_in(directory.path(), &name, true).unwrap();
            assert_eq!(taken.text, "text");
            let warning = taken.warning.unwrap();
            assert!(warning.contains(&format!("mode {mode:04o}")) && warning.contains("allow_exposed"), "{warning}");
        }
    }

    #[test]
    fn a_link_is_followed_as_mounted_secrets_have_it() {
        let (here, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        // key.pem -> ..data/key.pem, ..data -> ..2026_11_21.
        let data = here.path().join("..2026_11_21");
        fs::create_dir(&data).unwrap();
        write(&data.join("key.pem"), b"text", 0o440);
        symlink("..2026_11_21", here.path().join("..data")).unwrap();
        symlink("..data/key.pem", here.path().join("key.pem")).unwrap();
        assert_eq!(read_in(here.path(), "key.pem", false).unwrap().text, "text");
        write(&elsewhere.path().join("key.pem"), b"text", 0o400);
        symlink(elsewhere.path().join("key.pem"), here.path().join("far.pem")).unwrap();
        assert!(matches!(refusal(here.path(), "far.pem"), SecretError::LinkOutside(_)));
        // The mode is the file's, not the link's.
        write(&here.path().join("open"), b"text", 0o644);
        symlink("open", here.path().join("link")).unwrap();
        assert!(matches!(refusal(here.path(), "link"), SecretError::Exposed { .. }));
    }

    #[test]
    fn pipes_sockets_directories_and_missing_files_are_refused_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let made = std::process::Command::new("mkfifo").arg(directory.path().join("pipe")).status();
        assert!(made.unwrap().success());
        let _listener = std::os::unix::net::UnixListener::bind(directory.path().join("socket")).unwrap();
        fs::create_dir(directory.path().join("directory")).unwrap();
        for name in ["pipe", "socket", "directory"] {
            let refusal = refusal(directory.path(), name);
            assert!(matches!(refusal, SecretError::NotRegular { what, .. } if what == name), "{refusal}");
        }
        let refusal = refusal(directory.path(), "none.pem");
        assert!(matches!(refusal, SecretError::Unreadable { .. }), "{refusal}");
        assert!(refusal.help().unwrap().contains("none.pem"));
    }

    #[test]
    fn a_file_that_no_secret_can_be_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        write(&directory.path().join("large"), &vec![b'x'; 70 * 1024], 0o600);
        assert!(matches!(refusal(directory.path(), "large"), SecretError::TooLarge(_)));
        write(&directory.path().join("binary"), &[0x80, 0xff], 0o600);
        assert!(matches!(refusal(directory.path(), "binary"), SecretError::NotText { .. }));
        // "pw" as Windows tools write it, with a byte order mark and without.
        for (index, bytes) in [b"\xff\xfep\0w\0".as_slice(), b"p\0w\0"].into_iter().enumerate() {
            let name = format!("wide{index}");
            write(&directory.path().join(&name), bytes, 0o600);
            let refusal = refusal(directory.path(), &name);
            assert!(refusal.to_string().contains("UTF-16"), "{refusal}");
        }
    }
}
