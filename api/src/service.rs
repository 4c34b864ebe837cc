//! The API as a service: started, served, stopped.

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
    storage::{Storing, keep_clean},
};

/// How long an append is tried while nobody acknowledges it; then the caller is told. A broker that stood still for some seconds needs
/// some more on a busy machine, until its clients are back and what they sent is on disk.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long requests under way may take when the API stops.
const GRACE: Duration = Duration::from_secs(5);
/// The pause before something that did not answer at the start is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// What the API is started with.
#[derive(Clone)]
pub struct Config {
    /// NATS servers: `nats://user:password@host:4222`, several separated by commas.
    pub nats: String,
    /// How many servers keep each stream, 1 to 5.
    pub replicas: u8,
    /// Where Postgres is; without it nothing can be listed, and everything else goes on.
    pub database_url: Option<String>,
    /// Where files are kept: `nats://`, `s3://…` or `file:///…`.
    pub store: String,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The key that every request must carry. It is never logged.
    pub key: String,
    /// What secrets are sealed to; without it, none can be set.
    pub secrets_key: Option<PublicKey>,
    /// The largest file that may be uploaded, in bytes.
    pub max_upload_bytes: u64,
    /// The deployment's `runtimes.toml`, if this API is to say what stands in it.
    pub runtimes: Option<PathBuf>,
    /// How the store is kept: what goes when.
    pub storing: Storing,
    /// What clients may take.
    pub limits: Limits,
}

