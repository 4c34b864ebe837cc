//! How an attempt's command is executed: in a container, or as a plain process.

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
    /// Which try at it.
    pub attempt: Attempt,
    /// The runner's session, for labels on what must be found again.
    pub session: SessionId,
    /// The program or script and its arguments, as the job names them.
    pub command: Vec<String>,
    /// The interpreter that the command is handed to, if any.
    pub runtime: Option<RuntimeRef>,
    /// The image that the job names, if any.
    pub image: Option<String>,
    /// The job's environment variables: its own, and those every job has.
    pub env: BTreeMap<String, String>,
    /// Variables that nobody but the command may see.
    pub secrets: crate::secrets::Values,
    /// The job's work directory; `/work` in a container.
    pub work_dir: PathBuf,
    /// The directory in it that the command starts in; absent: the work directory itself.
    pub dir: Option<RelPath>,
    /// A directory for `TMPDIR` and `HOME`, beside the work directory; its content is thrown away.
    pub scratch_dir: PathBuf,
    /// A file that the command reads as its standard input; absent: it reads nothing.
    pub stdin: Option<PathBuf>,
    /// The packages that were installed for it, if it has any.
    pub packages: Option<Packages>,
    /// The inputs in its work directory, to be told before the command can touch them.
    pub inputs: Inputs,
    /// Whether it installs packages for the job, rather than being its command.
    pub installs: bool,
    /// Whom it runs as, where that is not the executor's own choice.
    pub user: Option<RunAs>,
    /// What it may use.
    pub limits: Limits,
    /// Where to say what the user may want to know while the command is not running yet: an image that is pulled. Sentences are
    /// dropped when it is full.
    pub notice: Option<mpsc::Sender<String>>,
}

impl Launch {
    /// The directory that the command starts in.
    pub(super) fn directory(&self) -> PathBuf {
        let dir = self.dir.as_ref();
        dir.map_or_else(|| self.work_dir.clone(), |dir| self.work_dir.join(dir.as_str()))
    }

    /// Every variable that the command is to have, and its value, secrets too: for an executor that shows nobody its environment.
    pub(super) fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        let open = self.env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        open.chain(self.secrets.iter())
    }
}

/// Packages that a command finds, and cannot change.
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

    /// What a command finds in its environment for them, where they are seen at `dir` and programs are looked up along `path`.
    pub(crate) fn variables(&self, dir: &str, path: &str) -> Vec<(&'static str, String)> {
        let mut variables = vec![("PATH", format!("{dir}/{}:{path}", self.bin()))];
        if self.kind == Kind::Pip {
            variables.push(("VIRTUAL_ENV", dir.to_owned()));
        }
        variables
    }
}

/// What packages are installed for: an interpreter on a platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// All that decides whether what was installed for one works for another.
    pub text: String,
    /// Where the interpreter is on this machine; nothing where that is known inside of the image only.
    pub executable: Option<PathBuf>,
}

/// Which Python of an executor is one that a job needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fitting {
    /// The one that the job gets anyway.
    Usual,
    /// This one.
    Other(RuntimeRef),
    /// Only what runs there can tell.
    Unknown,
}

/// What a command may use. What is absent is not limited.
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
    /// What it writes to standard output. It ends when the command and all that it left behind are gone. Both outputs must be
    /// read at the same time: what is not read holds up the command.
    pub stdout: Box<dyn AsyncRead + Send + Unpin>,
    /// What it writes to standard error.
    pub stderr: Box<dyn AsyncRead + Send + Unpin>,
    /// The command itself.
    pub handle: Box<dyn Handle>,
    /// What it runs in: the image and its digest, or the interpreter's path.
    pub environment: Option<String>,
    /// What must stay for as long as it runs: its packages.
    pub held: Option<Box<dyn Any + Send>>,
}

/// A command that runs, to be waited for and ended. Dropped before its end, it is killed.
#[async_trait]
pub trait Handle: Send + Sync {
    /// Waits for the command's end. When it returns, everything that the command left behind (its whole group or
    /// container) is gone. May be called again, and then says the same.
    ///
    /// # Errors
    /// If the end could not be learned; and [`Error::Unrunnable`] if the command could not be started after all, where an
    /// executor learns that only after [`Executor::launch`].
    async fn wait(&self) -> Result<Ended, Error>;

    /// Asks the whole group to end (SIGTERM).
    async fn terminate(&self);

    /// Ends the whole group (SIGKILL).
    async fn kill(&self);

    /// How long its outputs may stay open once it is gone, before they are left.
    fn outputs_after(&self) -> Duration {
        // Only a process that escaped its group holds them then, and what it prints is not the job's any more.
        Duration::from_secs(2)
    }

    /// Whether it can go on without this process, to be found again by the next one.
    fn can_be_left(&self) -> bool {
        false
    }

    /// Leaves it running; what is needed to find it again. Nothing where it cannot go on without this process.
    async fn leave(&self) -> Option<Left> {
        None
    }
}

/// A command that goes on without the process that started it.
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
    /// Because it used more memory than it may, or than there was.
    OutOfMemory,
}

/// Why a command could not be run.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The program, or the interpreter that it names, is not there. As [`Self::Unrunnable`], and told apart by its exit code.
    #[error("{0}")]
    NotFound(String),
    /// What the user can change: an unknown runtime, a missing program, an image that cannot be had.
    /// The sentence says what was tried, what is wrong and what to do.
    #[error("{0}")]
    Unrunnable(String),
    /// What the worker's operator must look at.
    #[error("{0}")]
    Broken(String),
}

/// Runs commands.
#[async_trait]
pub trait Executor: Send + Sync {
    /// Which one it is.
    fn kind(&self) -> ExecutorKind;

    /// What the packages of a job are to be installed for.
    ///
    /// # Errors
    /// If there is no such interpreter, or it does not tell.
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
    /// If it cannot be run; nothing of it is left behind then.
    async fn launch(&self, launch: Launch) -> Result<Running, Error>;
}
