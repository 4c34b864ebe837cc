//! The API as a service: starts, serves, drains.

use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use bus::{
    envelope::Actor,
    grid::secrets::PublicKey,
    log::{
        EVENTS,
        append::Log,
        connect::{self, Bus},
        room::{Addition, Gauge},
        setup, sys,
        writer::Writer,
    },
    subjects,
};
use store::{Files, InvalidUrl, StoreUrl, marks::Marks};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, info, warn};

use crate::{
    admission,
    app::App,
    error::chain,
    events::waiters::Waiters,
    files::direct::Direct,
    http::{connections::Limits, serve::serve},
    intake,
    jobs::advice,
    key::Key,
    logs::Tails,
    queries::Tables,
    router::router,
    runtimes,
    storage::{StorageConfig, run_passes},
};

/// How long an append without acknowledgement is retried before the caller gets an error. After nats-server stood still for some seconds,
/// a busy machine needs some more until the clients are connected again and their messages are on disk.
const APPEND_PATIENCE: Duration = Duration::from_secs(20);
/// How long requests in progress may take when the API stops.
const GRACE: Duration = Duration::from_secs(5);
/// The pause between two attempts to reach a service at the start.
const PAUSE: Duration = Duration::from_millis(500);

/// What the API is started with.
#[derive(Clone)]
pub struct Config {
    /// NATS servers: `nats://user:password@host:4222`, several separated by commas.
    pub nats: String,
    /// How many servers store each stream, 1 to 5.
    pub replicas: u8,
    /// The URL of Postgres. Without it, nothing can be listed, and everything else works.
    pub database_url: Option<String>,
    /// Where files are stored: `nats://`, `s3://…` or `file:///…`.
    pub store: String,
    /// Where to listen; port 0 chooses a free port.
    pub listen: SocketAddr,
    /// The API key that every request must carry. It is never logged.
    pub key: String,
    /// The public key that secrets are sealed to. Without it, no secret can be set.
    pub secrets_key: Option<PublicKey>,
    /// The largest file that may be uploaded, in bytes.
    pub max_upload_bytes: u64,
    /// The deployment's `runtimes.toml`, if this API is to publish it.
    pub runtimes: Option<PathBuf>,
    /// When contents are removed from the store.
    pub storage_config: StorageConfig,
    /// Limits on the connections of clients.
    pub limits: Limits,
}

