//! The packages that jobs need: installed once for each declaration, interpreter and platform, kept on disk and in the store, and
//! read-only for commands.
//!
//! A worker looks on its disk, then in the store, and installs packages that are in neither; jobs that need the same packages wait for one
//! installation. Two workers may install the same packages at once: each keeps its own copy, and the store keeps the first.

mod archive;
mod disk;
mod error;
mod install;
mod key;
pub(crate) mod relocate;
mod remove;
mod variables;

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    io,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use bus::spec::{
    ExecutorKind, JobSpec,
    dependencies::{Dependencies, Kind},
    pep440::Specifiers,
};
use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use store::{Files, RENEW_AFTER};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

pub(crate) use self::{disk::Installed, error::Error};
use self::{
    disk::{Disk, New},
    key::Key,
};
use crate::{
    errors::chain,
    executor::{Executor, Fitting, Identity, Launch, docker},
    inputs::StagedInputs,
    patience::patiently,
};

/// The packages of a worker. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Packages(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    disk: Disk,
    /// How long one installation may take.
    patience: Duration,
    /// Whether installers in containers see the worker's credentials for indexes.
    with_credentials: bool,
    /// The packages that are being fetched or installed, for which other jobs wait.
    flights: Mutex<HashMap<Key, Arc<tokio::sync::Mutex<()>>>>,
    /// When the use of this worker's own copies was last noted in the store.
    noted: Mutex<HashMap<Key, DateTime<Utc>>>,
    /// Version specifiers that this worker's Python satisfies.
    fits: Mutex<HashSet<Key>>,
    /// Uploads to the store.
    tasks: TaskTracker,
}

/// A job's request for packages.
struct InstallRequest<'a> {
    files: &'a Files,
    executor: &'a dyn Executor,
    launch: &'a Launch,
    dependencies: &'a Dependencies,
    notice: &'a mpsc::Sender<String>,
    /// Whether an installer in a container sees the worker's credentials for indexes.
    with_credentials: bool,
}

impl InstallRequest<'_> {
    async fn tell(&self, sentence: String) {
        // The attempt may be over.
        let _ = self.notice.send(sentence).await;
    }
}

impl Packages {
    /// The packages below a work directory, at most `max_bytes` of them while they are not used; incomplete packages of an
    /// earlier runner are removed. Packages that commands in `roots` still use, which the earlier runner left, are kept.
    ///
    /// # Errors
    /// If the directory cannot be used.
    pub(crate) fn below(
        work_dir: &std::path::Path,
        max_bytes: u64,
        patience: Duration,
        with_credentials: bool,
        roots: &[PathBuf],
    ) -> io::Result<Self> {
        Ok(Self(Arc::new(Inner {
            disk: Disk::open(&work_dir.join("packages"), max_bytes, roots)?,
            patience,
            with_credentials,
            flights: Mutex::default(),
            noted: Mutex::default(),
            fits: Mutex::default(),
            tasks: TaskTracker::new(),
        })))
    }

    /// Provides a job's packages; they are not removed before the result is dropped.
    ///
    /// # Errors
    /// If the packages cannot be provided; with the installer's output, where it failed.
    pub(crate) async fn ready(
        &self,
        files: &Files,
        executor: &dyn Executor,
        launch: &Launch,
        dependencies: &Dependencies,
        notice: &mpsc::Sender<String>,
    ) -> Result<Installed, Error> {
        let identity = executor.identity(launch, dependencies.kind).await?;
        let key = Key::of(dependencies, &identity);
        if let Some(held) = self.0.disk.hold(&key) {
            self.note_use(files, key);
            return Ok(held);
        }
        let request = InstallRequest {
            files,
            executor,
            launch,
            dependencies,
            notice,
            with_credentials: self.0.with_credentials,
        };
        let turn = Arc::clone(self.0.flights.lock().entry(key).or_default());
        let flying = match turn.try_lock() {
            Ok(flying) => flying,
            Err(_) => {
                request
                    .tell(format!(
                        "waiting for {}, which another job is having installed",
                        dependencies.called()
                    ))
                    .await;
                turn.lock().await
            }
        };
        let had = self.have(&request, &identity, key).await;
        drop(flying);
        let mut flights = self.0.flights.lock();
        // The map's and this function's: no other job waits.
        if Arc::strong_count(&turn) == 2 {
            flights.remove(&key);
        }
        drop(flights);
        had
    }

    /// Runs a job's Python to check whether it satisfies the job's version specifiers, once for each.
    ///
    /// # Errors
    /// If it does not, or cannot be run.
    pub(crate) async fn check(
        &self,
        files: &Files,
        executor: &dyn Executor,
        launch: &Launch,
        dependencies: &Dependencies,
        notice: &mpsc::Sender<String>,
    ) -> Result<(), Error> {
        let identity = executor.identity(launch, dependencies.kind).await?;
        let key = Key::of(dependencies, &identity);
        if self.0.fits.lock().contains(&key) {
            return Ok(());
        }
        let request = InstallRequest {
            files,
            executor,
            launch,
            dependencies,
            notice,
            with_credentials: self.0.with_credentials,
        };
        install::check(&self.0.disk, self.0.patience, &request).await?;
        self.0.fits.lock().insert(key);
        Ok(())
    }

    async fn have(&self, request: &InstallRequest<'_>, identity: &Identity, key: Key) -> Result<Installed, Error> {
        if let Some(held) = self.0.disk.hold(&key) {
            return Ok(held);
        }
        match self.fetch(request, identity, key).await {
            Ok(Some(held)) => return Ok(held),
            Ok(None) => {}
            // The store's copy may be damaged or missing; the packages can still be installed.
            Err(error) => warn!("cannot use the stored packages {key}: {}; installing them", chain(&error)),
        }
        let (new, bytes) = install::install(&self.0.disk, self.0.patience, request).await?;
        relocate(&new, identity, request.dependencies.kind).map_err(Error::Disk)?;
        let held = self.0.disk.admit(new, key, bytes).await.map_err(Error::Disk)?;
        self.store(request.files.clone(), held.clone());
        Ok(held)
    }

