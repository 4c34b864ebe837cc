//! The stream of a bucket: its configuration, the objects' metadata, and the purging of chunks.

use std::time::Duration;

use async_nats::jetstream::{
    self, ErrorCode,
    context::{GetStreamErrorKind, PublishErrorKind},
    message::PublishMessage,
    stream::{DirectGetErrorKind, LastRawMessageErrorKind, Stream},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE};
use bus::ids::Token;
use object_store::PutMode;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::{error::Error, info::ObjectInfo, setup};

/// How many times an unanswered publish of metadata is repeated, before its outcome stays unknown.
const UNANSWERED_MAX: u32 = 5;

/// How many times another writer of the same object may come first, before a put fails.
const OVERTAKEN_MAX: u32 = 64;

/// What all readers of a bucket together may have in flight from the server, in KiB. A server drops a client that has
/// 64 MiB waiting to be written (`max_pending`), so this stays well below.
const INBOUND_KIB_MAX: usize = 32 * 1024;

/// How the publishing of an object's metadata ended.
pub(super) enum Committed {
    /// The object is stored; the version that it replaced, if any, is no longer needed.
    Stored { replaced: Option<ObjectInfo> },
    /// The same content was stored already.
    Kept { nuid: String },
}

#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) context: jetstream::Context,
    pub(super) stream: Stream<()>,
    pub(super) stream_name: String,
    /// Bounds what is in flight to all readers; in KiB.
    pub(super) inbound: Semaphore,
    /// Background tasks: chunks being fetched or sent, and the purges of dropped uploads.
    pub(super) tasks: TaskTracker,
    name: Token,
    replicated: bool,
}

impl Bucket {
    pub(super) async fn open(context: jetstream::Context, name: &Token, replicas: usize) -> Result<Self, Error> {
        let wanted = setup::config(name, replicas);
        let stream_name = wanted.name.clone();
        let found = match context.get_stream(&stream_name).await {
            Ok(stream) => stream.cached_info().config.clone(),
            Err(error) if is_absent(&error.kind()) => {
                let made = context.create_stream(wanted.clone()).await;
                made.map_err(|error| Error::request("create the stream of the files")(error.into()))?
                    .cached_info()
                    .config
                    .clone()
            }
            Err(error) => return Err(Error::request("look up the stream of the files")(error.into())),
        };
        setup::check(&wanted, &found)?;
        let stream = context.get_stream_no_info(&stream_name).await;
        let stream = stream.map_err(|error| Error::request("look up the stream of the files")(error.into()))?;
        Ok(Self {
            replicated: found.num_replicas > 1,
            inbound: Semaphore::new(INBOUND_KIB_MAX),
            tasks: TaskTracker::new(),
            name: name.clone(),
            context,
            stream,
            stream_name,
        })
    }

    pub(super) const fn name(&self) -> &Token {
        &self.name
    }

    pub(super) fn chunk_subject(&self, nuid: &str) -> String {
        format!("$O.{}.C.{nuid}", self.name)
    }

    fn meta_subject(&self, object: &str) -> String {
        format!("$O.{}.M.{}", self.name, URL_SAFE.encode(object))
    }

    /// The subject of all metadata.
    pub(super) fn meta_subjects(&self) -> String {
        format!("$O.{}.M.>", self.name)
    }

