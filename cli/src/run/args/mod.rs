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
  rgrid run report.py data/x.csv                 like `python report.py data/x.csv` here
  rgrid run --memory 2GB --timeout 10m train.py --epochs 5
  rgrid run --retries 3 --retry-on 75 fetch.py   retry up to three times if the exit code is 75
  rgrid run -d --at 22:00 --depends-on last nightly.py   tonight, if the last job succeeded
  rgrid run --workdir --exclude '*.zip' build.sh  send the whole directory, without what git ignores
  sort names.txt | rgrid run -i - count.py       the script reads the pipe as its standard input
  rgrid run --batch 'data/*.csv' --parallel 8 clean.py   one job for each file; outputs in outputs/NAME/
  rgrid run --image python:3.12 --cpu 0.5 report.py
  rgrid run --env TOKEN --env MODE=fast fetch.sh   TOKEN with its value in this shell
  id=$(rgrid run -d slow.py); rgrid logs -f $id; rgrid download $id
  rgrid run --program --image alpine echo hi     a program of the image or the worker

Options of rgrid come before SCRIPT. Everything after SCRIPT is passed to the script, including words that begin with `-`.

Options can also be set in the comment at the head of the script (`# rgrid: --cpu 2 --timeout 10m`) and in the table [run] of an rgrid.toml in this directory or above it (`cpu = 2`). Precedence: command line > environment > script > rgrid.toml. `--dry-run` shows where each option was set.

Inputs: the script is sent with the job, and so is each argument that names an existing file or directory (also as --option=FILE or key=FILE), and each file that the script's text names or imports. A file below the current directory keeps its relative path. Any other file is placed in a directory rgrid-1, rgrid-2 …, and the argument is changed accordingly. If standard input is a pipe or a file, the script can read it. Outputs: files that the script creates or changes in its current directory are saved here, even if the script fails.

Exit codes: the script's exit code; 128 + N if signal N ended the script; 124 timeout; 137 out of memory; 130 cancelled; 127 program not found; 126 the program could not be started. If rgrid is interrupted and the job continues, or not all outputs were saved: 130 after Ctrl-C, 143 after SIGTERM. Errors of rgrid itself: 1 failure, 2 usage error.";

/// Run a script on the grid, wait for it, and exit with its exit code
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, override_usage = "rgrid run [OPTIONS] SCRIPT [ARGS]...")]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag")]
pub(crate) struct RunArgs {
    /// The script, followed by its arguments
    #[arg(value_name = "SCRIPT", required = true, trailing_var_arg = true, allow_hyphen_values = true, num_args = 1..)]
    pub(crate) words: Vec<OsString>,

    /// Do not wait for the job; print its id
    #[arg(long, short)]
    pub(crate) detach: bool,
    /// On Ctrl-C, leave the job running, without asking
    #[arg(long, env = "RGRID_DETACH_ON_INTERRUPT")]
    pub(crate) detach_on_interrupt: bool,
    /// Do not download the outputs; `rgrid download` fetches them later
    #[arg(long)]
    pub(crate) no_download: bool,
    /// Print the job as one JSON object when it has ended (with -d: when it is submitted); the script's output goes to standard error
    #[arg(long)]
    pub(crate) json: bool,
    /// If the same job (script, files, arguments, variables, runtime or image) succeeded before, use its result
    #[arg(long, conflicts_with = "idempotency_key")]
    pub(crate) reuse: bool,
    /// Show what would be sent and run, without doing it
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Ignore options in the script's head (`# rgrid: --cpu 2`) and in rgrid.toml
    #[arg(long)]
    pub(crate) no_defaults: bool,
    /// Show which worker runs the job, and which files were sent and saved
    #[arg(long, short)]
    pub(crate) verbose: bool,

    /// The runtime that runs the script: python, node, bash, sh, ruby, perl, php, R, julia, or one that the grid's operator added (see `rgrid runtimes`); optionally with a version, such as python:3.12; or image:IMAGE, the same as --image IMAGE [default: from the script's first line (#!) or its extension]
    #[arg(long, value_name = "NAME", help_heading = "Runtime and environment")]
    pub(crate) runtime: Option<String>,
    /// The runtime for a file extension other than py, js, mjs, cjs, bash and sh; can be repeated
    #[arg(
        long = "runtime-for",
        value_name = "EXT=NAME",
        env = "RGRID_RUNTIMES",
        value_delimiter = ',',
        help_heading = "Runtime and environment"
    )]
    pub(crate) runtimes: Vec<Pair>,
    /// SCRIPT is a program that is installed on the worker or in the image; it is not sent
    #[arg(long, conflicts_with = "runtime", help_heading = "Runtime and environment")]
    pub(crate) program: bool,
    /// The container image to run the job in, as for `docker run`
    #[arg(long, value_name = "IMAGE", help_heading = "Runtime and environment")]
    pub(crate) image: Option<String>,
    /// The executor that runs the job [default: the worker's choice]
    #[arg(long, value_name = "KIND", help_heading = "Runtime and environment")]
    pub(crate) executor: Option<Executor>,
    #[command(flatten)]
    pub(crate) env: EnvArgs,
    /// Do not send the file that this argument names; the argument is passed unchanged; can be repeated
    #[arg(long, value_name = "PATH", help_heading = "Runtime and environment")]
    pub(crate) no_input: Vec<OsString>,

    /// The CPUs that the job reserves and is limited to, such as 2 or 0.5 [default: reserve 1, no limit]
    #[arg(long, value_name = "N", allow_hyphen_values = true, help_heading = "Resources")]
    pub(crate) cpu: Option<Cpus>,
    /// The memory limit, such as 512MB or 2GiB [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = memory, allow_hyphen_values = true, help_heading = "Resources")]
    pub(crate) memory: Option<ByteSize>,
    /// The size of a container's /dev/shm, such as 1GiB [default: half of --memory, or else half of the machine's memory]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, help_heading = "Resources")]
    pub(crate) shm: Option<ByteSize>,

    #[command(flatten)]
    pub(crate) files: FileArgs,

    #[command(flatten)]
    pub(crate) many: BatchArgs,

    #[command(flatten)]
    pub(crate) policy: PolicyArgs,

    /// The job's name in lists [default: the script's path]
    #[arg(long, value_name = "NAME", help_heading = "Identity and queue")]
    pub(crate) name: Option<String>,
    /// A label to find the job by; can be repeated
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Identity and queue")]
    pub(crate) label: Vec<Pair>,
    /// The queue that the job waits in [default: default]
    #[arg(long, value_name = "NAME", env = "RGRID_QUEUE", help_heading = "Identity and queue")]
    pub(crate) queue: Option<String>,
    /// Jobs with a higher priority start first
    #[arg(long, value_name = "WHICH", default_value = "normal", help_heading = "Identity and queue")]
    pub(crate) priority: PriorityArg,
    /// A key that identifies the job permanently: a second run with the same key follows the first job instead of submitting a new one
    #[arg(long, value_name = "TEXT", help_heading = "Identity and queue")]
    pub(crate) idempotency_key: Option<String>,
    /// The namespace of the job
    #[arg(
        long,
        value_name = "NAME",
        env = "RGRID_NAMESPACE",
        default_value = "default",
        help_heading = "Identity and queue"
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
    /// A Docker container
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
pub(crate) enum PriorityArg {
    High,
    Normal,
    Low,
}

impl From<PriorityArg> for Priority {
    fn from(urgency: PriorityArg) -> Self {
        match urgency {
            PriorityArg::High => Self::High,
            PriorityArg::Normal => Self::Normal,
            PriorityArg::Low => Self::Low,
        }
    }
}
