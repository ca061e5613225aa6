//! The product as its users run it: a process with a configuration, a log and an exit code.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

/// The signal by which a process ends itself at a label.
const SIGABRT: i32 = 6;
/// The signal that asks a process to stop.
const SIGTERM: i32 = 15;

/// A running `windfall`; killed when this is dropped.
#[derive(Debug)]
pub struct Windfall {
    child: Child,
    log: PathBuf,
    what: String,
}

/// Says how a process is to be started.
#[derive(Debug, Clone)]
pub struct Start<'a> {
    /// The binary.
    pub program: &'a Path,
    /// Arguments, the verb first.
    pub arguments: Vec<String>,
    /// What `FAILPOINTS` is to say.
    pub failpoints: Option<String>,
    /// Further variables.
    pub environment: Vec<(String, String)>,
    /// Where the output goes.
    pub log: PathBuf,
}

impl Windfall {
    /// Starts a process.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(start: &Start<'_>) -> anyhow::Result<Self> {
        let output = File::options()
            .create(true)
            .append(true)
            .open(&start.log)
            .with_context(|| start.log.display().to_string())?;
        let mut command = Command::new(start.program);
        command.args(&start.arguments).env_remove("FAILPOINTS").stdin(Stdio::null());
        command.stdout(output.try_clone()?).stderr(output);
        if let Some(failpoints) = &start.failpoints {
            command.env("FAILPOINTS", failpoints);
        }
        command.envs(start.environment.iter().map(|(name, value)| (name, value)));
        let child = command.spawn().with_context(|| format!("cannot start {}", start.program.display()))?;
        Ok(Self { child, log: start.log.clone(), what: start.arguments.join(" ") })
    }

    /// Waits until the process has ended by itself.
    ///
    /// # Errors
    /// When it has not within `limit`; the end of its log is in the error.
    pub fn wait(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("`windfall {}` still runs after {limit:?}; {}", self.what, self.log_end());
            }
            std::thread::sleep(Duration::from_millis(25));
        }
    }

    /// Waits until a labelled place has ended the process, as `kill -9` would.
    ///
    /// # Errors
    /// When it has not within `limit`, or when it ended in any other way: then the label was never reached.
    pub fn wait_for_label(&mut self, label: &str, limit: Duration) -> anyhow::Result<()> {
        let status = self.wait(limit)?;
        ensure!(Self::reached_label(status), "`{label}` was not reached: {status}; {}", self.log_end());
        Ok(())
    }

    /// Ends the process at once, as a power cut would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks the process to stop and waits for its end.
    ///
    /// # Errors
    /// When it does not end within 12 seconds.
    pub fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal("TERM")?;
        self.wait(Duration::from_secs(12))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When `kill` cannot be run.
    pub fn signal(&self, name: &str) -> anyhow::Result<()> {
        Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().context("cannot run kill")?;
        Ok(())
    }

    /// Says whether the process still runs.
    pub fn running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Says how the process has ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Says whether the request to stop ended the process before it listened for one.
    #[must_use]
    pub fn stopped_unheard(status: ExitStatus) -> bool {
        status.signal() == Some(SIGTERM)
    }

    /// Says whether a labelled place ended the process.
    #[must_use]
    pub fn reached_label(status: ExitStatus) -> bool {
        status.signal() == Some(SIGABRT)
    }

    /// Returns the end of the log, for messages.
    #[must_use]
    pub fn log_end(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let from = log.char_indices().rev().nth(3_000).map_or(0, |(at, _)| at);
        format!("its log {} ends with:\n{}", self.log.display(), &log[from..])
    }
}

impl Drop for Windfall {
    fn drop(&mut self) {
        self.kill();
    }
}
