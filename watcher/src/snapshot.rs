//! The fold of the log, kept in the store, so that a watcher need not read a long log from its beginning.
//!
//! There is one, under one name, and each new one takes the place of the last: so none pile up, and of two watchers the later
//! one wins, which does no harm, as each is the fold of the same log. It is a short cut and nothing more: one that is missing,
//! damaged, of another program, or of another log is not used.

use std::{borrow::Cow, sync::LazyLock, time::Instant};

use async_nats::jetstream::{
    context::GetStreamError,
    stream::{DirectGetErrorKind, Stream},
};
use bus::{
    files::{self, Files, StoreUrl},
    ids::Digest,
    stream::{
        EVENTS,
        connect::{self, Bus},
    },
};
use chrono::{DateTime, Utc};
use object_store::{ObjectStoreExt as _, PutPayload, path::Path};
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use crate::{
    act::chain,
    state::{Saved, State},
};

/// Its name in the store.
const NAME: &str = "watcher/snapshot";
/// What the fold and its snapshots are made by: where any of it differs, a snapshot is of another program, that may have read
/// less, or otherwise, of the events before it.
static MADE_BY: LazyLock<Digest> = LazyLock::new(|| {
    let sources = [
        include_str!("seen.rs"),
        include_str!("state.rs"),
        include_str!("state/saved.rs"),
        include_str!("timers.rs"),
        include_str!("windows.rs"),
        include_str!("../../bus/src/batch/event.rs"),
        include_str!("../../bus/src/job/due.rs"),
        include_str!("../../bus/src/job/event.rs"),
        include_str!("../../bus/src/job/evolve.rs"),
        include_str!("../../bus/src/worker.rs"),
    ];
    Digest::of(sources.concat().as_bytes())
});

/// A place in the log: a sequence, and what stands there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) sequence: u64,
    /// The subject of the message there.
    pub(crate) subject: String,
    /// The id that it was published with.
    pub(crate) id: Option<String>,
}

/// The first line of a snapshot; the state follows.
#[derive(Debug, Serialize, Deserialize)]
struct Header<'a> {
    made_by: Digest,
    at: DateTime<Utc>,
    #[serde(flatten)]
    place: Cow<'a, Place>,
    /// Of what follows.
    sha256: Digest,
}

/// A state, and what it is the fold of.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) state: State,
    pub(crate) sequence: u64,
    pub(crate) at: DateTime<Utc>,
    pub(crate) bytes: usize,
}

/// Why a snapshot is not used, or not kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("there is none")]
    None,
    #[error("the store is not there yet; the API or a runner makes it")]
    NoStore(#[source] GetStreamError),
    #[error("it is damaged ({0})")]
    Damaged(String),
    #[error("another version of rgrid made it")]
    Version,
    #[error("it was taken at sequence {0}, and another log, or none, stands there now")]
    OtherLog(u64),
    #[error("the log does not say what it was taken of: {0}")]
    Log(String),
    #[error(transparent)]
    Connect(#[from] connect::Error),
    #[error(transparent)]
    Files(#[from] files::Error),
    #[error("the store does not answer")]
    Store(#[source] object_store::Error),
}

/// Where snapshots are kept.
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

    /// The last snapshot, if it is one of this log and of this program.
    pub(crate) async fn load(&self) -> Result<Loaded, Error> {
        let store = self.files().await?.object_store();
        let bytes = match store.get(&Path::from(NAME)).await {
            Ok(found) => found.bytes().await.map_err(Error::Store)?,
            Err(object_store::Error::NotFound { .. }) => return Err(Error::None),
            Err(error) => return Err(Error::Store(error)),
        };
        let (place, at, saved) = read(&bytes)?;
        self.is_there(&place).await?;
        Ok(Loaded {
            state: State::restored(saved, Instant::now()),
            sequence: place.sequence,
            at,
            bytes: bytes.len(),
        })
    }

    /// Keeps a state that is the fold of the log up to this place, and returns its size in bytes.
    pub(crate) async fn save(&self, saved: &Saved, place: &Place) -> Result<usize, Error> {
        let bytes = written(saved, place)?;
        let size = bytes.len();
        let store = self.files().await?.object_store();
        store.put(&Path::from(NAME), PutPayload::from(bytes)).await.map_err(Error::Store)?;
        Ok(size)
    }

    async fn files(&self) -> Result<&Files, Error> {
        let open = async || {
            // A connection of its own: our heartbeats must not wait behind a snapshot.
            let context = match &self.url {
                StoreUrl::Nats { bucket, .. } => {
                    let js = Bus::connect(&self.nats, "watcher/files").await?.js;
                    // Who makes it decides how many copies there are of every user's files, which is none of the watcher's business.
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

    /// Whether the log still has what stood at this place.
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

fn written(saved: &Saved, place: &Place) -> Result<Vec<u8>, Error> {
    let damaged = |error: serde_json::Error| Error::Damaged(error.to_string());
    let body = serde_json::to_vec(saved).map_err(damaged)?;
    let header = Header {
        made_by: *MADE_BY,
        at: Utc::now(),
        place: Cow::Borrowed(place),
        sha256: Digest::of(&body),
    };
    let mut bytes = serde_json::to_vec(&header).map_err(damaged)?;
    bytes.reserve_exact(body.len() + 1);
    bytes.push(b'\n');
    bytes.extend(body);
    Ok(bytes)
}

fn read(bytes: &[u8]) -> Result<(Place, DateTime<Utc>, Saved), Error> {
    let damaged = |error: serde_json::Error| Error::Damaged(error.to_string());
    let end = memchr::memchr(b'\n', bytes).ok_or_else(|| Error::Damaged("it ends in its first line".to_owned()))?;
    let (header, body) = (&bytes[..end], &bytes[end + 1..]);
    let header: Header<'_> = serde_json::from_slice(header).map_err(damaged)?;
    if header.made_by != *MADE_BY {
        return Err(Error::Version);
    }
    if Digest::of(body) != header.sha256 {
        return Err(Error::Damaged("its content does not match its SHA-256".to_owned()));
    }
    let saved = serde_json::from_slice(body).map_err(damaged)?;
    Ok((header.place.into_owned(), header.at, saved))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place {
            sequence: 7,
            subject: "rgrid.evt.x".to_owned(),
            id: Some("a".to_owned()),
        }
    }

    #[test]
    fn what_is_written_is_read_and_what_is_damaged_is_not() {
        let bytes = written(&Saved::default(), &place()).expect("JSON");
        let (found, _, saved) = read(&bytes).expect("it is whole");
        assert_eq!((found, saved), (place(), Saved::default()));
        let last = bytes.len() - 1;
        let damaged: [Vec<u8>; 4] = [
            bytes[..last].to_vec(),
            [&bytes[..last], b" "].concat(),
            bytes[..20].to_vec(),
            Vec::new(),
        ];
        for bytes in damaged {
            assert!(matches!(read(&bytes), Err(Error::Damaged(_))));
        }
        let text = String::from_utf8(bytes).expect("text");
        let other = text.replacen(&MADE_BY.to_string(), &Digest::of(b"older").to_string(), 1);
        assert!(matches!(read(other.as_bytes()), Err(Error::Version)));
    }
}
