//! A runner: its sessions, one after the other, until it is stopped.

use std::{sync::Arc, time::Duration};

use bus::{
    envelope::Actor,
    ids::SessionId,
    log::{
        append::{self, Log},
        connect,
        room::{Addition, Gauge},
        setup,
        writer::Writer,
    },
};
use store::{Files, StoreUrl, marks::Marks};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use crate::{
    attempt::{context::Context, left::LeftBehind, leftovers::Leftovers, registry::Attempts, shutdown::Shutdown, workspace::Workspaces},
    config::Config,
    errors::chain,
    executor::docker::catalogue::Catalogue,
    executors,
    input_cache::InputCache,
    packages::Packages,
    patience::patiently,
    restart::note::Note,
    session::{ending::Ending, lifecycle, mode::RunnerSignals},
    users::Users,
};

/// For how long appending an event is tried: an outage of minutes costs no finished work.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long the parts of a stopping runner may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause before a new session after the last one broke.
const PAUSE: Duration = Duration::from_millis(500);

/// What the operator must change for the runner to work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// NATS.
    #[error(transparent)]
    Connect(#[from] connect::Error),
    /// The streams.
    #[error(transparent)]
    Setup(#[from] setup::Error),
    /// The store.
    #[error("cannot use the store {store}")]
    Store {
        /// Its URL.
        store: String,
        /// What is wrong with it.
        #[source]
        source: store::Error,
    },
    /// The work directory.
    #[error("cannot use {path} for work: {source}; choose a directory that this user may write to with --work-dir")]
    WorkDir {
        /// Which.
        path: String,
        /// What happened.
        source: std::io::Error,
    },
    /// The users that jobs run as.
    #[error("{0}")]
    Users(String),
    /// The executors.
    #[error(transparent)]
    Executor(#[from] executors::Error),
    /// Registering.
    #[error("cannot register the worker")]
    Register(#[source] append::Error),
    /// Another runner.
    #[error(
        "another runner (session {other}) serves worker {worker} now; \
         give each machine a name of its own with --worker, or stop the other one"
    )]
    Replaced {
        /// The worker.
        worker: bus::ids::WorkerId,
        /// The other runner's session.
        other: SessionId,
    },
}

/// Serves a worker until it is stopped, and lets its attempts end; or until it is asked to restart.
///
/// # Errors
/// If the operator must change something. Outages are waited out.
pub async fn run(config: Config, stop: CancellationToken, restart: CancellationToken) -> Result<(), Error> {
    // Kept until every attempt in it is continued or ended: a session that cannot begin now begins later, with the same note.
    let mut note = Note::read(&config.work_dir, &config.worker);
    let roots = note.as_ref().map(Note::roots).unwrap_or_default();
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::fs::create_dir_all(&config.work_dir).map_err(|source| Error::WorkDir {
        path: config.work_dir.display().to_string(),
        source,
    })?;
    let (users, note_on_users) = Users::choose(config.job_users, &config.work_dir, &path).map_err(|unable| Error::Users(unable.0))?;
    if let Some(note) = note_on_users {
        warn!("{note}");
    }
    let leftovers = Leftovers::below(&config.work_dir);
    let workspaces = Workspaces::below(&config.work_dir, &roots, users, leftovers.clone()).map_err(|source| Error::WorkDir {
        path: config.work_dir.display().to_string(),
        source,
    })?;
    let packages = Packages::below(
        &config.work_dir,
        config.cache_bytes,
        config.install_timeout,
        config.install_credentials,
        &roots,
    );
    let packages = packages.map_err(|source| Error::WorkDir {
        path: config.work_dir.display().to_string(),
        source,
    })?;
    let input_cache = InputCache::below(&config.work_dir, config.cache_inputs_bytes).map_err(|source| Error::WorkDir {
        path: config.work_dir.display().to_string(),
        source,
    })?;
    let executors = Arc::new(executors::connect(&config, note.as_ref().map(|note| note.deadline)).await?);
    info!("{}", executors.explanation());
    let tending = CancellationToken::new();
    let _stop_tending = tending.clone().drop_guard();
    TaskTracker::new().spawn(tending.clone().run_until_cancelled_owned(input_cache.clone().tend()));
    TaskTracker::new().spawn(tending.run_until_cancelled_owned(leftovers.clone().tend()));
    let sweeping = CancellationToken::new();
    let _stop_sweeping = sweeping.clone().drop_guard();
    let left = note
        .iter()
        .flat_map(|note| &note.attempts)
        .map(|left| left.command.container.clone());
    let sweep = executors::sweep(Arc::clone(&executors), left.collect());
    if let Err(why) = &executors.docker
        && let Some(note) = note.take()
    {
        // The file stays: by it, the next runner here that reaches Docker ends them.
        let count = note.attempts.len();
        warn!("cannot continue {count} containers that the last runner left, because {why}; their jobs are rescheduled");
    }
    let mut sweep = Some(sweeping.run_until_cancelled_owned(sweep));
    loop {
        let session = note.as_ref().map_or_else(SessionId::new, |note| note.session);
        let name = format!("worker/{}/{session}", config.worker);
        let Some(bus) = stop
            .run_until_cancelled(connect::patiently(&config.nats, &name))
            .await
            .transpose()?
        else {
            return Ok(());
        };
        match stop.run_until_cancelled(setup::streams(&bus.js, config.replicas)).await {
            None => return Ok(()),
            Some(Err(error)) if error.is_transient() => {
                warn!("{}; trying again", chain(&error));
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Some(done) => done?,
        }
        // Files have a connection of their own: a heartbeat must not wait behind one.
        let store = match &config.store {
            StoreUrl::Nats { .. } => Some(connect::side_connection(&config.nats, &format!("{name}/files")).await?.js),
            StoreUrl::S3 { .. } | StoreUrl::File { .. } => None,
        };
        let opening = patiently("open the store", || Files::open(&config.store, store.clone()));
        let Some(files) = stop.run_until_cancelled(opening).await else {
            return Ok(());
        };
        let files = files.map_err(|source| Error::Store {
            store: config.store.to_string(),
            source,
        })?;
        let marks = Marks::open(&bus.js).await.map_err(|source| Error::Store {
            store: config.store.to_string(),
            source,
        })?;
        let gauge = Gauge::new(bus.js.clone());
        let context = Arc::new(Context {
            writer: Writer::new(
                Log::new(bus.js.clone(), PATIENCE),
                Arc::clone(&gauge),
                Actor::Worker(config.worker.clone()),
                Addition::Attempts,
            ),
            js: bus.js.clone(),
            gauge,
            files: files.with_marks(marks),
            executors: Arc::clone(&executors),
            worker: config.worker.clone(),
            session,
            attempts: Attempts::default(),
            workspaces: workspaces.clone(),
            leftovers: leftovers.clone(),
            input_cache: input_cache.clone(),
            packages: packages.clone(),
            left: LeftBehind::default(),
            secrets: config.secrets.clone(),
            spool_bytes: config.spool_bytes,
            shutdown: Shutdown {
                stop: stop.clone(),
                restart: restart.clone(),
            },
            grace: config.grace,
        });
        if let Ok(docker) = &executors.docker {
            let catalogue = Catalogue::new(bus.js.clone(), context.files.clone(), &config.work_dir);
            docker.use_catalogue(catalogue.map_err(|source| Error::WorkDir {
                path: config.work_dir.display().to_string(),
                source,
            })?);
        }
        if let Some(sweep) = sweep.take() {
            TaskTracker::new().spawn(sweep);
        }
        let (gauge, gauging) = (Arc::clone(&context.gauge), CancellationToken::new());
        let _stop_gauging = gauging.clone().drop_guard();
        TaskTracker::new().spawn(gauging.run_until_cancelled_owned(async move { gauge.keep().await }));
        let signals = RunnerSignals {
            stop: stop.clone(),
            restart: restart.clone(),
            unacknowledged: CancellationToken::new(),
            drain: config.drain,
            fill: context.gauge.watch(),
        };
        match lifecycle::run(&config, &context, &signals, &mut note)
            .await
            .map_err(Error::Register)?
        {
            Ending::Stopped | Ending::Restarting => {
                tokio::join!(packages.settled(END_TIMEOUT), leftovers.settled(END_TIMEOUT));
                executors::close(&executors, END_TIMEOUT).await;
                return Ok(());
            }
            Ending::Drained => {
                info!("the drain of this worker is over; attempts that still ran are rescheduled, and the worker stays cordoned");
            }
            Ending::Unacknowledged => warn!("NATS acknowledged no heartbeat of this worker in time; a new session begins when it does"),
            Ending::GivenUp => {
                warn!(
                    "the last runner's session was given up before this runner could resume it; its jobs are rescheduled, and a new session begins"
                );
            }
            Ending::Lost => warn!("the watcher declared this session lost; its attempts are rescheduled, and a new session begins"),
            Ending::Broken(why) => {
                warn!("the session broke ({why}); a new one begins");
                tokio::time::sleep(PAUSE).await;
            }
            Ending::Replaced(other) => {
                return Err(Error::Replaced {
                    worker: config.worker,
                    other,
                });
            }
        }
    }
}
