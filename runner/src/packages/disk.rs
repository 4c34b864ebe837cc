//! The worker's own copies: complete and read-only, or not there; bounded in bytes, and never removed under a command.
//!
//! `packages/<key>/env` is what commands see, `packages/<key>/about.json` its size; `packages/new-…` is being made, and has no
//! meaning to a runner that finds it at its start.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};
use walkdir::WalkDir;

use super::{
    key::Key,
    remove::{remove, remove_behind},
};
use crate::beneath;

/// What packages being made begin with.
const NEW: &str = "new-";
/// The environment, in the directory of its key and while it is made.
const ENV: &str = "env";
/// What is noted of it.
const ABOUT: &str = "about.json";
/// Beside an attempt's work directory: the key of the packages that it uses.
const USED: &str = "packages";

/// What is noted of an environment.
#[derive(Debug, Serialize, Deserialize)]
struct About {
    bytes: u64,
}

/// Packages on disk. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Disk(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    base: PathBuf,
    max_bytes: u64,
    there: Mutex<HashMap<Key, There>>,
}

/// An environment that is there.
#[derive(Debug, Clone, Copy)]
struct There {
    bytes: u64,
    used: SystemTime,
    users: u32,
}

/// An environment that is not removed before this is dropped.
#[derive(Debug)]
pub(crate) struct Installed {
    disk: Disk,
    key: Key,
}

/// A directory in which an environment is made; removed where it does not become one.
#[derive(Debug)]
pub(super) struct New(Option<PathBuf>);

impl New {
    fn root(&self) -> &Path {
        self.0.as_deref().unwrap_or(Path::new(""))
    }

    /// Where the installer works.
    pub(super) fn work(&self) -> PathBuf {
        self.root().join("work")
    }

    /// The installer's home and temporary directory.
    pub(super) fn scratch(&self) -> PathBuf {
        self.root().join("tmp")
    }

    /// Where the environment is to be.
    pub(super) fn env(&self) -> PathBuf {
        self.root().join(ENV)
    }

    /// A file for an archive.
    pub(super) fn archive(&self) -> PathBuf {
        self.root().join("archive")
    }
}

impl Drop for New {
    fn drop(&mut self) {
        if let Some(root) = self.0.take() {
            remove_behind(root);
        }
    }
}

impl Disk {
    /// What is there from before; what was not complete is removed. What a command in one of these places uses is kept for as long
    /// as this runner lives.
    pub(super) fn open(base: &Path, max_bytes: u64, roots: &[PathBuf]) -> io::Result<Self> {
        fs::create_dir_all(base)?;
        let base = base.canonicalize()?;
        let mut there = HashMap::new();
        let in_use: HashSet<Key> = roots
            .iter()
            .filter_map(|root| Key::parse(&fs::read_to_string(root.join(USED)).ok()?))
            .collect();
        for entry in fs::read_dir(&base)? {
            let path = entry?.path();
            match whole(&path) {
                Some((key, bytes, used)) => {
                    let users = u32::from(in_use.contains(&key));
                    there.insert(key, There { bytes, used, users });
                }
                // What cannot be removed has no meaning, and prevents nothing.
                None => put_away(&base, &path),
            }
        }
        let disk = Self(Arc::new(Inner {
            base,
            max_bytes,
            there: Mutex::new(there),
        }));
        disk.evict();
        Ok(disk)
    }

    pub(super) fn max_bytes(&self) -> u64 {
        self.0.max_bytes
    }

    /// An environment, if it is there.
    pub(super) fn hold(&self, key: &Key) -> Option<Installed> {
        let mut there = self.0.there.lock();
        let found = there.get_mut(key)?;
        found.users += 1;
        found.used = SystemTime::now();
        let held = Installed {
            disk: self.clone(),
            key: *key,
        };
        // The order outlives this runner.
        let about = fs::File::options().write(true).open(self.dir(key).join(ABOUT));
        if let Ok(Err(error)) = about.map(|file| file.set_modified(SystemTime::now())) {
            warn!("the use of packages {key} is not noted: {error}");
        }
        Some(held)
    }

