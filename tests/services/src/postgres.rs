//! PostgreSQL, a cluster of its own from the newest version that the machine has installed.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::supervised::{account, superuser};
use crate::{ServiceError, Supervised, free_port};

/// Chooses how a server treats its disk.
#[derive(Debug, Clone, Default)]
pub struct PostgresOptions {
    /// Waits for the disk at each commit; for benchmarks and crash tests.
    pub fsync: bool,
}

/// A running server; it ends when this is dropped.
#[derive(Debug)]
pub struct Postgres {
    process: Supervised,
    command: Vec<String>,
    port: u16,
    folder: tempfile::TempDir,
    owner: Option<(u32, u32)>,
}

impl Postgres {
    /// Makes a cluster in a temporary folder and starts it.
    ///
    /// # Errors
    /// When PostgreSQL is missing or does not come up.
    pub fn start(options: &PostgresOptions) -> Result<Self, ServiceError> {
        let programs = programs()?;
        let owner = owner()?;
        let folder = tempfile::Builder::new()
            .prefix("windfall-postgres-")
            .tempdir_in(parent())
            .map_err(|e| ServiceError::new(format!("cannot make a temporary folder: {e}")))?;
        if let Some((user, group)) = owner {
            std::os::unix::fs::chown(folder.path(), Some(user), Some(group))
                .map_err(|e| ServiceError::new(format!("cannot hand {} over: {e}", folder.path().display())))?;
        }
        let data = folder.path().join("data");
        initialise(&programs, &data, owner)?;
        let port = free_port();
        let mut command =
            vec![programs.join("postgres").display().to_string(), "-D".into(), data.display().to_string()];
        command.extend(["-p".to_owned(), port.to_string(), "-k".to_owned(), folder.path().display().to_string()]);
        let fsync = if options.fsync { "fsync=on" } else { "fsync=off" };
        for setting in
            ["listen_addresses=127.0.0.1", fsync, "max_wal_size=256MB", "checkpoint_timeout=30s", "max_connections=200"]
        {
            command.extend(["-c".to_owned(), setting.to_owned()]);
        }
        let process = spawn(&command, folder.path(), port, owner)?;
        Ok(Self { process, command, port, folder, owner })
    }

    /// Returns the URL of the database `postgres` for a user that may do all.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgresql://windfall@127.0.0.1:{}/postgres", self.port)
    }

    /// Ends the server at once, as a crash would, and starts it again on the same data and port.
    ///
    /// # Errors
    /// When it does not come up again.
    pub fn crash_and_restart(&mut self) -> Result<(), ServiceError> {
        self.process.signal("QUIT");
        self.process.stop();
        self.start_again()
    }

    /// Stops the server; [`Postgres::start_again`] brings it back with its data.
    pub fn stop(&mut self) {
        self.process.stop();
    }

    /// Starts a stopped server on the same data and port.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_again(&mut self) -> Result<(), ServiceError> {
        self.process = spawn(&self.command, self.folder.path(), self.port, self.owner)?;
        Ok(())
    }

    /// Gives access to the process, to pause it.
    pub fn process(&mut self) -> &mut Supervised {
        &mut self.process
    }
}

/// PostgreSQL and PgBouncer refuse the superuser, so the package's own account runs them then.
pub(crate) fn owner() -> Result<Option<(u32, u32)>, ServiceError> {
    let missing = || ServiceError::new("PostgreSQL refuses to run as root and there is no user `postgres`");
    superuser().then(|| account("postgres").ok_or_else(missing)).transpose()
}

/// A folder that PostgreSQL's own account may walk through, whatever `TMPDIR` says.
pub(crate) fn parent() -> PathBuf {
    if superuser() { PathBuf::from("/tmp") } else { std::env::temp_dir() }
}

fn spawn(command: &[String], folder: &Path, port: u16, owner: Option<(u32, u32)>) -> Result<Supervised, ServiceError> {
    let [program, arguments @ ..] = command else { unreachable!("a command has a program") };
    let mut process = Command::new(program);
    process.args(arguments);
    // A fast shutdown: sessions are ended, the cluster is left clean.
    let mut process = Supervised::spawn("postgres", folder, "INT", &process, owner)?;
    // The server accepts connections before it lets anybody in.
    let mut ready = Command::new(Path::new(program).with_file_name("pg_isready"));
    ready.args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()]);
    process.wait_until(Duration::from_secs(60), || ready.status().is_ok_and(|status| status.success()))?;
    Ok(process)
}

fn initialise(programs: &Path, data: &Path, owner: Option<(u32, u32)>) -> Result<(), ServiceError> {
    let mut command = Command::new(programs.join("initdb"));
    command.args(["--auth=trust", "-U", "windfall", "--no-sync", "-E", "UTF8", "--locale=C", "-D"]).arg(data);
    if let Some((user, group)) = owner {
        command.uid(user).gid(group).current_dir("/tmp");
    }
    let output = command.output().map_err(|e| ServiceError::new(format!("cannot run initdb: {e}")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(ServiceError::new(format!("initdb failed: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

/// Finds the folder with the newest server's programs.
fn programs() -> Result<PathBuf, ServiceError> {
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, folder)| folder.join("initdb").exists())
        .collect();
    found.sort();
    if let Some((_, folder)) = found.pop() {
        return Ok(folder);
    }
    let remedy = "install PostgreSQL's server (`make test` does it where it may)";
    let output = Command::new("pg_config")
        .arg("--bindir")
        .output()
        .map_err(|_| ServiceError::new(format!("no PostgreSQL server is installed; {remedy}")))?;
    let folder = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    if folder.join("initdb").exists() {
        Ok(folder)
    } else {
        Err(ServiceError::new(format!(
            "{} holds no initdb: only PostgreSQL's client is installed; {remedy}",
            folder.display()
        )))
    }
}
