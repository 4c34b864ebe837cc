//! The options of `rgrid run`.

pub(crate) mod batch;
pub(crate) mod environment;
pub(crate) mod files;
pub(crate) mod layers;
pub(crate) mod policy;
pub(crate) mod resolved;
pub(crate) mod script_head;

use std::ffi::OsString;

use bus::spec::{ExecutorKind, Priority};
use clap::{Args, ValueEnum};

use self::{batch::BatchArgs, environment::EnvArgs, files::FileArgs, policy::PolicyArgs, resolved::Resolved};
use crate::{
    connect::Connect,
    values::{ByteSize, Cpus, Pair, memory},
};

const EXAMPLES: &str = "\
Examples:
  rgrid run report.py data/x.csv                 as `python report.py data/x.csv` here
  rgrid run --memory 2GB --timeout 10m train.py --epochs 5
  rgrid run --retries 3 --retry-on 75 fetch.py   again, up to three times, where it ends with 75
  rgrid run -d --at 22:00 --depends-on last nightly.py   tonight, if the last job has succeeded
  rgrid run --workdir --exclude '*.zip' build.sh  with all that lies here, as git sees it
  sort names.txt | rgrid run -i - count.py       what is piped in is its standard input
  rgrid run --batch 'data/*.csv' --parallel 8 clean.py   a job for each file; what each leaves in outputs/NAME/
  rgrid run --image python:3.12 --cpu 0.5 report.py
  rgrid run --env TOKEN --env MODE=fast fetch.sh   TOKEN as it is set here
  id=$(rgrid run -d slow.py); rgrid logs -f $id; rgrid download $id
  rgrid run --program --image alpine echo hi     a program of the image, or of the worker

Options of rgrid stand before SCRIPT; everything behind it is the script's, also what begins with `-`.

Options may also stand in the comment that a script begins with (`# rgrid: --cpu 2 --timeout 10m`), and in the table [run] of an \
rgrid.toml here or above (`cpu = 2`). The command line goes before the environment, that before the script, that before rgrid.toml; \
`--dry-run` says where each came from.

Files: the script, and each argument that names an existing file or directory (also as --option=FILE or key=FILE), go along, and with \
a Python script the modules beside it that it imports. What lies below the current directory keeps its relative path, anything else stands \
in a directory rgrid-1, rgrid-2 …, and the argument is changed accordingly. What is piped in is the script's standard input. What the script writes or changes in its current directory comes back, also when it fails.

Exit codes: the script's own; 128 + N if signal N ended it; 124 timed out, 137 out of memory, 130 cancelled, 127 its program was not found, \
126 it could not be run otherwise. After Ctrl-C 130, after SIGTERM 143, where the job goes on or its outputs were not all saved. Of rgrid itself: 1 if something could not be done, 2 if something must be written otherwise.";

