//! A child process that never outlives the one that started it.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Says why a service could not be started.
#[derive(Debug)]
pub struct ServiceError(String);

impl ServiceError {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl From<String> for ServiceError {
    fn from(what: String) -> Self {
        Self(what)
    }
}

impl std::fmt::Display for ServiceError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for ServiceError {}

/// A service process, its log, and the pipe whose end stops it.
#[derive(Debug)]
pub struct Supervised {
    name: &'static str,
    shell: Child,
    pipe: Option<ChildStdin>,
    log: PathBuf,
    /// Process id of the service itself, written by the shell.
    pid_file: PathBuf,
}

/// The shell starts the service, notes its id and waits for the end of its own input: that comes when we close it or die.
const SUPERVISOR: &str = r#"
pid_file=$1; signal=$2; shift 2
"$@" </dev/null & child=$!
echo $child > "$pid_file"
( while read -r _; do :; done; kill -s "$signal" $child 2>/dev/null ) <&3 &
wait $child
"#;

impl Supervised {
    /// Starts `command` with its output in `folder`; `signal` asks it to stop.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn spawn(
        name: &'static str,
        folder: &Path,
        signal: &str,
        command: &Command,
        owner: Option<(u32, u32)>,
    ) -> Result<Self, ServiceError> {
        let log = folder.join(format!("{name}.log"));
        let pid_file = folder.join(format!("{name}.pid"));
        let output = std::fs::File::create(&log)
            .map_err(|e| ServiceError::new(format!("cannot write {}: {e}", log.display())))?;
        let errors =
            output.try_clone().map_err(|e| ServiceError::new(format!("cannot write {}: {e}", log.display())))?;
        let mut shell = Command::new("sh");
        // The pipe arrives as the shell's input and is moved to 3, since a background job's input is taken away.
        shell.args(["-c", &format!("exec 3<&0\n{SUPERVISOR}"), name]).arg(&pid_file).arg(signal);
        shell.arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            if let Some(value) = value {
                shell.env(key, value);
            }
        }
        if let Some((user, group)) = owner {
            std::os::unix::fs::chown(folder, Some(user), Some(group))
                .map_err(|e| ServiceError::new(format!("cannot hand {} over: {e}", folder.display())))?;
            shell.uid(user).gid(group).current_dir(folder);
        }
        // Its own group, so that Ctrl-C at the terminal reaches us first and the service ends through the pipe.
        shell.process_group(0).stdin(Stdio::piped()).stdout(output).stderr(errors);
        let mut shell = shell.spawn().map_err(|e| ServiceError::new(format!("cannot start {name}: {e}")))?;
        let pipe = shell.stdin.take();
        Ok(Self { name, shell, pipe, log, pid_file })
    }

    /// Waits until `ready` answers true, the process has ended, or `limit` is over.
    ///
    /// # Errors
    /// With the end of the log when the service did not come up.
    pub fn wait_until(&mut self, limit: Duration, mut ready: impl FnMut() -> bool) -> Result<(), ServiceError> {
        let started = Instant::now();
        while !ready() {
            let ended = matches!(self.shell.try_wait(), Ok(Some(_)));
            if ended || started.elapsed() > limit {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                let from = log.char_indices().rev().nth(2_000).map_or(0, |(at, _)| at);
                let why = if ended { "ended at its start" } else { "did not come up in time" };
                return Err(ServiceError::new(format!("{} {why}; its log ends with:\n{}", self.name, &log[from..])));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Returns the process id of the service itself.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        std::fs::read_to_string(&self.pid_file).ok()?.trim().parse().ok()
    }

    /// Sends a signal (`KILL`, `STOP`, `CONT`) to the service itself.
    pub fn signal(&self, signal: &str) {
        if let Some(pid) = self.pid() {
            let _ = Command::new("kill").args(["-s", signal, &pid.to_string()]).status();
        }
    }

    /// Waits until the service has ended by itself.
    pub fn wait(&mut self) -> io::Result<std::process::ExitStatus> {
        // Not `Child::wait`: that closes the pipe first, which would stop the service.
        loop {
            if let Some(status) = self.shell.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Stops the service and waits until it is gone.
    pub fn stop(&mut self) {
        self.pipe = None;
        let started = Instant::now();
        while matches!(self.shell.try_wait(), Ok(None)) {
            if started.elapsed() > Duration::from_secs(20) {
                self.signal("KILL");
                let _ = self.shell.kill();
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.shell.wait();
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Ports below those that systems give to connections that go out: one of these stays free until it is used.
const PORTS: std::ops::Range<u32> = 20_000..32_000;

/// Finds a loopback port that nobody listens on, and that this process has not found before.
///
/// # Panics
/// When the machine has no port left.
#[must_use]
pub fn free_port() -> u16 {
    static FOUND: AtomicU32 = AtomicU32::new(0);
    let range = PORTS.end - PORTS.start;
    // Processes begin far from each other.
    let first = std::process::id().wrapping_mul(2_654_435_761) % range;
    let candidates = (0..range).map(|_| PORTS.start + (first + FOUND.fetch_add(1, Ordering::Relaxed)) % range);
    let mut ports = candidates.filter_map(|port| u16::try_from(port).ok());
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free loopback port")
}

pub(crate) fn accepts(port: u16) -> bool {
    TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), Duration::from_millis(200)).is_ok()
}

/// Says whether this process is the superuser.
pub(crate) fn superuser() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout.trim_ascii() == b"0")
}

/// Returns user and group of an account of this machine.
pub(crate) fn account(name: &str) -> Option<(u32, u32)> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}
