//! Snapshots: the fold of the log, saved in the store, so that a watcher need not read a long log from its beginning.
//!
//! There is one snapshot, under one name, and each new one replaces the last. Of two watchers, the later one wins; that does no harm,
//! since each snapshot is the fold of the same log. A snapshot that is missing, damaged, of another format, or of another log is not
//! used: the whole log is read instead.

use std::{borrow::Cow, sync::LazyLock, time::Instant};

use async_nats::jetstream::{
    context::GetStreamError,
    stream::{DirectGetErrorKind, Stream},
};
use bus::{
    ids::Digest,
    log::{
        EVENTS,
        connect::{self, Bus},
    },
};
use chrono::{DateTime, Utc};
use object_store::{ObjectStoreExt as _, PutPayload, path::Path};
use serde::{Deserialize, Serialize};
use store::{Files, StoreUrl};
use tokio::sync::OnceCell;

use crate::{
    error::chain,
    state::{Saved, State},
};

/// Its name in the store.
const NAME: &str = "watcher/snapshot";
/// The version of the fold and of the format. Raise it with every change of the format, and of what an event that older programs also
/// read changes in the fold: a snapshot of another format is not used, and the whole log is read. `fixtures/` holds a log and its
/// snapshot in this format; the test that compares them fails if the number is not raised.
const FORMAT: u32 = 1;
/// A digest of the sources of the fold. It matters only if the fold skipped events that it could not read: another program may read
/// them.
static PROGRAM: LazyLock<Digest> = LazyLock::new(|| {
    let sources = [
        include_str!("observation.rs"),
        include_str!("state.rs"),
        include_str!("state/saved.rs"),
        include_str!("timers.rs"),
        include_str!("windows.rs"),
        include_str!("../../bus/src/batch/event.rs"),
        include_str!("../../bus/src/job/due.rs"),
        include_str!("../../bus/src/job/event.rs"),
        include_str!("../../bus/src/job/evolve.rs"),
        include_str!("../../bus/src/worker/mod.rs"),
    ];
    Digest::of(sources.concat().as_bytes())
});

/// A place in the log: a sequence, and the message there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) sequence: u64,
    /// The subject of the message there.
    pub(crate) subject: String,
    /// The message id.
    pub(crate) id: Option<String>,
}

/// The first line of a snapshot; the state follows.
#[derive(Debug, Serialize, Deserialize)]
struct Header<'a> {
    /// 0: written by a program before this field existed.
    #[serde(default)]
    format: u32,
    /// The program, if it skipped events that it could not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    skipped_by: Option<Digest>,
    at: DateTime<Utc>,
    #[serde(flatten)]
    place: Cow<'a, Place>,
    /// The digest of the rest.
    sha256: Digest,
}

/// A loaded state, and the part of the log that it is the fold of.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) state: State,
    pub(crate) sequence: u64,
    pub(crate) at: DateTime<Utc>,
    pub(crate) bytes: usize,
    /// Whether events were skipped that could not be read.
    pub(crate) skipped: bool,
}