/// Run a script on the grid, wait for it, and end as it ends
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, override_usage = "rgrid run [OPTIONS] SCRIPT [ARGS]...")]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(crate) struct RunArgs {
    /// The script, and behind it its arguments
    #[arg(value_name = "SCRIPT", required = true, trailing_var_arg = true, allow_hyphen_values = true, num_args = 1..)]
    pub(crate) words: Vec<OsString>,

    /// Return at once, and print the job's id
    #[arg(long, short)]
    pub(crate) detach: bool,
    /// Let the job go on at Ctrl-C, without asking
    #[arg(long, env = "RGRID_DETACH_ON_INTERRUPT")]
    pub(crate) detach_on_interrupt: bool,
    /// Leave the outputs in the store; `rgrid download` fetches them
    #[arg(long)]
    pub(crate) no_download: bool,
    /// The job as one JSON object on standard output when it ended (with -d: when it is submitted); what it prints goes to standard error
    #[arg(long)]
    pub(crate) json: bool,
    /// Where the same was run before and succeeded (script, files, arguments, variables, runtime or image), take that job's result
    #[arg(long, conflicts_with = "idempotency_key")]
    pub(crate) reuse: bool,
    /// Print what would be sent and run, and do neither
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Take no options from the script's head (`# rgrid: --cpu 2`) or from rgrid.toml
    #[arg(long)]
    pub(crate) no_defaults: bool,
    /// Say on which worker the job runs, and what came back
    #[arg(long, short)]
    pub(crate) verbose: bool,

    /// What runs the script: python, node, bash, sh, ruby, perl, php, R, julia, or what the grid's operator added (`rgrid runtimes`); with a version as in python:3.12; or image:IMAGE, as --image [default: by its first line (#!) or extension]
    #[arg(long, value_name = "NAME", help_heading = "How it runs")]
    pub(crate) runtime: Option<String>,
    /// Which runtime an extension means, besides py, js, mjs, cjs, bash and sh; may be given several times
    #[arg(
        long = "runtime-for",
        value_name = "EXT=NAME",
        env = "RGRID_RUNTIMES",
        value_delimiter = ',',
        help_heading = "How it runs"
    )]
    pub(crate) runtimes: Vec<Pair>,
    /// SCRIPT is a program of the worker or the image: it is not sent along
    #[arg(long, conflicts_with = "runtime", help_heading = "How it runs")]
    pub(crate) program: bool,
    /// The container image to run in, as for `docker run`
    #[arg(long, value_name = "IMAGE", help_heading = "How it runs")]
    pub(crate) image: Option<String>,
    /// What executes it [default: what the worker prefers]
    #[arg(long, value_name = "KIND", help_heading = "How it runs")]
    pub(crate) executor: Option<Executor>,
    #[command(flatten)]
    pub(crate) env: EnvArgs,
    /// An argument that names a file here, but is not to be sent along: it stays as it is; may be given several times
    #[arg(long, value_name = "PATH", help_heading = "How it runs")]
    pub(crate) no_input: Vec<OsString>,

    /// The CPUs that it may use, such as 2 or 0.5 [default: room for 1 is kept, and it is not limited]
    #[arg(long, value_name = "N", allow_hyphen_values = true, help_heading = "What it may use")]
    pub(crate) cpu: Option<Cpus>,
    /// The memory that it may use, such as 512MB or 2GiB [default: not limited]
    #[arg(long, value_name = "SIZE", value_parser = memory, allow_hyphen_values = true, help_heading = "What it may use")]
    pub(crate) memory: Option<ByteSize>,
    /// What may be in a container's /dev/shm, such as 1GiB [default: half of --memory, else half of the machine's memory]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, help_heading = "What it may use")]
    pub(crate) shm: Option<ByteSize>,

    #[command(flatten)]
    pub(crate) files: FileArgs,

    #[command(flatten)]
    pub(crate) many: BatchArgs,

    #[command(flatten)]
    pub(crate) policy: PolicyArgs,

    /// What to call it in lists [default: the script's path]
    #[arg(long, value_name = "NAME", help_heading = "How it is known")]
    pub(crate) name: Option<String>,
    /// A mark to find it by; may be given several times
    #[arg(long, value_name = "KEY=VALUE", help_heading = "How it is known")]
    pub(crate) label: Vec<Pair>,
    /// The lane that it waits in [default: default]
    #[arg(long, value_name = "NAME", env = "RGRID_QUEUE", help_heading = "How it is known")]
    pub(crate) queue: Option<String>,
    /// Which work goes first
    #[arg(long, value_name = "WHICH", default_value = "normal", help_heading = "How it is known")]
    pub(crate) priority: Urgency,
    /// The same key is the same job, for ever: a second run with it waits for the first one's job
    #[arg(long, value_name = "TEXT", help_heading = "How it is known")]
    pub(crate) idempotency_key: Option<String>,
    /// The tenant that it belongs to
    #[arg(
        long,
        value_name = "NAME",
        env = "RGRID_NAMESPACE",
        default_value = "default",
        help_heading = "How it is known"
    )]
    pub(crate) namespace: String,

    #[command(flatten)]
    pub(crate) connect: Connect,

    #[arg(skip)]
    pub(crate) resolved: Resolved,
}

impl RunArgs {
    /// The image that is named: by `--image`, or as `--runtime image:IMAGE`.
    pub(crate) fn named_image(&self) -> Option<&str> {
        self.image.as_deref().or_else(|| self.runtime.as_deref()?.strip_prefix("image:"))
    }

    /// The runtime that is named, where that is no image.
    pub(crate) fn named_runtime(&self) -> Option<&str> {
        self.runtime.as_deref().filter(|runtime| !runtime.starts_with("image:"))
    }
}

/// Executors as the command line spells them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Executor {
    /// A container of its own
    Docker,
    /// A plain process
    Process,
}

impl From<Executor> for ExecutorKind {
    fn from(executor: Executor) -> Self {
        match executor {
            Executor::Docker => Self::Docker,
            Executor::Process => Self::Process,
        }
    }
}

/// Priorities as the command line spells them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Urgency {
    High,
    Normal,
    Low,
}

impl From<Urgency> for Priority {
    fn from(urgency: Urgency) -> Self {
        match urgency {
            Urgency::High => Self::High,
            Urgency::Normal => Self::Normal,
            Urgency::Low => Self::Low,
        }
    }
}