impl Config {
    /// The default size of the largest file that may be uploaded, in bytes: 1 TiB.
    pub const MAX_UPLOAD_BYTES: u64 = 1 << 40;
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // URLs hold passwords.
        f.debug_struct("Config")
            .field("replicas", &self.replicas)
            .field("database", &self.database_url.is_some())
            .field("listen", &self.listen)
            .field("max_upload_bytes", &self.max_upload_bytes)
            .field("storage_config", &self.storage_config)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// How often unfinished uploads are removed, and how old they must be: much older than any upload in progress.
const SWEEP: (Duration, Duration) = (Duration::from_secs(3600), Duration::from_secs(24 * 3600));

/// What an operator must change before the API can run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key is empty.
    #[error("the API needs a key, which its clients must send; set one with --key or RGRID_API_KEY")]
    NoKey,
    /// The address cannot be listened on.
    #[error("cannot listen on {listen}: {source}; stop what uses that port, or choose another with --listen")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// What happened.
        source: std::io::Error,
    },
    /// NATS refuses the connection, or its version is too old.
    #[error(transparent)]
    Connect(#[from] connect::Error),
    /// A stream is configured differently.
    #[error(transparent)]
    Setup(#[from] setup::Error),
    /// The URL of the store is invalid.
    #[error(transparent)]
    StoreUrl(#[from] InvalidUrl),
    /// The store cannot be used.
    #[error("cannot use the file store")]
    Store(#[source] store::Error),
    /// The deployment's `runtimes.toml` is invalid.
    #[error(transparent)]
    Runtimes(#[from] runtimes::Wrong),
    /// The URL of the database is invalid.
    #[error("the database URL is invalid; write postgres://user:password@host:5432/database")]
    DatabaseUrl(#[source] sqlx::Error),
}

/// Serves the API and processes the inbox until `stop`; then drains.
///
/// # Errors
/// What the operator must change. The API waits through outages.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), Error> {
    bind(config).await?.serve(stop).await
}

/// An API that listens on its address, and does not serve yet.
#[derive(Debug)]
pub struct Bound {
    config: Config,
    listener: TcpListener,
    address: SocketAddr,
    store: StoreUrl,
    tables: Tables,
}

/// Checks the configuration, and binds the address: finds what is wrong before the rest of the grid is needed.
///
/// # Errors
/// What the operator must change.
pub async fn bind(config: Config) -> Result<Bound, Error> {
    if config.key.is_empty() {
        return Err(Error::NoKey);
    }
    let store = config.store.parse()?;
    // Checked now, so that an operator sees errors at once; it is published later.
    config.runtimes.as_deref().map(runtimes::load).transpose()?;
    let tables = Tables::at(config.database_url.as_deref()).map_err(Error::DatabaseUrl)?;
    let listen = config.listen;
    let failed = |source| Error::Listen { listen, source };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok(Bound {
        config,
        listener,
        address,
        store,
        tables,
    })
}

impl Bound {
    /// The address that it listens on.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`, then drains.
    ///
    /// # Errors
    /// What the operator must change. The API waits through outages.
    pub async fn serve(self, stop: CancellationToken) -> Result<(), Error> {
        let app = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            started = Box::pin(start(&self.config, &self.store, self.tables, stop.clone())) => started?,
        };
        info!("listening on http://{}", self.address);
        serve_until(self.listener, app, self.config.limits, stop).await;
        Ok(())
    }
}

/// Connects to NATS and the store, and starts the background tasks.
async fn start(config: &Config, store: &StoreUrl, tables: Tables, stop: CancellationToken) -> Result<Arc<App>, Error> {
    let bus = connect::patiently(&config.nats, "api").await?;
    let begin = set_up_streams(&bus, config.replicas).await?;
    let marks = Marks::open(&bus.js).await.map_err(Error::Store)?;
    let files = open(config, store).await?.with_marks(marks.clone());
    let waiters = Waiters::new(begin);
    let facts = subscribe(&bus).await;
    let (log, admission) = (Log::new(bus.js.clone(), APPEND_PATIENCE), Gauge::new(bus.js.clone()));
    let (client, tasks) = (bus.client.clone(), TaskTracker::new());
    let app = Arc::new(App {
        writer: Writer::new(log, Arc::clone(&admission), Actor::Api, Addition::Jobs),
        admission,
        bus,
        replicas: config.replicas,
        direct: Direct::new(&files),
        files,
        arrivals: Arc::default(),
        marks,
        storage_config: config.storage_config,
        surveying: tokio::sync::Mutex::default(),
        tables,
        waiters,
        tails: Arc::new(Tails::new(client, tasks.clone(), stop.clone())),
        advice: Arc::default(),
        deployed: watch::Sender::default(),
        key: Key::new(&config.key),
        secrets_key: config.secrets_key.clone(),
        max_upload_bytes: config.max_upload_bytes,
        tasks,
        stop: stop.clone(),
    });
    let (waiters, client) = (Arc::clone(&app.waiters), app.bus.client.clone());
    app.tasks.spawn(waiters.listen(client, facts, stop.clone()));
    app.tasks
        .spawn(admission::watch(Arc::clone(&app.admission), Arc::clone(&app.waiters), stop.clone()));
    if config.database_url.is_some() {
        app.tasks.spawn(advice::keep(
            Arc::clone(&app.advice),
            app.tables.clone(),
            Arc::clone(&app.waiters),
            stop,
        ));
    }
    start_runtimes(&app, config.runtimes.clone()).await;
    app.tasks.spawn(sweep(app.files.clone(), app.stop.clone()));
    app.tasks.spawn(Arc::clone(&app.arrivals).tidy(app.stop.clone()));
    app.tasks.spawn(app.direct.clone().learn(app.files.clone(), app.stop.clone()));
    app.tasks.spawn(run_passes(Arc::clone(&app)));
    app.tasks.spawn(intake::run(Arc::clone(&app)));
    Ok(app)
}

/// Reads the runtimes from the log before the first request is answered, and follows their changes; publishes the deployment's file.
async fn start_runtimes(app: &Arc<App>, file: Option<PathBuf>) {
    let mut warned = false;
    while !app.stop.is_cancelled() {
        match sys::runtimes(&app.bus.js).await {
            Ok((set, _)) => {
                app.deployed.send_replace(Arc::new(set));
                break;
            }
            Err(error) if !std::mem::replace(&mut warned, true) => warn!("{}; waiting for it", chain(&error)),
            Err(_) => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
    let keeper = Arc::clone(app);
    app.tasks.spawn(async move {
        let keeping = sys::keep_runtimes(&keeper.bus.js, &keeper.deployed);
        keeper.stop.run_until_cancelled(keeping).await;
    });
    if let Some(file) = file {
        let following = runtimes::follow(file, app.writer.clone());
        app.tasks.spawn(app.stop.clone().run_until_cancelled_owned(following));
    }
}

/// Creates or checks the streams, and returns the last sequence of the log.
async fn set_up_streams(bus: &Bus, replicas: u8) -> Result<u64, Error> {
    let mut warned = false;
    loop {
        let reason = match setup::streams(&bus.js, replicas).await {
            Ok(()) => match bus.js.get_stream(EVENTS).await {
                Ok(stream) => return Ok(stream.cached_info().state.last_sequence),
                Err(error) => chain(&error),
            },
            Err(error @ setup::Error::Request { .. }) => chain(&error),
            Err(error) => return Err(error.into()),
        };
        if !std::mem::replace(&mut warned, true) {
            warn!("{reason}; waiting for it");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Opens the store. A store in NATS gets a connection of its own, so that no event waits behind a file.
async fn open(config: &Config, store: &StoreUrl) -> Result<Files, Error> {
    let js = match store {
        StoreUrl::Nats { .. } => Some(connect::patiently(&config.nats, "api/files").await?.js),
        StoreUrl::S3 { .. } | StoreUrl::File { .. } => None,
    };
    let mut warned = false;
    loop {
        match Files::open(store, js.clone()).await {
            Ok(files) => return Ok(files),
            Err(error) if error.is_transient() => {
                if !std::mem::replace(&mut warned, true) {
                    warn!("{}; waiting for it", chain(&error));
                }
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(Error::Store(error)),
        }
    }
}

/// Removes unfinished uploads from the store, every hour.
async fn sweep(files: Files, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(SWEEP.0)).await.is_some() {
        match files.sweep(SWEEP.1).await {
            Ok(0) => {}
            Ok(swept) => info!("removed {swept} unfinished uploads"),
            Err(error) => debug!("cannot remove unfinished uploads: {}", chain(&error)),
        }
    }
}

async fn subscribe(bus: &Bus) -> async_nats::Subscriber {
    loop {
        match bus.client.subscribe(subjects::FACTS).await {
            Ok(facts) => return facts,
            Err(error) => debug!("cannot subscribe to the facts: {error}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Answers requests until `stop`, then waits for those in progress, within bounds.
async fn serve_until(listener: TcpListener, app: Arc<App>, limits: Limits, stop: CancellationToken) {
    let (tasks, files, arrivals) = (app.tasks.clone(), app.files.clone(), Arc::clone(&app.arrivals));
    let serving = Box::pin(serve(listener, router(app), limits, stop.clone()));
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        () = serving => {}
        () = overdue => info!("some requests did not end within {} s; closing their connections", GRACE.as_secs()),
    }
    stop.cancel();
    arrivals.cut_all();
    tasks.close();
    if tokio::time::timeout(GRACE, tasks.wait()).await.is_err() {
        debug!("{} tasks of the API did not end in time", tasks.len());
    }
    if tokio::time::timeout(GRACE, files.settled()).await.is_err() {
        debug!("some unfinished uploads were not removed in time; the hourly sweep removes them");
    }
}