/// Why a snapshot is not used, or not saved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("there is none")]
    None,
    #[error("the store is not there yet; the API or a runner makes it")]
    NoStore(#[source] GetStreamError),
    #[error("it is damaged ({0})")]
    Damaged(String),
    #[error("another version of rgrid made it, in format {0}")]
    Format(u32),
    #[error("another version of rgrid made it, and skipped events that it could not read")]
    Skipped,
    #[error("it was taken at sequence {0}, and another log, or none, stands there now")]
    OtherLog(u64),
    #[error("the log does not say what it was taken of: {0}")]
    Log(String),
    #[error(transparent)]
    Connect(#[from] connect::Error),
    #[error(transparent)]
    Files(#[from] store::Error),
    #[error("the store does not answer")]
    Store(#[source] object_store::Error),
}

/// The snapshots in a store.
#[derive(Debug)]
pub(crate) struct Snapshots {
    bus: Bus,
    nats: String,
    url: StoreUrl,
    files: OnceCell<Files>,
}

impl Snapshots {
    pub(crate) fn new(bus: &Bus, nats: &str, url: StoreUrl) -> Self {
        Self {
            bus: bus.clone(),
            nats: nats.to_owned(),
            url,
            files: OnceCell::new(),
        }
    }

    /// The last snapshot, if this program can use it and it is of this log.
    pub(crate) async fn load(&self) -> Result<Loaded, Error> {
        let store = self.files().await?.object_store();
        let bytes = match store.get(&Path::from(NAME)).await {
            Ok(found) => found.bytes().await.map_err(Error::Store)?,
            Err(object_store::Error::NotFound { .. }) => return Err(Error::None),
            Err(error) => return Err(Error::Store(error)),
        };
        let (place, at, skipped, saved) = read(&bytes)?;
        self.is_there(&place).await?;
        Ok(Loaded {
            state: State::restored(saved, Instant::now()),
            sequence: place.sequence,
            at,
            bytes: bytes.len(),
            skipped,
        })
    }

    /// Saves a state that is the fold of the log up to this place, and returns its size in bytes. `skipped`: events were skipped that
    /// could not be read.
    pub(crate) async fn save(&self, saved: &Saved, place: &Place, skipped: bool) -> Result<usize, Error> {
        let bytes = written(saved, place, skipped, Utc::now())?;
        let size = bytes.len();
        let store = self.files().await?.object_store();
        store.put(&Path::from(NAME), PutPayload::from(bytes)).await.map_err(Error::Store)?;
        Ok(size)
    }

    async fn files(&self) -> Result<&Files, Error> {
        let open = async || {
            // A connection of its own: the watcher's heartbeats must not wait behind a snapshot.
            let context = match &self.url {
                StoreUrl::Nats { bucket, .. } => {
                    let js = Bus::connect(&self.nats, "watcher/files").await?.js;
                    // The program that creates the bucket decides how many copies of every user's files there are. The watcher must
                    // not create it.
                    match js.get_stream(format!("OBJ_{bucket}")).await {
                        Ok(_) => Some(js),
                        Err(error) => return Err(Error::NoStore(error)),
                    }
                }
                StoreUrl::S3 { .. } | StoreUrl::File { .. } => None,
            };
            Ok::<_, Error>(Files::open(&self.url, context).await?)
        };
        self.files.get_or_try_init(open).await
    }

    /// Checks that the log still has the same message at this place.
    async fn is_there(&self, place: &Place) -> Result<(), Error> {
        let log = |error: &dyn std::error::Error| Error::Log(chain(error));
        let stream: Stream<()> = self.bus.js.get_stream_no_info(EVENTS).await.map_err(|error| log(&error))?;
        let found = match stream.direct_get(place.sequence).await {
            Ok(message) => message,
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => return Err(Error::OtherLog(place.sequence)),
            Err(error) => return Err(log(&error)),
        };
        let id = found.headers.get(async_nats::header::NATS_MESSAGE_ID).map(ToString::to_string);
        if found.subject.as_str() == place.subject && id == place.id {
            Ok(())
        } else {
            Err(Error::OtherLog(place.sequence))
        }
    }
}

fn written(saved: &Saved, place: &Place, skipped: bool, at: DateTime<Utc>) -> Result<Vec<u8>, Error> {
    let damaged = |error: serde_json::Error| Error::Damaged(error.to_string());
    let body = serde_json::to_vec(saved).map_err(damaged)?;
    let header = Header {
        format: FORMAT,
        skipped_by: skipped.then(|| *PROGRAM),
        at,
        place: Cow::Borrowed(place),
        sha256: Digest::of(&body),
    };
    let mut bytes = serde_json::to_vec(&header).map_err(damaged)?;
    bytes.reserve_exact(body.len() + 1);
    bytes.push(b'\n');
    bytes.extend(body);
    Ok(bytes)
}

fn read(bytes: &[u8]) -> Result<(Place, DateTime<Utc>, bool, Saved), Error> {
    let damaged = |error: serde_json::Error| Error::Damaged(error.to_string());
    let end = memchr::memchr(b'\n', bytes).ok_or_else(|| Error::Damaged("it ends in its first line".to_owned()))?;
    let (header, body) = (&bytes[..end], &bytes[end + 1..]);
    let header: Header<'_> = serde_json::from_slice(header).map_err(damaged)?;
    if header.format != FORMAT {
        return Err(Error::Format(header.format));
    }
    if header.skipped_by.is_some_and(|program| program != *PROGRAM) {
        return Err(Error::Skipped);
    }
    if Digest::of(body) != header.sha256 {
        return Err(Error::Damaged("its content does not match its SHA-256".to_owned()));
    }
    let saved = serde_json::from_slice(body).map_err(damaged)?;
    Ok((header.place.into_owned(), header.at, header.skipped_by.is_some(), saved))
}

#[cfg(test)]
mod tests;
