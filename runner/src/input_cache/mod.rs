//! Contents of inputs that this worker keeps, so that the next job that names them need not fetch them: bounded in bytes, the longest
//! unused go first. They survive the runner.
//!
//! `inputs/<first byte>/<SHA-256>` in the work directory, which only the runner's user may enter. A job never has such a file itself: it
//! gets a clone of it (which shares the blocks until either is written to) where the file system can, else a copy; never a hard link, by
//! which a job could change what others get. So a content can be removed at any time, also while it is copied.
//!
//! A content is verified when it enters, and again when it is used first after a start. After that, its inode's `ctime`, which moves with
//! every change and which no program can set, proves it unchanged; where a file system does not tell, each use verifies it. What is found
//! damaged is removed and fetched again. This guards against accidents: who runs as the runner's own user can do anything to the runner.

mod copy;
mod enter;
mod shard;

use std::{
    collections::HashMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bus::ids::Digest;
use parking_lot::{Mutex, MutexGuard};
use tracing::{info, warn};

use self::shard::{Shard, Version};
use crate::{beneath::Stop, inputs::tells_all, spread::spread};

/// What a file counts at least, in bytes: ext4 has an inode for each 16 KiB unless told otherwise, and small files use those up first.
const LEAST: u64 = 16 << 10;
/// How often the free disk is looked at: as it fills up, less is kept.
const LOOK: Duration = Duration::from_secs(5);

/// Contents of inputs on disk. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct InputCache(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    base: PathBuf,
    max_bytes: u64,
    /// How many bytes may be kept now: less than `max_bytes` where the disk is nearly full.
    limit: AtomicU64,
    /// What is kept and what is on its way count, in bytes.
    counted: AtomicU64,
    /// By the first byte of the digest.
    shards: Vec<Mutex<Shard>>,
    /// Whether every change of a file here shows in its status.
    telling: bool,
    /// Whether files can be cloned here, as far as it is known.
    clones: AtomicBool,
    /// Contents that are being fetched, so that others wait for them; `true` in one that could not be.
    flights: Mutex<HashMap<Digest, Arc<tokio::sync::Mutex<bool>>>>,
    trimming: Mutex<()>,
}

impl InputCache {
    /// Contents below a work directory, at most `max_bytes` of them, and never more than the disk has free beside them.
    ///
    /// # Errors
    /// If the directory cannot be used, or is not this user's own.
    pub(crate) fn below(work_dir: &Path, max_bytes: u64) -> io::Result<Self> {
        let base = work_dir.join("inputs");
        match DirBuilder::new().mode(0o700).create(&base) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let status = fs::symlink_metadata(&base)?;
        if !status.is_dir() || status.uid() != rustix::process::geteuid().as_raw() {
            return Err(io::Error::other(format!(
                "{} is not a directory of this user's own; remove it",
                base.display()
            )));
        }
        fs::set_permissions(&base, fs::Permissions::from_mode(0o700))?;
        let base = base.canonicalize()?;
        spread(&base);
        let cache = Self(Arc::new(Inner {
            telling: tells_all(&base),
            max_bytes,
            limit: AtomicU64::new(0),
            counted: AtomicU64::new(0),
            shards: (0..=u8::MAX).map(|_| Mutex::default()).collect(),
            clones: AtomicBool::new(true),
            flights: Mutex::default(),
            trimming: Mutex::default(),
            base,
        }));
        cache.look_at_disk();
        Ok(cache)
    }

    /// Reads what an earlier runner kept, and gives room to others that need the disk, for as long as it is polled.
    pub(crate) async fn tend(self) {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut all_read = false;
        loop {
            ticks.tick().await;
            let cache = self.clone();
            let tend = move || {
                if !all_read {
                    (0..=u8::MAX).for_each(|number| drop(cache.shard(number)));
                }
                cache.look_at_disk();
                cache.trim();
            };
            all_read |= tokio::task::spawn_blocking(tend).await.is_ok();
        }
    }

    /// Whether anything may be kept at all.
    pub(crate) fn is_off(&self) -> bool {
        self.0.max_bytes == 0
    }

