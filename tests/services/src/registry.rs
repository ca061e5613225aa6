//! A schema registry that is not ours: Apicurio, which speaks Confluent's API.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use crate::{Jars, ServiceError, Supervised, free_port};

/// A running registry that keeps its schemas in memory; it ends when this is dropped.
#[derive(Debug)]
pub struct Registry {
    url: String,
    _process: Supervised,
    _folder: tempfile::TempDir,
}

impl Registry {
    /// Starts Apicurio.
    ///
    /// # Errors
    /// When Java or Maven are missing or the registry does not come up.
    pub fn start() -> Result<Self, ServiceError> {
        let runner = Jars::runner(&Jars::apicurio()?)?;
        let folder =
            tempfile::tempdir().map_err(|e| ServiceError::new(format!("cannot make a temporary folder: {e}")))?;
        let port = free_port();
        let mut command = Command::new("java");
        command.args(["-Xmx384m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-jar"]).arg(runner);
        for (key, value) in
            [("QUARKUS_HTTP_HOST", "127.0.0.1"), ("QUARKUS_PROFILE", "prod"), ("QUARKUS_LOG_LEVEL", "WARN")]
        {
            command.env(key, value);
        }
        command.env("QUARKUS_HTTP_PORT", port.to_string());
        let mut process = Supervised::spawn("apicurio", folder.path(), "TERM", &command, None)?;
        process.wait_until(Duration::from_secs(90), || answers(port))?;
        Ok(Self { url: format!("http://127.0.0.1:{port}/apis/ccompat/v7"), _process: process, _folder: folder })
    }

    /// Returns the base URL of Confluent's API.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let request = "GET /apis/ccompat/v7/subjects HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
    let mut answer = [0_u8; 12];
    stream.set_read_timeout(Some(Duration::from_secs(5))).is_ok()
        && stream.write_all(request.as_bytes()).is_ok()
        && stream.read_exact(&mut answer).is_ok()
        && answer.starts_with(b"HTTP/1.1 200")
}