    /// A directory to make one in.
    pub(super) fn make(&self) -> io::Result<New> {
        let root = self.0.base.join(format!("{NEW}{}", uuid::Uuid::now_v7().simple()));
        fs::create_dir(&root)?;
        let new = New(Some(root));
        fs::create_dir(new.work())?;
        fs::create_dir(new.scratch())?;
        Ok(new)
    }

    /// Makes what was made the environment of this key, read-only from now on.
    pub(super) async fn admit(&self, mut new: New, key: Key, bytes: u64) -> io::Result<Installed> {
        let (disk, target) = (self.clone(), self.dir(&key));
        let admitting = move || {
            let root = new.root().to_owned();
            // An installer may have mounted something; it is not ours to seal, to store or to show to others.
            beneath::nothing_mounted(&root)?;
            for rest in [new.work(), new.scratch(), new.archive()] {
                remove(&rest)?;
            }
            seal(&new.env())?;
            fs::write(root.join(ABOUT), serde_json::to_vec(&About { bytes })?)?;
            // A power cut must not leave a directory of that name with half of its content.
            rustix::fs::syncfs(fs::File::open(&root)?)?;
            // What could not be removed when it was too much.
            remove(&target)?;
            fs::rename(&root, target)?;
            drop(new.0.take());
            Ok::<(), io::Error>(())
        };
        tokio::task::spawn_blocking(admitting).await.map_err(io::Error::other)??;
        let there = There {
            bytes,
            used: SystemTime::now(),
            users: 1,
        };
        disk.0.there.lock().insert(key, there);
        disk.evict();
        Ok(Installed { disk, key })
    }

    fn dir(&self, key: &Key) -> PathBuf {
        self.0.base.join(key.to_string())
    }

    /// Removes what is too much, the longest unused first.
    fn evict(&self) {
        let mut there = self.0.there.lock();
        for key in victims(&there, self.0.max_bytes) {
            there.remove(&key);
            info!("removing packages {key}, which were not used for the longest time");
            let gone = self.0.base.join(format!("{NEW}gone-{key}"));
            // At once, so that none of that name is half removed.
            match fs::rename(self.dir(&key), &gone) {
                Ok(()) => remove_behind(gone),
                Err(error) => warn!("cannot remove packages {key}: {error}"),
            }
        }
    }
}

/// Removes what was not complete, under a name that no environment will have meanwhile.
fn put_away(base: &Path, path: &Path) {
    let gone = base.join(format!("{NEW}gone-{}", uuid::Uuid::now_v7().simple()));
    match fs::rename(path, &gone) {
        Ok(()) => remove_behind(gone),
        Err(error) => warn!("cannot put {} away: {error}", path.display()),
    }
}

/// What to remove for all of it to fit, the longest unused first; never what is in use.
fn victims(there: &HashMap<Key, There>, max_bytes: u64) -> Vec<Key> {
    let mut all: u64 = there.values().map(|one| one.bytes).sum();
    let mut unused: Vec<_> = there.iter().filter(|(_, one)| one.users == 0).collect();
    unused.sort_unstable_by_key(|(_, one)| one.used);
    let mut victims = Vec::new();
    for (key, one) in unused {
        if all <= max_bytes {
            break;
        }
        all -= one.bytes;
        victims.push(*key);
    }
    victims
}

impl Installed {
    pub(super) fn key(&self) -> Key {
        self.key
    }

    /// The environment.
    pub(crate) fn dir(&self) -> PathBuf {
        self.disk.dir(&self.key).join(ENV)
    }

    /// Notes beside an attempt's work directory that it uses this, for a runner that takes the attempt up.
    pub(crate) fn note(&self, root: &Path) -> io::Result<()> {
        fs::write(root.join(USED), self.key.to_string())
    }
}

impl Clone for Installed {
    fn clone(&self) -> Self {
        if let Some(one) = self.disk.0.there.lock().get_mut(&self.key) {
            one.users += 1;
        }
        Self {
            disk: self.disk.clone(),
            key: self.key,
        }
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        if let Some(one) = self.disk.0.there.lock().get_mut(&self.key) {
            one.users = one.users.saturating_sub(1);
        }
        self.disk.evict();
    }
}

