//! What is kept of the contents that begin with one byte.

use std::{
    collections::HashMap,
    fs::{self, File, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use bus::ids::Digest;
use tracing::warn;

use super::{counts, ms, now_ms};

/// How much younger a use must be than the one that is noted on the disk, in milliseconds: the order outlives the runner, about.
const NOTED_MS: u64 = 10 * 60 * 1000;

/// Contents that begin with one byte.
#[derive(Debug, Default)]
pub(super) struct Shard {
    pub(super) entries: HashMap<Digest, Entry>,
    pub(super) is_read: bool,
}

/// A content that is kept.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) size: u64,
    /// When it was used last, in milliseconds since 1970.
    pub(super) used_ms: u64,
    /// The same as its file's `mtime` tells it, for the next runner.
    noted_ms: u64,
    /// How its file was when it was last known to be what it is called.
    pub(super) verified: Option<Version>,
}

/// A file's inode and `ctime`: as long as they are the same, nothing in the file has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Version {
    inode: u64,
    changed: (i64, i64),
}

impl Version {
    pub(super) fn of(status: &Metadata) -> Self {
        Self {
            inode: status.ino(),
            changed: (status.ctime(), status.ctime_nsec()),
        }
    }
}

impl Entry {
    pub(super) fn of(status: &Metadata, verified: Option<Version>) -> Self {
        let used_ms = status.modified().map_or(0, ms);
        Self {
            size: status.len(),
            used_ms,
            noted_ms: used_ms,
            verified,
        }
    }

    /// Notes on the disk, now and then, that it was used. That moves its `ctime`, by which it stays as verified as it was.
    pub(super) fn note_use(&mut self, file: &File) {
        self.used_ms = now_ms();
        if self.used_ms.saturating_sub(self.noted_ms) < NOTED_MS {
            return;
        }
        self.noted_ms = self.used_ms;
        let version = || file.metadata().map(|status| Version::of(&status)).ok();
        let was_verified = self.verified.is_some() && version() == self.verified;
        if let Err(error) = file.set_modified(SystemTime::now()) {
            warn!("the use of a kept input is not noted: {error}");
        }
        self.verified = version().filter(|_| was_verified);
    }
}

impl Shard {
    /// Reads what an earlier runner kept; what it had not fetched to its end is removed.
    pub(super) fn read(&mut self, dir: &Path, number: u8, counted: &AtomicU64) {
        self.is_read = true;
        let found = match fs::read_dir(dir) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return warn!("cannot read which inputs are kept in {}: {error}", dir.display()),
        };
        for found in found.flatten() {
            let name = found.file_name();
            let digest = name.to_str().and_then(|name| name.parse::<Digest>().ok());
            let digest = digest.filter(|digest| digest.as_bytes()[0] == number);
            match (digest, found.metadata()) {
                (Some(digest), Ok(status)) if status.is_file() => {
                    self.insert(digest, Entry::of(&status, None), counted);
                }
                _ => {
                    if let Err(error) = fs::remove_file(found.path()) {
                        warn!("cannot remove {}: {error}", found.path().display());
                    }
                }
            }
        }
    }

    pub(super) fn insert(&mut self, digest: Digest, entry: Entry, counted: &AtomicU64) {
        counted.fetch_add(counts(entry.size), Ordering::Relaxed);
        if let Some(before) = self.entries.insert(digest, entry) {
            counted.fetch_sub(counts(before.size), Ordering::Relaxed);
        }
    }

    /// Says whether it was there.
    pub(super) fn remove(&mut self, digest: &Digest, counted: &AtomicU64) -> bool {
        let Some(entry) = self.entries.remove(digest) else {
            return false;
        };
        counted.fetch_sub(counts(entry.size), Ordering::Relaxed);
        true
    }
}
