//! The packages that jobs need: installed once for each declaration, interpreter and platform, kept on disk and in the store, and
//! shown to commands read-only.
//!
//! A worker looks on its disk, then in the store, and installs what is in neither; jobs that want the same wait for one
//! installation. Two workers that install the same at once both end well: each keeps its own, and the store the first.

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

pub(crate) use self::{disk::Held, error::Error};
use self::{
    disk::{Disk, New},
    key::Key,
};
use crate::{
    errors::chain,
    executor::{Executor, Fitting, Identity, Launch, docker},
    inputs::Layout,
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
    /// Those that are being fetched or installed, so that others wait for them.
    flights: Mutex<HashMap<Key, Arc<tokio::sync::Mutex<()>>>>,
    /// When the store was last told that packages are used of which we have our own copy.
    noted: Mutex<HashMap<Key, DateTime<Utc>>>,
    /// Jobs' demands on Python that were found to be met.
    fits: Mutex<HashSet<Key>>,
    /// Packages on their way to the store.
    tasks: TaskTracker,
}

/// What a job asks for, and where to find it.
struct Asked<'a> {
    files: &'a Files,
    executor: &'a dyn Executor,
    launch: &'a Launch,
    dependencies: &'a Dependencies,
    notice: &'a mpsc::Sender<String>,
    /// Whether an installer in a container sees the worker's credentials for indexes.
    with_credentials: bool,
}

impl Asked<'_> {
    async fn tell(&self, sentence: String) {
        // Nobody listens where the attempt is over.
        let _ = self.notice.send(sentence).await;
    }
}

impl Packages {
    /// The packages below a work directory, at most `max_bytes` of them while they are not used; what an earlier runner left half
    /// done is removed. Those that commands in `roots` still use, which the earlier runner left to us, are kept.
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

    /// Has a job's packages ready for its command, and holds them there until the answer is dropped.
    ///
    /// # Errors
    /// If they cannot be had; with what the installer said, where it failed.
    pub(crate) async fn ready(
        &self,
        files: &Files,
        executor: &dyn Executor,
        launch: &Launch,
        dependencies: &Dependencies,
        notice: &mpsc::Sender<String>,
    ) -> Result<Held, Error> {
        let identity = executor.identity(launch, dependencies.kind).await?;
        let key = Key::of(dependencies, &identity);
        if let Some(held) = self.0.disk.hold(&key) {
            self.note_use(files, key);
            return Ok(held);
        }
        let asked = Asked {
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
                asked
                    .tell(format!(
                        "waiting for {}, which another job is having installed",
                        dependencies.called()
                    ))
                    .await;
                turn.lock().await
            }
        };
        let had = self.have(&asked, &identity, key).await;
        drop(flying);
        let mut flights = self.0.flights.lock();
        // The map's, and ours: nobody else waits.
        if Arc::strong_count(&turn) == 2 {
            flights.remove(&key);
        }
        drop(flights);
        had
    }

    /// Has the Python of a job say whether it is one that the job needs, once for each.
    ///
    /// # Errors
    /// If it is not, or cannot be asked.
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
        let asked = Asked {
            files,
            executor,
            launch,
            dependencies,
            notice,
            with_credentials: self.0.with_credentials,
        };
        install::check(&self.0.disk, self.0.patience, &asked).await?;
        self.0.fits.lock().insert(key);
        Ok(())
    }

    async fn have(&self, asked: &Asked<'_>, identity: &Identity, key: Key) -> Result<Held, Error> {
        if let Some(held) = self.0.disk.hold(&key) {
            return Ok(held);
        }
        match self.fetch(asked, identity, key).await {
            Ok(Some(held)) => return Ok(held),
            Ok(None) => {}
            // The store's copy may be damaged or gone; what it was made of is not.
            Err(error) => warn!("cannot use the stored packages {key}: {}; installing them", chain(&error)),
        }
        let (new, bytes) = install::install(&self.0.disk, self.0.patience, asked).await?;
        dress(&new, identity, asked.dependencies.kind).map_err(Error::Disk)?;
        let held = self.0.disk.admit(new, key, bytes).await.map_err(Error::Disk)?;
        self.store(asked.files.clone(), held.clone());
        Ok(held)
    }

    /// Those that some worker has stored; nothing where none has.
    async fn fetch(&self, asked: &Asked<'_>, identity: &Identity, key: Key) -> Result<Option<Held>, Error> {
        let found = patiently("look for stored packages", || asked.files.packages(key.digest())).await;
        let Some(entry) = found? else {
            return Ok(None);
        };
        let size = entry.size.div_ceil(1 << 20);
        asked
            .tell(format!("fetching {}, {size} MiB, installed before", asked.dependencies.called()))
            .await;
        let new = self.0.disk.make().map_err(Error::Disk)?;
        let bytes = archive::fetch(asked.files, &entry, &new, self.0.disk.max_bytes()).await?;
        dress(&new, identity, asked.dependencies.kind).map_err(Error::Disk)?;
        if let Err(error) = asked.files.use_packages(key.digest(), entry).await {
            debug!("the use of packages {key} is not noted: {error}");
        }
        self.0.disk.admit(new, key, bytes).await.map(Some).map_err(Error::Disk)
    }

    /// Has the store know, now and then, that packages are used of which this worker has its own copy.
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

    /// Gives packages to the store, while the job that wanted them runs.
    fn store(&self, files: Files, held: Held) {
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

    /// Waits until what is on its way to the store is there, or the time is over.
    pub(crate) async fn settled(&self, grace: Duration) {
        self.0.tasks.close();
        if tokio::time::timeout(grace, self.0.tasks.wait()).await.is_err() {
            warn!("some packages did not get into the store in time; other workers install them too");
        }
    }
}

/// Has a job run by a Python that it needs, if the executor can choose one; says whether it is known to fit.
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
fn dress(new: &New, identity: &Identity, kind: Kind) -> io::Result<()> {
    match kind {
        Kind::Pip => relocate::dress(&new.env(), identity.executable.as_deref()),
        Kind::Npm => Ok(()),
    }
}

/// Where Node looks for packages of a script in a work directory.
pub(crate) const MODULES: &str = "node_modules";

/// Has a script in a work directory find its packages as Node looks for them, unless it brought its own.
///
/// # Errors
/// If the disk does not allow it.
pub(crate) fn link_modules(work: &std::path::Path, kind: ExecutorKind, held: &Held) -> io::Result<()> {
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

/// What was laid into a work directory, and the link to the packages that is to stand there for Node, which is no output: what it says
/// is not known yet, and no other link says nothing.
pub(crate) fn with_modules(mut laid: Layout, spec: &JobSpec) -> Layout {
    if spec
        .dependencies
        .as_ref()
        .is_some_and(|dependencies| dependencies.kind == Kind::Npm)
    {
        laid.links.entry(PathBuf::from(MODULES)).or_default();
    }
    laid
}