impl Config {
    /// The largest file that may be uploaded unless another size is given, in bytes: 1 TiB.
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
            .field("storing", &self.storing)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// How often unfinished uploads are looked for, and how old they must be: far older than any upload that lives.
const SWEEP: (Duration, Duration) = (Duration::from_secs(3600), Duration::from_secs(24 * 3600));

/// What an operator must change before the API can run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key is empty.
    #[error("the API needs a key that its callers send; give one with --key or RGRID_API_KEY")]
    NoKey,
    /// The address cannot be listened on.
    #[error("cannot listen on {listen}: {source}; stop what uses that port, or choose another with --listen")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// What happened.
        source: std::io::Error,
    },
    /// NATS will not do.
    #[error(transparent)]
    Connect(#[from] connect::Error),
    /// The streams are not as they must be.
    #[error(transparent)]
    Setup(#[from] setup::Error),
    /// The store's URL is none.
    #[error(transparent)]
    StoreUrl(#[from] InvalidUrl),
    /// The store cannot be used.
    #[error("cannot use the file store")]
    Store(#[source] store::Error),
    /// The deployment's runtimes cannot be meant.
    #[error(transparent)]
    Runtimes(#[from] runtimes::Wrong),
    /// The database's URL is none.
    #[error("the database URL cannot be read; write postgres://user:password@host:5432/database")]
    DatabaseUrl(#[source] sqlx::Error),
}

/// Serves the API, and takes submissions from the inbox, until `stop`; then drains.
///
/// # Errors
/// What the operator must change. Outages are waited out.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), Error> {
    bind(config).await?.serve(stop).await
}

/// An API that has its address, and serves nobody yet.
#[derive(Debug)]
pub struct Bound {
    config: Config,
    listener: TcpListener,
    address: SocketAddr,
    store: StoreUrl,
    tables: Tables,
}

/// Checks the configuration, and takes the address: what can be wrong without the grid is found before the grid is waited for.
///
/// # Errors
/// What the operator must change.
pub async fn bind(config: Config) -> Result<Bound, Error> {
    if config.key.is_empty() {
        return Err(Error::NoKey);
    }
    let store = config.store.parse()?;
    // Who starts it sees at once what is wrong there; the log is told later.
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
    /// Where it listens, with the port that it got.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`, then drains.
    ///
    /// # Errors
    /// What the operator must change. Outages are waited out.
    pub async fn serve(self, stop: CancellationToken) -> Result<(), Error> {
        let app = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            started = Box::pin(start(&self.config, &self.store, self.tables, stop.clone())) => started?,
        };
        info!("listening on http://{}", self.address);
        answer(self.listener, app, self.config.limits, stop).await;
        Ok(())
    }
}

/// Connects to everything, and starts what runs beside the requests.
async fn start(config: &Config, store: &StoreUrl, tables: Tables, stop: CancellationToken) -> Result<Arc<App>, Error> {
    let bus = connect::patiently(&config.nats, "api").await?;
    let begin = prepare(&bus, config.replicas).await?;
    let marks = Marks::open(&bus.js).await.map_err(Error::Store)?;
    let files = open(config, store).await?.heeding(marks.clone());
    let waiters = Waiters::new(begin);
    let facts = subscribe(&bus).await;
    let (log, fill) = (Log::new(bus.js.clone(), PATIENCE), Gauge::new(bus.js.clone()));
    let (client, tasks) = (bus.client.clone(), TaskTracker::new());
    let app = Arc::new(App {
        writer: Writer::new(log, Arc::clone(&fill), Actor::Api, Addition::Jobs),
        fill,
        bus,
        replicas: config.replicas,
        direct: Direct::new(&files),
        files,
        arrivals: Arc::default(),
        marks,
        storing: config.storing,
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
        .spawn(admission::watch(Arc::clone(&app.fill), Arc::clone(&app.waiters), stop.clone()));
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
    app.tasks.spawn(keep_clean(Arc::clone(&app)));
    app.tasks.spawn(intake::run(Arc::clone(&app)));
    Ok(app)
}

/// Learns what the log says of runtimes before anybody is answered, and keeps knowing it; says what the deployment's file says.
async fn start_runtimes(app: &Arc<App>, file: Option<PathBuf>) {
    let mut told = false;
    while !app.stop.is_cancelled() {
        match sys::runtimes(&app.bus.js).await {
            Ok((set, _)) => {
                app.deployed.send_replace(Arc::new(set));
                break;
            }
            Err(error) if !std::mem::replace(&mut told, true) => warn!("{}; waiting for it", chain(&error)),
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

/// Makes or checks the streams, and returns the last sequence of the log.
async fn prepare(bus: &Bus, replicas: u8) -> Result<u64, Error> {
    let mut told = false;
    loop {
        let words = match setup::streams(&bus.js, replicas).await {
            Ok(()) => match bus.js.get_stream(EVENTS).await {
                Ok(stream) => return Ok(stream.cached_info().state.last_sequence),
                Err(error) => chain(&error),
            },
            Err(error @ setup::Error::Request { .. }) => chain(&error),
            Err(error) => return Err(error.into()),
        };
        if !std::mem::replace(&mut told, true) {
            warn!("{words}; waiting for it");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Opens the store. One in NATS gets a connection of its own, so that nothing waits behind a file.
async fn open(config: &Config, store: &StoreUrl) -> Result<Files, Error> {
    let js = match store {
        StoreUrl::Nats { .. } => Some(connect::patiently(&config.nats, "api/files").await?.js),
        StoreUrl::S3 { .. } | StoreUrl::File { .. } => None,
    };
    let mut told = false;
    loop {
        match Files::open(store, js.clone()).await {
            Ok(files) => return Ok(files),
            Err(error) if error.is_transient() => {
                if !std::mem::replace(&mut told, true) {
                    warn!("{}; waiting for it", chain(&error));
                }
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(Error::Store(error)),
        }
    }
}

/// Removes, every hour, what uploads that died left in the store.
async fn sweep(files: Files, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(SWEEP.0)).await.is_some() {
        match files.sweep(SWEEP.1).await {
            Ok(0) => {}
            Ok(swept) => info!("removed {swept} pieces of uploads that were never finished"),
            Err(error) => debug!("cannot look for unfinished uploads: {}", chain(&error)),
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

/// Answers requests until `stop`, then for as long as those under way take, within bounds.
async fn answer(listener: TcpListener, app: Arc<App>, limits: Limits, stop: CancellationToken) {
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
        debug!("some uploads were not taken back in time; the store's sweep finds them");
    }
}
