//! The simulator as a command: `windfall sim`.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use chrono::Utc;

use crate::clock;
use crate::config::{DEFAULT_SEED, Simulator};
use crate::fault::{FaultScript, ScriptError};
use crate::journal::JournalMode;
use crate::limiter::RateLimit;
use crate::running::{Running, StartError};

/// The options of `windfall sim`; their comments are its help.
#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct SimOptions {
    /// Devices at the start
    #[arg(long, default_value_t = 200)]
    pub devices: u32,
    /// Device management services at the start
    #[arg(long, default_value_t = 3)]
    pub servers: u16,
    /// The same seed serves the same fleet with the same life and the same key
    #[arg(long, default_value_t = DEFAULT_SEED)]
    pub seed: u64,
    /// Alias of the organization
    #[arg(long, value_name = "ALIAS", default_value = "acme")]
    pub org: String,
    /// Where to serve
    #[arg(long, default_value = "127.0.0.1:9650", value_name = "ADDR")]
    pub listen: SocketAddr,
    /// Where the private key is written, readable by this user alone
    #[arg(long, value_name = "FILE", default_value = "secrets/sim.pem")]
    pub key_file: PathBuf,
    /// Write every true change and every answer into this file
    #[arg(long, value_name = "FILE")]
    pub journal: Option<PathBuf>,
    /// How fast the fleet lives; tokens, limits and Retry-After keep wall time
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    pub time_scale: f64,
    /// Reads admitted in a sliding minute; `off` for no limit
    #[arg(long, default_value = "20", value_name = "N|off", value_parser = reads)]
    pub rate_limit: u32,
    /// What goes wrong: a file of rules, or the rules themselves
    #[arg(long, value_name = "SCRIPT")]
    pub faults: Option<String>,
    /// Serve Apple School Manager instead of Apple Business
    #[arg(long)]
    pub school: bool,
    /// Keep only digests of what was served in the journal, for large fleets
    #[arg(long)]
    pub digests_only: bool,
    /// Serve the control pages under /_sim on other than loopback addresses too
    #[arg(long)]
    pub control: bool,
}

/// Reads a number of reads a minute; 0 stands for `off`.
fn reads(text: &str) -> Result<u32, &'static str> {
    match text {
        "off" => Ok(0),
        number => {
            let limit = number.parse().ok().filter(|limit| *limit > 0);
            limit.ok_or("it is neither a number of reads a minute nor `off`")
        }
    }
}

/// Why `windfall sim` did not start.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// The fault script is no good.
    #[error("the fault script is no good")]
    Faults(#[from] ScriptError),
    /// The simulator did not start.
    #[error("the simulator did not start")]
    Start(#[from] StartError),
    /// The key file could not be written.
    #[error("could not write the key file `{path}`")]
    KeyFile {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The life cannot run at this speed.
    #[error("the time scale `{scale}` is not above zero")]
    TimeScale {
        /// What was asked for.
        scale: f64,
    },
}

impl SimError {
    /// Returns what the operator can do.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Faults(error) => error.help(),
            Self::Start(error) => error.help(),
            Self::KeyFile { .. } => "name a file with --key-file in a folder that can be written",
            Self::TimeScale { .. } => "give --time-scale a number above zero, such as 60 for an hour a minute",
        }
    }
}

/// A simulator that serves, and how to connect to it.
#[derive(Debug)]
pub struct Ready {
    /// What serves.
    pub running: Running,
    /// Lines of the configuration that connect to it, to be shown to the user.
    pub config_lines: String,
}

/// Starts the simulator and writes its key file, readable by its owner alone.
///
/// # Errors
/// When an option is no good, the address is taken, or a file cannot be written.
pub async fn start(options: &SimOptions) -> Result<Ready, SimError> {
    if !(options.time_scale > 0.0 && options.time_scale.is_finite()) {
        return Err(SimError::TimeScale { scale: options.time_scale });
    }
    let faults = options.faults.as_deref().map_or(Ok(FaultScript::default()), FaultScript::load)?;
    let running = Simulator::builder()
        .devices(options.devices)
        .servers(options.servers)
        .seed(options.seed)
        .orgs(vec![options.org.clone()])
        .school(options.school)
        .journal(options.journal.clone().map_or(JournalMode::Off, JournalMode::File))
        .digests_only(options.digests_only)
        .rate_limit((options.rate_limit > 0).then_some(RateLimit { requests: options.rate_limit, seconds: 60 }))
        .faults(faults)
        .control(options.control.then_some(true))
        .life_clock(clock::scaled(Utc::now(), options.time_scale))
        .start(options.listen)
        .await?;
    let account = &running.credentials()[0];
    write_key(&options.key_file, &account.private_key_pem)?;
    let config_lines = config_lines(options, &running);
    Ok(Ready { running, config_lines })
}

fn config_lines(options: &SimOptions, running: &Running) -> String {
    let account = &running.credentials()[0];
    let (folder, file) = split(&options.key_file);
    let kind = if options.school { "asm" } else { "abm" };
    let limit = match options.rate_limit {
        0 => 1000,
        limit => limit,
    };
    // An address that listens everywhere is not one to connect to.
    let url = if options.listen.ip().is_unspecified() {
        format!("http://127.0.0.1:{}", running.addr().port())
    } else {
        running.url()
    };
    format!(
        "secrets: {{ files: {{ type: directory, path: \"{folder}\" }} }}\n\
         sources:\n  \
           - name: {name}\n    \
             type: {kind}\n    \
             client_id: \"{client_id}\"\n    \
             key_id: \"{key_id}\"\n    \
             private_key: \"SECRET[files.{file}]\"\n    \
             api_url: \"{url}\"\n    \
             token_url: \"{url}/auth/oauth2/token\"\n    \
             rate_limit: {{ requests: {limit}, per: 1m, share: 1.0 }}\n",
        name = options.org,
        client_id = account.client_id,
        key_id = account.key_id,
    )
}

fn split(path: &Path) -> (String, String) {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    (folder.display().to_string(), file)
}

fn write_key(path: &Path, pem: &str) -> Result<(), SimError> {
    let wrong = |source| SimError::KeyFile { path: path.display().to_string(), source };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(wrong)?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(wrong)?;
    #[cfg(unix)]
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600)).map_err(wrong)?;
    file.write_all(pem.as_bytes()).map_err(wrong)
}
