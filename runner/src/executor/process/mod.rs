//! Plain processes: the embedded default, so that a machine without Docker can run everything.
//!
//! Small helpers (`helper`) start them, each in a group of its own, and kill them all when the runner dies. A command has a helper to itself
//! while it runs, by which its leftovers are known. Spawning
//! is what a short job costs, so there is nothing else on its way: two pipes, one packet to the helper and one back.

use std::{
    ffi::OsString,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bus::{
    ids::WorkerId,
    spec::{ExecutorKind, dependencies::Kind, pep440::Specifiers},
};
use parking_lot::Mutex;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::net::unix::pipe::Receiver;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tracing::warn;

use self::{
    cgroup::Cgroups,
    handle::ProcessHandle,
    identity::Identities,
    limits::Guard,
    link::{Entered, Link},
    mark::{Mark, ProcessId},
    program::Programs,
    sampler::Sampler,
    version::Versions,
    wire::Command,
};
use super::{
    Error, Executor, Fitting, Identity, Launch, Limits, Running,
    missing::{self, HERE},
    runtimes::Runtimes,
};
use crate::users;

mod cgroup;
mod ending;
mod environment;
mod handle;
pub mod helper;
mod identity;
mod inventory;
mod limits;
mod link;
pub(crate) mod mark;
pub(crate) mod proc;
mod program;
mod sampler;
mod version;
mod wire;

/// How plain processes are run.
#[derive(Debug, Clone)]
pub struct Config {
    /// The worker they are run for.
    pub worker: WorkerId,
    /// The spawn helper's program and arguments.
    pub helper: Vec<OsString>,
    /// Which interpreter a runtime is.
    pub runtimes: Runtimes,
    /// Where programs are looked up; `PATH` of every command.
    pub path: OsString,
    /// `USER` and `LOGNAME` of every command.
    pub user: Option<OsString>,
    /// Whether limits may use control groups.
    pub cgroups: bool,
}

impl Config {
    /// The path that commands get if the runner has none.
    pub const DEFAULT_PATH: &'static str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

    /// The runner's own binary as helper (found even if it was replaced on disk), its path and user, and control groups where
    /// they are writable.
    #[must_use]
    pub fn new(worker: WorkerId, runtimes: Runtimes) -> Self {
        Self {
            worker,
            helper: vec!["/proc/self/exe".into(), helper::VERB.into()],
            runtimes,
            path: std::env::var_os("PATH").unwrap_or_else(|| Self::DEFAULT_PATH.into()),
            user: std::env::var_os("USER").or_else(|| std::env::var_os("LOGNAME")).or_else(root),
            cgroups: true,
        }
    }
}

/// What root is called, whom a service manager gives no name.
fn root() -> Option<OsString> {
    rustix::process::geteuid().is_root().then(|| "root".into())
}

/// Helpers that one runner has at most; each takes some megabytes.
const HELPERS: usize = 64;

/// What the next command is called: unique in this process, since marks and control groups are named by it.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Runs commands as plain processes.
pub struct Process {
    config: Config,
    base: Vec<(OsString, OsString)>,
    runner: ProcessId,
    helpers: Mutex<Vec<Arc<Link>>>,
    programs: Arc<Programs>,
    versions: Versions,
    identities: Identities,
    cgroups: Cgroups,
    sampler: Sampler,
    tasks: TaskTracker,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

impl Process {
    /// Starts the helper, finds out which limits can be enforced, and kills what an earlier runner of this worker, killed
    /// together with its helper, left running.
    ///
    /// # Errors
    /// [`Error::Broken`] if the helper cannot be started.
    pub async fn start(config: Config) -> Result<Self, Error> {
        let broken = |error: std::io::Error| Error::Broken(format!("the spawn helper could not be started: {error}"));
        let runner = proc::this_process().map_err(broken)?;
        let worker = config.worker.clone();
        let is_left = move |mark: &Mark| mark.worker == worker && mark.runner != runner && !proc::is_alive(mark.runner);
        let (cgroups, with_cgroups) = (config.cgroups, move || {
            let killed = proc::kill_marked(is_left);
            if killed > 0 {
                warn!("killed {killed} processes that an earlier runner left behind");
            }
            Cgroups::detect(runner)
        });
        let found = tokio::task::spawn_blocking(with_cgroups).await;
        let found = found.map_err(|error| Error::Broken(error.to_string()))?;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let link = Link::start(&config.helper, runner, &tasks, &stop).map_err(broken)?;
        Ok(Self {
            base: environment::base(&config.path, config.user.as_deref()),
            programs: Arc::new(Programs::on(config.path.clone())),
            versions: Versions::default(),
            identities: Identities::default(),
            config,
            runner,
            helpers: Mutex::new(vec![link]),
            cgroups: if cgroups { found } else { Cgroups::none(runner) },
            sampler: Sampler::default(),
            tasks,
            _stop_on_drop: stop.clone().drop_guard(),
            stop,
        })
    }

    /// What limits are enforced by, in a few words for the runner's start log.
    #[must_use]
    pub fn limits(&self) -> &'static str {
        match (self.cgroups.limits_memory(), self.cgroups.limits_cpu()) {
            (true, true) => "memory and CPUs limited by control groups",
            (true, false) => "memory limited by control groups, CPUs not limited (no writable cpu control group)",
            (false, true) => "CPUs limited by control groups, memory by sampling it every 100 ms",
            (false, false) => "memory limited by sampling it every 100 ms, CPUs not limited (no writable control group)",
        }
    }

    /// Kills whatever runs, and ends the helper. Returns whether all of it was gone in time.
    pub async fn close(&self, grace: Duration) -> bool {
        self.stop.cancel();
        self.tasks.close();
        tokio::time::timeout(grace, self.tasks.wait()).await.is_ok()
    }

    /// Takes a helper for a command: one that has no other command, so that all that becomes the helper's child is this command's,
    /// whatever it made of its group, its session and its environment. Only beyond [`HELPERS`] they share.
    fn helper(&self, id: u64) -> Result<Entered, Error> {
        let mut helpers = self.helpers.lock();
        helpers.retain(|helper| !helper.is_broken());
        if let Some(entered) = helpers.iter().find_map(|helper| helper.enter(id, true)) {
            return Ok(entered);
        }
        if self.stop.is_cancelled() {
            return Err(Error::Broken("the process executor is stopped".to_owned()));
        }
        if helpers.len() >= HELPERS {
            let least = helpers.iter().min_by_key(|helper| helper.load());
            if let Some(entered) = least.and_then(|helper| helper.enter(id, false)) {
                return Ok(entered);
            }
        }
        let helper = Link::start(&self.config.helper, self.runner, &self.tasks, &self.stop)
            .map_err(|error| Error::Broken(format!("the spawn helper could not be started again: {error}")))?;
        let entered = helper.enter(id, true);
        helpers.push(helper);
        entered.ok_or_else(|| Error::Broken("the spawn helper ended at once".to_owned()))
    }

    /// The command that the helper is to start, and the path of what it executes.
    async fn command(&self, launch: &Launch, id: u64) -> Result<Command, Error> {
        let (first, arguments) = launch
            .command
            .split_first()
            .ok_or_else(|| Error::Unrunnable("the command is empty: name a program or a script".to_owned()))?;
        let table = self.config.runtimes.table();
        let interpreter = match &launch.runtime {
            Some(runtime) => table.interpreter(&runtime.name)?,
            None => &[],
        };
        let mut argv: Vec<OsString> = interpreter.iter().chain([first]).chain(arguments).map(OsString::from).collect();
        let mut program = match interpreter.first() {
            Some(program) => self.interpreter(launch, program).await?.into_os_string(),
            None => self.programs.resolve(first, &launch.directory())?.into_os_string(),
        };
        if interpreter.is_empty() && first.contains('/') && missing::is_plain_script(Path::new(&program)) {
            // As every shell does, and as `execvp` does in a container.
            program = "/bin/sh".into();
            argv.splice(0..0, ["sh".into(), "--".into()]);
        }
        if let Some(packages) = launch.packages.as_ref().filter(|packages| packages.kind == Kind::Pip) {
            program = packages.dir.join("bin/python").into_os_string();
            // By its own path it knows where its packages are.
            argv[0].clone_from(&program);
        }
        let mark = Mark {
            worker: self.config.worker.clone(),
            runner: self.runner,
            id,
        };
        let user = own_user(launch);
        Ok(Command {
            program,
            argv,
            env: {
                let packages = packages_variables(launch, &self.config.path);
                let named = user.iter().flat_map(|_| ["USER", "LOGNAME"].map(|name| (name, JOB)));
                let packages = packages.iter().map(|(name, value)| (*name, value.as_str()));
                environment::of(
                    &self.base,
                    (&launch.directory(), &launch.scratch_dir),
                    named.chain(launch.variables()).chain(packages),
                    &mark,
                )
            },
            directory: launch.directory().into_os_string(),
            stdin: launch.stdin.clone().unwrap_or_default().into_os_string(),
            user: user.unwrap_or_default(),
        })
    }

    /// Gives a command's directories to the user that it runs as. Returns whether that could have changed something.
    async fn give(&self, launch: &Launch) -> Result<bool, Error> {
        let Some(user) = own_user(launch) else { return Ok(false) };
        // They are its own already, and most jobs find nothing there.
        if std::fs::read_dir(&launch.work_dir).is_ok_and(|mut entries| entries.next().is_none()) {
            return Ok(false);
        }
        let directories = [launch.work_dir.clone()];
        let given = tokio::task::spawn_blocking(move || users::give(&directories, user, user)).await;
        given
            .map_err(|error| Error::Broken(error.to_string()))?
            .map_err(|error| Error::Broken(format!("the job's directories could not be given to the user it runs as: {error}")))?;
        Ok(true)
    }

    async fn interpreter(&self, launch: &Launch, program: &str) -> Result<PathBuf, Error> {
        if let Some(runtime) = launch.runtime.as_ref().filter(|runtime| runtime.version.is_some()) {
            return self.versions.find(&self.programs, program, runtime).await;
        }
        let runtime = launch.runtime.as_ref().map(ToString::to_string).unwrap_or_default();
        let found = self.programs.resolve(program, Path::new("/"));
        found.map_err(|_| missing::no_interpreter(program, &runtime, HERE))
    }

    fn unenforced(&self, limits: Limits) {
        static SAID: std::sync::Once = std::sync::Once::new();
        if limits.cpu_milli.is_some() && !self.cgroups.limits_cpu() {
            SAID.call_once(|| warn!("CPU limits of plain processes are not enforced: no cpu control group is writable for this runner"));
        }
    }
}

/// What a user of its own is called, which has no name on this machine.
const JOB: &str = "rgrid-job";

/// The user that a plain process runs as, where that is not the runner's.
fn own_user(launch: &Launch) -> Option<u32> {
    launch.user.filter(|user| user.plain).map(|user| user.user)
}

/// Where the packages of a plain process are, which needs a name in UTF-8.
fn packages_variables(launch: &Launch, path: &std::ffi::OsStr) -> Vec<(&'static str, String)> {
    let Some(packages) = &launch.packages else { return Vec::new() };
    let own = launch.variables().filter(|(name, _)| *name == "PATH").last();
    let path = own.map_or_else(|| path.to_string_lossy(), |(_, own)| own.into());
    packages.variables(&packages.dir.to_string_lossy(), &path)
}

#[async_trait]
impl Executor for Process {
    fn kind(&self) -> ExecutorKind {
        ExecutorKind::Process
    }

    async fn identity(&self, launch: &Launch, kind: Kind) -> Result<Identity, Error> {
        let runtime = launch.runtime.as_ref().map(|runtime| &runtime.name);
        let table = self.config.runtimes.table();
        let interpreter = match runtime {
            Some(name) => table.interpreter(name)?,
            None => &[],
        };
        let Some((program, arguments)) = interpreter.split_first() else {
            return Err(Error::Unrunnable(
                "packages are installed for a runtime, and the job names none".to_owned(),
            ));
        };
        let file = self.interpreter(launch, program).await?;
        self.identities.of(&file, arguments, &self.config.path, kind).await
    }

    async fn fitting(&self, launch: &Launch, python: &Specifiers) -> Result<Fitting, Error> {
        let Some(runtime) = &launch.runtime else {
            return Ok(Fitting::Unknown);
        };
        let table = self.config.runtimes.table();
        let Some(program) = table.interpreter(&runtime.name)?.first() else {
            return Ok(Fitting::Unknown);
        };
        self.versions.fitting(&self.programs, program, runtime, python).await
    }

    async fn launch(&self, launch: Launch) -> Result<Running, Error> {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let mut command = self.command(&launch, id).await?;
        let program = PathBuf::from(&command.program);
        let broken = |what: &str, error: std::io::Error| Error::Broken(format!("{what}: {error}"));
        self.unenforced(launch.limits);
        let group = self
            .cgroups
            .group(id, launch.limits)
            .map_err(|error| broken("a control group could not be made", error))?;
        if let Some(group) = &group {
            command = limits::inside(group, command).map_err(|error| broken("`/bin/sh` is needed to limit a process", error))?;
        }
        let sampled = launch.limits.memory_bytes.filter(|_| !self.cgroups.limits_memory());

        let mut body = Vec::with_capacity(1024);
        command.encode(&mut body);
        let (stdout, stdout_writer) = pipe().map_err(|error| broken("a pipe could not be made", error))?;
        let (stderr, stderr_writer) = pipe().map_err(|error| broken("a pipe could not be made", error))?;
        let given = self.give(&launch).await?;
        launch.inputs.about_to_start(&launch.work_dir, given).await;
        let entered = self.helper(id)?;
        let link = Arc::clone(&entered.link);
        let ending = entered
            .spawn(sampled.is_some(), &body, stdout_writer, stderr_writer)
            .await
            .map_err(|error| broken("the spawn helper could not be asked", error))?;
        let sampled = sampled.map(|limit| self.sampler.watch(id, limit, Arc::clone(&link), Arc::clone(&ending), &self.tasks));
        let guard = (group.is_some() || sampled.is_some()).then(|| Guard::new(group, sampled));
        Ok(Running {
            stdout: Box::new(stdout),
            stderr: Box::new(stderr),
            environment: Some(program.display().to_string()),
            packages: None,
            handle: Box::new(ProcessHandle {
                id,
                link,
                ending,
                guard,
                program,
                programs: Arc::clone(&self.programs),
                work_dir: launch.directory(),
                tasks: self.tasks.clone(),
            }),
        })
    }
}

/// A pipe whose reading end is asynchronous, and whose writing end is what a program expects.
fn pipe() -> std::io::Result<(Receiver, OwnedFd)> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&reader, true)?;
    Ok((Receiver::from_owned_fd_unchecked(reader)?, writer))
}