    /// The metadata of an object and its sequence, also if it says that the object is deleted.
    pub(super) async fn info(&self, object: &str) -> Result<Option<(ObjectInfo, u64)>, Error> {
        match self.stream.direct_get_last_for_subject(self.meta_subject(object)).await {
            Ok(message) => parse(&message.payload, message.sequence).map(Some),
            // A replica may lag behind; the leader knows.
            Err(error) if error.kind() == DirectGetErrorKind::NotFound && self.replicated => self.info_of_leader(object).await,
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::request("read an object's metadata")(error.into())),
        }
    }

    async fn info_of_leader(&self, object: &str) -> Result<Option<(ObjectInfo, u64)>, Error> {
        match self.stream.get_last_raw_message_by_subject(&self.meta_subject(object)).await {
            Ok(message) => parse(&message.payload, message.sequence).map(Some),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(Error::request("read an object's metadata")(error.into())),
        }
    }

    /// Publishes the metadata of an object whose chunks are stored, which makes it visible.
    ///
    /// Every publish expects the sequence of the metadata that it replaces (0: none), so that of two writers one wins and
    /// the other sees it. For the same reason a publish whose outcome is unknown is simply repeated.
    ///
    /// # Errors
    /// [`Error::Request`] leaves the fate unknown: the metadata may yet be stored. After any other error it never will be.
    pub(super) async fn commit(&self, info: &ObjectInfo, mode: &PutMode) -> Result<Committed, Error> {
        // Most puts are of new objects: assume so, and look up the object only when the server disagrees.
        let mut current = match mode {
            PutMode::Update(_) => self.info_of_leader(&info.name).await?,
            PutMode::Overwrite | PutMode::Create => None,
        };
        let (mut overtaken, mut unanswered) = (0, 0);
        loop {
            if let Some(end) = settle(info, mode, current.as_ref())? {
                return Ok(end);
            }
            let expected = current.as_ref().map_or(0, |(_, sequence)| *sequence);
            match self.publish_info(info, expected).await {
                Ok(_) => {
                    let replaced = current.map(|(info, _)| info).filter(|info| !info.deleted);
                    return Ok(Committed::Stored { replaced });
                }
                Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => {
                    overtaken += 1;
                    if overtaken > OVERTAKEN_MAX {
                        return Err(Error::Stale { name: info.name.clone() });
                    }
                }
                Err(error) if unanswered < UNANSWERED_MAX && is_unsure(&error.kind()) => {
                    unanswered += 1;
                    tokio::time::sleep(Duration::from_millis(20 << unanswered)).await;
                }
                Err(error) => return Err(Error::request("publish an object's metadata")(error.into())),
            }
            current = self.info_of_leader(&info.name).await?;
        }
    }

    async fn publish_info(&self, info: &ObjectInfo, expected: u64) -> Result<u64, jetstream::context::PublishError> {
        let json =
            serde_json::to_vec(info).map_err(|error| jetstream::context::PublishError::with_source(PublishErrorKind::Other, error))?;
        let message = PublishMessage::build()
            .payload(json.into())
            .header("Nats-Rollup", "sub")
            .expected_stream(&self.stream_name)
            .expected_last_subject_sequence(expected);
        let ack = self.context.send_publish(self.meta_subject(&info.name), message).await?.await?;
        Ok(ack.sequence)
    }

    /// Marks an object as deleted, and returns its metadata and the marker's sequence. Its chunks are kept.
    pub(super) async fn remove(&self, object: &str) -> Result<(ObjectInfo, u64), Error> {
        let current = self.info_of_leader(object).await?.filter(|(info, _)| !info.deleted);
        let (info, sequence) = current.ok_or_else(|| Error::NotFound { name: object.to_owned() })?;
        self.remove_version(info, sequence).await
    }

    /// As [`Self::remove`], if the object still has this version.
    pub(super) async fn remove_if(&self, object: &str, nuid: &str) -> Result<Option<(ObjectInfo, u64)>, Error> {
        let current = self.info_of_leader(object).await?;
        match current.filter(|(info, _)| !info.deleted && info.nuid == nuid) {
            Some((info, sequence)) => match self.remove_version(info, sequence).await {
                Ok(removed) => Ok(Some(removed)),
                Err(Error::Stale { .. }) => Ok(None),
                Err(error) => Err(error),
            },
            None => Ok(None),
        }
    }

    async fn remove_version(&self, info: ObjectInfo, sequence: u64) -> Result<(ObjectInfo, u64), Error> {
        let marker = ObjectInfo {
            deleted: true,
            size: 0,
            chunks: 0,
            digest: None,
            metadata: None,
            ..info.clone()
        };
        match self.publish_info(&marker, sequence).await {
            Ok(marked) => Ok((info, marked)),
            Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Err(Error::Stale { name: info.name }),
            Err(error) => Err(Error::request("mark an object as deleted")(error.into())),
        }
    }

    /// Removes the marker of a deleted object, which would take memory on the server.
    pub(super) async fn forget(&self, object: &str, marker: u64) -> Result<(), Error> {
        let purge = self.stream.purge().filter(self.meta_subject(object)).sequence(marker + 1).await;
        purge
            .map(drop)
            .map_err(|error| Error::request("forget a deleted object")(error.into()))
    }

    pub(super) async fn purge_chunks(&self, nuid: &str) -> Result<(), Error> {
        let purged = self.stream.purge().filter(self.chunk_subject(nuid)).await;
        purged
            .map(drop)
            .map_err(|error| Error::request("purge an object's chunks")(error.into()))
    }

    /// Purges unused chunks. A failure only leaves them in the stream, so it is logged.
    pub(super) async fn discard(&self, nuid: &str) {
        if let Err(error) = self.purge_chunks(nuid).await {
            warn!(bucket = %self.name, nuid, "unused chunks {nuid} stay in {}: {error}", self.stream_name);
        }
    }

    pub(super) async fn settled(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.tasks.reopen();
    }
}

/// Decides on the metadata that exists: the put is done, or replaces it.
fn settle(info: &ObjectInfo, mode: &PutMode, current: Option<&(ObjectInfo, u64)>) -> Result<Option<Committed>, Error> {
    let name = || info.name.clone();
    match (mode, current.filter(|(current, _)| !current.deleted)) {
        // An earlier try of the same put, whose answer was lost.
        (_, Some((current, _))) if current.nuid == info.nuid => Ok(Some(Committed::Stored { replaced: None })),
        (PutMode::Create, Some(_)) => Err(Error::Exists { name: name() }),
        (PutMode::Update(version), Some((current, _))) if version.e_tag.as_ref() == Some(&current.nuid) => Ok(None),
        (PutMode::Update(_), _) => Err(Error::Stale { name: name() }),
        (PutMode::Overwrite, Some((current, _)))
            if current.digest.is_some() && (&current.digest, current.size) == (&info.digest, info.size) =>
        {
            Ok(Some(Committed::Kept {
                nuid: current.nuid.clone(),
            }))
        }
        (PutMode::Overwrite | PutMode::Create, _) => Ok(None),
    }
}

const fn is_unsure(kind: &PublishErrorKind) -> bool {
    matches!(
        kind,
        PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe | PublishErrorKind::StreamNotFound
    )
}

fn is_absent(kind: &GetStreamErrorKind) -> bool {
    matches!(kind, GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

fn parse(payload: &[u8], sequence: u64) -> Result<(ObjectInfo, u64), Error> {
    let info = serde_json::from_slice(payload).map_err(|error| Error::request("parse an object's metadata")(error.into()))?;
    Ok((info, sequence))
}
