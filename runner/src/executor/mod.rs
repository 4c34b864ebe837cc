//! Executors: they run an attempt's command in a container, or as a plain process.

use std::{any::Any, collections::BTreeMap, path::PathBuf, time::Duration};

use async_trait::async_trait;
use bus::{
    ids::{Attempt, JobId, SessionId},
    spec::{ExecutorKind, RelPath, dependencies::Kind, pep440::Specifiers, runtime::RuntimeRef},
};
use tokio::{io::AsyncRead, sync::mpsc};

use crate::inputs::Inputs;
pub use crate::users::RunAs;

pub mod choose;
pub mod docker;
mod missing;
pub mod noop;
pub mod process;
pub mod runtimes;

pub use self::{
    choose::{Chosen, Executors, Preference, Want},
    docker::Docker,
    noop::Noop,
    process::Process,
    runtimes::{ParseError, Runtime, RuntimeTable, Runtimes},
};

/// Everything an executor needs to run one attempt's command.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub attempt: Attempt,
    /// The runner's session, for the labels of containers.
    pub session: SessionId,
    /// The program or script and its arguments, as the job names them.
    pub command: Vec<String>,
    /// The interpreter that runs the command, if any.
    pub runtime: Option<RuntimeRef>,
    /// The image that the job names, if any.
    pub image: Option<String>,
    /// The job's environment variables: its own, and those every job has.
    pub env: BTreeMap<String, String>,
    /// Variables that only the command may see.
    pub secrets: crate::secrets::Values,
    /// The job's work directory; `/work` in a container.
    pub work_dir: PathBuf,
    /// The directory in it that the command starts in; absent: the work directory itself.
    pub dir: Option<RelPath>,
    /// A directory for `TMPDIR` and `HOME`, beside the work directory; its content is removed.
    pub scratch_dir: PathBuf,
    /// A file that the command reads as its standard input; absent: it reads nothing.
    pub stdin: Option<PathBuf>,
    /// The packages that were installed for it, if it has any.
    pub packages: Option<Packages>,
    /// The inputs in its work directory. The executor notes their state before the command can change them.
    pub inputs: Inputs,
    /// Whether this launch installs packages for the job, rather than running its command.
    pub installs: bool,
    /// The user that it runs as, where the executor does not choose one.
    pub user: Option<RunAs>,
    /// Its resource limits.
    pub limits: Limits,
    /// Receives notices for the user before the command runs, such as that an image is pulled. A notice is dropped when the channel is full.
    pub notice: Option<mpsc::Sender<String>>,
}

impl Launch {
    /// The directory that the command starts in.
    pub(super) fn directory(&self) -> PathBuf {
        let dir = self.dir.as_ref();
        dir.map_or_else(|| self.work_dir.clone(), |dir| self.work_dir.join(dir.as_str()))
    }

    /// Every variable of the command and its value, including secrets: for an executor whose environment no other user can read.
    pub(super) fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        let open = self.env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        open.chain(self.secrets.iter())
    }
}

/// Installed packages that a command can use and cannot change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packages {
    /// What installed them: a virtual environment, or a directory with `node_modules`.
    pub kind: Kind,
    /// Where they are on this machine.
    pub dir: PathBuf,
}

impl Packages {
    /// Where their programs are, from their directory.
    #[must_use]
    pub const fn bin(&self) -> &'static str {
        match self.kind {
            Kind::Pip => "bin",
            Kind::Npm => "node_modules/.bin",
        }
    }

    /// The environment variables for them, where the command sees them at `dir` and looks programs up along `path`.
    pub(crate) fn variables(&self, dir: &str, path: &str) -> Vec<(&'static str, String)> {
        let mut variables = vec![("PATH", format!("{dir}/{}:{path}", self.bin()))];
        if self.kind == Kind::Pip {
            variables.push(("VIRTUAL_ENV", dir.to_owned()));
        }
        variables
    }
}

/// The interpreter and platform that packages are installed for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Text that is equal for two interpreters where the packages of one work for the other.
    pub text: String,
    /// Where the interpreter is on this machine; nothing where only the image knows that.
    pub executable: Option<PathBuf>,
}

/// Which Python of an executor satisfies a job's version specifiers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fitting {
    /// The default one.
    Usual,
    /// This one.
    Other(RuntimeRef),
    /// Not known before the command's environment exists.
    Unknown,
}

