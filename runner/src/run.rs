//! A runner's life: sessions, one after the other, until it is told to stop.

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
    worker::WorkerEvent,
};
use parking_lot::Mutex;
use store::{Files, StoreUrl, marks::Marks};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

use crate::{
    attempt::{
        context::Context,
        leave::give_up,
        left::LeftBehind,
        leftovers::Leftovers,
        registry::{Attempts, Stop},
        room::Room,
        shutdown::Shutdown,
        workspace::Places,
    },
    config::Config,
    executor::docker::{self, catalogue::Catalogue},
    executors,
    input_cache::InputCache,
    packages::Packages,
    patience::patiently,
    restart::{note::Note, session},
    session::{
        ending::Ending,
        heartbeat::Heart,
        inventory,
        mode::Told,
        presence::{self, Pulse, Standing},
        serve::Session,
    },
    users::Users,
};

/// For how long an event of an attempt is tried to be appended: an outage of minutes costs no finished work.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long the parts of a stopped runner get to end once their commands are killed.
const WIND_UP: Duration = Duration::from_secs(5);
/// The pause before a session is begun again after the broker broke the last one.
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

/// Serves a worker until told to stop, then lets its attempts end; or until told to restart.
///
/// # Errors
/// If something is wrong that the operator must change; outages are waited out.
pub async fn run(config: Config, stop: CancellationToken, restart: CancellationToken) -> Result<(), Error> {
    // Kept until every attempt in it is taken up or ended: a session that cannot begin now begins later, and with the same note.
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
    let places = Places::below(&config.work_dir, &roots, users, leftovers.clone()).map_err(|source| Error::WorkDir {
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
    let executors = Arc::new(executors::open(&config, note.as_ref().map(|note| note.deadline)).await?);
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
        warn!("cannot go on with {count} containers that the last runner left, because {why}; their jobs run elsewhere");
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
                warn!("{}; trying again", crate::errors::chain(&error));
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
            places: places.clone(),
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
        let told = Told {
            stop: stop.clone(),
            restart: restart.clone(),
            unheard: CancellationToken::new(),
            drain: config.drain,
            fill: context.gauge.watch(),
        };
        match serve(&config, &context, &told, &mut note).await? {
            Ending::Stopped | Ending::Restarting => {
                tokio::join!(packages.settled(WIND_UP), leftovers.settled(WIND_UP));
                executors::close(&executors, WIND_UP).await;
                return Ok(());
            }
            Ending::Drained => info!("the drain of this worker is over; what still ran here runs elsewhere, and the worker stays cordoned"),
            Ending::Unheard => warn!("NATS did not hear this worker; a new session begins when it does"),
            Ending::Late => {
                warn!("the last runner's session was given up before we came; its jobs run elsewhere, and a new session begins");
            }
            Ending::Lost => warn!("the watcher gave this worker up; its attempts run elsewhere, and a new session begins"),
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

/// One session: registered, beating, serving, and wound up.
///
/// The note is taken once its session goes on or is over; until then it stays for the next try.
async fn serve(config: &Config, context: &Arc<Context>, told: &Told, note: &mut Option<Note>) -> Result<Ending, Error> {
    let total = Room {
        cpu_milli: config.cpu_milli,
        memory_bytes: config.memory_bytes,
    };
    let shown = Arc::new(Mutex::new(Standing {
        free: total,
        wants_work: false,
    }));
    let tracker = TaskTracker::new();
    let mut session = match Session::begin(Arc::clone(context), &config.queues, total, Arc::clone(&shown), tracker.clone()).await {
        Ok(session) => session,
        Err(error) => return Ok(Ending::Broken(crate::errors::chain(&error))),
    };
    let registration = presence::registration(config, context.session, &context.executors);
    let registered = match &note {
        None => {
            let announced = context.writer.announce(&config.worker, WorkerEvent::Registered(registration)).await;
            Some(announced.map_err(Error::Register)?)
        }
        Some(_) => match session::register(context, registration).await {
            Ok(registered) => registered,
            Err(session::Error::Append(error)) => return Err(Error::Register(error)),
            Err(error @ session::Error::Read(_)) => return Ok(Ending::Broken(crate::errors::chain(&error))),
        },
    };
    let (last_claim, left) = note.take().map(|note| (note.last_claim, note.attempts)).unwrap_or_default();
    let Some((sequence, registered_at)) = registered else {
        left.into_iter().for_each(|left| give_up(context, left, "its session is over"));
        Note::discard(&config.work_dir);
        return Ok(Ending::Late);
    };
    // Before the first beat, which must list them.
    let containers = left.iter().map(|left| left.command.container.clone()).collect();
    if let Err(error) = docker::kept::note_taken_over(&config.work_dir, containers) {
        warn!(
            "cannot note in {} which containers are taken up: {error}",
            config.work_dir.display()
        );
    }
    for resumed in session::resume(context, left).await {
        session.take_up(resumed);
    }
    context.attempts.claimed(last_claim);
    Note::discard(&config.work_dir);
    let (pulse, quiet) = (Pulse::now(), CancellationToken::new());
    if let Some(limit) = config.self_fence {
        let fence = presence::fence_self(Arc::clone(context), pulse.clone(), limit, told.unheard.clone());
        tracker.spawn(quiet.clone().run_until_cancelled_owned(fence));
    }
    if let Some(limit) = config.self_fence {
        info!(
            "ending what runs when NATS has not acknowledged a heartbeat for {:.1} s",
            limit.as_secs_f32()
        );
    }
    // What the deployment calls what is known before the first job.
    if let Err(error) = context.executors.runtimes.read(&context.js).await {
        debug!("cannot read yet which runtimes the deployment has: {error}");
    }
    tracker.spawn(
        quiet
            .clone()
            .run_until_cancelled_owned(inventory::keep(Arc::clone(context), registered_at)),
    );
    let heart = Heart::new(context, config, shown, pulse);
    match heart.clone().stand_in(&config.nats, quiet.clone()) {
        Ok(beats) => drop(tracker.spawn(beats)),
        Err(error) => warn!("no thread of its own beats for this worker: {error}"),
    }
    let beats = tracker.spawn(heart.beat(quiet.clone()));
    info!(
        "worker {} serves {} with {} CPUs",
        config.worker,
        list(&config.queues),
        f64::from(config.cpu_milli) / 1000.0
    );

    let ending = match session.registered(sequence).await {
        Ok(()) => session.serve(told).await,
        Err(error) => Ending::Broken(crate::errors::chain(&error)),
    };
    drop(session);
    let goes_on = ending == Ending::Restarting && session::leave(config, context).await;
    if goes_on {
        // Its silence does not count, but what a beat does not list any more would.
        quiet.cancel();
    }
    wind_up(&ending, context, &tracker, &quiet).await;
    if !goes_on && matches!(ending, Ending::Stopped | Ending::Restarting | Ending::Drained) {
        presence::leave(context).await;
    }
    quiet.cancel();
    let _ = tokio::time::timeout(WIND_UP, async { tokio::join!(beats, context.files.settled()) }).await;
    Ok(ending)
}

/// Ends what is left of a session: at once where it is not ours any more, with grace where we end it ourselves.
async fn wind_up(ending: &Ending, context: &Context, tracker: &TaskTracker, quiet: &CancellationToken) {
    tracker.close();
    let (stop, patience) = match ending {
        Ending::Stopped | Ending::Drained | Ending::Restarting => (Stop::Shutdown, context.grace + WIND_UP),
        // The next session's registration closes this one, and the watcher reschedules what it had.
        Ending::Broken(_) | Ending::Lost | Ending::Late | Ending::Unheard | Ending::Replaced(_) => (Stop::Fenced, WIND_UP),
    };
    context.attempts.stop_all(stop);
    if stop == Stop::Fenced {
        quiet.cancel();
    }
    let ended = async {
        // The beats are in the tracker too, and go on until the attempts are done.
        while !context.attempts.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        quiet.cancel();
        tracker.wait().await;
    };
    if tokio::time::timeout(patience, ended).await.is_err() {
        warn!("some attempts did not end in time; the helper ends them when this process does");
        context.attempts.stop_all(Stop::Fenced);
    }
}

fn list(queues: &[bus::ids::Queue]) -> String {
    queues.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
