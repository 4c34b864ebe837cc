//! The data directory: where an embedded grid keeps everything, and the lock that says whether it is up.
//!
//! ```text
//! grid.json    addresses and credentials (0600)     run/     one record a process: who it is, since when
//! up.lock      held while a supervisor lives        logs/    one log a part, and the supervisor's up.log
//! secrets.key  opens the grid's secrets (0600)
//! nats/        JetStream's files, the server's configuration
//! postgres/    the database, of another user where root runs the grid
//! work/        the worker's attempts
//! ```

use std::{
    env,
    fs::{self, DirBuilder, File, Permissions, TryLockError},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

use super::part::Part;

/// What a new grid must find free: `initdb` writes 40 MB, the first write-ahead files of both servers as much.
const FREE_AT_FIRST: u64 = 200 << 20;
/// What a grid that was up before must find free to start.
const FREE_LATER: u64 = 32 << 20;

/// A data directory.
#[derive(Debug, Clone)]
pub(super) struct DataDir {
    root: PathBuf,
}

/// The directory that an embedded grid lives in unless told: `RGRID_DATA_DIR`; `/var/lib/rgrid` for root, because the
/// database runs as another user, who cannot enter root's home; `rgrid` in the user's data home otherwise.
///
/// # Errors
/// If neither `XDG_DATA_HOME` nor `HOME` is set.
pub(crate) fn default_data_dir() -> anyhow::Result<PathBuf> {
    let of = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(dir) = of("RGRID_DATA_DIR") {
        return Ok(dir);
    }
    if is_root() {
        return Ok(PathBuf::from("/var/lib/rgrid"));
    }
    of("XDG_DATA_HOME")
        .filter(|dir| dir.is_absolute())
        .or_else(|| of("HOME").map(|home| home.join(".local/share")))
        .map(|dir| dir.join("rgrid"))
        .context("cannot tell where to keep the grid's data: HOME is not set; name a directory with --data-dir")
}

/// Whether this process may act as any user.
pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

impl DataDir {
    /// A directory as given, or else the default one; made absolute, not created.
    pub(super) fn new(given: Option<&Path>) -> anyhow::Result<Self> {
        let root = given.map_or_else(default_data_dir, |dir| Ok(dir.to_owned()))?;
        let root = std::path::absolute(&root).with_context(|| format!("cannot use {} as the data directory", root.display()))?;
        Ok(Self { root })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn grid_file(&self) -> PathBuf {
        self.root.join("grid.json")
    }

    /// The key that opens the grid's secrets; beside it stands its public half.
    pub(super) fn secrets_key(&self) -> PathBuf {
        self.root.join("secrets.key")
    }

    /// What the grid's runtimes are, for its operator to edit.
    pub(super) fn runtimes(&self) -> PathBuf {
        self.root.join("runtimes.toml")
    }

    pub(super) fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    pub(super) fn log(&self, part: Part) -> PathBuf {
        self.root.join("logs").join(format!("{part}.log"))
    }

    pub(super) fn up_log(&self) -> PathBuf {
        self.root.join("logs/up.log")
    }

    pub(super) fn nats(&self) -> PathBuf {
        self.root.join("nats")
    }

    pub(super) fn postgres(&self) -> PathBuf {
        self.root.join("postgres")
    }

    pub(super) fn work(&self) -> PathBuf {
        self.root.join("work")
    }

    /// ` --data-dir DIR`, as a command line needs it to mean this directory; nothing for the default one.
    pub(super) fn as_flag(&self) -> String {
        let is_default = default_data_dir().is_ok_and(|dir| std::path::absolute(dir).is_ok_and(|dir| dir == self.root));
        if is_default {
            String::new()
        } else {
            format!(" --data-dir {}", self.root.display())
        }
    }

    /// Creates what is missing, and checks that a grid can live here.
    pub(super) fn prepare(&self) -> anyhow::Result<()> {
        let shown = self.root.display();
        let is_new = !self.root.join("postgres/data").exists();
        // Another user, who runs the database, must be able to pass through; they can list nothing.
        let mode = if is_root() { 0o711 } else { 0o700 };
        ensure_own(&self.root)?;
        create(&self.root, mode).with_context(|| format!("cannot create the data directory {shown}; choose another with --data-dir"))?;
        let subdirs = [self.run(), self.root.join("logs"), self.nats(), self.work()];
        for (dir, mode) in subdirs.iter().zip([0o700, 0o700, 0o700, 0o711]) {
            create(dir, mode).with_context(|| format!("cannot write to the data directory {shown}; choose another with --data-dir"))?;
        }
        let disk = rustix::fs::statvfs(&self.root).with_context(|| format!("cannot determine the free space on {shown}"))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let needed = if is_new { FREE_AT_FIRST } else { FREE_LATER };
        if free < needed {
            let (free, needed) = (free >> 20, needed >> 20);
            bail!(
                "the disk of {shown} is full: {free} MB are free, and a grid needs {needed} to start; make room, or choose another --data-dir"
            );
        }
        Ok(())
    }

    /// Takes the lock that a supervisor holds while it lives; `None` if another has it.
    pub(super) fn lock(&self) -> anyhow::Result<Option<Lock>> {
        let path = self.root.join("up.lock");
        let opened = File::options().create(true).truncate(false).write(true).open(&path);
        let file = opened.with_context(|| format!("cannot open {}; choose another --data-dir", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
    }

    /// Whether a grid was ever up here.
    pub(super) fn exists(&self) -> bool {
        self.root.join("up.lock").exists()
    }
}

/// Rejects a data directory that somebody else could have prepared: whose grid it is, and with which keys, would be theirs to say.
///
/// # Errors
/// If it belongs to another user, others may write to it, or it holds links. One that is not there is fine.
pub(super) fn ensure_own(root: &Path) -> anyhow::Result<()> {
    let shown = root.display();
    let Ok(meta) = fs::metadata(root) else { return Ok(()) };
    let me = rustix::process::geteuid().as_raw();
    if meta.uid() != me && meta.uid() != 0 {
        bail!(
            "the data directory {shown} belongs to another user ({}); change its owner (chown -R), or choose another with --data-dir",
            meta.uid()
        );
    }
    if meta.mode() & 0o022 != 0 {
        bail!(
            "other users may write to the data directory {shown}; look at what is in it, then: chmod go-w {shown}; or choose another with --data-dir"
        );
    }
    // Not what jobs and the database keep for themselves.
    for dir in ["", "run", "logs", "nats"] {
        let entries = fs::read_dir(root.join(dir)).into_iter().flatten().flatten();
        if let Some(link) = entries.map(|entry| entry.path()).find(|path| path.is_symlink()) {
            bail!(
                "the data directory contains the link {}, and links are not followed; replace it with its target, or choose another with --data-dir",
                link.display()
            );
        }
    }
    Ok(())
}

/// Held while a supervisor lives. The kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

/// Creates a directory and its parents; one that is there is made enterable, if it belongs to root and must be.
fn create(dir: &Path, mode: u32) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(dir.parent().unwrap_or(dir))?;
    match DirBuilder::new().mode(mode).create(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && dir.is_dir() => {}
        other => other?,
    }
    // The umask may have taken bits away, and a directory of the user's own making may be closed.
    let found = fs::metadata(dir)?;
    if found.mode() & mode != mode && found.uid() == rustix::process::geteuid().as_raw() {
        fs::set_permissions(dir, Permissions::from_mode(found.mode() | mode))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_others_could_have_prepared_is_rejected() -> anyhow::Result<()> {
        let temp = tempfile::tempdir()?;
        let root = temp.path().join("data");
        assert!(ensure_own(&root).is_ok(), "it is not there yet");
        fs::create_dir_all(root.join("nats"))?;
        fs::set_permissions(&root, Permissions::from_mode(0o700))?;
        assert!(ensure_own(&root).is_ok());
        let said = || ensure_own(&root).expect_err("it is rejected").to_string();
        for mode in [0o777, 0o770, 0o1777] {
            fs::set_permissions(&root, Permissions::from_mode(mode))?;
            assert!(said().contains("chmod go-w"), "{mode:o}");
        }
        fs::set_permissions(&root, Permissions::from_mode(0o711))?;
        for link in ["secrets.key", "nats/nats.conf"] {
            std::os::unix::fs::symlink("/dev/null", root.join(link))?;
            assert!(said().contains(link), "{link}");
            fs::remove_file(root.join(link))?;
        }
        if is_root() {
            std::os::unix::fs::chown(&root, Some(65_534), None)?;
            assert!(said().contains("belongs to another user (65534)"));
        }
        Ok(())
    }
}