    /// Writes a content to a new file, which is the caller's own; nothing where it is not kept, and nothing stands there then. To be called
    /// where a thread may wait for the disk.
    ///
    /// # Errors
    /// If the file cannot be made, or the work is stopped.
    pub(crate) fn lay(&self, digest: &Digest, to: &Path, stop: &Stop) -> io::Result<Option<File>> {
        let Some((kept, before, proven)) = self.open(digest) else {
            return Ok(None);
        };
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(to)?;
        let made = copy::copy(&kept, &file, &self.0.clones, proven, stop);
        let is_it = match &made {
            Ok(None) => true,
            Ok(Some(found)) => found == digest,
            Err(_) => false,
        };
        if is_it && self.is_unchanged(digest, &kept, before, proven) {
            return Ok(Some(file));
        }
        drop(file);
        fs::remove_file(to)?;
        match made {
            Err(error) if stop.is_stopped() => Err(error),
            Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                // The job's own files come first.
                self.trim_to(0);
                Ok(None)
            }
            Err(error) => {
                self.forget(digest, &format!("cannot be copied: {error}"));
                Ok(None)
            }
            Ok(_) if is_it => Ok(None),
            Ok(_) => {
                self.forget(digest, "is damaged");
                Ok(None)
            }
        }
    }

    /// A content that is kept: its file, how that is, and whether that proves it to be what it is called.
    fn open(&self, digest: &Digest) -> Option<(File, Version, bool)> {
        let verified = {
            let mut shard = self.shard_of(digest);
            let entry = shard.entries.get_mut(digest)?;
            entry.used_ms = now_ms();
            entry.verified
        };
        let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(self.path(digest));
        let status = opened.and_then(|file| {
            let status = file.metadata()?;
            Ok((status.is_file(), Version::of(&status), file))
        });
        match status {
            Ok((true, version, file)) => Some((file, version, verified == Some(version))),
            Ok((false, ..)) => {
                self.forget(digest, "is not a file");
                None
            }
            // Somebody else cleared up, or removed it as the longest unused a moment ago.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.shard_of(digest).remove(digest, &self.0.counted);
                None
            }
            Err(error) => {
                self.forget(digest, &format!("cannot be read: {error}"));
                None
            }
        }
    }

    /// Whether a content that was just copied did not change meanwhile; notes that it was used and, if it was read as a whole, verified.
    fn is_unchanged(&self, digest: &Digest, kept: &File, before: Version, proven: bool) -> bool {
        let mut shard = self.shard_of(digest);
        let Ok(now) = kept.metadata().map(|status| Version::of(&status)) else {
            return false;
        };
        let Some(entry) = shard.entries.get_mut(digest) else {
            // It was removed meanwhile, which moves its `ctime`: a copy that was not read as a whole proves nothing.
            return !proven;
        };
        // Another use may have noted its time meanwhile, and the version with it.
        let unchanged = now == before || entry.verified == Some(now);
        if !proven && unchanged && self.0.telling {
            entry.verified = Some(now);
        }
        entry.note_use(kept);
        unchanged || !proven
    }

    /// Removes a content that is of no use, and says why.
    fn forget(&self, digest: &Digest, why: &str) {
        warn!("the kept input {digest} {why}; it is removed, and fetched again where it is needed");
        if self.shard_of(digest).remove(digest, &self.0.counted) {
            self.remove_file(digest);
        }
    }

    fn remove_file(&self, digest: &Digest) {
        match fs::remove_file(self.path(digest)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => warn!("cannot remove the kept input {digest}: {error}"),
            _ => {}
        }
    }

    /// Removes the longest unused where too much is kept; somewhat more than that, so that it is not to be done for each that comes.
    fn trim(&self) {
        let limit = self.0.limit.load(Ordering::Relaxed);
        if self.0.counted.load(Ordering::Relaxed) > limit {
            self.trim_to(limit - limit / 16);
        }
    }

    fn trim_to(&self, target: u64) {
        let _alone = self.0.trimming.lock();
        let mut all = Vec::new();
        for number in 0..=u8::MAX {
            all.extend(self.shard(number).entries.iter().map(|(digest, entry)| (entry.used_ms, *digest)));
        }
        all.sort_unstable_by_key(|(used_ms, _)| *used_ms);
        let mut removed = 0_u64;
        for (_, digest) in all {
            if self.0.counted.load(Ordering::Relaxed) <= target {
                break;
            }
            if self.shard_of(&digest).remove(&digest, &self.0.counted) {
                self.remove_file(&digest);
                removed += 1;
            }
        }
        if removed > 0 {
            info!("removed {removed} kept inputs that were not used for the longest time");
        }
    }

    fn look_at_disk(&self) {
        let counted = self.0.counted.load(Ordering::Relaxed);
        let limit = match rustix::fs::statvfs(&self.0.base) {
            Ok(disk) => limit(self.0.max_bytes, disk.f_bavail.saturating_mul(disk.f_frsize), counted),
            // Nothing is known of the disk: nothing is kept on it.
            Err(_) => 0,
        };
        self.0.limit.store(limit, Ordering::Relaxed);
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.dir(digest.as_bytes()[0]).join(digest.to_string())
    }

    fn dir(&self, number: u8) -> PathBuf {
        self.0.base.join(format!("{number:02x}"))
    }

    fn shard_of(&self, digest: &Digest) -> MutexGuard<'_, Shard> {
        self.shard(digest.as_bytes()[0])
    }

    /// What is kept of the contents that begin with this byte; it is read from the disk at its first use.
    fn shard(&self, number: u8) -> MutexGuard<'_, Shard> {
        let mut shard = self.0.shards[usize::from(number)].lock();
        if !shard.is_read {
            shard.read(&self.dir(number), number, &self.0.counted);
        }
        shard
    }
}

/// How many bytes may be kept: what was asked for, and no more than is left free beside it.
fn limit(max_bytes: u64, free: u64, counted: u64) -> u64 {
    max_bytes.min(free.saturating_add(counted) / 2)
}

/// What a file of this size counts.
fn counts(size: u64) -> u64 {
    size.max(LEAST)
}

fn now_ms() -> u64 {
    ms(SystemTime::now())
}

fn ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
