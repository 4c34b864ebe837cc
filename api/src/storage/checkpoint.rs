//! The fold of the log as a pass left it, kept in the store, so that the next one reads only what came after it.
//!
//! It is an input to deletion: what it lacks is removed. So it is used only if this very program made it, a holder of the grid's key
//! signed it, and the log that is read is the one that it was made of; and the log must be whole, as without it
//! ([`bus::stream::whole`]). In every other case the log is read from its beginning.

use std::{
    io::{BufReader, Write as _},
    sync::{Arc, LazyLock},
};

use bus::{
    files::{self, Files},
    ids::Digest,
    stream::inspect,
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use hmac::{Hmac, Mac as _};
use object_store::ObjectStoreExt as _;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::{fold::Fold, keeping::Moment};
use crate::auth::Key;

/// Where it stands in the store. There is one: each takes the place of the last.
pub(super) const NAME: &str = "collector/checkpoint";
/// The largest that is kept, in bytes: of some 15 million jobs.
const MAX_BYTES: u64 = 1 << 30;
/// What is signed with the grid's key begins so, so that nothing else that is signed with it can be taken for a checkpoint.
const PURPOSE: &[u8] = b"rgrid collector checkpoint\n";
/// The program: what it makes of an event, and how it writes that down. Another one may find more in the same events, so that each
/// reads the log once. More is listed here than must be.
static PROGRAM: LazyLock<Digest> = LazyLock::new(|| {
    let sources = [
        include_str!("checkpoint.rs"),
        include_str!("fold.rs"),
        include_str!("fold/saved.rs"),
        include_str!("fold/standing.rs"),
        include_str!("fold/terms.rs"),
        include_str!("reading.rs"),
        include_str!("../../../bus/src/envelope.rs"),
        include_str!("../../../bus/src/ids.rs"),
        include_str!("../../../bus/src/image.rs"),
        include_str!("../../../bus/src/batch/event.rs"),
        include_str!("../../../bus/src/job/mod.rs"),
        include_str!("../../../bus/src/job/event.rs"),
        include_str!("../../../bus/src/job/evolve.rs"),
        include_str!("../../../bus/src/policy.rs"),
        include_str!("../../../bus/src/runtimes.rs"),
        include_str!("../../../bus/src/spec.rs"),
        include_str!("../../../bus/src/stream/read.rs"),
        include_str!("../../../bus/src/subjects.rs"),
        include_str!("../../../bus/src/worker.rs"),
    ];
    Digest::of(sources.concat().as_bytes())
});

/// The first line of a checkpoint. The second is its signature, and the fold follows, compressed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    program: Digest,
    /// When it was made; for people.
    at: DateTime<Utc>,
    /// When the log was made, in nanoseconds since 1970.
    log_made: String,
    /// The last event that it is the fold of, and what stands there.
    sequence: u64,
    event: Digest,
}

/// What every program's header says.
#[derive(Deserialize)]
struct Maker {
    program: Digest,
}

