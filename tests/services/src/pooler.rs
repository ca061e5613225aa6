//! PgBouncer, which lends the connections of a PostgreSQL server out by transaction.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::postgres::{owner, parent};
use crate::supervised::accepts;
use crate::{ServiceError, Supervised, free_port};

/// Where Debian puts the program, which is not on every user's path.
const DEBIAN: &str = "/usr/sbin/pgbouncer";

/// A running PgBouncer in transaction mode; it ends when this is dropped.
#[derive(Debug)]
pub struct Pooler {
    _process: Supervised,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Pooler {
    /// Starts a pooler in front of the server on this loopback port. It holds one connection for each database, so that all
    /// clients of a database share it.
    ///
    /// # Errors
    /// When PgBouncer is missing or does not come up.
    pub fn start(server: u16) -> Result<Self, ServiceError> {
        let program = if Path::new(DEBIAN).exists() { DEBIAN } else { "pgbouncer" };
        let owner = owner()?;
        let folder = tempfile::Builder::new()
            .prefix("windfall-pgbouncer-")
            .tempdir_in(parent())
            .map_err(|e| ServiceError::new(format!("cannot make a temporary folder: {e}")))?;
        let port = free_port();
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={server} user=windfall\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 1\n"
        );
        let file = folder.path().join("pgbouncer.ini");
        std::fs::write(&file, settings)
            .map_err(|e| ServiceError::new(format!("cannot write {}: {e}", file.display())))?;
        let mut command = Command::new(program);
        command.arg(&file);
        let mut process = Supervised::spawn("pgbouncer", folder.path(), "INT", &command, owner)?;
        process.wait_until(Duration::from_secs(30), || accepts(port))?;
        Ok(Self { _process: process, port, _folder: folder })
    }

    /// Returns the URL of the database `postgres` by way of the pooler.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgresql://windfall@127.0.0.1:{}/postgres", self.port)
    }
}
