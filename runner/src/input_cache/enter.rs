//! How a content enters: fetched once, however many jobs wait for it, and counted before it comes.

use std::{
    fs, io,
    sync::{Arc, atomic::Ordering},
};

use bus::ids::Digest;
use store::Files;
use tokio::{fs::DirBuilder, sync::OwnedMutexGuard};
use tracing::warn;

use super::{
    InputCache, counts,
    shard::{Entry, Version},
};
use crate::{errors::chain, patience::patiently};

/// A content that is on the disk, and whose turn it is to be staged first by who fetched it.
#[derive(Debug)]
pub(crate) struct Fetched {
    flight: Flight,
    /// Nothing where another job fetched it.
    room: Option<Room>,
}

/// The right to fetch a content, until it is dropped.
#[derive(Debug)]
pub(super) struct Flight {
    cache: InputCache,
    digest: Digest,
    turn: Arc<tokio::sync::Mutex<bool>>,
    guard: Option<OwnedMutexGuard<bool>>,
}

/// Bytes that are counted before they come, until it is dropped.
#[derive(Debug)]
struct Room {
    cache: InputCache,
    bytes: u64,
}

impl InputCache {
    /// Fetches a content, verified; or waits until another job has. Nothing where it cannot be kept: because it is too large, or could not
    /// be written here, or because the job that was waited for could not fetch it.
    ///
    /// # Errors
    /// What the store says.
    pub(crate) async fn fetch(&self, files: &Files, digest: &Digest, size: u64) -> Result<Option<Fetched>, store::Error> {
        if counts(size) > self.0.limit.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let Some(mut flight) = self.turn(digest).await else {
            return Ok(None);
        };
        if self.shard_of(digest).entries.contains_key(digest) {
            return Ok(Some(Fetched { flight, room: None }));
        }
        let room = self.reserve(counts(size)).await;
        let path = self.path(digest);
        if let Err(error) = self.make_dir(digest).await {
            warn!("cannot keep the input {digest}: {error}");
            return Ok(None);
        }
        match patiently("fetch an input", || files.get_file(digest, &path, false)).await {
            Ok(_) => Ok(Some(Fetched { flight, room: Some(room) })),
            Err(error) => {
                flight.failed();
                let store::Error::Io { .. } = &error else {
                    return Err(error);
                };
                warn!("cannot keep the input {digest}: {}", chain(&error));
                Ok(None)
            }
        }
    }

    /// Makes the directory of a content, where it may be missing: 256 of them for each worker are too many to be made unused.
    async fn make_dir(&self, digest: &Digest) -> io::Result<()> {
        let number = digest.as_bytes()[0];
        if !self.shard(number).entries.is_empty() {
            return Ok(());
        }
        match DirBuilder::new().mode(0o700).create(self.dir(number)).await {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    /// Waits for the turn to fetch a content; nothing where the one before failed, who tried for minutes.
    pub(super) async fn turn(&self, digest: &Digest) -> Option<Flight> {
        let turn = Arc::clone(self.0.flights.lock().entry(*digest).or_default());
        let mut flight = Flight {
            cache: self.clone(),
            digest: *digest,
            turn: Arc::clone(&turn),
            guard: None,
        };
        let guard = turn.lock_owned().await;
        let failed = *guard;
        flight.guard = Some(guard);
        (!failed).then_some(flight)
    }

    async fn reserve(&self, bytes: u64) -> Room {
        let counted = self.0.counted.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let room = Room {
            cache: self.clone(),
            bytes,
        };
        if counted > self.0.limit.load(Ordering::Relaxed) {
            let cache = self.clone();
            // Where the thread fails, the next look at the disk trims.
            let _failed = tokio::task::spawn_blocking(move || cache.trim()).await;
        }
        room
    }
}

impl Fetched {
    /// Has it be kept. To be called where a thread may wait for the disk.
    pub(crate) fn admit(self) {
        let Self { flight, room } = self;
        let Some(room) = room else { return };
        let cache = &flight.cache;
        match fs::symlink_metadata(cache.path(&flight.digest)) {
            Ok(status) => {
                let verified = cache.0.telling.then(|| Version::of(&status));
                let entry = Entry::of(&status, verified);
                cache.shard_of(&flight.digest).insert(flight.digest, entry, &cache.0.counted);
            }
            Err(error) => warn!("the kept input {} is gone: {error}", flight.digest),
        }
        drop(room);
        // It may be larger than it was said to be.
        cache.trim();
    }
}

impl Flight {
    /// Lets those who wait know that waiting is in vain.
    pub(super) fn failed(&mut self) {
        if let Some(guard) = &mut self.guard {
            **guard = true;
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        drop(self.guard.take());
        let mut flights = self.cache.0.flights.lock();
        // The map's, and ours: nobody else waits.
        if Arc::strong_count(&self.turn) == 2 {
            flights.remove(&self.digest);
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.cache.0.counted.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
