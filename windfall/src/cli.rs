//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  windfall demo                             the whole pipeline in one process, against a simulated organization
  windfall check -c windfall.yaml           probe everything that the configuration names
  windfall run all -c windfall.yaml         producer, transformer and sinks in one process
  windfall run all --once                   one scan through to the stores, for cron
  windfall tap abm.devices --until-end -o json | jq .value.after

Exit codes:
  0 success   1 failure   2 usage   3 authentication   4 not found   5 permission   6 rate limited
  7 incomplete   8 held, needs approval   78 invalid configuration   130 interrupted";

/// Change data capture for Apple device fleets: every change of every device, as a Kafka record and as a row.
#[derive(Debug, Parser)]
#[command(name = "windfall", version, about, after_help = EXAMPLES, max_term_width = 110)]
#[command(disable_help_subcommand = true, arg_required_else_help = true, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Flags that every verb takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Global {
    /// Configuration file
    #[arg(
        short,
        long,
        global = true,
        env = "WINDFALL_CONFIG",
        hide_env_values = true,
        value_name = "FILE",
        default_value = "windfall.yaml"
    )]
    pub(crate) config: PathBuf,
    /// Form of what is printed on standard output
    #[arg(short, long, global = true, value_enum, value_name = "FORM", default_value_t = Form::Table)]
    pub(crate) output: Form,
    /// Say only what is wrong
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Say more; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Form of the logs on standard error
    #[arg(long, global = true, value_enum, value_name = "FORM", default_value_t = LogForm::Text)]
    pub(crate) log_format: LogForm,
    /// No colours, as with NO_COLOR
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
    /// Never ask; what would have to be asked is an error
    #[arg(long, global = true)]
    pub(crate) no_input: bool,
    /// Answer yes to whatever would be asked
    #[arg(long, global = true)]
    pub(crate) yes: bool,
    /// Name of this process among its peers, instead of `instance`
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) instance: Option<String>,
    /// Where to serve health, metrics and status, instead of `http.listen`; `off` for nowhere
    #[arg(long, global = true, value_name = "ADDR|off")]
    pub(crate) http: Option<String>,
}

/// Form of what is printed on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// For people
    Table,
    /// One JSON value, or one object a line where records follow each other
    Json,
    /// YAML
    Yaml,
}

/// Form of the logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogForm {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show the whole pipeline in one process, against a simulated organization
    Demo(DemoArgs),
    /// Run stages: producer, transformer, one sink, or all in one process
    Run(RunArgs),
    /// Serve a simulated organization with Apple's API
    Sim(Box<windfall_simulator::sim::SimOptions>),
    /// Probe everything that the configuration names: Apple, Kafka, the registry, each sink
    Check(StageArgs),
    /// Check the configuration, the collections and the mappings; no service has to answer
    Validate,
    /// Show how a running process is
    Status(StatusArgs),
    /// Create, list or verify the declared topics
    Topics(TopicsArgs),
    /// List, show and approve what scans hold back
    Scans(ScansArgs),
    /// Map a collection again from the start of its sources, when the transformer is next started
    Remap(RemapArgs),
    /// Print the decoded records of a topic
    Tap(TapArgs),
    /// Print the JSON Schema or the reference of the configuration
    Config(ConfigArgs),
    /// Print the version
    Version,
}

/// `demo`
#[derive(Debug, Clone, Args)]
pub(crate) struct DemoArgs {
    /// Devices at the start
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub(crate) devices: u32,
    /// Device management services
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(crate) servers: u16,
    /// The same seed shows the same fleet with the same life
    #[arg(long, default_value_t = 7)]
    pub(crate) seed: u64,
    /// How long it runs, as `20s` or `2m`; one day of the fleet's life passes meanwhile
    #[arg(long, default_value = "20s", value_name = "PERIOD")]
    pub(crate) duration: windfall_runtime::config::Period,
    /// Where the rows and the journal are left
    #[arg(long, default_value = "windfall-demo", value_name = "PATH")]
    pub(crate) dir: PathBuf,
}

/// A stage: what is run, or what is checked.
#[derive(Debug, Clone, Args)]
pub(crate) struct StageArgs {
    /// Which stage; only the secrets of this one are read
    #[arg(value_enum, default_value_t = StageName::All)]
    pub(crate) stage: StageName,
    /// Which sink
    pub(crate) name: Option<String>,
}

/// `run`
#[derive(Debug, Clone, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) what: StageArgs,
    /// Go through once and end: one scan, then everything up to the stores
    #[arg(long)]
    pub(crate) once: bool,
}

/// What `run` runs and `check` checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StageName {
    /// Apple's API to change events
    Producer,
    /// Change events to asset records
    Transformer,
    /// Asset records to a store
    Sink,
    /// All of them in one process
    All,
}

/// `status`
#[derive(Debug, Clone, Args)]
pub(crate) struct StatusArgs {
    /// Print nothing; end with 0 when the process is ready and with 1 when it is not
    #[arg(long)]
    pub(crate) ready: bool,
}

/// `topics`
#[derive(Debug, Clone, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct TopicsArgs {
    #[command(subcommand)]
    pub(crate) action: TopicsAction,
}

/// What to do with the topics.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum TopicsAction {
    /// Accept a topic that was made anew as it is, for all who have read the former one, after showing who that is and asking
    Accept {
        /// The topic, with or without the prefix
        topic: String,
    },
    /// Create what is missing, verify the rest, and register the schemas
    Create,
    /// List what is declared, without asking Kafka
    List,
    /// Compare the topics and schemas that are there with what is declared
    Verify,
}

/// `remap`
#[derive(Debug, Clone, Args)]
pub(crate) struct RemapArgs {
    /// The collection
    pub(crate) collection: String,
}

/// `scans`
#[derive(Debug, Clone, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct ScansArgs {
    #[command(subcommand)]
    pub(crate) action: ScansAction,
}

/// What to do with scans.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum ScansAction {
    /// List the last scan of each source and the plans it holds
    List,
    /// Show a held plan with its devices
    Show {
        /// Name of the plan
        plan: String,
    },
    /// Let held plans through, after showing them and asking
    Approve {
        /// Name of the plan
        #[arg(required_unless_present = "all")]
        plan: Option<String>,
        /// Every plan that is held now, as it is shown
        #[arg(long, conflicts_with = "plan")]
        all: bool,
    },
}

/// `tap`
#[derive(Debug, Clone, Args)]
pub(crate) struct TapArgs {
    /// The topic, with or without the configured prefix
    pub(crate) topic: String,
    /// Where to begin: `beginning`, `end`, a time such as `2026-11-21T09:00:00Z`, or how long ago: `15m`
    ///
    /// Left out, it begins at the end; with `--until-end` at the beginning.
    #[arg(long, value_name = "WHERE")]
    pub(crate) from: Option<crate::tap::Start>,
    /// Stop at what is the end of the topic now
    #[arg(long)]
    pub(crate) until_end: bool,
    /// Only records of this key: one of its fields, or a JSON object of some of them
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// Stop after so many records
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
}

/// `config`
#[derive(Debug, Clone, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    pub(crate) action: ConfigAction,
}

/// What to print about the configuration.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum ConfigAction {
    /// The JSON Schema, for editors
    Schema,
    /// The reference, in Markdown
    Reference,
}
