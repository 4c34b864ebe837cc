//! `rgrid runner`.

use std::{convert::Infallible, ops::RangeInclusive, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context as _;
use bus::ids::{Queue, WorkerId, default_token};
use clap::{Args, ValueEnum};
use runner::{
    executor::{Preference, RuntimeTable},
    users::JobUsers,
};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{
    settings::{self, Common, Storage, redacted},
    stop::serve,
};
use crate::{
    failure::usage,
    machine,
    up::{default_data_dir, worker_name},
    values::{ByteSize, Cpus, Pair, Span},
};

const EXAMPLES: &str = "\
Examples:
  rgrid runner --nats nats://rgrid:secret@nats.example:4222
  rgrid runner --queue gpu --queue default --label gpu=a100 --cpus 16 --memory 64GiB
  rgrid runner --runtime 'ruby=ruby -W0@ruby:3' --executor docker";

/// How much of one attempt's log may wait on disk for the store, in bytes, unless told: an outage of minutes for most jobs.
const SPOOL: &str = "1GiB";

/// How much of inputs, and of installed packages, is kept on disk unless told: some of the largest, or hundreds of the usual.
const CACHE: &str = "10GiB";

/// Run a worker: this machine joins the grid and executes jobs
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RunnerArgs {
    /// The worker's name [default: this machine's name]
    #[arg(long, value_name = "NAME", env = "RGRID_WORKER")]
    worker: Option<WorkerId>,
    /// A queue to take jobs from; can be repeated
    #[arg(
        long = "queue",
        value_name = "NAME",
        env = "RGRID_QUEUES",
        value_delimiter = ',',
        default_value = "default"
    )]
    queues: Vec<Queue>,
    /// A label of the worker; can be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", env = "RGRID_LABELS", value_delimiter = ',')]
    labels: Vec<Pair>,
    /// The CPUs that the worker offers, such as 4 or 1.5 [default: all of the machine's]
    #[arg(long, value_name = "N", env = "RGRID_CPUS", allow_hyphen_values = true)]
    cpus: Option<Cpus>,
    /// The memory that the worker offers, such as 8GB [default: four fifths of the machine's]
    #[arg(long, value_name = "SIZE", env = "RGRID_MEMORY", allow_hyphen_values = true)]
    memory: Option<ByteSize>,
    /// The executor for jobs that do not choose one; auto: Docker if the worker has the job's image, otherwise plain processes
    #[arg(long, value_name = "KIND", env = "RGRID_EXECUTOR", default_value = "auto")]
    executor: Choice,
    /// Allow plain processes although the grid listens beyond this machine: any client that may submit jobs can then run any program here
    #[arg(long, env = "RGRID_ALLOW_PROCESS")]
    allow_process: bool,
    /// Add or redefine a runtime: NAME=INTERPRETER ARGUMENT…, NAME@IMAGE or both; can be repeated
    #[arg(
        long = "runtime",
        value_name = "NAME=…@IMAGE",
        env = "RGRID_WORKER_RUNTIMES",
        value_delimiter = ';'
    )]
    runtimes: Vec<String>,
    /// The directory of the attempts' workspaces [default: below the data directory]
    #[arg(long, value_name = "DIR", env = "RGRID_WORK_DIR")]
    work_dir: Option<PathBuf>,
    /// The users that jobs run as if the runner is root: a range FIRST-LAST of unused user ids, one for each job; auto: 2100000000-2100065535, for plain processes only if all users may enter the work directory and the directories of PATH; off: root, and nobody (65534) in containers
    #[arg(long, value_name = "RANGE", env = "RGRID_JOB_USERS", default_value = "auto")]
    job_users: JobUsers,
    /// How long running jobs may continue after the worker was asked to stop; then they are stopped, and run on another worker
    #[arg(long, value_name = "TIME", env = "RGRID_DRAIN", default_value = "30s")]
    drain: Span,
    /// How long a command may take to exit after SIGTERM before it is killed, for jobs without --grace
    #[arg(long, value_name = "TIME", env = "RGRID_GRACE", default_value = "10s")]
    grace: Span,
    /// Kill all jobs if NATS has not acknowledged a heartbeat for this long, from 1s to 3s, before another worker can start them: for jobs that must never run twice at the same time [default: never]
    #[arg(long, value_name = "TIME", env = "RGRID_SELF_FENCE")]
    self_fence: Option<Span>,
    /// How long after `kill -HUP` the grid waits for the restarted runner to take back its running containers
    #[arg(long, value_name = "TIME", env = "RGRID_RESTART_DEADLINE", default_value = "60s")]
    restart_deadline: Span,
    /// A file with the key that decrypts secrets [default: none; secrets are disabled]
    #[arg(long, value_name = "FILE", env = "RGRID_SECRETS_KEY_FILE")]
    secrets_key_file: Option<PathBuf>,
    /// How much of one job's log may be buffered on disk before it is stored
    #[arg(long, value_name = "SIZE", env = "RGRID_SPOOL", default_value = SPOOL)]
    spool: ByteSize,
    /// The size of the cache of job inputs on disk, which never exceeds the free space of the disk; the least recently used are removed first; 0B disables it
    #[arg(long, value_name = "SIZE", env = "RGRID_CACHE_INPUTS", default_value = CACHE)]
    cache_inputs: ByteSize,
    /// The size of the cache of installed packages on disk (requirements.txt, package.json); the least recently used are removed first, never those in use
    #[arg(long, value_name = "SIZE", env = "RGRID_CACHE_BYTES", default_value = CACHE)]
    cache_bytes: ByteSize,
    /// The timeout for installing a job's packages
    #[arg(long, value_name = "TIME", env = "RGRID_INSTALL_TIMEOUT", default_value = "30m")]
    install_timeout: Span,
    /// Give the installation of packages in containers this user's pip.conf, uv.toml, .netrc and .npmrc, and variables with credentials for indexes and proxies: code of the packages can then read them
    #[arg(long, env = "RGRID_INSTALL_CREDENTIALS")]
    install_credentials: bool,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    storage: Storage,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Choice {
    Auto,
    Docker,
    Process,
}

