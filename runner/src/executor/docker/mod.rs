//! Containers: the executor for work that is not trusted with the worker's own files.
//!
//! As few round trips to the daemon as can be: create, attach, start, wait. Removal happens behind the job's back.

use std::{
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bollard::{
    container::AttachContainerResults,
    query_parameters::{AttachContainerOptions, InspectContainerOptions, StartContainerOptions},
};
use bus::{
    ids::WorkerId,
    spec::{ExecutorKind, dependencies::Kind},
};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use self::{
    body::Setting,
    catalogue::Catalogue,
    container::{Container, ContainerHandle},
    guard::Guard,
    image::Images,
    output::{Source, Tap},
    program::Program,
};
use super::{
    Error, Executor, Identity, Launch, Left, Running,
    process::{mark::ProcessId, proc},
    runtimes::Runtimes,
};

pub mod archive;
mod body;
pub(crate) mod catalogue;
mod container;
mod create;
mod guard;
mod image;
pub(crate) mod kept;
pub mod load;
mod output;
mod program;
mod stored;
mod sweep;
mod which;

pub(crate) use self::body::{PACKAGES, WORK};
pub use self::stored::Counts;

/// How long the daemon may take to say that it is there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may take to say whether it has an image, where a job can do without.
const LOOK_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a job whose container is to be started waits for a daemon that is away, and how often it asks.
const AWAY: Duration = Duration::from_secs(120);
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// How long it may take to begin its answer to anything else.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// How containers are run.
#[derive(Debug, Clone)]
pub struct Config {
    /// The worker they are run for.
    pub worker: WorkerId,
    /// Which image a runtime is.
    pub runtimes: Runtimes,
    /// The network they are in; absent: the daemon's own choice.
    pub network: Option<String>,
    /// How many processes and threads one may have: more than a job needs, fewer than a fork bomb.
    pub pids: i64,
    /// Where a runner that restarts notes the containers that it leaves, for others on this machine to know them by.
    pub note: Option<std::path::PathBuf>,
    /// How long a pull may stand still, in which nothing arrives, before it is given up.
    pub pull_stall: Duration,
}

impl Config {
    /// The daemon's network, 4,096 processes, and a minute for a pull that stands still.
    #[must_use]
    pub fn new(worker: WorkerId, runtimes: Runtimes) -> Self {
        Self {
            worker,
            runtimes,
            network: None,
            pids: 4096,
            note: None,
            pull_stall: Duration::from_secs(60),
        }
    }
}

/// Runs commands in containers.
pub struct Docker {
    config: Config,
    client: bollard::Docker,
    images: Images,
    catalogue: Mutex<Option<Catalogue>>,
    setting: Setting,
    guard: Guard,
    /// Where the daemon listens on this machine.
    socket: Option<String>,
    version: String,
    platform: String,
    /// Whether the daemon has an init process to give (`docker-init`); believed until it says otherwise.
    has_init: AtomicBool,
    runner: ProcessId,
    tasks: TaskTracker,
}

impl Docker {
    /// Connects to the daemon at `DOCKER_HOST`, or at its usual socket.
    ///
    /// # Errors
    /// [`Error::Broken`] if none answers, in a sentence that says why.
    pub async fn connect(config: Config) -> Result<Self, Error> {
        let silent = |_| Error::Broken(format!("the Docker daemon did not answer within {} s", CONNECT_TIMEOUT.as_secs()));
        let broken = |error: bollard::errors::Error| Error::Broken(format!("no Docker daemon answers: {error}"));
        let client = bollard::Docker::connect_with_unix_defaults().map_err(broken)?;
        let client = timeout(CONNECT_TIMEOUT, client.negotiate_version())
            .await
            .map_err(silent)?
            .map_err(broken)?;
        let client = client.with_timeout(ANSWER_TIMEOUT);
        let info = timeout(CONNECT_TIMEOUT, client.info()).await.map_err(silent)?.map_err(broken)?;
        let server = timeout(CONNECT_TIMEOUT, client.version()).await.map_err(silent)?.map_err(broken)?;
        let runner = proc::this_process().map_err(|error| Error::Broken(error.to_string()))?;
        let socket = create::socket(std::env::var("DOCKER_HOST").ok());
        let guard = Guard::of(&client, &info, socket.as_deref(), config.network.as_deref()).await;
        guard.keep().await;
        Ok(Self {
            images: Images::new(client.clone(), config.pull_stall),
            catalogue: Mutex::default(),
            setting: Setting::of(&info),
            guard,
            socket,
            version: info.server_version.unwrap_or_default(),
            platform: image::platform(&server.os.unwrap_or_default(), &server.arch.unwrap_or_default()),
            has_init: AtomicBool::new(true),
            runner,
            tasks: TaskTracker::new(),
            client,
            config,
        })
    }

    /// The daemon's version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Why containers here may reach the cloud's metadata service, if they may.
    #[must_use]
    pub fn metadata_open(&self) -> Option<String> {
        self.guard.open()
    }

    /// Sets the rules again that keep containers from the cloud's metadata service, if something cleared them.
    pub async fn keep_guarded(&self) {
        self.guard.keep().await;
    }

    /// Whether the daemon is there.
    async fn answers(&self) -> bool {
        matches!(timeout(LOOK_TIMEOUT, self.client.ping()).await, Ok(Ok(_)))
    }

    /// Waits until containers that ended are removed, and their outputs read. Returns whether that came in time.
    pub async fn close(&self, grace: Duration) -> bool {
        self.tasks.close();
        timeout(grace, self.tasks.wait()).await.is_ok()
    }

    /// Attaches before the start, so that nothing of the output is lost.
    async fn start(&self, container: &Container, launch: &Launch) -> Result<AttachContainerResults, bollard::errors::Error> {
        let options = AttachContainerOptions {
            stream: true,
            stdin: launch.stdin.is_some(),
            stdout: true,
            stderr: true,
            ..AttachContainerOptions::default()
        };
        let attached = self.client.attach_container(container.id(), Some(options)).await?;
        self.client.start_container(container.id(), None::<StartContainerOptions>).await?;
        Ok(attached)
    }
}

impl Docker {
    fn follow(
        &self,
        container: Container,
        tap: Arc<Tap>,
        attached: Option<output::Attached>,
        seen: Counts,
        memory_limited: bool,
        program: Program,
    ) -> Running {
        let source = Source {
            client: self.client.clone(),
            id: container.id().to_owned(),
            tap: Arc::clone(&tap),
            seen,
        };
        let (stdout, stderr) = output::separate(attached, source, &self.tasks);
        Running {
            stdout: Box::new(stdout),
            stderr: Box::new(stderr),
            environment: None,
            packages: None,
            handle: Box::new(ContainerHandle::new(container, tap, memory_limited, program)),
        }
    }

    /// Removes a container that an earlier runner left, whatever it does.
    pub fn discard(&self, left: Left) {
        drop(Container::new(self.client.clone(), left.container, self.tasks.clone()));
    }

    /// Takes up a container that an earlier runner left, running or ended meanwhile: its output from there on, and its end.
    ///
    /// # Errors
    /// [`Error::Broken`] if it is not there any more.
    pub async fn take_up(&self, left: &Left, seen: Counts) -> Result<Running, Error> {
        let gone = |error| Error::Broken(format!("Docker does not have container {} any more: {error}", left.container));
        let inspect = || self.client.inspect_container(&left.container, None::<InspectContainerOptions>);
        container::insist(inspect).await.map_err(gone)?;
        let container = Container::new(self.client.clone(), left.container.clone(), self.tasks.clone());
        let tap = Arc::new(Tap::new(left.first_stored.clone()));
        Ok(self.follow(container, tap, None, seen, left.memory_limited, Program::default()))
    }
}

#[async_trait]
impl Executor for Docker {
    fn kind(&self) -> ExecutorKind {
        ExecutorKind::Docker
    }

    async fn identity(&self, launch: &Launch, kind: Kind) -> Result<Identity, Error> {
        let table = self.config.runtimes.table();
        let interpreter = match &launch.runtime {
            Some(runtime) => table.get(&runtime.name)?.process.as_slice(),
            None => {
                return Err(Error::Unrunnable(
                    "packages are installed for a runtime, and the job names none".to_owned(),
                ));
            }
        };
        let image = self.image(launch).await?;
        // All that counts is in the image; only its content is the same everywhere.
        Ok(Identity {
            text: format!("docker {kind} {} {}", image.id, interpreter.join(" ")),
            executable: None,
        })
    }

    async fn launch(&self, launch: Launch) -> Result<Running, Error> {
        let begun = Instant::now();
        let mut told = false;
        loop {
            let error = match self.try_launch(&launch).await {
                Err(error @ Error::Broken(_)) if begun.elapsed() < AWAY => error,
                launched => return launched,
            };
            if self.answers().await {
                return Err(error);
            }
            if !std::mem::replace(&mut told, true) {
                warn!(job.id = %launch.job, "the Docker daemon does not answer; job {} waits for it: {error}", launch.job);
                if let Some(notice) = &launch.notice {
                    // Full of other sentences, it has said enough.
                    let _ = notice.try_send(format!(
                        "the Docker daemon does not answer; waiting for it, {} s at most",
                        AWAY.as_secs()
                    ));
                }
            }
            tokio::time::sleep(ASK_AGAIN).await;
            // What it made without being able to say so has the name that is needed again.
            if self.answers().await {
                container::remove(&self.client, &body::name(&launch)).await;
            }
        }
    }
}

impl Docker {
    async fn try_launch(&self, launch: &Launch) -> Result<Running, Error> {
        let image = self.image(launch).await?;
        let changed = body::hand_over(launch, &self.setting).await?;
        launch.inputs.about_to_start(&launch.work_dir, changed).await;
        let mut container = self.create(launch, &image).await?;
        let attached = match self.start(&container, launch).await {
            Err(error) if error.to_string().contains("docker-init") && self.has_init.swap(false, Ordering::Relaxed) => {
                warn!(
                    "the Docker daemon has no docker-init: a program that leaves signals to their default cannot be asked to end, only killed"
                );
                container.remove_now().await;
                container = self.create(launch, &image).await?;
                self.start(&container, launch).await
            }
            other => other,
        };
        let table = self.config.runtimes.table();
        let interpreter = launch
            .runtime
            .as_ref()
            .and_then(|runtime| table.get(&runtime.name).ok()?.process.first());
        let program = Program::of(launch, &image, interpreter);
        let attached = attached.map_err(|error| without_shell(launch, not_started(&program, &error)))?;
        let tap = Arc::new(Tap::new(None));
        if let Some(stdin) = launch.stdin.clone() {
            tap.fed.store(false, Ordering::Release);
            self.tasks.spawn(feed(stdin, attached.input, Arc::clone(&tap)));
        }
        let memory_limited = launch.limits.memory_bytes.is_some();
        let running = self.follow(container, tap, Some(attached.output), Counts::default(), memory_limited, program);
        Ok(Running {
            environment: Some(image.environment()),
            ..running
        })
    }
}

/// What a refusal means where the job has secrets.
fn without_shell(launch: &Launch, error: Error) -> Error {
    match error {
        Error::Unrunnable(sentence) if !launch.secrets.is_empty() && sentence.contains("/bin/sh") => Error::Unrunnable(format!(
            "{sentence}; secrets reach a container through /bin/sh: choose an image that has it, or run the job without --secret"
        )),
        error => error,
    }
}

/// Sends a container what it is to read, and then the end of it. One that does not read holds this up until it is gone.
async fn feed(from: PathBuf, mut input: Pin<Box<dyn AsyncWrite + Send>>, tap: Arc<Tap>) {
    let sent = async {
        let mut file = tokio::fs::File::open(&from).await?;
        tokio::io::copy(&mut file, &mut input).await?;
        input.shutdown().await
    };
    if let Err(error) = sent.await {
        // It ended without reading all of it, as a program may.
        debug!("a container did not read all of its standard input: {error}");
    }
    tap.fed.store(true, Ordering::Release);
}

/// What it means that the daemon did not start a container. Without an init process, it is the one that executes the program.
fn not_started(program: &Program, error: &bollard::errors::Error) -> Error {
    let said = error.to_string();
    if said.contains("exec: ") {
        program.refused(&said)
    } else {
        refused("start", error)
    }
}

/// What the daemon's refusal means: the job asks for what cannot be (4xx, or a program that is not in the image), or the worker is ill.
fn refused(what: &str, error: &bollard::errors::Error) -> Error {
    use bollard::errors::Error::DockerResponseServerError;
    match error {
        DockerResponseServerError { status_code, message }
            if matches!(status_code, 400 | 404 | 422)
                || message.contains("executable file not found")
                || message.contains("no such file") =>
        {
            Error::Unrunnable(format!("Docker could not {what} the container: {message}"))
        }
        other => Error::Broken(format!("Docker could not {what} a container: {other}")),
    }
}