/// A command's resource limits; an absent one is unlimited.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// CPUs, in thousandths.
    pub cpu_milli: Option<u32>,
    /// Memory of the whole process group or container, in bytes.
    pub memory_bytes: Option<u64>,
    /// What may be in a container's `/dev/shm`, in bytes; absent: half of the memory. A plain process has the machine's own.
    pub shm_bytes: Option<u64>,
}

/// A command that runs.
pub struct Running {
    /// Its standard output. It ends when the command and all of its processes are gone. Both outputs must be read at the same time: a full
    /// pipe blocks the command.
    pub stdout: Box<dyn AsyncRead + Send + Unpin>,
    /// Its standard error.
    pub stderr: Box<dyn AsyncRead + Send + Unpin>,
    /// The command itself.
    pub handle: Box<dyn Handle>,
    /// What it runs in: the image and its digest, or the interpreter's path.
    pub environment: Option<String>,
    /// Keeps its packages installed for as long as it runs.
    pub packages: Option<Box<dyn Any + Send>>,
}

/// A running command. It is killed if this is dropped before its end.
#[async_trait]
pub trait Handle: Send + Sync {
    /// Waits for the command's end. When this returns, all processes of the command (its whole group or container) are gone. May be called
    /// again, and then returns the same.
    ///
    /// # Errors
    /// If the end could not be determined; and [`Error::Unrunnable`] if the command could not be started after all, where an
    /// executor learns that only after [`Executor::launch`].
    async fn wait(&self) -> Result<Ended, Error>;

    /// Asks the whole group to end (SIGTERM).
    async fn terminate(&self);

    /// Ends the whole group (SIGKILL).
    async fn kill(&self);

    /// How long its outputs may stay open once it is gone, before they are closed.
    fn outputs_after(&self) -> Duration {
        // Only a process that escaped its group holds them then, and what it prints is not the job's any more.
        Duration::from_secs(2)
    }

    /// Whether it can continue without this process, so that the next runner can find it.
    fn can_be_left(&self) -> bool {
        false
    }

    /// Leaves it running, and returns how to find it again; nothing where it cannot continue without this process.
    async fn leave(&self) -> Option<Left> {
        None
    }
}

/// A command that continues without the process that started it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Left {
    /// Its container's id.
    pub container: String,
    /// When the first of its output was stored, by the daemon's clock, if there is any.
    pub first_stored: Option<String>,
    /// Whether its memory is limited.
    pub memory_limited: bool,
}

/// How a command ended, and what it used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// How.
    pub exit: Exit,
    /// User and system time of the command and its descendants.
    pub cpu: Option<Duration>,
    /// The largest resident memory, in bytes.
    pub memory_bytes: Option<u64>,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with a code.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// It exceeded its memory limit, or the machine's memory was exhausted.
    OutOfMemory,
}

/// Why a command could not be run.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The program, or the interpreter that it names, does not exist. As [`Self::Unrunnable`], but with another exit code.
    #[error("{0}")]
    NotFound(String),
    /// An error that the user can fix: an unknown runtime, a missing program, an image that cannot be pulled. The text says what was tried,
    /// what is wrong and what to do.
    #[error("{0}")]
    Unrunnable(String),
    /// An error that the worker's operator must fix.
    #[error("{0}")]
    Broken(String),
}

/// Runs commands.
#[async_trait]
pub trait Executor: Send + Sync {
    /// Its kind.
    fn kind(&self) -> ExecutorKind;

    /// The interpreter that a job's packages are installed for.
    ///
    /// # Errors
    /// If there is no such interpreter, or its identity cannot be read.
    async fn identity(&self, launch: &Launch, kind: Kind) -> Result<Identity, Error>;

    /// The runtime to run a job by that needs certain versions of Python, where it leaves the version open and another than usual is
    /// meant; nothing where the usual one fits, or only its environment can tell.
    ///
    /// # Errors
    /// [`Error::Unrunnable`] if no Python of this worker fits, with those that it has.
    async fn fitting(&self, _launch: &Launch, _python: &Specifiers) -> Result<Fitting, Error> {
        Ok(Fitting::Unknown)
    }

    /// Starts a command.
    ///
    /// # Errors
    /// If it cannot be run; no process or container is left then.
    async fn launch(&self, launch: Launch) -> Result<Running, Error>;
}