impl From<Choice> for Preference {
    fn from(choice: Choice) -> Self {
        match choice {
            Choice::Auto => Self::Auto,
            Choice::Docker => Self::Docker,
            Choice::Process => Self::Process,
        }
    }
}

pub(crate) async fn runner(args: RunnerArgs) -> anyhow::Result<ExitCode> {
    let config = config(&args)?;
    if args.common.print_config {
        print_config(&args, &config)?;
        return Ok(ExitCode::SUCCESS);
    }
    let restart = CancellationToken::new();
    let listening = restart_on_hangup(restart.clone())?;
    serve("runner", |stop| async move {
        tokio::select! {
            ended = runner::run(config, stop, restart) => ended,
            never = listening => match never {},
        }
    })
    .await
}

/// SIGHUP restarts a runner: it leaves its containers to the next one.
fn restart_on_hangup(restart: CancellationToken) -> anyhow::Result<impl Future<Output = Infallible>> {
    let mut hangup = signal(SignalKind::hangup()).context("cannot listen for signals")?;
    Ok(async move {
        hangup.recv().await;
        info!("SIGHUP: leaving containers to the next runner of this worker");
        restart.cancel();
        std::future::pending().await
    })
}

/// How long a runner may go on unheard: one lost heartbeat is no reason to end anything, and a worker is given up after 4 s.
const SELF_FENCE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3);

fn self_fence(args: &RunnerArgs) -> anyhow::Result<Option<Duration>> {
    let fence = args.self_fence.map(|span| span.0);
    if fence.is_some_and(|fence| !SELF_FENCE.contains(&fence)) {
        return Err(usage(
            "--self-fence must be from 1s to 3s: one lost heartbeat is not a reason to kill a job, and after 4 s of silence another worker may start it",
        ));
    }
    Ok(fence)
}

fn config(args: &RunnerArgs) -> anyhow::Result<runner::Config> {
    let mut runtimes = RuntimeTable::default();
    for entry in &args.runtimes {
        runtimes = runtimes.with_entry(entry).map_err(|error| usage(error.to_string()))?;
    }
    let worker = match &args.worker {
        Some(worker) => worker.clone(),
        None => worker_name(&rustix::system::uname().nodename().to_string_lossy()),
    };
    let work_dir = match &args.work_dir {
        Some(dir) => dir.clone(),
        None => default_data_dir()?.join(format!("worker-{worker}")),
    };
    Ok(runner::Config {
        nats: args.common.nats.clone(),
        replicas: args.common.replicas,
        store: args.storage.parsed()?,
        worker,
        queues: if args.queues.is_empty() {
            vec![default_token()]
        } else {
            args.queues.clone()
        },
        labels: args.labels.iter().map(|pair| (pair.key.clone(), pair.value.clone())).collect(),
        cpu_milli: args.cpus.map_or_else(machine_cpus, |cpus| cpus.0),
        memory_bytes: args.memory.map_or_else(machine_memory, |size| size.0),
        executor: args.executor.into(),
        runtimes,
        work_dir: std::path::absolute(work_dir)?,
        job_users: args.job_users,
        allow_process: args.allow_process,
        heartbeat: Duration::from_secs(1),
        drain: args.drain.0,
        grace: args.grace.0,
        self_fence: self_fence(args)?,
        restart_deadline: args.restart_deadline.0,
        secrets: settings::secrets_key(args.secrets_key_file.as_deref())?,
        spool_bytes: args.spool.0,
        cache_inputs_bytes: args.cache_inputs.0,
        cache_bytes: args.cache_bytes.0,
        install_timeout: args.install_timeout.0,
        install_credentials: args.install_credentials,
    })
}

fn print_config(args: &RunnerArgs, config: &runner::Config) -> anyhow::Result<()> {
    settings::print(&json!({
        "nats": redacted(&config.nats),
        "replicas": config.replicas,
        "store": args.storage.shown()?,
        "worker": config.worker,
        "queues": config.queues,
        "labels": config.labels,
        "cpu_milli": config.cpu_milli,
        "memory_bytes": config.memory_bytes,
        "executor": format!("{:?}", config.executor).to_lowercase(),
        "allow_process": config.allow_process,
        "runtimes": config.runtimes.names().collect::<Vec<_>>(),
        "work_dir": config.work_dir,
        "job_users": match config.job_users {
            JobUsers::Auto => "auto".to_owned(),
            JobUsers::Off => "off".to_owned(),
            JobUsers::Range(range) => range.to_string(),
        },
        "drain_ms": args.drain.millis(),
        "grace_ms": args.grace.millis(),
        "self_fence_ms": args.self_fence.map(Span::millis),
        "restart_deadline_ms": args.restart_deadline.millis(),
        "secrets_key_file": args.secrets_key_file,
        "spool_bytes": config.spool_bytes,
        "cache_inputs_bytes": config.cache_inputs_bytes,
        "cache_bytes": config.cache_bytes,
        "install_timeout_ms": args.install_timeout.millis(),
        "install_credentials": args.install_credentials,
    }))
}

/// The CPUs of this machine, in thousandths.
fn machine_cpus() -> u32 {
    u32::try_from(machine::cpus()).unwrap_or(1).saturating_mul(1000)
}

/// Four fifths of the memory of this machine: the rest is for the system and for us.
fn machine_memory() -> u64 {
    machine::memory() / 5 * 4
}