/// Why a checkpoint is not used, or not kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("there is none")]
    None,
    #[error("it is damaged: {0}")]
    Damaged(String),
    #[error("it is not signed with this grid's key: the key was changed, or somebody else wrote it")]
    Unsigned,
    #[error("another version of rgrid made it")]
    Program,
    #[error("it is of another log, or of what was lost of this one: another event, or none, stands at sequence {0}")]
    OtherLog(u64),
    #[error("it has forgotten inputs that are to be kept still")]
    Forgotten,
    #[error("it is too large ({0} bytes)")]
    TooLarge(u64),
    #[error("the log does not say what stands there")]
    Log(#[source] bus::stream::setup::Error),
    #[error(transparent)]
    Files(#[from] files::Error),
    #[error("the store does not answer")]
    Store(#[source] object_store::Error),
    #[error("it could not be worked on to its end")]
    Cancelled,
}

/// Where checkpoints are kept, and what is checked of them.
#[derive(Clone, Copy)]
pub(super) struct Checkpoints<'a> {
    pub(super) js: &'a async_nats::jetstream::Context,
    pub(super) files: &'a Files,
    pub(super) key: Key,
    /// When the log was made, in nanoseconds since 1970.
    pub(super) log_made: i128,
}

impl Checkpoints<'_> {
    /// The fold of the log up to a sequence, if one is kept that holds for this log, whose `last` sequence this is, and at this moment.
    pub(super) async fn load(&self, at: &Moment, last: u64) -> Result<(Fold, u64), Error> {
        let found = match self.files.object_store().get(&NAME.into()).await {
            Ok(found) if found.meta.size > MAX_BYTES => return Err(Error::TooLarge(found.meta.size)),
            Ok(found) => found.bytes().await.map_err(Error::Store)?,
            Err(object_store::Error::NotFound { .. }) => return Err(Error::None),
            Err(error) => return Err(Error::Store(error)),
        };
        let key = self.key;
        let (header, body) = opened(&found, key)?;
        drop(found);
        let is_of_it = header.log_made == self.log_made.to_string() && header.sequence <= last;
        if !is_of_it || self.event(header.sequence).await? != Some(header.event) {
            return Err(Error::OtherLog(header.sequence));
        }
        let fold = tokio::task::spawn_blocking(move || unpacked(&body)).await;
        let fold = fold.map_err(|_| Error::Cancelled)??;
        if !fold.suffices(at) {
            return Err(Error::Forgotten);
        }
        Ok((fold, header.sequence))
    }

    /// Keeps the fold of the log up to a sequence.
    pub(super) async fn save(&self, fold: Arc<Fold>, sequence: u64) -> Result<(), Error> {
        let header = Header {
            program: *PROGRAM,
            at: Utc::now(),
            log_made: self.log_made.to_string(),
            sequence,
            event: self.event(sequence).await?.ok_or(Error::OtherLog(sequence))?,
        };
        let key = self.key;
        let parts = tokio::task::spawn_blocking(move || packed(&fold, &header, key)).await;
        let parts = parts.map_err(|_| Error::Cancelled)??;
        let size = parts.iter().map(|part| part.len() as u64).sum();
        if size > MAX_BYTES {
            return Err(Error::TooLarge(size));
        }
        let (store, name) = (self.files.object_store(), NAME.into());
        store.put(&name, parts.into_iter().collect()).await.map(drop).map_err(Error::Store)
    }

    async fn event(&self, sequence: u64) -> Result<Option<Digest>, Error> {
        inspect::fingerprint_at(self.js, sequence).await.map_err(Error::Log)
    }
}

/// What a checkpoint says of itself, and its fold, still compressed; nothing of it is looked at that is not signed.
fn opened(bytes: &Bytes, key: Key) -> Result<(Header, Bytes), Error> {
    let cut = |from: usize| {
        let end = memchr::memchr(b'\n', &bytes[from..]).ok_or_else(|| Error::Damaged("it ends in its head".to_owned()))?;
        Ok::<_, Error>((bytes.slice(from..from + end), from + end + 1))
    };
    let (header, next) = cut(0)?;
    let (signature, next) = cut(next)?;
    let body = bytes.slice(next..);
    let signature = hex::decode(&signature).map_err(|_| Error::Unsigned)?;
    signed(&header, &body, key).verify_slice(&signature).map_err(|_| Error::Unsigned)?;
    let unread = |error: serde_json::Error| Error::Damaged(error.to_string());
    // The program first: another one's header may say other things.
    let maker: Maker = serde_json::from_slice(&header).map_err(unread)?;
    if maker.program != *PROGRAM {
        return Err(Error::Program);
    }
    Ok((serde_json::from_slice(&header).map_err(unread)?, body))
}

fn unpacked(body: &[u8]) -> Result<Fold, Error> {
    let damaged = |error: std::io::Error| Error::Damaged(error.to_string());
    let text = zstd::stream::read::Decoder::new(body).map_err(damaged)?;
    Fold::read(BufReader::new(text)).map_err(damaged)
}

/// Header, signature and fold.
fn packed(fold: &Fold, header: &Header, key: Key) -> Result<[Bytes; 2], Error> {
    let damaged = |error: std::io::Error| Error::Damaged(error.to_string());
    let mut text = zstd::stream::write::Encoder::new(Vec::new(), 1).map_err(damaged)?;
    {
        let mut buffered = std::io::BufWriter::new(&mut text);
        fold.write(&mut buffered).map_err(damaged)?;
        buffered.flush().map_err(damaged)?;
    }
    let body = text.finish().map_err(damaged)?;
    let header = serde_json::to_vec(header).map_err(|error| Error::Damaged(error.to_string()))?;
    let signature = hex::encode(signed(&header, &body, key).finalize().into_bytes());
    let head = [&header, &b"\n"[..], signature.as_bytes(), b"\n"].concat();
    Ok([head.into(), body.into()])
}

/// What signs a checkpoint: HMAC-SHA256 with the grid's key.
fn signed(header: &[u8], body: &[u8], key: Key) -> Hmac<Sha256> {
    let mut mac = key.signs();
    for part in [PURPOSE, header, b"\n", body] {
        mac.update(part);
    }
    mac
}

#[cfg(test)]
mod tests;