    /// The packages as another worker stored them; nothing where none has.
    async fn fetch(&self, request: &InstallRequest<'_>, identity: &Identity, key: Key) -> Result<Option<Installed>, Error> {
        let found = patiently("look for stored packages", || request.files.packages(key.digest())).await;
        let Some(entry) = found? else {
            return Ok(None);
        };
        let size = entry.size.div_ceil(1 << 20);
        request
            .tell(format!("fetching {}, {size} MiB, installed before", request.dependencies.called()))
            .await;
        let new = self.0.disk.make().map_err(Error::Disk)?;
        let bytes = archive::fetch(request.files, &entry, &new, self.0.disk.max_bytes()).await?;
        relocate(&new, identity, request.dependencies.kind).map_err(Error::Disk)?;
        if let Err(error) = request.files.use_packages(key.digest(), entry).await {
            debug!("the use of packages {key} is not noted: {error}");
        }
        self.0.disk.admit(new, key, bytes).await.map(Some).map_err(Error::Disk)
    }

    /// Notes in the store, now and then, that packages are used of which this worker has its own copy.
    fn note_use(&self, files: &Files, key: Key) {
        let now = Utc::now();
        match self.0.noted.lock().entry(key) {
            Entry::Occupied(noted) if now - noted.get() < RENEW_AFTER => return,
            noted => drop(noted.insert_entry(now)),
        }
        let files = files.clone();
        self.0.tasks.spawn(async move {
            let noting = async {
                match files.packages(key.digest()).await? {
                    Some(entry) => files.use_packages(key.digest(), entry).await,
                    None => Ok(()),
                }
            };
            if let Err(error) = noting.await {
                debug!("the use of packages {key} is not noted: {error}");
            }
        });
    }

    /// Stores packages while the job that needs them runs.
    fn store(&self, files: Files, held: Installed) {
        let disk = self.0.disk.clone();
        self.0.tasks.spawn(async move {
            let key = held.key();
            let stored = async {
                let new = disk.make().map_err(Error::Disk)?;
                let entry = archive::store(&files, &held, &new).await?;
                patiently("note stored packages", || files.put_packages(key.digest(), &entry)).await?;
                Ok::<(), Error>(())
            };
            match stored.await {
                Ok(()) => info!("packages {key} are in the store"),
                Err(error) => warn!(
                    "packages {key} are not stored, and other workers install them too: {}",
                    chain(&error)
                ),
            }
        });
    }

    /// Waits for the uploads to the store, for this time at most.
    pub(crate) async fn settled(&self, grace: Duration) {
        self.0.tasks.close();
        if tokio::time::timeout(grace, self.0.tasks.wait()).await.is_err() {
            warn!("some packages did not get into the store in time; other workers install them too");
        }
    }
}

/// Chooses a Python that satisfies the job's version specifiers, if the executor can; returns whether it is known to fit.
///
/// # Errors
/// If none does.
pub(crate) async fn fitting(executor: &dyn Executor, launch: &mut Launch, dependencies: &Dependencies) -> Result<bool, Error> {
    let Some(python) = dependencies.python.as_ref().filter(|_| dependencies.kind == Kind::Pip) else {
        return Ok(true);
    };
    let python: Specifiers = python.parse().map_err(|wrong| Error::Failed {
        sentence: format!(
            "cannot choose a Python for the job (requires-python in {}): {wrong}",
            dependencies.declared_in
        ),
        output: Vec::new(),
    })?;
    match executor.fitting(launch, &python).await? {
        Fitting::Usual => Ok(true),
        Fitting::Other(runtime) => {
            launch.runtime = Some(runtime);
            Ok(true)
        }
        Fitting::Unknown => Ok(false),
    }
}

/// Gives a virtual environment the interpreter of this worker, or of the image.
fn relocate(new: &New, identity: &Identity, kind: Kind) -> io::Result<()> {
    match kind {
        Kind::Pip => relocate::relocate(&new.env(), identity.executable.as_deref()),
        Kind::Npm => Ok(()),
    }
}

/// Where Node looks for packages of a script in a work directory.
pub(crate) const MODULES: &str = "node_modules";

/// Links the packages into a work directory where Node looks for them, unless the job has its own.
///
/// # Errors
/// If the disk does not allow it.
pub(crate) fn link_modules(work: &std::path::Path, kind: ExecutorKind, held: &Installed) -> io::Result<()> {
    let at = work.join(MODULES);
    let dir = match kind {
        ExecutorKind::Docker => PathBuf::from(docker::PACKAGES),
        ExecutorKind::Process | ExecutorKind::Noop => held.dir(),
    };
    match std::fs::symlink_metadata(&at) {
        // From another executor, which turned out to be broken.
        Ok(_) if std::fs::read_link(&at).is_ok_and(|target| target.is_absolute()) => std::fs::remove_file(&at)?,
        Ok(_) => return Ok(()),
        Err(_) => {}
    }
    std::os::unix::fs::symlink(dir.join(MODULES), at)
}

/// The staged inputs, and the link to the packages that Node needs, which is not an output. Its target is not known yet: an empty target
/// marks this link.
pub(crate) fn with_modules(mut staged: StagedInputs, spec: &JobSpec) -> StagedInputs {
    if spec
        .dependencies
        .as_ref()
        .is_some_and(|dependencies| dependencies.kind == Kind::Npm)
    {
        staged.links.entry(PathBuf::from(MODULES)).or_default();
    }
    staged
}