/// An environment's key, size and last use, if it is whole.
fn whole(path: &Path) -> Option<(Key, u64, SystemTime)> {
    let key = Key::parse(path.file_name()?.to_str()?)?;
    let about: About = serde_json::from_slice(&fs::read(path.join(ABOUT)).ok()?).ok()?;
    let used = fs::metadata(path.join(ABOUT)).ok()?.modified().ok()?;
    path.join(ENV).is_dir().then_some((key, about.bytes, used))
}

/// Takes everybody's right to write, and what is neither file, directory nor link.
fn seal(env: &Path) -> io::Result<()> {
    for entry in WalkDir::new(env) {
        let entry = entry?;
        let mode = match entry.file_type() {
            kind if kind.is_dir() => 0o555,
            kind if kind.is_file() && entry.metadata()?.permissions().mode() & 0o111 != 0 => 0o555,
            kind if kind.is_file() => 0o444,
            kind if kind.is_symlink() => continue,
            _ => {
                fs::remove_file(entry.path())?;
                continue;
            }
        };
        fs::set_permissions(entry.path(), Permissions::from_mode(mode))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bus::ids::Digest;

    use super::*;

    fn key(name: &str) -> Key {
        Key::parse(&Digest::of(name.as_bytes()).to_string()).expect("a key")
    }

    async fn made(disk: &Disk, name: &str, bytes: u64) -> io::Result<Installed> {
        let new = disk.make()?;
        fs::create_dir(new.env())?;
        fs::write(new.env().join("module.py"), name)?;
        disk.admit(new, key(name), bytes).await
    }

    fn entries(disk: &Disk) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(&disk.0.base)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        entries.collect()
    }

    #[tokio::test]
    async fn the_least_recently_used_packages_are_removed_but_none_in_use() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let disk = Disk::open(dir.path(), 100, &[])?;
        let a = made(&disk, "a", 40).await?;
        drop(made(&disk, "b", 40).await?);
        assert!(disk.hold(&key("b")).is_some(), "it fits");
        drop(made(&disk, "c", 40).await?);
        assert!(disk.hold(&key("b")).is_none(), "a is older, and used");
        assert_eq!(fs::read_to_string(a.dir().join("module.py"))?, "a");
        assert_eq!(fs::metadata(a.dir().join("module.py"))?.permissions().mode() & 0o222, 0);
        let (second, _third) = (a.clone(), made(&disk, "d", 90).await?);
        drop(a);
        assert!(disk.hold(&key("a")).is_some() && disk.hold(&key("c")).is_none());
        drop(second);
        assert!(disk.hold(&key("a")).is_none(), "the last who used it went");
        drop(made(&disk, "e", 1000).await?);
        assert!(
            disk.hold(&key("e")).is_none(),
            "what is larger than all that fits is kept while it is used only"
        );
        Ok(())
    }

    #[tokio::test]
    async fn a_new_runner_keeps_complete_packages_and_removes_others() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let place = dir.path().join("place");
        fs::create_dir(&place)?;
        let base = dir.path().join("packages");
        let disk = Disk::open(&base, 100, &[])?;
        let (a, b) = (made(&disk, "a", 60).await?, made(&disk, "b", 30).await?);
        a.note(&place)?;
        let half = disk.make()?;
        fs::write(half.work().join("half"), "made")?;
        // As if it was killed.
        std::mem::forget((a, b, half));
        fs::create_dir(base.join(key("torn").to_string()))?;
        let old = fs::File::options().write(true).open(disk.dir(&key("a")).join(ABOUT))?;
        old.set_modified(SystemTime::now() - Duration::from_secs(3600))?;
        let next = Disk::open(&base, 50, &[place])?;
        assert!(next.hold(&key("a")).is_some(), "a command still uses it");
        assert!(next.hold(&key("b")).is_none(), "too much is too much");
        assert!(
            entries(&next)?
                .iter()
                .all(|name| *name == key("a").to_string() || name.contains("gone"))
        );
        let next = Disk::open(&base, 50, &[])?;
        assert!(next.hold(&key("a")).is_none());
        Ok(())
    }
}
